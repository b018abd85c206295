"""Recovering an answer that another replica asked Dify for, against the mock Dify over HTTP, case by case.

The timeouts of a recovery are measured on a fake clock that advances only while the recovery sleeps.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.plays import MODERATED
from demo.mocks.dify.server import SCRIPTS, MockDify
from demo.mocks.dify.wire import SOURCE, Run
from services.errors import ProviderError, Unrecoverable
from services.models import Identity, ProviderIds, Query, Usage, UserInfo
from services.providers.base import Recovered
from services.providers.dify.provider import DifyProvider
from services.providers.dify.recovery import DifyRecovery, SentQuestion
from services.providers.dify.service import DifyService
from services.providers.recovery import RECOVERY_TIMEOUTS, RecoveryTimeouts
from tests.support.answers import provider_lines
from tests.support.made_providers import dify_provider, dify_service
from tests.support.servers.processes import FakeClock, free_port, wait_until, when
from tests.support.servers.raw_server import RawServer
from tests.support.streams.lost_runs import ended, lose, run_of
from tests.unit.providers.dify.conftest import KEY, LONG, STRANGER, Make
from utils.deadline import Deadline

#: The usage of the mock's answers, as the history has it.
COST = Usage(431, 412, 19, "0.00043", "USD", (SOURCE,))


def recover(provider: DifyProvider, ids: ProviderIds, *, deadline: Deadline | None = None, **fields: Any) -> Recovered:
    return provider.recover(Query("?", fields.pop("user", "u1"), **fields), ids, deadline or Deadline(60.0))


def failure(provider: DifyProvider, ids: ProviderIds, **options: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        recover(provider, ids, **options)
    return caught.value


def in_background(work: Callable[[], Any]) -> Callable[[], Any]:
    """Run `work` in a thread, and return a function that waits for its result or provider error."""
    outcome: list[Any] = []

    def keep() -> None:
        try:
            outcome.append(work())
        except ProviderError as exc:
            outcome.append(exc)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(30.0)
        return outcome[0]

    return result


def lose_working(dify: MockDify, provider: DifyProvider, question: str, **fields: Any) -> ProviderIds:
    """Lose a run that works on for 12 s, or until `dify.hurry`."""
    dify.delay = 0.4
    return lose(provider, question, text=True, **fields)


def lose_dead(dify: MockDify, provider: DifyProvider, question: str) -> ProviderIds:
    """Lose a run that dies with its client: it reports `running` for ever, and nothing is saved."""
    dify.after_disconnect = "dies"
    return lose_working(dify, provider, question)


class Sleeper:
    """A fake clock and a sleep that advances it; `at` runs a function at a given time."""

    def __init__(self) -> None:
        self.clock = FakeClock(0.0)
        self.events: list[tuple[float, Callable[[], None]]] = []

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        self.events.append((seconds, action))

    def __call__(self, seconds: float, deadline: Deadline) -> None:
        self.clock.advance(seconds)
        for event in [event for event in self.events if event[0] <= self.clock.now]:
            self.events.remove(event)
            event[1]()

    def recover(
        self,
        base_url: str,
        ids: ProviderIds,
        *,
        seconds: float = 1200.0,
        timeouts: RecoveryTimeouts = RECOVERY_TIMEOUTS,
        service: DifyService | None = None,
    ) -> Recovered:
        asked = SentQuestion(ids, "u1", f"Bearer {KEY}")
        deadline = Deadline(seconds, clock=self.clock)
        with closing(service or dify_service(base_url=base_url)) as asking:
            recovery = DifyRecovery(asking, asked, deadline, timeouts=timeouts, clock=self.clock, sleep=self)
            return recovery.answer()

    def fails(self, base_url: str, ids: ProviderIds, **options: Any) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            self.recover(base_url, ids, **options)
        return caught.value


@pytest.fixture
def sleeper() -> Sleeper:
    """A fake clock of this test's own, starting at 0."""
    return Sleeper()


#: The scripts that end with an answer, without those that are stopped and those that break before the first event.
RECOVERABLE = sorted(
    name
    for name, script in SCRIPTS.items()
    if script.answer("?") and not name.startswith("stopped") and not name.endswith("-unheard")
)


