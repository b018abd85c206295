"""Recovering an answer that another replica asked Dify for, against the mock Dify over HTTP, case by case."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from demo.mocks.dify.plays import MODERATED
from demo.mocks.dify.server import SCRIPTS, MockDify
from demo.mocks.dify.wire import SOURCE
from services.errors import ProviderError, Unrecoverable
from services.models import Identity, ProviderIds, Query, Usage, UserInfo
from services.providers.base import Recovered
from services.providers.dify.polling import RecoveryTimeouts
from services.providers.dify.provider import DifyProvider
from tests.support.servers.processes import wait_until
from tests.support.servers.raw_server import RawServer
from tests.support.streams.lost_runs import ended, lose, run_of
from utils.deadline import Deadline

KEY = "app-fake-key"
STRANGER = "11111111-2222-4333-8444-555555555555"
#: Seconds: enough for a busy machine, far below the timeouts that a failing test would run into.
SOON = 8.0
#: Timeouts so short that a test can wait for them.
QUICK = RecoveryTimeouts(unknown=0.4, running=0.4, listening=0.1, saving=0.2, pause=0.02, longest_pause=0.05)
#: Timeouts so long that a test that waited for one would fail.
LONG = RecoveryTimeouts(unknown=60.0, running=60.0, listening=60.0, saving=0.1, pause=0.02, longest_pause=0.05)

#: The usage of the mock's answers, as the history has it.
COST = Usage(431, 412, 19, "0.00043", "USD", (SOURCE,))

Make = Callable[..., DifyProvider]


@pytest.fixture
def dify() -> Iterator[MockDify]:
    """A mock Dify with a ping every 50 ms."""
    with MockDify(ping_every=0.05, slow=0.02) as mock:
        yield mock


@pytest.fixture
def make(dify: MockDify) -> Iterator[Make]:
    """Make providers of the mock, with options; they are closed after the test."""
    made: list[DifyProvider] = []

    def provider(**options: Any) -> DifyProvider:
        wanted: dict[str, Any] = {"base_url": dify.base_url, "api_keys": [KEY], "timeout": 5.0, "timeouts": QUICK}
        made.append(DifyProvider(**wanted | options))
        return made[-1]

    yield provider
    for each in made:
        each.close()


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
        thread.join(15.0)
        return outcome[0]

    return result


#: The scripts that end with an answer, without those that are stopped and those that break before the first event.
RECOVERABLE = sorted(
    name
    for name, script in SCRIPTS.items()
    if script.answer("?") and not name.startswith("stopped") and not name.endswith("-unheard")
)


@pytest.mark.parametrize("name", RECOVERABLE)
def test_every_script_with_an_answer_can_be_recovered(make: Make, dify: MockDify, name: str) -> None:
    """For every app type and every kind of end the text equals the streamed one, and the question is asked once."""
    provider, question = make(), f"[[{name}]] 年假怎么申请？"
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
def test_an_answer_that_is_not_in_the_history_comes_from_the_outputs(make: Make, dify: MockDify, outputs: Any) -> None:
    """The history is polled for the `saving` timeout, then the run's outputs are the answer."""
    dify.saves, dify.outputs = False, outputs
    provider = make(timeouts=RecoveryTimeouts(saving=0.2, pause=0.02))
    ids = lose(provider, "年假")
    wait_until(lambda: run_of(dify, ids).status == "succeeded")

    started = time.monotonic()

    assert recover(provider, ids) == Recovered(dify.expected_answer("年假"), Usage(431))
    assert dify.looked_up()["messages"] > 1
    assert time.monotonic() - started < SOON


def test_a_run_without_a_message_id_is_recovered_from_its_outputs(make: Make, dify: MockDify) -> None:
    """The run id alone is enough."""
    provider = make()
    ids = lose(provider, "年假")
    ended(dify, ids)

    assert recover(provider, ProviderIds(run_id=ids.run_id)).text == dify.expected_answer("年假")
    assert dify.looked_up() == {"run": 1}


