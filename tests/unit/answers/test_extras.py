"""The running step and the suggested questions as events of an answer, for the bots that want them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from channels.registry import CHAT, WECOM
from services.answers.extras import (
    STEP_SECONDS,
    SUGGESTION_CHARACTERS,
    TITLE_CHARACTERS,
    AnswerExtras,
    QuestionContext,
    StepNotes,
)
from services.answers.provider_run import with_forms
from services.errors import ProviderError
from services.forms import PendingForm
from services.models import Attempt, Delta, Mocked, ProviderIds, Query, Question, Step
from services.providers.mock import MockProvider
from services.streams.answer_events import AnswerEvent, AskedBack, Asking, StepNote, Suggested
from tests.support.servers.processes import FakeClock
from utils.deadline import Deadline

QUESTION = Question("年假?", "wecom", "default", "zhangsan")
QUERY = Query("年假?", "zhangsan")
IDS = ProviderIds("c1", "m1", "t1")


class Suggesting(MockProvider):
    """A provider whose suggestions the test chooses; it notes what it is asked with."""

    def __init__(self, found: Sequence[str] | Exception = ("病假呢",)) -> None:
        super().__init__()
        self.found = found
        self.seen: list[tuple[Query, ProviderIds]] = []
        self.suggest = self._suggest

    def _suggest(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Sequence[str]:
        self.seen.append((query, ids))
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def added(
    events: Sequence[AnswerEvent],
    *,
    extras: AnswerExtras | None = None,
    provider: MockProvider | None = None,
    deadline: Deadline | None = None,
    attempt: Attempt | None = None,
    **changes: Any,
) -> list[AnswerEvent]:
    """Return an answer's events with the extras of a bot that wants all of them."""
    wanted = extras or AnswerExtras(progress={"default"}, suggestions={"default"})
    asked = QuestionContext(QUESTION, changes.get("channel", WECOM), provider or Suggesting(), QUERY)
    return list(wanted.added((event for event in events), asked, deadline or Deadline(60.0), attempt))


def test_only_bots_that_want_extras_get_them() -> None:
    """Other bots and other channels have the events of the answer unchanged."""
    events: list[AnswerEvent] = [Step("查"), IDS, Delta("五天")]

    for wanted in (AnswerExtras(), AnswerExtras(progress={"hr"}, suggestions={"hr"})):
        assert added(events, extras=wanted) == events
    assert added(events, channel=CHAT) == events
    assert added(events, extras=AnswerExtras(progress={"default"})) == [StepNote("查", True), IDS, Delta("五天")]
    assert added(events, extras=AnswerExtras(suggestions={"default"})) == [*events, Suggested("病假呢")]


def notes_of(clock: FakeClock, language: str = "zh") -> StepNotes:
    return StepNotes(language, clock)


def test_a_step_is_worth_a_write_once_a_second(clock: FakeClock) -> None:
    """Steps that follow faster go along with the next write."""
    notes = notes_of(clock)

    first, fast = list(notes.note(Step("一"))), list(notes.note(Step("二")))
    clock.advance(STEP_SECONDS)
    later = list(notes.note(Step("三")))

    assert (first, fast, later) == ([StepNote("一", True)], [StepNote("二")], [StepNote("三", True)])


def test_a_step_that_is_stored_is_not_stored_again(clock: FakeClock) -> None:
    """Dify sends a thought several times as it fills up. A title without visible words is no step."""
    notes = notes_of(clock)

    assert [len(list(notes.note(Step(title)))) for title in ("一", "一", "\n", "", "二")] == [1, 0, 0, 0, 1]


def test_a_title_is_one_short_plain_line_in_the_persons_language(clock: FakeClock) -> None:
    """It is somebody else's text."""
    tool = Step("dalle3", {"zh": "**绘画**\n<font>", "en": "x" * 100})

    assert list(notes_of(clock).note(tool)) == [StepNote("绘画 font", True)]
    (english,) = notes_of(clock, "en").note(tool)
    assert english.title == "x" * (TITLE_CHARACTERS - 1) + "…"


def test_after_the_first_text_a_step_costs_no_write() -> None:
    """It is shown only if the text is hidden thinking. A takeover knows the text so far."""
    taken = Attempt(1, IDS, "五")

    assert added([Delta("<think>想"), Step("查")])[1] == StepNote("查")
    assert added([Step("查")], attempt=taken)[0] == StepNote("查")