@pytest.mark.parametrize("name", RECOVERABLE)
def test_every_script_with_an_answer_can_be_recovered(make: Make, dify: MockDify, name: str) -> None:
    """For every app type and every kind of end the text equals the streamed one, and the question is asked once."""
    # The run that stays open never saves its message: only its outputs have the answer.
    provider = make(timeouts=replace(LONG, saving=0.1) if "open" in name else LONG)
    question = f"[[{name}]] 年假怎么申请？"
    ids = lose(provider, question)

    recovered = recover(provider, ids)

    assert recovered.text == dify.expected_answer(question)
    assert len(dify.asked(question)) == (2 if SCRIPTS[name].error_times else 1)


# Chatflows whose run has ended.


@pytest.mark.parametrize("outputs", ["object", "string", "none"])
def test_an_ended_chatflow_takes_two_requests(make: Make, dify: MockDify, outputs: Any) -> None:
    """One request for the run and one for the history, which has the usage, in whatever form the outputs are."""
    dify.outputs = outputs
    provider = make()
    ids = lose(provider, "年假")
    ended(dify, ids)

    recovered = recover(provider, ids)

    assert recovered == Recovered(dify.expected_answer("年假"), COST)
    assert dify.looked_up() == {"run": 1, "messages": 1}


def test_the_moderated_text_is_recovered_not_the_models(make: Make, dify: MockDify) -> None:
    """The run's outputs still hold the model's text; the history holds the moderated text."""
    provider = make()
    ids = lose(provider, "[[chatflow-moderated]]")
    run = ended(dify, ids)

    assert run.outputs["answer"] != MODERATED
    assert recover(provider, ids).text == MODERATED


def test_images_that_dify_removed_from_the_history_come_from_the_outputs(make: Make, dify: MockDify) -> None:
    """If the texts differ in nothing else, the recovered text is the streamed one, with its images."""
    provider = make()
    ids = lose(provider, "年假")
    run = ended(dify, ids)
    run.saved, run.outputs = "见图  好", {"answer": "见图 ![图](/files/a.png?x=1) 好"}

    assert recover(provider, ids) == Recovered(run.outputs["answer"], COST)


@pytest.mark.parametrize("outputs", ["object", "string"])
def test_an_answer_that_is_not_in_the_history_comes_from_the_outputs(
    make: Make, dify: MockDify, sleeper: Sleeper, outputs: Any
) -> None:
    """The history is polled for the `saving` timeout of 3 s, then the run's outputs are the answer."""
    dify.saves, dify.outputs = False, outputs
    ids = lose(make(), "年假")
    wait_until(lambda: run_of(dify, ids).status == "succeeded")

    assert sleeper.recover(dify.base_url, ids) == Recovered(dify.expected_answer("年假"), Usage(431))
    assert dify.looked_up()["messages"] > 1
    assert sleeper.clock.now == 3.0


def test_a_run_without_a_message_id_is_recovered_from_its_outputs(make: Make, dify: MockDify) -> None:
    """The run id alone is enough."""
    provider = make()
    ids = lose(provider, "年假")
    ended(dify, ids)

    assert recover(provider, ProviderIds(run_id=ids.run_id)).text == dify.expected_answer("年假")
    assert dify.looked_up() == {"run": 1}


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ("chatflow-failed", "failed", "unrecoverable"),
        ("stopped", "stopped", "unrecoverable"),
        ("chatflow-paused", "paused", "provider_paused"),
    ],
)
def test_a_run_that_ended_without_an_answer_is_not_polled_again(
    make: Make, dify: MockDify, script: str, status: str, code: str
) -> None:
    """One request; then the question may be asked again, but not of a run that paused: a second one would pause too."""
    provider = make()
    ids = lose(provider, f"[[{script}]]")
    wait_until(lambda: run_of(dify, ids).status == status)

    error = failure(provider, ids)

    assert isinstance(error, Unrecoverable) == (code == "unrecoverable")
    assert isinstance(error, Unrecoverable) or error.code == code
    assert dify.looked_up()["run"] == 1
    if status == "paused":
        assert failure(provider, ProviderIds(ids.conversation_id, ids.message_id)).code == code


