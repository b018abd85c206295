"""Settings, links, tests, keys, sentences and commands that the documents name exist in the product.

The repository's own configuration for commits is checked here too.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from channels.web.rest import CODES
from config import rules
from config.settings import Settings
from config.texts import ZH
from services.wecom import callback as wechat_service
from tests.support.replicas import AppServer
from tests.support.servers.processes import RedisServer, require_binary
from tools import settings as settings_tool

ROOT = Path(__file__).parents[2]
README, README_ZH = ROOT / "README.md", ROOT / "README.zh-CN.md"
SETTINGS, SETTINGS_ZH = ROOT / "docs" / "settings.md", ROOT / "docs" / "settings.zh-CN.md"
PRIVACY, PRIVACY_ZH = ROOT / "docs" / "privacy.md", ROOT / "docs" / "privacy.zh-CN.md"
REDIS = ROOT / "docs" / "redis.md"
DOCUMENTS = [README, README_ZH, *sorted((ROOT / "docs").rglob("*.md"))]
CONTRIBUTING, CHANGELOG, SECURITY = (ROOT / f"{name}.md" for name in ("CONTRIBUTING", "CHANGELOG", "SECURITY"))
#: The folders of the product's code.
PRODUCT = ("bootstrap", "channels", "config", "server", "services", "utils")
#: Names in capitals that are not settings: of make, tests, other programs, and placeholders.
NOT_OURS = {"ASK", "PYTEST_ARGS", "CHECK_ARGS", "REQUIRE_REAL_SERVERS", "LAIBAO_WS_KEY", "LAIBAO_KEY", "LAIBAO_URL"}
NOT_OURS |= {"REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SIGTERM", "SIGHUP", "SIGKILL"}
NOT_OURS |= {"WARNING", "INFO", "FAILED", "ID", "KEY", "TOKEN", "URL", "OPERATIONS", "KEYS", "STREAM"}


def text(document: Path) -> str:
    return document.read_text("utf-8")


def prose(document: Path) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```", "", text(document), flags=re.MULTILINE | re.DOTALL)


# The README and its translation


@pytest.mark.parametrize("path", settings_tool.documents())
def test_the_documents_of_all_settings_are_up_to_date(path: str) -> None:
    """Both pages and `demo.env` are made of the fields: every setting, in the order of `Settings`."""
    names = re.findall(r"^(?:\| `)?([A-Z_]+)(?:`|=)", text(ROOT / path), re.MULTILINE)

    assert text(ROOT / path) == settings_tool.documents()[path], f"run {settings_tool.COMMAND}"
    assert [name.lower() for name in names][-len(Settings.model_fields) :] == list(Settings.model_fields)


@pytest.mark.parametrize(("page", "translation"), [(README, README_ZH), (PRIVACY, PRIVACY_ZH)])
def test_a_translation_has_the_same_structure(page: Path, translation: Path) -> None:
    """Both have the same levels of headings, code blocks and links, and as many rows and list items."""

    def shape(document: Path) -> tuple[list[str], list[str], set[str], int]:
        links = {target.replace(".zh-CN", "") for _, target in links_of(document)} - {page.name}
        blocks = re.findall(r"^```.*?^```", text(document), flags=re.MULTILINE | re.DOTALL)
        rows_and_lists = len(re.findall(r"^(?:\||- )", prose(document), re.MULTILINE))
        return re.findall(r"^#+ ", prose(document), re.MULTILINE), blocks, links, rows_and_lists

    assert shape(translation) == shape(page)


def test_settings_marked_as_without_effect_are_not_read() -> None:
    """Only the modules that define and check the settings name a marked variable; all other settings are read."""
    paths = [path for folder in (*PRODUCT, "demo") for path in (ROOT / folder).rglob("*.py")]
    paths += [ROOT / "app.py", ROOT / "gunicorn.conf.py"]
    made = [ROOT / "config" / name for name in ("groups.py", "rules.py")]
    code = "\n".join(path.read_text("utf-8") for path in paths if path not in made)
    marked = set(rules.LATER)

    read = Settings.model_fields.keys() & set(re.findall(r"\b(?:settings|provider|self)\.(?=(\w+))", code))
    bots = {setting for name in re.findall(r"\bbot\.(\w+)", code) for setting in (name, f"wechat_{name}")}
    assert not marked & (read | bots)
    # Read under another name: an alias, a bot's tokens, a template's groups.
    indirect = {"wechat_token", "wechat_encoding_aes_key", "wechat_bot_secret", "dify_api_key", "dify_api_url"}
    indirect |= {"mock_mode", "use_mock_rag"}
    assert set(Settings.model_fields) - marked - read - bots <= indirect


# The glossary


def test_the_glossary_has_each_word_once_and_only_words_of_the_code() -> None:
    """Its rows are in alphabetical order, and the product's code uses every word that it defines."""
    table = re.findall(r"^\| ([a-z][^|]*?) \| [^|]+ \| [^|]*\|$", text(ROOT / "docs" / "glossary.md"), re.MULTILINE)
    words = [word for row in table[1:] for word in re.split(r", | \(|\)", row) if word]
    paths = (path for folder in PRODUCT for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".lua"))
    code = "\n".join(path.read_text("utf-8").lower() for path in paths)

    assert table[1:] == sorted(set(table[1:]))
    assert [word for word in words if not re.search(rf"\b{word}", code)] == []