@pytest.mark.parametrize(("script", "status"), [("chatflow-failed", "failed"), ("stopped", "stopped")])
def test_a_failed_or_stopped_run_is_not_polled_again(make: Make, dify: MockDify, script: str, status: str) -> None:
    """One request; then the question may be asked again."""
    provider = make(timeouts=LONG)
    ids = lose(provider, f"[[{script}]]")
    wait_until(lambda: run_of(dify, ids).status == status)

    error = failure(provider, ids)

    assert isinstance(error, Unrecoverable)
    assert str(error) == f"the run {status}"
    assert dify.looked_up() == {"run": 1}


def test_a_run_that_dify_stopped_on_disconnect_is_unrecoverable(make: Make, dify: MockDify) -> None:
    """Dify 1.16.0 stops a run when its client disconnects."""
    dify.after_disconnect, dify.delay = "aborts", 0.05
    provider = make(timeouts=LONG)
    ids = lose(provider, "年假", text=True)
    wait_until(lambda: run_of(dify, ids).status == "stopped")

    assert isinstance(failure(provider, ids), Unrecoverable)


def test_a_paused_run_is_not_asked_again(make: Make, dify: MockDify) -> None:
    """A second run would pause too: the error is `provider_paused`, not `Unrecoverable`."""
    provider = make(timeouts=LONG)
    ids = lose(provider, "[[chatflow-paused]]")
    wait_until(lambda: run_of(dify, ids).status == "paused")

    assert failure(provider, ids).code == "provider_paused"
    assert failure(provider, ProviderIds(ids.conversation_id, ids.message_id)).code == "provider_paused"
    assert not isinstance(failure(provider, ids), Unrecoverable)


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
    dify.delay = 0.03
    provider = make(timeouts=LONG)
    ids = lose(provider, "年假", text=True)

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert dify.looked_up() == {"run": 1, "events": 1, "messages": 1}
    assert len(dify.requests) == 1
    wait_until(lambda: dify.open_listeners == 0)


@pytest.mark.full
def test_a_run_that_sends_events_outlasts_every_timeout(make: Make, dify: MockDify) -> None:
    """A run that sends events is not given up, though it takes longer than the timeout for silence."""
    dify.delay = 0.2
    provider = make(timeout=1.6, timeouts=QUICK)
    ids = lose(provider, "年假", text=True)

    started = time.monotonic()

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert time.monotonic() - started > 3.2


def test_a_running_chatflow_without_events_is_unrecoverable(make: Make, dify: MockDify) -> None:
    """Pings do not count: after `timeout` without an event, and a last poll of run and history, the answer is lost."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    provider = make(timeout=1.0)
    ids = lose(provider, "年假", text=True)

    started = time.monotonic()
    error = failure(provider, ids)

    assert isinstance(error, Unrecoverable)
    assert str(error) == "the run says `running` and nothing else for 1 s"
    assert 0.5 <= time.monotonic() - started < SOON
    assert [look_up.kind for look_up in dify.look_ups][-2:] == ["run", "messages"]


def test_a_run_whose_last_event_was_lost_is_found_by_polling(make: Make, dify: MockDify) -> None:
    """Dify's event bus may lose the last event: the run is polled during silence, long before the timeout."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    provider = make(timeout=60.0)
    ids = lose(provider, "年假", text=True)
    outcome = in_background(lambda: recover(provider, ids))
    wait_until(lambda: dify.open_listeners == 1)

    run = run_of(dify, ids)
    run.save()
    run.status = "succeeded"

    assert outcome().text == dify.expected_answer("年假")


def test_message_end_alone_ends_the_wait_for_events(make: Make, dify: MockDify) -> None:
    """message_end is enough: some versions never send workflow_finished."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    provider = make(timeout=60.0, timeouts=LONG)
    ids = lose(provider, "年假", text=True)
    outcome = in_background(lambda: recover(provider, ids))
    wait_until(lambda: dify.open_listeners == 1)

    run = run_of(dify, ids)
    run.status = "succeeded"
    run.live.say(run.message_end())

    assert outcome().text == dify.expected_answer("年假")


@pytest.mark.parametrize("end", ["failed", "stopped", "error", "paused", "workflow_paused"])
def test_an_event_that_ends_a_run_without_an_answer_ends_the_recovery(make: Make, dify: MockDify, end: str) -> None:
    """Each of these events ends the wait; a pause keeps its own code where a snapshot of the run has no form."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    provider = make(timeout=60.0, timeouts=LONG)
    ids = lose(provider, "年假", text=True)
    outcome = in_background(lambda: recover(provider, ids))
    wait_until(lambda: dify.open_listeners == 1)

    run = run_of(dify, ids)
    other_events = {
        "error": lambda: run.event("error", status=500),
        "workflow_paused": lambda: run.workflow("workflow_paused"),
    }
    run.live.say(other_events.get(end, lambda: run.workflow_finished(end))())

    error = outcome()
    assert isinstance(error, Unrecoverable) != ("paused" in end)
    assert (error.code == "provider_paused") == ("paused" in end)
    assert dify.looked_up() == {"run": 1, "events": 2 if "paused" in end else 1}


