"""Texts: both languages have the same keys and placeholders, every error code has a sentence, overrides are checked."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.errors import LaibaoError, SettingsError
from config.texts import EN, LOCALES, ZH, Texts, check_overrides, en, zh
from services.errors import AnswerError, StoreUnavailable

#: Headings, and sentences of the original product, which do not all end with a full stop.
ORIGINALS = {"sources_heading", "card_choose", "suggestions_heading", "search_heading", *zh.SOCKETS}
ORIGINALS |= {"batch_queue_full", "batch_unavailable", "batch_unknown"}


@pytest.mark.parametrize("group", ["CONVERSATIONS", "SOCKETS", "REQUESTS", "ANSWERS"])
def test_a_sentence_is_in_the_same_group_in_both_languages(group: str) -> None:
    assert list(getattr(zh, group)) == list(getattr(en, group))


@pytest.mark.parametrize("key", ZH)
def test_both_languages_have_the_same_placeholders(key: str) -> None:
    """A sentence takes the same parameters in every language."""
    assert _placeholders(ZH[key]) == _placeholders(EN[key])


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("key", ZH)
def test_every_sentence_is_readable(locale: str, key: str) -> None:
    """It ends with punctuation, and has no URL, key, status or exception name; the originals' may end otherwise."""
    sentence = Texts(locale).get(key, **dict.fromkeys(_placeholders(ZH[key]), "x"))

    assert sentence == sentence.strip()
    assert sentence.endswith(("。", ".", "...", "）", ")", "”")) or key in ORIGINALS
    assert not re.search(r"https?:|[a-z]_[a-z]|\b[1-5]\d\d\b|Exception|Error:", sentence)


def test_every_error_class_has_a_sentence() -> None:
    """There is a sentence for the code of each error class that can end an answer."""
    errors: list[type[LaibaoError]] = [StoreUnavailable, *_answer_errors(AnswerError)]

    assert {error.code for error in errors} <= set(ZH)


def test_every_error_code_in_the_services_has_a_sentence() -> None:
    """The codes are found in the source of services/, where errors are raised and in the providers' tables."""
    raised = re.compile(r'(?:Answer|Auth|Provider)Error\([^()]*(?:\([^()]*\))?[^()]*code="(\w+)"')
    listed = re.compile(r'"(provider_[a-z]+)"')
    services = Path(__file__).parents[3] / "services"
    sources = [path.read_text(encoding="utf-8") for path in services.rglob("*.py")]

    named = {code for source in sources for pattern in (raised, listed) for code in pattern.findall(source)}

    assert {"unknown_user", "provider_filtered"} <= named
    assert named <= set(ZH)


def test_the_originals_sentences_are_kept() -> None:
    """Chinese is the default language; the placeholder of a running answer is the original's."""
    texts = Texts()

    assert texts.get("thinking") == "思考中..."
    assert texts.get("queued").startswith("排在上一个问题之后")
    assert texts.get("reset_done").startswith("已开始新对话")
    assert texts.error("auth_unavailable") == "认证服务暂时不可用，请稍后再试。"


def test_an_unknown_error_code_gets_the_general_sentence() -> None:
    """A code without a sentence gives `answer_failed`."""
    assert Texts("en").error("never_heard_of") == EN["answer_failed"]
    assert Texts("en").error("user_full") == EN["user_full"]


def test_an_unknown_key_raises_key_error() -> None:
    """`get` is for keys that the code names; only `error` falls back to a general sentence."""
    with pytest.raises(KeyError):
        Texts().get("never_heard_of")


def test_overrides_replace_sentences() -> None:
    """Sentences without an override stay; doubled braces give braces."""
    texts = Texts("zh", {"thinking": "查阅中 {{1}}"})

    assert texts.get("thinking") == "查阅中 {1}"
    assert texts.get("queued") == ZH["queued"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"thinkin": "x"}, "TEXTS_FILE: thinkin is not the key of a sentence; did you mean thinking?"),
        ({"thinking": ""}, "TEXTS_FILE: thinking is wrong: expected a sentence"),
        ({"thinking": 1}, "TEXTS_FILE: thinking is wrong: expected a sentence, got 1"),
        ({"thinking": "{name}"}, "TEXTS_FILE: thinking is wrong: expected no {…}"),
        ({"thinking": "{"}, "TEXTS_FILE: thinking is wrong: "),
    ],
)
def test_a_wrong_override_stops_the_start(overrides: dict[str, object], line: str) -> None:
    """The line names TEXTS_FILE, the key and what is expected."""
    with pytest.raises(SettingsError) as caught:
        check_overrides(overrides)

    assert str(caught.value).startswith(line)


def _answer_errors(error: type[AnswerError]) -> Iterator[type[AnswerError]]:
    yield error
    for narrower in error.__subclasses__():
        yield from _answer_errors(narrower)


def _placeholders(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}
