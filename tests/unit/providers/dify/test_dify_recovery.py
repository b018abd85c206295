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
from services.models import Identity, ProviderIds, Query, Recovered, Usage, UserInfo
from services.providers.dify.polling import RecoveryTimeouts
from services.providers.dify.provider import DifyProvider
from tests.support.servers.processes import wait_until
from tests.support.servers.raw_server import RawServer
from tests.support.streams.lost_runs import ended, lose, run_of
from utils.deadline import Deadline

KEY = "app-fake-key"
STRANGER = "11111111-2222-4333-8444-555555555555"
#: Wide enough for a busy machine, far below the bounds a failure would run into.
SOON = 8.0
#: Bounds that end at once what never comes.
QUICK = RecoveryTimeouts(unknown=0.4, running=0.4, listening=0.1, saving=0.2, pause=0.02, longest_pause=0.05)
#: Bounds that a test would notice if they were waited for.
LONG = RecoveryTimeouts(unknown=60.0, running=60.0, listening=60.0, saving=0.1, pause=0.02, longest_pause=0.05)

#: What the mock's answers cost, as the history tells it.
COST = Usage(431, 412, 19, "0.00043", "USD", (SOURCE,))

Make = Callable[..., DifyProvider]


@pytest.fixture
def dify() -> Iterator[MockDify]:
    """A mock Dify whose pings come fast."""
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
    """Start some work in a thread, and return what waits for its outcome."""
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


#: What ends with an answer, but for what somebody stopped, and what tells no ids.
RECOVERABLE = sorted(
    name
    for name, script in SCRIPTS.items()
    if script.answer("?") and not name.startswith("stopped") and not name.endswith("-unheard")
)


@pytest.mark.parametrize("name", RECOVERABLE)
def test_whatever_answers_can_be_recovered(make: Make, dify: MockDify, name: str) -> None:
    """Every app type and every way to end: the text is what a client that had stayed would have, asked for once."""
    provider, question = make(), f"[[{name}]] 年假怎么申请？"
    ids = lose(provider, question)

    recovered = recover(provider, ids)

    assert recovered.text == dify.expected_answer(question)
    assert len(dify.asked(question)) == (2 if SCRIPTS[name].error_times else 1)


# A chatflow's run that has ended.


@pytest.mark.parametrize("outputs", ["object", "string", "none"])
def test_an_ended_chatflow_costs_two_look_ups(make: Make, dify: MockDify, outputs: Any) -> None:
    """However its result shows the outputs, or not at all: one look at the run, one at the history, with its price."""
    dify.outputs = outputs
    provider = make()
    ids = lose(provider, "年假")
    ended(dify, ids)

    recovered = recover(provider, ids)

    assert recovered == Recovered(dify.expected_answer("年假"), COST)
    assert dify.looked_up() == {"run": 1, "messages": 1}


def test_what_moderation_took_back_stays_taken_back(make: Make, dify: MockDify) -> None:
    """The run's outputs still hold what the model said; the history holds what people were to see."""
    provider = make()
    ids = lose(provider, "[[chatflow-moderated]]")
    run = ended(dify, ids)

    assert run.outputs["answer"] != MODERATED
    assert recover(provider, ids).text == MODERATED


def test_images_that_dify_took_out_of_the_history_are_in_the_outputs(make: Make, dify: MockDify) -> None:
    """Where nothing else differs the text is the one that was streamed."""
    provider = make()
    ids = lose(provider, "年假")
    run = ended(dify, ids)
    run.saved, run.outputs = "见图  好", {"answer": "见图 ![图](/files/a.png?x=1) 好"}

    assert recover(provider, ids) == Recovered(run.outputs["answer"], COST)


@pytest.mark.parametrize("outputs", ["object", "string"])
def test_an_answer_that_was_not_saved_is_in_the_outputs(make: Make, dify: MockDify, outputs: Any) -> None:
    """The history is asked for a moment, then the run's own answer counts."""
    dify.saves, dify.outputs = False, outputs
    provider = make(timeouts=RecoveryTimeouts(saving=0.2, pause=0.02))
    ids = lose(provider, "年假")
    wait_until(lambda: run_of(dify, ids).status == "succeeded")

    started = time.monotonic()

    assert recover(provider, ids) == Recovered(dify.expected_answer("年假"), Usage(431))
    assert dify.looked_up()["messages"] > 1
    assert time.monotonic() - started < SOON