def test_a_run_that_dify_stopped_on_disconnect_is_unrecoverable(make: Make, dify: MockDify) -> None:
    """Dify 1.16.0 stops a run when its client disconnects."""
    dify.after_disconnect = "aborts"
    provider = make()
    ids = lose_working(dify, provider, "年假")
    wait_until(lambda: run_of(dify, ids).status == "stopped")

    assert str(failure(provider, ids)) == "the run stopped"


@pytest.mark.parametrize("mode", ["advanced-chat", "chat"])
def test_without_its_run_a_message_is_found_in_the_history(make: Make, dify: MockDify, mode: str) -> None:
    """A run that Dify does not know, or does not return for this kind of app, does not fail the recovery."""
    provider = make()
    ids = lose(provider, "年假")
    ended(dify, ids)
    dify.mode = mode
    unknown = ProviderIds(ids.conversation_id, ids.message_id, run_id=STRANGER)

    assert recover(provider, unknown).text == dify.expected_answer("年假")
    assert dify.looked_up() == {"run": 1, "messages": 1}


# Chatflows whose run still works.


def test_the_events_of_a_running_chatflow_are_read_until_its_end(make: Make, dify: MockDify) -> None:
    """Missed events are not repeated: the recovery waits for the end and reads the history; nothing is asked again."""
    provider = make()
    ids = lose_working(dify, provider, "年假")
    when(lambda: dify.open_listeners, dify.hurry)

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert dify.looked_up() == {"run": 1, "events": 1, "messages": 1}
    assert len(dify.requests) == 1
    wait_until(lambda: dify.open_listeners == 0)


def test_a_running_chatflow_without_events_is_unrecoverable(make: Make, dify: MockDify, sleeper: Sleeper) -> None:
    """Pings do not count: after `timeout` without an event, and a last poll of run and history, the answer is lost."""
    ids = lose_dead(dify, make(), "年假")
    timeouts = RecoveryTimeouts(listening=0.01, pause=30.0, longest_pause=30.0)

    error = sleeper.fails(dify.base_url, ids, timeouts=timeouts)

    assert isinstance(error, Unrecoverable)
    assert str(error) == "the run reports only `running` for 60 s"
    assert sleeper.clock.now == 60.0
    assert [look_up.kind for look_up in dify.look_ups][-2:] == ["run", "messages"]


def test_a_run_whose_last_event_was_lost_is_found_by_polling(make: Make, dify: MockDify) -> None:
    """Dify's event bus may lose the last event: the run is polled during silence, long before the timeout."""
    provider = make(timeout=600.0, timeouts=replace(LONG, listening=0.05))
    ids = lose_dead(dify, provider, "年假")
    outcome = in_background(lambda: recover(provider, ids))
    wait_until(lambda: dify.looked_up()["events"] > 1)

    run = run_of(dify, ids)
    run.save()
    run.status = "succeeded"

    assert outcome().text == dify.expected_answer("年假")


@pytest.fixture
def heard(make: Make, dify: MockDify) -> tuple[Run, Callable[[], Any]]:
    """A run that says nothing by itself, and the outcome of its recovery, which listens to its events."""
    provider = make(timeout=600.0, timeouts=replace(LONG, saving=0.05))
    ids = lose_dead(dify, provider, "年假")
    run = run_of(dify, ids)
    outcome = in_background(lambda: recover(provider, ids))
    wait_until(lambda: run.live.heard)
    return run, outcome


def test_message_end_alone_ends_the_wait_for_events(dify: MockDify, heard: tuple[Run, Callable[[], Any]]) -> None:
    """message_end is enough: some versions never send workflow_finished."""
    run, outcome = heard

    run.status = "succeeded"
    run.live.say(run.message_end())

    assert outcome().text == dify.expected_answer("年假")