# The changelog


def test_the_changelog_has_an_entry_for_each_version() -> None:
    """Entries have a version and the groups of Keep a Changelog, one of them for the image that the README builds."""
    image = re.findall(r"wechatlaibao:(\d+\.\d+\.\d+)", text(README))
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", text(CHANGELOG), re.MULTILINE)
    groups = re.findall(r"^### (.*)$", text(CHANGELOG), re.MULTILINE)

    assert image
    assert set(image) <= set(versions)
    assert set(groups) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


# What documents point to


def links_of(document: Path) -> list[tuple[Path, str]]:
    return [(document, target) for target in re.findall(r"\]\(([^)\s]+)\)", prose(document))]


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [*DOCUMENTS, CONTRIBUTING, CHANGELOG, SECURITY], ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Linked files and headings exist; links to other sites are not opened."""
    for _, target in links_of(document):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("document", [*DOCUMENTS, CONTRIBUTING], ids=lambda path: path.name)
def test_named_tests_exist(document: Path) -> None:
    """Test files and functions that a document names exist."""
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text(document)):
        assert (ROOT / path).is_file(), path
        assert not name or f"def {name}(" in (ROOT / path).read_text("utf-8"), f"{path}::{name}"


def test_names_in_contributing_exist() -> None:
    """The files, folders and constants that CONTRIBUTING.md names exist; a file named alone may be in any folder."""
    page = prose(CONTRIBUTING)
    roots = ("bootstrap", "channels", "config", "demo", "deploy", "docs", "k8s", "server", "services", "tests", "tools")
    paths = [*ROOT.glob("*.*"), *(path for root in roots for path in (ROOT / root).rglob("*.*"))]
    there = [f"/{path.relative_to(ROOT)}" for path in paths]
    code = "\n".join(path.read_text("utf-8") for path in paths if path.suffix == ".py")

    files = set(re.findall(r"`(\w[\w/]*\.(?:py|lua|md|json|yaml|conf|env))`", page))
    folders = set(re.findall(r"`(\w[\w/]*/)`", page))
    constants = set(re.findall(r"`([A-Z][A-Z_]+)`", page)) - NOT_OURS | {"OPERATIONS"}

    assert (len(files) > 30, len(constants) > 10) == (True, True)
    assert [name for name in sorted(files) if not any(path.endswith(f"/{name}") for path in there)] == []
    assert [name for name in sorted(folders) if not any(f"/{name}" in path for path in there)] == []
    assert [name for name in sorted(constants) if not re.search(rf"^{name}\b", code, re.MULTILINE)] == []


def test_named_modules_exist() -> None:
    """Modules that a document starts with `python -m` exist."""
    named = {name for document in DOCUMENTS for name in re.findall(r"python -m ([\w.]+)", text(document))}
    ours = {name for name in named if name.split(".")[0] in ("tools", "demo")}

    assert {"tools.doctor", "tools.streams"} <= ours
    assert all((ROOT / f"{name.replace('.', '/')}.py").is_file() for name in ours)


@pytest.mark.parametrize("document", [*DOCUMENTS, CHANGELOG], ids=lambda path: path.name)
def test_named_variables_are_settings(document: Path) -> None:
    """A name in capitals is a setting, the name of a file with one, or in `NOT_OURS`."""
    named = set(re.findall(r"`([A-Z][A-Z_]+)(?:=[^`]*)?`", prose(document)))
    named |= set(re.findall(r"^([A-Z][A-Z_]+)=", text(document), re.MULTILINE))

    named = {
        name.removesuffix("_FILE") if name.removesuffix("_FILE").lower() in Settings.model_fields else name
        for name in named
    }
    assert named - NOT_OURS - {name.upper() for name in Settings.model_fields} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_quoted_sentences_are_in_the_texts(document: Path) -> None:
    """A Chinese quotation in docs/ is part of a sentence of `config.texts`."""
    for quoted in re.findall(r'"([^"`]*[\u4e00-\u9fff][^"`]*)"', prose(document).replace("“", '"').replace("”", '"')):
        if document.parent.name == "docs" and document != SETTINGS_ZH:
            assert any(quoted in sentence for sentence in ZH.values()), quoted


def test_named_codes_exist() -> None:
    """Error codes have a sentence, and check names of callbacks are in the docstring of the callback's module."""
    codes = {code for document in DOCUMENTS for code in re.findall(r"Error\] (\w+):|failed: (\w+)", prose(document))}
    checks = set(re.findall(r"with `(\w+)`", prose(ROOT / "docs" / "connect-dify.md")))

    assert {name for pair in codes for name in pair if name} <= set(ZH)
    assert checks - {"unknown_bot"} <= set(re.findall(r"\w+", str(wechat_service.__doc__)))


