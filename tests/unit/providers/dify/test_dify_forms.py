"""Forms of paused runs: how they are read from events, submitted, and how the run goes on, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from demo.mocks.dify.error_replies import MockErrorReply
from demo.mocks.dify.features.asking_back import ACTIONS, ASKS, LEAD, rest
from demo.mocks.dify.server import MockDify
from demo.mocks.http import ClientGone
from services.errors import FormRefused, ProviderError
from services.forms import FormAction, FormChoice, FormInput, PendingForm
from services.models import Complete, Delta, ProviderEvent, ProviderIds, Query, Replacement, Usage
from services.providers.base import BaseForms
from services.providers.dify.answer import DifyAnswer
from services.providers.dify.form_events import after, forms_of, rest_of
from services.providers.dify.provider import DifyProvider
from tests.support.servers.processes import free_port, wait_until, when
from tests.support.streams.lost_runs import lose, run_of
from tests.unit.providers.dify.conftest import Make
from utils.deadline import Deadline

IDS = ProviderIds("c1", "m1", "t1", "run")
QUESTION = "报销 [[form]]"
QUERY = Query(QUESTION, "zhangsan")
DATA: dict[str, Any] = {
    "form_token": "token",
    "form_content": " 原因：{{#$output.comment#}} ",
    "actions": [{"id": "yes", "title": " 同\n意 "}, {"id": "no"}],
    "inputs": [
        {"type": "paragraph", "output_variable_name": "comment", "default": {"type": "constant", "value": "无"}}
    ],
    "resolved_default_values": {"comment": ""},
    "expiration_time": 1_800_000_000,
}
#: A choice, and what Dify has to show of the run after it.
APPROVE = FormChoice("approve")


@pytest.fixture
def provider(make: Make) -> DifyProvider:
    return make()


@pytest.fixture
def forms(provider: DifyProvider) -> BaseForms:
    assert provider.forms
    return provider.forms


def within() -> Deadline:
    return Deadline(60.0)


def ask(provider: DifyProvider, question: str = QUESTION) -> list[ProviderEvent]:
    return list(provider.stream_query(Query(question, "zhangsan"), within()))


def form_of(events: list[ProviderEvent]) -> PendingForm:
    (form,) = [event for event in events if isinstance(event, PendingForm)]
    return form


def text_of(events: list[ProviderEvent]) -> str:
    text = ""
    for event in events:
        text = event.text if isinstance(event, Replacement) else text + (event.text if isinstance(event, Delta) else "")
    return text


def test_a_form_is_read_from_its_event() -> None:
    """A missing title is the action's id; the place of an input in the text has its name."""
    (form,) = forms_of([DATA], IDS, " 好的。\n")

    assert (form.token, form.run_id, form.content) == ("token", "run", "原因：［comment］")
    assert form.actions == (FormAction("yes", "同 意"), FormAction("no", "no"))
    assert form.inputs == (FormInput("comment", "无"),)
    assert (form.expires, form.shown, form.first) == (1_800_000_000.0, 3, 1)


def test_forms_of_one_pause_are_numbered_on_and_repeated_ones_count_once() -> None:
    """The reasons of a pause repeat the events."""
    other = {**DATA, "form_token": "other"}

    assert [form.first for form in forms_of([DATA, other, DATA], IDS, "")] == [1, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"form_token": None},
        {"actions": []},
        {"actions": [{"id": str(number)} for number in range(21)]},
        {"inputs": [{"type": "file", "output_variable_name": "f"}]},
        {"inputs": [{"type": "paragraph"}]},
        {"inputs": [{"type": "paragraph", "output_variable_name": str(number)} for number in range(11)]},
    ],
)
def test_a_form_that_words_cannot_answer_is_none(change: dict[str, Any]) -> None:
    """One such form of a pause is enough: the run would wait for it."""
    assert forms_of([DATA, {**DATA, "form_token": "other", **change}], IDS, "") == ()


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [None]])
@pytest.mark.parametrize("name", list(DATA))
def test_a_form_with_any_value_of_a_wrong_type_is_read(name: str, value: object) -> None:
    """It is a form or none, and never an exception."""
    assert len(forms_of([{**DATA, name: value}], IDS, "")) <= 1


def test_the_rest_of_an_answer_begins_after_the_pause() -> None:
    """White space does not count; an answer that does not begin with what was said is all rest."""
    form = after(" 好的。\n\n", forms_of([DATA], IDS, "")[0])

    assert rest_of(form, "好的。\n\n然后。") == "然后。"
    assert rest_of(form, "\n好的。") == ""
    assert rest_of(form, "别的答案。") == "别的答案。"