@pytest.mark.parametrize("end", ["failed", "stopped", "error", "paused", "workflow_paused"])
def test_an_event_that_ends_a_run_without_an_answer_ends_the_recovery(
    dify: MockDify, heard: tuple[Run, Callable[[], Any]], end: str
) -> None:
    """Each of these events ends the wait; a pause keeps its own code where a snapshot of the run has no form."""
    run, outcome = heard
    other_events = {
        "error": lambda: run.event("error", status=500),
        "workflow_paused": lambda: run.workflow("workflow_paused"),
    }

    run.live.say(other_events.get(end, lambda: run.workflow_finished(end))())

    error = outcome()
    assert isinstance(error, Unrecoverable) != ("paused" in end)
    assert (error.code == "provider_paused") == ("paused" in end)
    assert dify.looked_up() == {"run": 1, "events": 2 if "paused" in end else 1}


def test_a_run_that_sends_events_outlasts_every_timeout(make: Make, dify: MockDify, sleeper: Sleeper) -> None:
    """An event within each minute is enough. A stream that breaks is opened again: a proxy may cut it."""
    ids = lose_dead(dify, make(), "年假")
    run = run_of(dify, ids)
    outcome = in_background(lambda: sleeper.recover(dify.base_url, ids, timeouts=replace(LONG, pause=1.0)))

    def listens(times: int) -> None:
        wait_until(lambda: dify.looked_up()["events"] == times and run.live.heard)

    for times in range(1, 4):
        listens(times)
        sleeper.clock.advance(50.0)
        run.live.say(run.piece("在写"))
        run.live.pause()
    listens(4)
    run.save()
    run.live.say(run.workflow_finished())

    assert outcome().text == dify.expected_answer("年假")
    assert sleeper.clock.now >= 150.0


def test_before_1_13_a_run_is_polled_until_it_ends(make: Make, dify: MockDify) -> None:
    """Without an event stream the run is polled; the events are requested once."""
    dify.events = False
    provider = make()
    ids = lose_working(dify, provider, "年假")
    when(lambda: dify.looked_up()["run"] > 2, dify.hurry)

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert dify.looked_up()["events"] == 1


def test_reading_events_takes_one_of_the_slots(make: Make, dify: MockDify, sleeper: Sleeper) -> None:
    """If chats hold all slots the run is polled instead; the missing events then do not count as silence."""
    ids = lose_dead(dify, make(), "年假")
    run = run_of(dify, ids)
    service = dify_service(base_url=dify.base_url, max_concurrent=1)
    body = {"query": "[[silent]]", "inputs": {}, "user": "u2", "response_mode": "streaming"}
    timeouts = RecoveryTimeouts(listening=0.01, pause=25.0, longest_pause=25.0)
    for seconds, action in ((130.0, run.save), (130.0, lambda: setattr(run, "status", "succeeded"))):
        sleeper.at(seconds, action)

    with service.chat_messages(body, authorization=f"Bearer {KEY}", deadline=Deadline(600.0)):
        recovered = sleeper.recover(dify.base_url, ids, timeouts=timeouts, service=service)

    assert recovered.text == dify.expected_answer("年假")
    assert dify.looked_up()["events"] == 0
    assert sleeper.clock.now == 150.0


# The message history.


def test_an_ended_chat_takes_one_request(make: Make, dify: MockDify) -> None:
    """The message is found by its id, wherever it is in the history, and has its usage."""
    provider = make()
    ids = lose(provider, "[[chat]] 年假")
    ended(dify, ids)
    for question in ("[[chat]] 一", "[[chat]] 二"):
        ended(dify, lose(provider, question, conversation_id=ids.conversation_id))

    recovered = recover(provider, ids)

    assert recovered == Recovered(dify.expected_answer("年假"), COST)
    assert dify.looked_up() == {"messages": 1}
    assert dify.look_ups[0].query == {"conversation_id": ids.conversation_id, "user": "u1", "limit": "5"}


@pytest.mark.parametrize("script", ["chat", "agent-thoughts"])
def test_a_running_chat_is_polled_until_it_is_saved(make: Make, dify: MockDify, script: str) -> None:
    """The newest Dify finishes a chat whose client has disconnected: the empty row gets its text a moment later.

    An agent's answer may be empty and its text in the thoughts; before the row has its usage they may be incomplete.
    """
    provider = make()
    ids = lose_working(dify, provider, f"[[{script}]] 年假")
    when(lambda: dify.looked_up()["messages"] > 1, dify.hurry)

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert run_of(dify, ids).is_saved
    assert len(dify.requests) == 1