def test_a_question_that_is_asked_again_has_no_step_yet() -> None:
    """The stored step belongs to the run that was lost."""
    again = Asking(2, "lost")

    assert added([again, Step("查")])[:2] == [StepNote(""), again]


def test_suggestions_are_asked_for_as_the_person_who_asked() -> None:
    """With the ids of the answer, also where an earlier owner learned them."""
    known, attempt = Suggesting(), Suggesting()

    added([ProviderIds("c1", "", "t1"), IDS, Delta("五天")], provider=known)
    added([Delta("五天")], provider=attempt, attempt=Attempt(1, IDS, ""))

    assert known.seen == attempt.seen == [(QUERY, IDS)]


def test_suggestions_are_a_few_short_plain_lines() -> None:
    """At most three different ones."""
    found = ["a\nb", "", "a b", "字" * 200, "**c**", "d"]

    (lines,) = [event.lines for event in added([IDS], provider=Suggesting(found)) if isinstance(event, Suggested)]

    assert lines.split("\n") == ["a b", "字" * (SUGGESTION_CHARACTERS - 1) + "…", "c"]


@pytest.mark.parametrize("error", [ProviderError("away", code="provider_unreachable"), RuntimeError("a plug-in's")])
def test_an_answer_is_complete_without_suggestions(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A failure ends nothing and is logged."""
    with caplog.at_level(logging.INFO):
        assert added([IDS, Delta("五天")], provider=Suggesting(error)) == [IDS, Delta("五天")]

    assert [record.message for record in caplog.records] == ["no suggestions"]


def test_a_failed_or_mocked_answer_has_no_suggestions() -> None:
    """A failure ends the events before, and the built-in mock's answer is not one of the app."""
    mocked, failed = Suggesting(), Suggesting()

    def failing() -> Iterator[AnswerEvent]:
        yield IDS
        raise ProviderError("broken")

    added([IDS, Mocked(), Delta("五天")], provider=mocked)
    with pytest.raises(ProviderError):
        list(
            AnswerExtras(suggestions={"default"}).added(
                failing(), QuestionContext(QUESTION, WECOM, failed, QUERY), Deadline(60.0), None
            )
        )

    assert mocked.seen == failed.seen == []


def test_an_answer_that_asks_back_has_no_suggestions() -> None:
    """Its form waits for an answer: the next question is that one."""
    provider = Suggesting()

    form = PendingForm("f1", "r1")
    shown = AskedBack(), Delta("请选择")
    added(list(with_forms(iter([IDS, form]), lambda before, forms: shown)), provider=provider)

    assert provider.seen == []


def test_the_ids_of_a_lost_run_are_not_those_of_the_next() -> None:
    """The second run has ids of its own, or none yet; a run that goes on after a form has the ids of its first part."""
    again, continued = Suggesting(), Suggesting()

    added([Asking(2, "lost"), Delta("五天")], provider=again, attempt=Attempt(1, IDS, ""))
    added([Asking(ids=IDS), Delta("五天")], provider=continued)

    assert [ids for _, ids in again.seen + continued.seen] == [ProviderIds(), IDS]


def test_an_answers_end_is_delayed_for_a_short_time_only() -> None:
    """An abort of the answer, as by a stop, ends the wait as well."""

    class Slow(Suggesting):
        def _suggest(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Sequence[str]:
            while not (deadline.over or deadline.aborted):
                time.sleep(0.01)
            raise ProviderError("over", code=deadline.aborted or "answer_timeout")

    stopped = Deadline(60.0)
    short = AnswerExtras(suggestions={"default"}, seconds=0.05)
    long = AnswerExtras(suggestions={"default"}, seconds=600.0)

    def aborting() -> Iterator[AnswerEvent]:
        yield IDS
        stopped.abort("cancelled")

    assert added([IDS], extras=short, provider=Slow()) == [IDS]
    assert list(long.added(aborting(), QuestionContext(QUESTION, WECOM, Slow(), QUERY), stopped, None)) == [IDS]


def test_closing_the_events_closes_the_answer() -> None:
    """The provider's request ends with it, and nothing is suggested."""
    closed: list[bool] = []

    def answer() -> Iterator[AnswerEvent]:
        try:
            yield IDS
            yield Delta("五")
        finally:
            closed.append(True)

    provider = Suggesting()
    wanted = AnswerExtras(progress={"default"}, suggestions={"default"})
    events = wanted.added(answer(), QuestionContext(QUESTION, WECOM, provider, QUERY), Deadline(60.0), None)
    next(events)
    events.close()  # type: ignore[attr-defined]

    assert closed == [True]
    assert provider.seen == []