def test_a_paused_run_ends_its_answer_with_the_form(provider: DifyProvider) -> None:
    """The form has the run's ids; the answer is no failure."""
    events = ask(provider)
    form = form_of(events)

    assert text_of(events) == LEAD
    assert (form.content, [action.title for action in form.actions]) == (ASKS, [title for _, title in ACTIONS])
    assert all((form.run_id, form.conversation_id, form.message_id, form.task_id))
    assert events[-1] == Complete()


def test_a_submitted_form_continues_the_run(provider: DifyProvider, forms: BaseForms, dify: MockDify) -> None:
    """The events are the rest of the answer only."""
    form = form_of(ask(provider))
    assert forms.is_open(form, QUERY, within())
    forms.submit(form, APPROVE, QUERY, within())
    assert not forms.is_open(form, QUERY, within())

    events = list(forms.resume(form, QUERY, within()))

    assert text_of(events) == rest(QUESTION, "同意")
    assert [event for event in events if isinstance(event, Usage)][-1].total_tokens == 431
    assert events[-1] == Complete()
    assert len(dify.forms.submissions) == 1


def test_the_text_is_shown_while_it_is_written(provider: DifyProvider, forms: BaseForms, dify: MockDify) -> None:
    """The stream has the resumed run's first event, so no text before it is missing."""
    form = form_of(ask(provider))
    (run,) = [run for _, run in dify.forms._known.values()]
    dify.goes_on.clear()
    forms.submit(form, APPROVE, QUERY, within())
    when(lambda: run.live.heard, dify.goes_on.set)

    events = list(forms.resume(form, QUERY, within()))

    assert len([event for event in events if isinstance(event, Delta)]) > 10
    assert not [event for event in events if isinstance(event, Replacement)]
    assert text_of(events) == rest(QUESTION, "同意")


def test_a_run_that_was_not_heard_from_its_start_is_shown_whole(
    provider: DifyProvider, forms: BaseForms, dify: MockDify
) -> None:
    """Dify repeats no text: what is heard may lack its beginning."""
    form = form_of(ask(provider))
    dify.resume_after = 0.0
    (run,) = [run for _, run in dify.forms._known.values()]
    run.delay, before = 0.1, run.live.events
    when(lambda: run.live.heard, dify.hurry)
    forms.submit(form, APPROVE, QUERY, within())
    wait_until(lambda: run.live.events > before + 3)

    deltas = [event for event in forms.resume(form, QUERY, within()) if isinstance(event, Delta)]

    assert [delta.text for delta in deltas] == [rest(QUESTION, "同意")]


def test_a_resumed_run_whose_streams_break_is_waited_for(
    provider: DifyProvider, forms: BaseForms, dify: MockDify
) -> None:
    """Until the run's end the history has the answer before the pause, which is not the whole."""
    form = form_of(ask(provider))
    (run,) = [run for _, run in dify.forms._known.values()]
    dify.holds_at = run.sent + 3
    forms.submit(form, APPROVE, QUERY, within())

    def looked_up_after_two_streams() -> bool:
        run.live.pause()
        return dify.looked_up()["events"] >= 3 and dify.looked_up()["messages"] > 0

    # Until then every stream ends at once.
    when(looked_up_after_two_streams, lambda: setattr(dify, "holds_at", None))

    assert text_of(list(forms.resume(form, QUERY, within()))) == rest(QUESTION, "同意")


def test_a_run_that_ended_before_it_was_heard(provider: DifyProvider, forms: BaseForms, dify: MockDify) -> None:
    """Its answer is in the history."""
    form = form_of(ask(provider))
    forms.submit(form, APPROVE, QUERY, within())
    (run,) = [run for _, run in dify.forms._known.values()]
    wait_until(lambda: run.status == "succeeded")

    assert text_of(list(forms.resume(form, QUERY, within()))) == rest(QUESTION, "同意")


def test_a_run_that_fails_after_the_choice_is_an_error(
    provider: DifyProvider, forms: BaseForms, dify: MockDify
) -> None:
    """It is not asked again."""
    form = form_of(ask(provider))
    (run,) = [run for _, run in dify.forms._known.values()]
    run.rest = iter([run.workflow_finished("failed", "out of memory")])
    forms.submit(form, APPROVE, QUERY, within())

    with pytest.raises(ProviderError) as caught:
        list(forms.resume(form, QUERY, within()))

    assert caught.value.code == "provider_error"