@pytest.mark.parametrize("script", ["chat", "agent-thoughts"])
def test_a_chat_that_stopped_with_its_client_is_polled_six_times_in_fifteen_seconds(
    make: Make, dify: MockDify, sleeper: Sleeper, script: str
) -> None:
    """Up to 1.12 the row stays empty for ever, even if an agent has thoughts.

    The polls start at 0, 0.5, 1.5, 3.5, 7.5 and 11.5 s; the recovery fails at 15 s.
    """
    ids = lose_dead(dify, make(), f"[[{script}]]")

    error = sleeper.fails(dify.base_url, ids)

    assert isinstance(error, Unrecoverable)
    assert str(error) == "the provider has no answer"
    assert sleeper.clock.now == 15.0
    assert dify.looked_up() == {"messages": 6}


def test_a_message_with_an_error_is_not_polled_again(make: Make, dify: MockDify) -> None:
    """One request, even if the row has text."""
    provider = make()
    ids = lose(provider, "[[error-after-text]]")
    wait_until(lambda: run_of(dify, ids).message_status == "error")

    assert isinstance(failure(provider, ids), Unrecoverable)
    assert dify.looked_up() == {"messages": 1}


def test_a_message_that_ended_without_a_text_is_not_polled_again(make: Make, dify: MockDify) -> None:
    """The row has its usage, so no text will follow."""
    provider = make()
    ids = lose(provider, "[[chat]] 年假")
    wait_until(lambda: run_of(dify, ids).is_saved)
    run_of(dify, ids).saved = ""

    assert isinstance(failure(provider, ids), Unrecoverable)
    assert dify.looked_up() == {"messages": 1}


def test_a_missing_conversation_is_unrecoverable(make: Make, dify: MockDify) -> None:
    """Deleted, or of another user: one request each."""
    provider = make()
    ids = lose(provider, "[[chat]] 年假")
    ended(dify, ids)

    assert isinstance(failure(provider, ids, user="u2"), Unrecoverable)
    dify.forget_conversations()
    assert isinstance(failure(provider, ids), Unrecoverable)
    assert dify.looked_up() == {"messages": 2}


def test_a_message_that_is_not_in_the_history_is_unrecoverable(make: Make, dify: MockDify, sleeper: Sleeper) -> None:
    """The answer of another message is never returned for it."""
    ids = lose(make(), "[[chat]] 年假")
    ended(dify, ids)

    assert isinstance(sleeper.fails(dify.base_url, ProviderIds(ids.conversation_id, STRANGER)), Unrecoverable)


@pytest.mark.parametrize(
    "ids", [ProviderIds(), ProviderIds("c1"), ProviderIds(message_id="m1"), ProviderIds(task_id="t1")]
)
def test_without_ids_nothing_is_looked_up(make: Make, dify: MockDify, ids: ProviderIds) -> None:
    """Neither a message id nor a run id: no request is sent."""
    assert isinstance(failure(make(), ids), Unrecoverable)
    assert dify.look_ups == []


# Interruption, authorization, log.


@pytest.mark.parametrize("script", ["chatflow", "chat"])
def test_an_abort_ends_a_recovery_at_once(make: Make, dify: MockDify, script: str) -> None:
    """While it reads events, and while it pauses between polls."""
    provider = make(timeouts=RecoveryTimeouts(pause=600.0, longest_pause=600.0))
    deadline = Deadline(600.0)
    ids = lose_dead(dify, provider, f"[[{script}]]")
    when(lambda: dify.open_listeners == 1 if script == "chatflow" else dify.look_ups, lambda: deadline.abort("fenced"))

    error = failure(provider, ids, deadline=deadline)

    assert error.code == "interrupted"
    assert not isinstance(error, Unrecoverable)
    wait_until(lambda: dify.open_listeners == 0)