def test_a_stream_of_events_that_breaks_is_opened_again(make: Make, dify: MockDify) -> None:
    """A proxy may cut the stream, or Dify restart: the run is polled, and its events are read again."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    provider = make(timeout=60.0, timeouts=LONG)
    ids = lose(provider, "年假", text=True)
    run = run_of(dify, ids)
    outcome = in_background(lambda: recover(provider, ids))
    wait_until(lambda: dify.open_listeners == 1)

    run.live.say(None)
    wait_until(lambda: dify.looked_up()["events"] > 1)
    run.save()
    run.status = "succeeded"

    assert outcome().text == dify.expected_answer("年假")


def test_before_1_13_a_run_is_polled_until_it_ends(make: Make, dify: MockDify) -> None:
    """Without an event stream the run is polled; the events are requested once."""
    dify.events, dify.delay = False, 0.02
    provider = make(timeouts=LONG)
    ids = lose(provider, "年假", text=True)

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert dify.looked_up()["events"] == 1
    assert dify.looked_up()["run"] > 2


def test_reading_events_takes_one_of_the_slots(make: Make, dify: MockDify) -> None:
    """If chats hold all slots the run is polled instead; the missing events then do not count as silence."""
    dify.delay = 0.05
    provider = make(max_concurrent=1, timeout=1.0)
    ids = lose(provider, "年假", text=True)

    with closing(provider.stream_query(Query("[[drip-events]]", "u2"), Deadline(60.0))) as chat:  # type: ignore[type-var]
        next(chat)
        assert recover(provider, ids).text == dify.expected_answer("年假")

    assert dify.looked_up()["events"] == 0


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


def test_a_running_chat_is_polled_until_it_is_saved(make: Make, dify: MockDify) -> None:
    """The newest Dify finishes a chat whose client has disconnected: the empty row gets its text a moment later."""
    dify.delay = 0.02
    provider = make(timeouts=LONG)
    ids = lose(provider, "[[chat]] 年假", text=True)

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert dify.looked_up()["messages"] > 1
    assert len(dify.requests) == 1


def test_an_agents_thoughts_count_when_the_message_is_finished(make: Make, dify: MockDify) -> None:
    """The answer may be empty and its text in the thoughts; before the row has its usage they may be incomplete."""
    dify.delay = 0.01
    provider = make(timeouts=LONG)
    ids = lose(provider, "[[agent-thoughts]] 年假", text=True)

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert run_of(dify, ids).is_saved


@pytest.mark.parametrize("script", ["chat", "agent-thoughts"])
def test_a_chat_that_stopped_with_its_client_is_unrecoverable(make: Make, dify: MockDify, script: str) -> None:
    """Up to 1.12 the row stays empty for ever, even if an agent has thoughts."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    provider = make()
    ids = lose(provider, f"[[{script}]]", text=True)

    error = failure(provider, ids)

    assert isinstance(error, Unrecoverable)
    assert str(error) == "no answer in the history"


def test_a_message_with_an_error_is_not_polled_again(make: Make, dify: MockDify) -> None:
    """One request, even if the row has text."""
    provider = make(timeouts=LONG)
    ids = lose(provider, "[[error-after-text]]")
    wait_until(lambda: run_of(dify, ids).message_status == "error")

    assert isinstance(failure(provider, ids), Unrecoverable)
    assert dify.looked_up() == {"messages": 1}