def test_a_run_whose_message_nobody_knows_has_its_outputs(make: Make, dify: MockDify) -> None:
    """Its id alone will do."""
    provider = make()
    ids = lose(provider, "年假")
    ended(dify, ids)

    assert recover(provider, ProviderIds(run_id=ids.run_id)).text == dify.expected_answer("年假")
    assert dify.looked_up() == {"run": 1}


@pytest.mark.parametrize(("script", "status"), [("chatflow-failed", "failed"), ("stopped", "stopped")])
def test_a_run_without_success_is_not_waited_for(make: Make, dify: MockDify, script: str, status: str) -> None:
    """One look, and the question may be asked again."""
    provider = make(timeouts=LONG)
    ids = lose(provider, f"[[{script}]]")
    wait_until(lambda: run_of(dify, ids).status == status)

    error = failure(provider, ids)

    assert isinstance(error, Unrecoverable)
    assert str(error) == f"the run {status}"
    assert dify.looked_up() == {"run": 1}


def test_a_run_that_its_client_end_aborted_is_unrecoverable(make: Make, dify: MockDify) -> None:
    """Dify 1.16.0 stops a run when nobody listens any more."""
    dify.after_disconnect, dify.delay = "aborts", 0.05
    provider = make(timeouts=LONG)
    ids = lose(provider, "年假", text=True)
    wait_until(lambda: run_of(dify, ids).status == "stopped")

    assert isinstance(failure(provider, ids), Unrecoverable)


def test_a_run_that_waits_for_a_person_is_not_asked_again(make: Make, dify: MockDify) -> None:
    """It would wait again: the error is the one whose sentence says so."""
    provider = make(timeouts=LONG)
    ids = lose(provider, "[[chatflow-paused]]")
    wait_until(lambda: run_of(dify, ids).status == "paused")

    assert failure(provider, ids).code == "provider_paused"
    assert failure(provider, ProviderIds(ids.conversation_id, ids.message_id)).code == "provider_paused"
    assert not isinstance(failure(provider, ids), Unrecoverable)


@pytest.mark.parametrize("mode", ["advanced-chat", "chat"])
def test_without_its_run_a_message_is_found_in_the_history(make: Make, dify: MockDify, mode: str) -> None:
    """A run that Dify does not know, or does not show for this kind of app, is no reason to give up."""
    provider = make()
    ids = lose(provider, "年假")
    ended(dify, ids)
    dify.mode = mode
    unknown = ProviderIds(ids.conversation_id, ids.message_id, run_id=STRANGER)

    assert recover(provider, unknown).text == dify.expected_answer("年假")
    assert dify.looked_up() == {"run": 1, "messages": 1}


# A chatflow's run that goes on.


def test_a_running_chatflow_is_listened_to_until_it_ends(make: Make, dify: MockDify) -> None:
    """What was missed does not come again: the end is heard, the answer looked up, and nothing is asked again."""
    dify.delay = 0.03
    provider = make(timeouts=LONG)
    ids = lose(provider, "年假", text=True)

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert dify.looked_up() == {"run": 1, "events": 1, "messages": 1}
    assert len(dify.requests) == 1
    wait_until(lambda: dify.open_listeners == 0)


def test_a_sign_of_life_is_waited_for_longer_than_any_bound(make: Make, dify: MockDify) -> None:
    """A run that speaks is not given up, though it takes longer than the silence allowed."""
    dify.delay = 0.1
    provider = make(timeout=0.8, timeouts=QUICK)
    ids = lose(provider, "年假", text=True)

    started = time.monotonic()

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert time.monotonic() - started > 1.6


def test_a_running_chatflow_that_falls_silent_is_given_up(make: Make, dify: MockDify) -> None:
    """Pings prove nothing: after `timeout` without an event, and a last look at run and history, the answer is lost."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    provider = make(timeout=0.5)
    ids = lose(provider, "年假", text=True)

    started = time.monotonic()
    error = failure(provider, ids)

    assert isinstance(error, Unrecoverable)
    assert str(error) == "the run says `running` and nothing else for 0.5 s"
    assert 0.5 <= time.monotonic() - started < SOON
    assert [look_up.kind for look_up in dify.look_ups][-2:] == ["run", "messages"]


def test_a_run_that_ended_unheard_is_found_by_the_next_look(make: Make, dify: MockDify) -> None:
    """Dify's event bus may lose the last event: silence is a reason to look, long before it is one to give up."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    provider = make(timeout=60.0)
    ids = lose(provider, "年假", text=True)
    outcome = in_background(lambda: recover(provider, ids))
    wait_until(lambda: dify.open_listeners == 1)

    run = run_of(dify, ids)
    run.save()
    run.status = "succeeded"

    assert outcome().text == dify.expected_answer("年假")