def test_an_abort_interrupts_a_request_without_a_reply() -> None:
    """A Dify that accepts the request and sends no reply does not block the abort."""
    deadline = Deadline(600.0)
    with RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", hang=True) as server:
        provider = dify_provider(base_url=server.url, api_keys=[KEY])
        when(lambda: server.heads, lambda: deadline.abort("fenced"))

        error = failure(provider, ProviderIds("c", "m"), deadline=deadline)
        provider.close()

    assert error.code == "interrupted"
    assert not isinstance(error, Unrecoverable)


def test_an_abort_ends_the_wait_for_a_slot(make: Make, dify: MockDify) -> None:
    """A recovery that waits for a slot held by a chat ends at once."""
    provider, deadline = make(max_concurrent=1, timeout=600.0), Deadline(600.0)
    ids = lose_dead(dify, provider, "年假")

    with closing(provider.stream_query(Query("[[drip-events]]", "u2"), Deadline(60.0))) as chat:  # type: ignore[type-var]
        next(chat)
        outcome = in_background(lambda: recover(provider, ids, deadline=deadline))
        wait_until(lambda: dify.looked_up()["run"] == 1)
        # The wait for the slot cannot be observed from outside. An abort before it begins has the same outcome.
        threading.Timer(0.2, deadline.abort, ("fenced",)).start()
        error = outcome()

    assert error.code == "interrupted"
    assert not isinstance(error, Unrecoverable)


def test_look_ups_use_the_credential_and_user_of_the_question(make: Make, dify: MockDify) -> None:
    """The same credential and the same user on every address."""
    person = Identity("cached", UserInfo("u1"), token="fake-token")
    provider = make(auth_mode="user_token", api_keys=["bot7"])
    ids = lose_working(dify, provider, "年假", identity=person)
    when(lambda: dify.open_listeners, dify.hurry)

    assert recover(provider, ids, identity=person).text == dify.expected_answer("年假")
    assert {look_up.kind for look_up in dify.look_ups} == {"run", "events", "messages"}
    assert {look_up.authorization for look_up in dify.look_ups} == {"Bearer bot7 fake-token"}
    assert {look_up.query["user"] for look_up in dify.look_ups if look_up.kind != "run"} == {"u1"}


def test_a_query_without_a_user_is_looked_up_as_the_default_user(make: Make, dify: MockDify) -> None:
    """A query without a user id looks up the messages of DIFY_USER."""
    provider = make(user="u1")
    ids = lose(provider, "[[chat]] 年假")
    ended(dify, ids)

    assert recover(provider, ids, user="").text == dify.expected_answer("年假")


def test_without_the_users_token_nothing_is_looked_up(make: Make, dify: MockDify) -> None:
    """With `user_token` and no token no request is sent."""
    ids = ProviderIds(STRANGER, STRANGER, "t", STRANGER)

    assert isinstance(failure(make(auth_mode="user_token"), ids), Unrecoverable)
    assert dify.look_ups == []


def test_each_outcome_is_one_log_line_without_the_answer(
    make: Make, dify: MockDify, caplog: pytest.LogCaptureFixture
) -> None:
    """A recovered answer with its price, or the reason of the failure; an interruption is not logged."""
    provider, aborted = make(), Deadline(60.0)
    ids = lose(provider, "机密问题")
    ended(dify, ids)
    aborted.abort("fenced")
    caplog.clear()
    caplog.set_level(logging.INFO, "services")

    recover(provider, ids)
    failure(provider, ProviderIds())
    failure(provider, ids, deadline=aborted)

    assert provider_lines(caplog) == [
        "[Dify RAG] Recovered, Tokens: 431, Price: 0.00043 USD",
        "[Dify RAG Error] unrecoverable: its message is not known",
    ]


@pytest.mark.parametrize("events", [True, False], ids=["with events", "before 1.13"])
def test_a_run_that_died_after_message_end_is_recovered(
    make: Make, dify: MockDify, sleeper: Sleeper, events: bool
) -> None:
    """The run reports `running` for ever, and the history has the text that was saved with message_end."""
    ids = lose_dead(dify, make(), "年假")
    dify.events = events
    run_of(dify, ids).save()

    recovered = sleeper.recover(dify.base_url, ids, timeouts=replace(RECOVERY_TIMEOUTS, listening=0.01))

    assert recovered.text == dify.expected_answer("年假")
    assert run_of(dify, ids).status == "running"


