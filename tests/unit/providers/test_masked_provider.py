"""`MaskedProvider`: no event, record, form, suggestion or opening of a provider has a masked word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.attachments import AnswerFile, Attached, MediaFile
from services.errors import AnswerError, StreamBroken
from services.forms import FormAction, FormChoice, FormInput, PendingForm
from services.models import (
    Complete,
    Delta,
    Metadata,
    ProviderEvent,
    ProviderIds,
    Query,
    Replacement,
    Step,
    Usage,
)
from services.providers.base import BaseForms, BaseRAGProvider, Opening, Recovered
from services.providers.words import MaskedProvider
from services.rules.rules_file import RulesFile
from services.rules.words import BotWords, WordRules
from tests.support.answers import ask
from utils.deadline import Deadline

SECRET, SHOWN = "密码本", "＊＊＊"
SOURCE = {"title": f"{SECRET}.docx", "snippet": [f"见{SECRET}"], "score": 0.5}
FORM = PendingForm("t", "r", actions=(FormAction("a", SECRET),), inputs=(FormInput(SECRET),), content=SECRET)
HIDDEN = PendingForm("t", "r", actions=(FormAction("a", SHOWN),), inputs=(FormInput(SECRET),), content=SHOWN)


class Talking(BaseRAGProvider, BaseForms):
    """Yields the events that a test gives it."""

    name = app = "talking"

    def __init__(self, *events: ProviderEvent | Exception) -> None:
        self._events = events
        self.suggest = lambda *_: [f"{SECRET}在哪？"]
        self.opening = lambda: Opening(SECRET, (SECRET,))
        self.forms = self

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        for event in self._events:
            if isinstance(event, Exception):
                raise event
            yield event

    def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        return Recovered(f"见{SECRET}", Usage(sources=(SOURCE,)), forms=(FORM,))

    def submit(self, form: PendingForm, choice: FormChoice, query: Query, deadline: Deadline) -> None: ...

    def is_open(self, form: PendingForm, query: Query, deadline: Deadline) -> bool:
        return True

    def resume(self, form: PendingForm, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        return self.stream_query(query, deadline)

    def health_check(self) -> bool:
        return True


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> BotWords:
    path: Path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text(f"mask {SECRET}\nrefuse 机密\nnote 竞品\n", "utf-8")
    return BotWords("default", RulesFile("WORDS_FILE", str(path), WordRules.parse))


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[Any, ...]]:
    records = [record for record in caplog.records if record.name == "services.rules.words"]
    return [(record.place, record.action, record.line) for record in records]  # type: ignore[attr-defined]


def texts(events: Sequence[ProviderEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta | Replacement))


def test_a_word_in_pieces_is_masked(words: BotWords, caplog: pytest.LogCaptureFixture) -> None:
    """The end is not held back beyond the answer's end; the rules are logged once, without the words."""
    caplog.set_level("INFO")
    answer = ask(MaskedProvider(Talking(*map(Delta, f"请看{SECRET}，竞品{SECRET}"), Complete()), words), "问")

    assert answer.text == f"请看{SHOWN}，竞品{SHOWN}"
    assert answer.events[-1] == Complete()
    assert lines(caplog) == [("answer", "mask", 1), ("answer", "note", 3)]
    assert SECRET not in caplog.text


def test_a_replaced_answer_is_masked_anew(words: BotWords) -> None:
    """What was held back of the earlier text does not come into the new one."""
    answer = ask(MaskedProvider(Talking(Delta("旧密"), Replacement("新密"), Delta("码本"), Delta("。")), words), "问")

    assert answer.text == f"新{SHOWN}。"


def test_the_end_of_a_broken_answer_is_not_shown(words: BotWords) -> None:
    """The rest, which another owner looks up, may complete a word."""
    answer = ask(MaskedProvider(Talking(Delta("请看密码"), StreamBroken("cut")), words), "问")

    assert (answer.text, answer.code) == ("请看", StreamBroken.code)


#: Short ones: the word is cut everywhere, and often.
PIECES = st.lists(st.sampled_from([*SECRET, SECRET, SECRET[:2], SECRET[1:], "好", " \u200b"]), max_size=2).map("".join)


# An example takes less than a millisecond.
@settings(max_examples=500)
@given(events=st.lists(st.builds(Delta, PIECES) | st.builds(Replacement, PIECES), max_size=12), rest=PIECES)
def test_no_owner_shows_a_masked_word(words: BotWords, events: list[Delta | Replacement], rest: str) -> None:
    """Any cut, replacement and break: no moment has the word, and what is looked up afterwards extends the text."""
    whole = shown = ""
    for event in events:
        whole = event.text if isinstance(event, Replacement) else whole + event.text
    provider = MaskedProvider(Talking(*events, StreamBroken("cut")), words)
    for seen in ask(provider, "问").events:
        if isinstance(seen, Delta | Replacement):
            shown = seen.text if isinstance(seen, Replacement) else shown + seen.text
            assert words.rules.masked(shown) == shown

    assert words.rules.masked(whole + rest).startswith(shown)


def test_what_is_beside_the_text_is_masked(words: BotWords) -> None:
    """Sources, metadata, steps and names of files; not the addresses, and not what is submitted."""
    events = (
        Usage(total_tokens=3, sources=(SOURCE,)),
        Metadata({"note": {SECRET: [SECRET, 1, None]}}),
        Step(SECRET, {"en": SECRET}),
        Attached((AnswerFile(f"http://files/{SECRET}", SECRET),)),
        FORM,
        ProviderIds("c"),
    )
    hidden = {"title": f"{SHOWN}.docx", "snippet": [f"见{SHOWN}"], "score": 0.5}

    assert ask(MaskedProvider(Talking(*events), words), "问").events == [
        Usage(total_tokens=3, sources=(hidden,)),
        Metadata({"note": {SECRET: [SHOWN, 1, None]}}),
        Step(SHOWN, {"en": SHOWN}),
        Attached((AnswerFile(f"http://files/{SECRET}", SHOWN),)),
        HIDDEN,
        ProviderIds("c"),
    ]


def test_records_forms_suggestions_and_openings_are_masked(words: BotWords) -> None:
    """Everything that a provider returns beside streams."""
    provider, query, deadline = MaskedProvider(Talking(Delta(SECRET)), words), Query("问", "u"), Deadline(60)
    assert provider.suggest
    assert provider.opening
    assert provider.forms

    found = provider.recover(query, ProviderIds(), deadline)
    assert (found.text, found.forms, found.usage.sources[0]["title"]) == (f"见{SHOWN}", (HIDDEN,), f"{SHOWN}.docx")
    assert provider.suggest(query, ProviderIds(), deadline) == [f"{SHOWN}在哪？"]
    assert provider.opening() == Opening(SHOWN, (SHOWN,))
    assert texts(list(provider.forms.resume(FORM, query, deadline))) == SHOWN
    assert provider.forms.is_open(FORM, query, deadline)


def test_a_file_with_a_forbidden_name_is_refused(words: BotWords, caplog: pytest.LogCaptureFixture) -> None:
    """It is not uploaded."""
    caplog.set_level("INFO")
    with pytest.raises(AnswerError) as caught:
        MaskedProvider(Talking(), words).check_file(MediaFile("机 密.pdf", "document", "application/pdf", b"1"))

    assert (caught.value.code, lines(caplog)) == ("forbidden_words", [("question", "refuse", 2)])
