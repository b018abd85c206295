"""What all command lines have in common: exit status 2 for wrong usage, and nothing on stdout but the answer."""

from __future__ import annotations

import json
from importlib import import_module

import pytest

from config.settings import Settings
from services.sql.migrator import printed

#: Each tool with words that make it do something.
TOOLS = {
    "admin": ["token", "list"],
    "batch": ["list"],
    "dify": ["-q", "一"],
    "doctor": [],
    "migrate": ["sql"],
    "push": ["--to", "zhangsan", "一"],
    "quota": ["show"],
    "settings": [],
    "streams": ["list"],
    "wecom": ["一"],
    "ws": ["chat"],
}
Printed = pytest.CaptureFixture[str]


def run(name: str, *argv: str) -> int:
    """Run a tool in this process and return its exit status."""
    try:
        return int(import_module(f"tools.{name}").main(argv))
    except SystemExit as exc:
        return int(exc.code or 0)


@pytest.mark.parametrize("name", TOOLS)
def test_an_unknown_option_is_wrong_usage(name: str, capsys: Printed) -> None:
    """The exit status is 2; standard error names the option, and standard output stays empty."""
    assert run(name, *TOOLS[name], "--no-such-option") == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert "--no-such-option" in printed.err


@pytest.mark.parametrize("name", TOOLS)
def test_help_names_the_option_for_json(name: str, capsys: Printed) -> None:
    """Every tool, or each of its commands that prints something, has `--json`."""
    printing = [word for word in TOOLS[name][:1] if word in ("sql", "list", "show")]
    command = TOOLS[name] if name == "admin" else printing

    assert run(name, *command, "--help") == 0

    printed = capsys.readouterr()
    assert "--json" in printed.out
    assert printed.err == ""


def test_settings_are_json(capsys: Printed) -> None:
    """Each setting is an object, in the order of the page."""
    assert run("settings", "--json") == 0

    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found] == [name.upper() for name in Settings.model_fields]
    port = next(each for each in found if each["name"] == "PORT")
    assert port["default"] == "5000"
    assert port["section"] == "Server"
    assert port["reserved"] is False
    assert port["meaning"]


def test_statements_are_json(capsys: Printed) -> None:
    """Each is an object on a line, in the order in which they are printed as SQL without the option."""
    made = list(printed("sqlite"))

    assert run("migrate", "sql", "sqlite", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [{"revision": revision, "statement": one} for revision, statements in made for one in statements]
    assert run("migrate", "sql", "sqlite") == 0
    shown = (f"-- {revision}\n" + "".join(f"{one};\n\n" for one in statements) for revision, statements in made)
    assert capsys.readouterr().out == "".join(shown)