# Questions without ids: the stream was lost before its first event.


def recover_by_text(
    provider: DifyProvider, question: str, run: Run, *, conversation_id: str = "", late: float = 0.0
) -> Recovered:
    """Recover a question that was asked `late` seconds before this run, by its text and its conversation."""
    query = Query(question, "u1", asked_at=run.created_at - late)
    return provider.recover(query, ProviderIds(conversation_id), Deadline(60.0))


@pytest.mark.parametrize("script", ["chat", "chatflow", "agent-chat"])
def test_a_question_without_ids_is_found_by_its_text(make: Make, dify: MockDify, script: str) -> None:
    """In the user's newest conversations, or in the conversation in which it was asked."""
    provider, question = make(), f"[[{script}]] 年假"
    ids = lose(provider, question)
    first = ended(dify, ids)

    new = recover_by_text(provider, question, first)
    later = ended(dify, lose(provider, f"{question}还有呢", conversation_id=ids.conversation_id))
    next_turn = recover_by_text(provider, later.query, later, conversation_id=ids.conversation_id)

    assert (new.text, new.ids.message_id) == (dify.expected_answer(question), ids.message_id)
    assert (next_turn.text, next_turn.ids.message_id) == (dify.expected_answer(later.query), later.message_id)


def test_a_question_without_ids_that_still_runs_is_polled(make: Make, dify: MockDify) -> None:
    """Its row exists from the start of the run, and gets its text at the end."""
    provider = make()
    run = run_of(dify, lose_working(dify, provider, "[[chat]] 年假"))
    when(lambda: dify.looked_up()["messages"] > 2, dify.hurry)

    assert recover_by_text(provider, "[[chat]] 年假", run).text == dify.expected_answer("年假")


@pytest.mark.parametrize(
    ("question", "late"), [("[[chat]] 别的", 0.0), ("[[chat]] 年假", 60.0), ("[[chat]] 年假", -60.0)]
)
def test_a_row_with_another_text_or_time_is_not_the_question(
    make: Make, dify: MockDify, question: str, late: float
) -> None:
    """The same text a minute earlier or later is another question."""
    provider = make()
    run = ended(dify, lose(provider, "[[chat]] 年假"))

    for conversation_id in ("", run.conversation_id):
        with pytest.raises(Unrecoverable, match="not known"):
            recover_by_text(provider, question, run, conversation_id=conversation_id, late=late)


def test_an_ambiguous_question_is_unrecoverable(make: Make, dify: MockDify) -> None:
    """One user asked the same question twice at the same moment: neither answer is returned."""
    provider = make()
    one, other = (ended(dify, lose(provider, "[[chat]] 年假")) for _ in range(2))
    one.created_at = other.created_at

    with pytest.raises(Unrecoverable, match="not known"):
        recover_by_text(provider, "[[chat]] 年假", other)


def test_an_earlier_turn_with_the_same_text_is_not_the_question(make: Make, dify: MockDify) -> None:
    """Only the last row of a conversation may be the lost question."""
    provider = make()
    first = ended(dify, lose(provider, "[[chat]] 继续"))
    last = ended(dify, lose(provider, "[[chat]] 谢谢", conversation_id=first.conversation_id))
    last.created_at = first.created_at

    with pytest.raises(Unrecoverable, match="not known"):
        recover_by_text(provider, "[[chat]] 继续", first, conversation_id=first.conversation_id)


# The timeouts of a recovery.


def test_a_lost_run_of_an_old_dify_is_polled_for_a_minute(make: Make, dify: MockDify, sleeper: Sleeper) -> None:
    """Without an event stream a run that reports `running` for ever ends only by the `running` timeout of 60 s."""
    dify.events = False
    ids = lose_dead(dify, make(), "年假")

    assert isinstance(sleeper.fails(dify.base_url, ids), Unrecoverable)
    assert 60.0 <= sleeper.clock.now < 64.0
    assert dify.looked_up() == {"run": 19, "events": 1, "messages": 1}