def test_a_message_that_ended_without_a_text_is_not_polled_again(make: Make, dify: MockDify) -> None:
    """The row has its usage, so no text will follow."""
    provider = make(timeouts=LONG)
    ids = lose(provider, "[[chat]] 年假")
    wait_until(lambda: run_of(dify, ids).is_saved)
    run_of(dify, ids).saved = ""

    assert isinstance(failure(provider, ids), Unrecoverable)
    assert dify.looked_up() == {"messages": 1}


def test_a_missing_conversation_is_unrecoverable(make: Make, dify: MockDify) -> None:
    """Deleted, or of another user: one request each."""
    provider = make(timeouts=LONG)
    ids = lose(provider, "[[chat]] 年假")
    ended(dify, ids)

    assert isinstance(failure(provider, ids, user="u2"), Unrecoverable)
    dify.forget_conversations()
    assert isinstance(failure(provider, ids), Unrecoverable)
    assert dify.looked_up() == {"messages": 2}


def test_a_message_that_is_not_in_the_history_is_unrecoverable(make: Make, dify: MockDify) -> None:
    """The answer of another message is never returned for it."""
    provider = make()
    ids = lose(provider, "[[chat]] 年假")
    ended(dify, ids)

    assert isinstance(failure(provider, ProviderIds(ids.conversation_id, STRANGER)), Unrecoverable)


@pytest.mark.parametrize(
    "ids", [ProviderIds(), ProviderIds("c1"), ProviderIds(message_id="m1"), ProviderIds(task_id="t1")]
)
def test_without_ids_nothing_is_looked_up(make: Make, dify: MockDify, ids: ProviderIds) -> None:
    """Neither a message id nor a run id: no request is sent."""
    assert isinstance(failure(make(timeouts=LONG), ids), Unrecoverable)
    assert dify.look_ups == []


# Interruption, authorization, log.


@pytest.mark.parametrize("script", ["chatflow", "chat"])
def test_an_abort_ends_a_recovery_at_once(make: Make, dify: MockDify, script: str) -> None:
    """While it reads events, and while it pauses between polls."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    provider, deadline = (
        make(timeout=600.0, timeouts=RecoveryTimeouts(pause=600.0, longest_pause=600.0)),
        Deadline(600.0),
    )
    ids = lose(provider, f"[[{script}]]", text=True)
    outcome = in_background(lambda: recover(provider, ids, deadline=deadline))
    wait_until(lambda: dify.open_listeners == 1 if script == "chatflow" else dify.look_ups)

    started = time.monotonic()
    deadline.abort("fenced")

    error = outcome()
    assert error.code == "interrupted"
    assert not isinstance(error, Unrecoverable)
    assert time.monotonic() - started < SOON
    wait_until(lambda: dify.open_listeners == 0)


def test_an_abort_interrupts_a_request_without_a_reply() -> None:
    """A Dify that accepts the request and sends no reply does not block the abort."""
    deadline, started = Deadline(600.0), time.monotonic()
    with RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", hang=True) as server:
        provider = DifyProvider(base_url=server.url, api_keys=[KEY])
        outcome = in_background(lambda: recover(provider, ProviderIds("c", "m"), deadline=deadline))
        wait_until(lambda: server.heads)
        deadline.abort("fenced")

        error = outcome()
        provider.close()

    assert error.code == "interrupted"
    assert not isinstance(error, Unrecoverable)
    assert time.monotonic() - started < SOON


def test_an_abort_ends_the_wait_for_a_slot(make: Make, dify: MockDify) -> None:
    """A recovery that waits for a slot held by a chat ends at once."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    provider, deadline = make(max_concurrent=1, timeout=600.0, timeouts=LONG), Deadline(600.0)
    ids = lose(provider, "年假", text=True)

    with closing(provider.stream_query(Query("[[drip-events]]", "u2"), Deadline(60.0))) as chat:  # type: ignore[type-var]
        next(chat)
        outcome = in_background(lambda: recover(provider, ids, deadline=deadline))
        wait_until(lambda: dify.looked_up()["run"] == 1)
        # The wait for the slot cannot be observed from outside: 1 s is enough to reach it.
        threading.Timer(1.0, deadline.abort, ("fenced",)).start()
        error = outcome()

    assert error.code == "interrupted"
    assert not isinstance(error, Unrecoverable)


