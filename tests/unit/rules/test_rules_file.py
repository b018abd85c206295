"""Files of rules: wrong at the start, changed, broken and mended while they are in force."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from config.errors import SettingsError
from services import metrics
from services.rules import rules_file
from services.rules.access import AccessRules
from services.rules.rules_file import RulesFile, RulesFiles
from services.rules.visitors import Visitor
from tests.support.rules import reread


def parsed(text: str) -> int:
    if not text.strip().isdigit():
        raise ValueError("a number")
    return int(text)


def broken() -> float | None:
    return metrics.REGISTRY.get_sample_value("wechatlaibao_rules_broken", {"setting": "N_FILE"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "n.txt"
    path.write_text("1", "utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "a file that can be read"), (b"x", "a number"), (b"\xff", "UTF-8"), (b"1" * 100, "at most 50 bytes")],
)
def test_a_missing_or_broken_file_stops_the_start(
    path: Path, content: bytes | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one line that names the setting, the file and what was expected."""
    monkeypatch.setattr(rules_file, "MOST_BYTES", 50)
    path.unlink() if content is None else path.write_bytes(content)

    with pytest.raises(SettingsError) as caught:
        RulesFile("N_FILE", str(path), parsed)

    assert str(caught.value).startswith(f"N_FILE={str(path)!r} is wrong: expected {expected}"[:80])


def test_a_change_is_read_and_a_broken_one_is_not(path: Path) -> None:
    """The last good rules stay in force, and the problem is reported until the file is good again."""
    files = RulesFiles()
    file = files.open("N_FILE", str(path), parsed)
    assert file
    assert files.open("N_FILE", None, parsed) is None

    path.write_text("22", "utf-8")
    reread(file)
    assert (file.rules, files.problems) == (22, [])
    path.write_text("two", "utf-8")
    reread(file)
    assert (file.rules, files.problems, broken()) == (22, ["N_FILE: expected a number"], 1.0)
    path.unlink()
    reread(file)
    assert (file.rules, broken()) == (22, 1.0)
    path.write_text("4", "utf-8")
    reread(file)
    assert (file.rules, files.problems, broken()) == (4, [], 0.0)


def test_a_file_that_is_being_written_is_not_read(path: Path) -> None:
    """An editor that writes in place empties it first: the rules of half a file must never be in force."""
    file = RulesFile("N_FILE", str(path), parsed)

    for written in ("2", "23", "234"):
        path.write_text(written, "utf-8")
        file.look()
        assert (file.rules, file.problem) == (1, "")
    file.look()

    assert file.rules == 234


def test_an_exchanged_file_is_read(path: Path, tmp_path: Path) -> None:
    """Kubernetes and editors put another file in its place, which may have the same time and size."""
    file = RulesFile("N_FILE", str(path), parsed)
    state = path.stat()
    other = tmp_path / "other"
    other.write_text("7", "utf-8")
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))

    other.replace(path)
    reread(file)

    assert file.rules == 7


def test_bots_share_a_file(path: Path) -> None:
    """It is read once for all of them."""
    files = RulesFiles()

    assert files.open("N_FILE", str(path), parsed) is files.open("N_FILE", str(path), parsed)


def test_a_file_that_is_nested_too_deep_is_broken(path: Path) -> None:
    """The rules in force stay, and the problem is reported."""
    path.write_text("- {allow: true}", "utf-8")
    files = RulesFiles()
    file = files.open("N_FILE", str(path), AccessRules.parse)
    assert file

    path.write_text("- " + "[" * 20_000, "utf-8")
    reread(files)

    assert files.problems == ["N_FILE: expected a file that is nested less deeply"]
    file.rules.check(Visitor("default", "wecom"))