@pytest.mark.parametrize("script", ["chatflow", "chat"])
@pytest.mark.parametrize("error_reply", ["502-html", "500-internal_server_error", "429-too_many_requests", "504-html"])
def test_recovery_outlasts_a_short_outage_of_dify(
    make: Make, dify: MockDify, sleeper: Sleeper, script: str, error_reply: str
) -> None:
    """Dify is down for 11 s; the recovery returns the answer at the next poll, at 11.5 s."""
    ids = lose(make(), f"[[{script}]] 年假")
    ended(dify, ids)
    dify.outage = ERROR_REPLIES[error_reply]
    sleeper.at(11.0, lambda: setattr(dify, "outage", None))

    assert sleeper.recover(dify.base_url, ids).text == dify.expected_answer("年假")
    assert sleeper.clock.now == 11.5


@pytest.mark.parametrize("script", ["chatflow", "chat"])
def test_recovery_fails_when_dify_stays_down(make: Make, dify: MockDify, sleeper: Sleeper, script: str) -> None:
    """The recovery fails after 15 s in all, for runs and for messages; the error names the HTTP status."""
    ids = lose(make(), f"[[{script}]] 年假")
    ended(dify, ids)
    dify.outage = ERROR_REPLIES["502-html"]

    error = sleeper.fails(dify.base_url, ids)

    assert isinstance(error, Unrecoverable)
    assert "502" in str(error)
    assert sleeper.clock.now == 15.0


def test_time_without_a_result_is_counted_over_all_polls(make: Make, dify: MockDify, sleeper: Sleeper) -> None:
    """After 11 s of an outage, a history row without text gets the remaining 4 s of the 15 s."""
    dify.saves, dify.outputs = False, "none"
    ids = lose(make(), "年假")
    wait_until(lambda: run_of(dify, ids).status == "succeeded")
    dify.outage = ERROR_REPLIES["502-html"]
    sleeper.at(11.0, lambda: setattr(dify, "outage", None))

    assert isinstance(sleeper.fails(dify.base_url, ids), Unrecoverable)
    assert sleeper.clock.now == 15.0


def test_recovery_fails_when_dify_is_unreachable(sleeper: Sleeper) -> None:
    """No server listens at its address: the recovery fails after 15 s."""
    url = f"http://127.0.0.1:{free_port()}"

    assert isinstance(sleeper.fails(url, ProviderIds("c", "m", "t", "r")), Unrecoverable)
    assert sleeper.clock.now == 15.0


@pytest.mark.parametrize("body", [b"<html>login</html>", b'{"cut', b"[1]", b'{"data": 7, "status": 7}'])
def test_a_malformed_reply_is_polled_again(sleeper: Sleeper, body: bytes) -> None:
    """Such a reply counts as no result and is polled again: six polls until the timeout."""
    reply = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body
    with RawServer(reply) as server:
        error = sleeper.fails(server.url, ProviderIds(STRANGER, STRANGER))

        assert isinstance(error, Unrecoverable)
        assert len(server.heads) == 6


@pytest.mark.parametrize("error_reply", ["401-unauthorized", "403-forbidden", "400-invalid_param"])
def test_a_permanent_error_of_dify_fails_the_recovery_at_once(
    make: Make, dify: MockDify, sleeper: Sleeper, error_reply: str
) -> None:
    """Dify's 400, 401 and 403 fail the recovery without a second poll."""
    ids = lose(make(), "[[chat]] 年假")
    ended(dify, ids)
    dify.outage = ERROR_REPLIES[error_reply]

    assert isinstance(sleeper.fails(dify.base_url, ids), Unrecoverable)
    assert sleeper.clock.now == 0.0


def test_the_deadline_ends_a_recovery(make: Make, dify: MockDify, sleeper: Sleeper) -> None:
    """The error's code is `answer_timeout`, also if the deadline is over from the start."""
    ids = lose_dead(dify, make(), "[[chat]]")

    assert sleeper.fails(dify.base_url, ids, seconds=2.0).code == "answer_timeout"
    assert sleeper.clock.now == 2.0
    assert sleeper.fails(dify.base_url, ids, seconds=0.0).code == "answer_timeout"