def test_every_choice_is_in_its_settings_description() -> None:
    """The description of a `Literal` setting names all its values."""
    fields = Settings.model_fields.items()
    choices = {name: re.findall(r"'(\w+)'", str(field.annotation)) for name, field in fields if "Literal" in str(field)}
    # `locale` describes its two values without naming them.
    lacking = {
        (name, choice)
        for name, values in choices.items()
        for choice in values
        if name != "locale" and choice not in (Settings.model_fields[name].description or "")
    }

    assert len(choices) > 8
    assert lacking == set()


def test_the_http_page_has_every_code_of_the_envelope() -> None:
    """The table of codes has every code of the envelope, also those that are not sent at present."""
    table = text(ROOT / "docs" / "http-api.md").partition("## Every REST address")[2]
    rows_of_codes = re.findall(r"^\| `?(\d+)`? \| ([A-Z][\w -]+)[;|]", table, re.MULTILINE)

    assert {int(code): name.strip() for code, name in rows_of_codes} == CODES


def test_figures_of_other_pages_are_those_that_were_measured() -> None:
    """docs/kubernetes.md and the manifest have the CPU time of a poll from bench/results.json."""
    measured = json.loads((ROOT / "bench" / "results.json").read_text("utf-8"))
    poll = round(measured["figures"]["polls.cpu.1k"]["value"] / 1000, 1)

    for page in (ROOT / "docs" / "kubernetes.md", ROOT / "k8s" / "base" / "deployment.yaml"):
        assert f"{poll} ms" in text(page), page


# Redis


def keys() -> Iterator[str]:
    """Yield every key pattern of the stores' docstrings."""
    stores = sorted((ROOT / "services").rglob("*store.py"))
    for store in [*stores, ROOT / "services" / "identity" / "rate_limiter.py"]:
        name = ".".join(store.relative_to(ROOT).with_suffix("").parts)
        schema = importlib.import_module(name).__doc__ or ""
        yield from re.findall(r"^    (\S*[:.]\S*)  ", schema, re.MULTILINE)


def test_the_page_of_redis_shows_every_key() -> None:
    """Each key pattern of the stores has a row with a redis-cli command."""
    patterns = set(keys())
    shown_keys = set(re.findall(r"^\| `([^`]+)` \| `redis-cli ", text(REDIS), re.MULTILINE))

    assert len(patterns) > 10
    assert shown_keys == patterns


def test_the_redis_commands_work(redis_server: RedisServer, redis_url: str) -> None:
    """Every redis-cli command runs on a Redis with a finished stream, and the stream's commands show its content."""
    client = require_binary("redis-cli")
    with AppServer(redis_url) as app_server, app_server.user() as user:
        bubble = user.says("年假怎么申请")
        user.sees_finish(bubble, every=0.05)
    lines = re.findall(r"`?(redis-cli -n 1 [^`#\n]*)", text(REDIS))

    replies = {line: run_line(client, redis_server.port, line, bubble.stream_id) for line in lines}

    assert len(replies) > 10
    assert "completed" in replies["redis-cli -n 1 HGETALL 'dify_stream:ID'"]
    assert "is_final" in replies["redis-cli -n 1 LRANGE '{dify_stream:ID}:messages' 0 -1"]
    assert "模拟回答" in replies["redis-cli -n 1 GET '{dify_stream:ID}:text'"]
    assert not [line for line, reply in replies.items() if reply.startswith(("ERR", "(error)", "WRONGTYPE"))]


def run_line(client: str, port: int, line: str, stream_id: str) -> str:
    """Run a documented command with a real stream id in place of ID; return its output."""
    words = shlex.split(re.sub(r"\bID\b", stream_id, line))
    done = subprocess.run([client, "-p", str(port), *words[1:]], capture_output=True, timeout=30, check=True)
    return done.stdout.decode()


# Commits


def loaded(path: Path) -> dict[Any, Any]:
    document = yaml.safe_load(text(path))
    assert isinstance(document, dict), path
    return document


def lint_commands() -> list[str]:
    """Return the commands of `make lint`."""
    makefile = text(ROOT / "Makefile")
    (venv,) = re.findall(r"^VENV := (\S+)$", makefile, re.MULTILINE)
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    return [line.strip().removeprefix("@").replace("$(VENV)", venv) for line in recipe.splitlines()]


def test_the_hooks_of_pre_commit_run_the_commands_of_make_lint() -> None:
    """Each command is a local hook, in the same order, over the whole project."""
    hooks = [hook for repo in loaded(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]

    assert [hook["entry"] for hook in hooks] == lint_commands()
    assert {(hook["language"], hook["pass_filenames"]) for hook in hooks} == {("system", False)}