@pytest.mark.parametrize(
    ("status", "code", "ours", "still_open"),
    [
        (412, "human_input_form_submitted", "form_answered", False),
        (412, "human_input_form_expired", "form_expired", False),
        (412, "unheard_of", "form_answered", False),
        (404, "human_input_form_not_found", "form_gone", False),
        (400, "invalid_form_data", "form_rejected", True),
        (429, "too_many_requests", "provider_busy", True),
        (403, "forbidden", "provider_unauthorized", True),
    ],
)
def test_a_refused_submission(
    status: int, code: str, ours: str, still_open: bool, provider: DifyProvider, forms: BaseForms, dify: MockDify
) -> None:
    """The error tells whether the form can still be answered."""
    form = form_of(ask(provider))
    dify.refuses_forms = MockErrorReply.api(status, code, "words of a person")

    with pytest.raises(FormRefused) as caught:
        forms.submit(form, APPROVE, QUERY, within())

    assert (caught.value.code, caught.value.still_open) == (ours, still_open)
    assert "words" not in str(caught.value)


@pytest.mark.parametrize("status", [500, 502])
def test_a_submission_that_may_have_arrived_is_not_repeated(
    status: int, provider: DifyProvider, forms: BaseForms, dify: MockDify
) -> None:
    """A 5xx does not tell whether Dify has it; `is_open` does."""
    form = form_of(ask(provider))
    dify.refuses_forms = MockErrorReply.html(status, "no")

    with pytest.raises(ProviderError) as caught:
        forms.submit(form, APPROVE, QUERY, within())

    assert not isinstance(caught.value, FormRefused)
    assert (caught.value.unsent, dify.forms.refused) == (False, 1)


def test_a_lost_reply_is_not_repeated(provider: DifyProvider, forms: BaseForms, dify: MockDify) -> None:
    """The connection breaks after Dify has taken the choice."""

    def drop() -> None:
        raise ClientGone

    form = form_of(ask(provider))
    dify.after_submit = drop

    with pytest.raises(ProviderError) as caught:
        forms.submit(form, APPROVE, QUERY, within())

    assert not caught.value.unsent
    assert (len(dify.forms.submissions), dify.forms.refused) == (1, 0)


def test_a_submission_that_cannot_have_left_says_so(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dify cannot be reached: the form may be answered again."""
    monkeypatch.setattr("services.providers.dify.forms.BACKOFF", 0.001)
    provider = make(base_url=f"http://127.0.0.1:{free_port()}")
    assert provider.forms
    form = PendingForm("token", "run")

    with pytest.raises(ProviderError) as caught:
        provider.forms.submit(form, APPROVE, QUERY, within())

    assert caught.value.unsent


@pytest.mark.parametrize("question", ["[[form]]", "[[form-first]]"])
def test_a_lost_run_that_paused_is_recovered_with_its_form(
    question: str, provider: DifyProvider, dify: MockDify
) -> None:
    """Its text is the answer so far; the form has its token again."""
    ids = lose(provider, question)
    wait_until(lambda: run_of(dify, ids).status == "paused")

    found = provider.recover(Query(question, "u1"), ids, within())

    assert found.text == ("" if "first" in question else LEAD)
    assert [form.token for form in found.forms] == list(dify.forms._known)


def test_a_lost_run_of_a_form_by_mail_is_not_recovered(provider: DifyProvider, dify: MockDify) -> None:
    """No token: the person answers elsewhere."""
    ids = lose(provider, "[[form-mail]]")
    wait_until(lambda: run_of(dify, ids).status == "paused")

    with pytest.raises(ProviderError) as caught:
        provider.recover(Query("[[form-mail]]", "u1"), ids, within())

    assert caught.value.code == "provider_paused"


def test_a_pause_is_known_by_its_reasons_alone() -> None:
    """Dify's event bus may lose the form's own event."""
    turn = DifyAnswer()
    reasons = [{"TYPE": "scheduling_pause"}, {"TYPE": "human_input_required", **DATA}]
    events = list(turn.take({"event": "workflow_paused", "workflow_run_id": "run", "data": {"reasons": reasons}}))

    assert [event.token for event in events if isinstance(event, PendingForm)] == ["token"]
    assert (turn.state, turn.paused, list(turn.close())) == ("done", True, [])