def test_a_forgotten_last_event_costs_a_moment(make: Make, dify: MockDify) -> None:
    """After message_end nothing is waited for: some versions never say that the workflow has finished."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    provider = make(timeout=60.0, timeouts=LONG)
    ids = lose(provider, "年假", text=True)
    outcome = in_background(lambda: recover(provider, ids))
    wait_until(lambda: dify.open_listeners == 1)

    run = run_of(dify, ids)
    run.status = "succeeded"
    run.live.say(run.message_end())

    assert outcome().text == dify.expected_answer("年假")


@pytest.mark.parametrize("said", ["failed", "stopped", "error", "paused", "workflow_paused"])
def test_a_run_that_ends_without_an_answer_is_heard(make: Make, dify: MockDify, said: str) -> None:
    """Whatever event says so, nobody waits on; a pause keeps its own code."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    provider = make(timeout=60.0, timeouts=LONG)
    ids = lose(provider, "年假", text=True)
    outcome = in_background(lambda: recover(provider, ids))
    wait_until(lambda: dify.open_listeners == 1)

    run = run_of(dify, ids)
    words = {
        "error": lambda: run.event("error", status=500),
        "workflow_paused": lambda: run.workflow("workflow_paused"),
    }
    run.live.say(words.get(said, lambda: run.workflow_finished(said))())

    error = outcome()
    assert isinstance(error, Unrecoverable) != ("paused" in said)
    assert (error.code == "provider_paused") == ("paused" in said)
    assert dify.looked_up() == {"run": 1, "events": 1}


def test_a_stream_of_events_that_breaks_is_opened_again(make: Make, dify: MockDify) -> None:
    """A proxy that cuts it, a Dify that restarts: the run is looked at, and listened to again."""
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


def test_before_1_13_a_run_is_looked_at_until_it_ends(make: Make, dify: MockDify) -> None:
    """Without events to listen to, its result tells; the events are asked for once."""
    dify.events, dify.delay = False, 0.02
    provider = make(timeouts=LONG)
    ids = lose(provider, "年假", text=True)

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert dify.looked_up()["events"] == 1
    assert dify.looked_up()["run"] > 2


def test_listening_takes_one_of_the_places(make: Make, dify: MockDify) -> None:
    """Where all are taken by chats the run is looked at instead; the silence is ours then, and no sign of death."""
    dify.delay = 0.05
    provider = make(max_concurrent=1, timeout=0.5)
    ids = lose(provider, "年假", text=True)

    with closing(provider.stream_query(Query("[[drip-events]]", "u2"), Deadline(60.0))) as chat:  # type: ignore[type-var]
        next(chat)
        assert recover(provider, ids).text == dify.expected_answer("年假")

    assert dify.looked_up()["events"] == 0


# The message history.


def test_an_ended_chat_costs_one_look_up(make: Make, dify: MockDify) -> None:
    """The message is found by its id, wherever it stands, and tells its price."""
    provider = make()
    ids = lose(provider, "[[chat]] 年假")
    ended(dify, ids)
    for question in ("[[chat]] 一", "[[chat]] 二"):
        ended(dify, lose(provider, question, conversation_id=ids.conversation_id))

    recovered = recover(provider, ids)

    assert recovered == Recovered(dify.expected_answer("年假"), COST)
    assert dify.looked_up() == {"messages": 1}
    assert dify.look_ups[0].query == {"conversation_id": ids.conversation_id, "user": "u1", "limit": "5"}


def test_a_running_chat_is_looked_for_until_it_is_saved(make: Make, dify: MockDify) -> None:
    """The newest Dify finishes a chat that nobody listens to: the empty row fills a moment later."""
    dify.delay = 0.02
    provider = make(timeouts=LONG)
    ids = lose(provider, "[[chat]] 年假", text=True)

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert dify.looked_up()["messages"] > 1
    assert len(dify.requests) == 1


def test_an_agents_thoughts_count_when_the_message_is_finished(make: Make, dify: MockDify) -> None:
    """Its answer may be empty and its text in the thoughts; before its price is known they are half a text."""
    dify.delay = 0.01
    provider = make(timeouts=LONG)
    ids = lose(provider, "[[agent-thoughts]] 年假", text=True)

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert run_of(dify, ids).is_saved