def test_look_ups_use_the_credential_and_user_of_the_question(make: Make, dify: MockDify) -> None:
    """The same credential and the same user on every address."""
    dify.delay = 0.02
    person = Identity("cached", UserInfo("u1"), token="fake-token")
    provider = make(auth_mode="user_token", api_keys=["bot7"], timeouts=LONG)
    ids = lose(provider, "年假", text=True, identity=person)

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

    assert [record.getMessage() for record in caplog.records] == [
        "[Dify RAG] Recovered, Tokens: 431, Price: 0.00043 USD",
        "[Dify RAG Error] unrecoverable: its message is not known",
    ]


@pytest.mark.parametrize("events", [True, False], ids=["with events", "before 1.13"])
def test_a_run_that_died_after_message_end_is_recovered(make: Make, dify: MockDify, events: bool) -> None:
    """The run reports `running` for ever, and the history has the text that was saved with message_end."""
    dify.after_disconnect, dify.delay, dify.events = "dies", 0.05, events
    provider = make(timeout=1.0)
    ids = lose(provider, "年假", text=True)
    run_of(dify, ids).save()

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert run_of(dify, ids).status == "running"


# Questions without ids: the stream was lost before its first event.


def recover_by_text(
    provider: DifyProvider, question: str, *, conversation_id: str = "", late: float = 0.0
) -> Recovered:
    """Recover a question that was asked `late` seconds ago, by its text and its conversation."""
    query = Query(question, "u1", asked_at=time.time() - late)
    return provider.recover(query, ProviderIds(conversation_id), Deadline(60.0))


@pytest.mark.parametrize("script", ["chat", "chatflow", "agent-chat"])
def test_a_question_without_ids_is_found_by_its_text(make: Make, dify: MockDify, script: str) -> None:
    """In the user's newest conversations, or in the conversation in which it was asked."""
    provider, question = make(), f"[[{script}]] 年假"
    ids = lose(provider, question)
    ended(dify, ids)

    new = recover_by_text(provider, question)
    later = ended(dify, lose(provider, f"{question}还有呢", conversation_id=ids.conversation_id))
    next_turn = recover_by_text(provider, later.query, conversation_id=ids.conversation_id)

    assert (new.text, new.ids.message_id) == (dify.expected_answer(question), ids.message_id)
    assert (next_turn.text, next_turn.ids.message_id) == (dify.expected_answer(later.query), later.message_id)


def test_a_question_without_ids_that_still_runs_is_polled(make: Make, dify: MockDify) -> None:
    """Its row exists from the start of the run, and gets its text at the end."""
    dify.delay = 0.02
    provider = make(timeouts=LONG)
    lose(provider, "[[chat]] 年假", text=True)

    assert recover_by_text(provider, "[[chat]] 年假").text == dify.expected_answer("年假")


@pytest.mark.parametrize(
    ("question", "late"), [("[[chat]] 别的", 0.0), ("[[chat]] 年假", 60.0), ("[[chat]] 年假", -60.0)]
)
def test_a_row_with_another_text_or_time_is_not_the_question(
    make: Make, dify: MockDify, question: str, late: float
) -> None:
    """The same text a minute earlier or later is another question."""
    provider = make()
    ids = lose(provider, "[[chat]] 年假")
    ended(dify, ids)

    for conversation_id in ("", ids.conversation_id):
        with pytest.raises(Unrecoverable, match="not known"):
            recover_by_text(provider, question, conversation_id=conversation_id, late=late)


def test_an_ambiguous_question_is_unrecoverable(make: Make, dify: MockDify) -> None:
    """One user asked the same question twice at the same moment: neither answer is returned."""
    provider = make()
    for _ in range(2):
        ended(dify, lose(provider, "[[chat]] 年假"))

    with pytest.raises(Unrecoverable, match="not known"):
        recover_by_text(provider, "[[chat]] 年假")


def test_an_earlier_turn_with_the_same_text_is_not_the_question(make: Make, dify: MockDify) -> None:
    """Only the last row of a conversation may be the lost question."""
    provider = make()
    ids = lose(provider, "[[chat]] 继续")
    ended(dify, ids)
    ended(dify, lose(provider, "[[chat]] 谢谢", conversation_id=ids.conversation_id))

    with pytest.raises(Unrecoverable, match="not known"):
        recover_by_text(provider, "[[chat]] 继续", conversation_id=ids.conversation_id)