@pytest.mark.parametrize("script", ["chat", "agent-thoughts"])
def test_a_chat_that_died_with_its_client_is_given_up(make: Make, dify: MockDify, script: str) -> None:
    """Up to 1.12 the row stays empty for ever, whatever an agent had thought."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    provider = make()
    ids = lose(provider, f"[[{script}]]", text=True)

    error = failure(provider, ids)

    assert isinstance(error, Unrecoverable)
    assert str(error) == "no answer in the history"


def test_a_message_with_an_error_is_not_waited_for(make: Make, dify: MockDify) -> None:
    """One look, whatever text there is."""
    provider = make(timeouts=LONG)
    ids = lose(provider, "[[error-after-text]]")
    wait_until(lambda: run_of(dify, ids).message_status == "error")

    assert isinstance(failure(provider, ids), Unrecoverable)
    assert dify.looked_up() == {"messages": 1}


def test_a_message_that_ended_without_a_text_is_not_waited_for(make: Make, dify: MockDify) -> None:
    """Its price says that there will be none."""
    provider = make(timeouts=LONG)
    ids = lose(provider, "[[chat]] 年假")
    wait_until(lambda: run_of(dify, ids).is_saved)
    run_of(dify, ids).saved = ""

    assert isinstance(failure(provider, ids), Unrecoverable)
    assert dify.looked_up() == {"messages": 1}


def test_a_conversation_that_is_gone_has_no_answers(make: Make, dify: MockDify) -> None:
    """Forgotten, or another user's: one look."""
    provider = make(timeouts=LONG)
    ids = lose(provider, "[[chat]] 年假")
    ended(dify, ids)

    assert isinstance(failure(provider, ids, user="u2"), Unrecoverable)
    dify.forget_conversations()
    assert isinstance(failure(provider, ids), Unrecoverable)
    assert dify.looked_up() == {"messages": 2}


def test_a_message_that_is_not_in_the_history_is_given_up(make: Make, dify: MockDify) -> None:
    """Another message's answer is never taken for it."""
    provider = make()
    ids = lose(provider, "[[chat]] 年假")
    ended(dify, ids)

    assert isinstance(failure(provider, ProviderIds(ids.conversation_id, STRANGER)), Unrecoverable)


@pytest.mark.parametrize(
    "ids", [ProviderIds(), ProviderIds("c1"), ProviderIds(message_id="m1"), ProviderIds(task_id="t1")]
)
def test_without_ids_nothing_is_looked_up(make: Make, dify: MockDify, ids: ProviderIds) -> None:
    """Neither a message nor a run: there is nowhere to look."""
    assert isinstance(failure(make(timeouts=LONG), ids), Unrecoverable)
    assert dify.look_ups == []


# Interruption, authorization, log.


@pytest.mark.parametrize("script", ["chatflow", "chat"])
def test_an_abort_ends_it_where_it_is(make: Make, dify: MockDify, script: str) -> None:
    """While it listens, and while it waits for the next look."""
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


def test_an_abort_interrupts_a_look_that_gets_no_reply() -> None:
    """A Dify that accepts and says nothing holds nobody."""
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


def test_an_abort_ends_the_wait_for_a_place(make: Make, dify: MockDify) -> None:
    """Whoever waits behind a chat hears it too."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    provider, deadline = make(max_concurrent=1, timeout=600.0, timeouts=LONG), Deadline(600.0)
    ids = lose(provider, "年假", text=True)

    with closing(provider.stream_query(Query("[[drip-events]]", "u2"), Deadline(60.0))) as chat:  # type: ignore[type-var]
        next(chat)
        outcome = in_background(lambda: recover(provider, ids, deadline=deadline))
        wait_until(lambda: dify.looked_up()["run"] == 1)
        # By then it waits: nobody outside can see it.
        threading.Timer(1.0, deadline.abort, ("fenced",)).start()
        error = outcome()

    assert error.code == "interrupted"
    assert not isinstance(error, Unrecoverable)


def test_look_ups_are_made_as_the_question_was(make: Make, dify: MockDify) -> None:
    """The same credential and the same user on every address; the default user where nobody is known."""
    dify.delay = 0.02
    person = Identity("cached", UserInfo("u1"), token="fake-token")
    provider = make(auth_mode="user_token", api_keys=["bot7"], timeouts=LONG)
    ids = lose(provider, "年假", text=True, identity=person)

    assert recover(provider, ids, identity=person).text == dify.expected_answer("年假")
    assert {look_up.kind for look_up in dify.look_ups} == {"run", "events", "messages"}
    assert {look_up.authorization for look_up in dify.look_ups} == {"Bearer bot7 fake-token"}
    assert {look_up.query["user"] for look_up in dify.look_ups if look_up.kind != "run"} == {"u1"}


def test_the_default_user_looks_up_what_it_asked(make: Make, dify: MockDify) -> None:
    """DIFY_USER stands in where nobody is known."""
    provider = make(user="u1")
    ids = lose(provider, "[[chat]] 年假")
    ended(dify, ids)

    assert recover(provider, ids, user="").text == dify.expected_answer("年假")


def test_without_the_users_token_nothing_is_looked_up(make: Make, dify: MockDify) -> None:
    """There is nothing to ask with."""
    ids = ProviderIds(STRANGER, STRANGER, "t", STRANGER)

    assert isinstance(failure(make(auth_mode="user_token"), ids), Unrecoverable)
    assert dify.look_ups == []


def test_each_outcome_is_one_line_without_a_word_of_the_answer(
    make: Make, dify: MockDify, caplog: pytest.LogCaptureFixture
) -> None:
    """Recovered with its price, or not and why; who was interrupted knows it."""
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
def test_a_run_that_died_after_its_last_word_has_its_answer(make: Make, dify: MockDify, events: bool) -> None:
    """It says `running` for ever, and the history has what it saved with message_end."""
    dify.after_disconnect, dify.delay, dify.events = "dies", 0.05, events
    provider = make(timeout=0.5)
    ids = lose(provider, "年假", text=True)
    run_of(dify, ids).save()

    assert recover(provider, ids).text == dify.expected_answer("年假")
    assert run_of(dify, ids).status == "running"


# A question whose run has no name here: its stream was lost before its first event.


def unheard(provider: DifyProvider, question: str, *, conversation_id: str = "", late: float = 0.0) -> Recovered:
    """Recover a question that was asked just now, of which nothing is known but its words."""
    query = Query(question, "u1", asked_at=time.time() - late)
    return provider.recover(query, ProviderIds(conversation_id), Deadline(60.0))


@pytest.mark.parametrize("script", ["chat", "chatflow", "agent-chat"])
def test_a_question_nobody_heard_of_is_found_by_its_words(make: Make, dify: MockDify, script: str) -> None:
    """In a new conversation of that user, and then in the conversation it was asked in."""
    provider, question = make(), f"[[{script}]] 年假"
    ids = lose(provider, question)
    ended(dify, ids)

    new = unheard(provider, question)
    later = ended(dify, lose(provider, f"{question}还有呢", conversation_id=ids.conversation_id))
    next_turn = unheard(provider, later.query, conversation_id=ids.conversation_id)

    assert (new.text, new.ids.message_id) == (dify.expected_answer(question), ids.message_id)
    assert (next_turn.text, next_turn.ids.message_id) == (dify.expected_answer(later.query), later.message_id)


def test_a_question_that_still_runs_is_waited_for(make: Make, dify: MockDify) -> None:
    """Its row is there from its start, and fills."""
    dify.delay = 0.02
    provider = make(timeouts=LONG)
    lose(provider, "[[chat]] 年假", text=True)

    assert unheard(provider, "[[chat]] 年假").text == dify.expected_answer("年假")


@pytest.mark.parametrize(
    ("question", "late"), [("[[chat]] 别的", 0.0), ("[[chat]] 年假", 60.0), ("[[chat]] 年假", -60.0)]
)
def test_another_question_or_another_time_is_not_taken_for_it(
    make: Make, dify: MockDify, question: str, late: float
) -> None:
    """The same words a minute ago were another question."""
    provider = make()
    ids = lose(provider, "[[chat]] 年假")
    ended(dify, ids)

    for conversation_id in ("", ids.conversation_id):
        with pytest.raises(Unrecoverable, match="not known"):
            unheard(provider, question, conversation_id=conversation_id, late=late)


def test_what_might_be_either_of_two_is_neither(make: Make, dify: MockDify) -> None:
    """One person asked the same twice at the same moment."""
    provider = make()
    for _ in range(2):
        ended(dify, lose(provider, "[[chat]] 年假"))

    with pytest.raises(Unrecoverable, match="not known"):
        unheard(provider, "[[chat]] 年假")


def test_an_earlier_turn_with_the_same_words_is_not_taken_for_the_last(make: Make, dify: MockDify) -> None:
    """Only a conversation's last row may be the question's."""
    provider = make()
    ids = lose(provider, "[[chat]] 继续")
    ended(dify, ids)
    ended(dify, lose(provider, "[[chat]] 谢谢", conversation_id=ids.conversation_id))

    with pytest.raises(Unrecoverable, match="not known"):
        unheard(provider, "[[chat]] 继续", conversation_id=ids.conversation_id)
