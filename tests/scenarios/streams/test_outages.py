"""Outages of Redis, the user database, the auth API and Dify: replies stay in time, and no resource is left behind."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from config.texts import ZH
from demo.wecom.simulator import Bubble, BubbleFrame
from tests.scenarios.stage.office import DIFY_TIMEOUT, Office, office
from tests.scenarios.stage.people import TIMEOUT, at_once, stored
from tests.support.servers.processes import free_port, wait_until
from utils.stream_utils import render_frame

pytestmark = [pytest.mark.scenario, pytest.mark.full]

#: Limit in seconds of a callback's reply during outages of Redis, which last until every callback has its reply.
CALLBACK = 10.0
#: Seconds for which Dify is asked about a run whose stream broke.
LOOK_UP = 15.0
#: Seconds of an outage of Redis: longer than its clients' timeout, shorter than an answer.
OUTAGE = 1.5
#: Limit in seconds until a user who cannot be authenticated gets a sentence: timeouts of two databases and the API.
AUTH_SENTENCE = 25.0

Record = Callable[[str, object], None]
Fault = Callable[[Office], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """The office, after a crowd has filled its replicas' pools, so that later growth is a leak."""
    with office(tmp_path_factory.mktemp("replicas")) as opened:
        at_once(partial(opened.answered, person, "你好", n) for n, person in enumerate(opened.newcomers(24)))
        yield opened


@dataclass(frozen=True)
class Talk:
    """A question whose answer is running on replica `at`."""

    person: str
    question: str
    at: int
    bubble: Bubble


def begin(here: Office, count: int = 4) -> list[Talk]:
    """Let users ask the replicas in turn, and wait until each sees the first words of the answer.

    All but the last also poll the other replica.
    """
    talks = []
    for at, person in enumerate(here.newcomers(count)):
        question = f"{person} 的入职流程 [[slow]]"
        talks.append(Talk(person, question, at % 2, here.ask(person, question, at)))
    for talk in talks:
        seen = here.watch(talk.person, talk.bubble, talk.at, until=lambda frame: "入职" in frame.content)
        talk.bubble.frames.append(seen.last)
        if talk is not talks[-1]:
            here.watch(talk.person, talk.bubble, talk.at + 1, seconds=0.0)
    return talks


def assert_whole(here: Office, talks: Sequence[Talk]) -> None:
    """Check that each answer is in Redis, byte for byte, and was asked for once."""
    for talk in talks:
        found, answer = stored(here.redis, talk.bubble.stream_id), here.dify.expected_answer(talk.question).encode()
        assert (found.text, found.list_text, found.fields["status"]) == (answer, answer, "completed")
        assert len(here.dify.asked(talk.question)) == 1


def assert_only_grows(frames: Sequence[BubbleFrame], answer: str) -> None:
    """Check that each frame shows a beginning of the answer, none is shorter than the one before, and none finishes."""
    shown = {render_frame(answer[:end], growing=True): end for end in range(1, len(answer) + 1)}
    lengths = [shown.get(frame.content, -1) for frame in frames]
    assert -1 not in lengths
    assert lengths == sorted(lengths)
    assert not any(frame.finish for frame in frames)


def assert_sentence(bubbles: Sequence[Bubble], code: str) -> None:
    """Check that all bubbles ended with the sentence of this code and nothing else."""
    assert {(bubble.finish, bubble.content) for bubble in bubbles} == {(True, ZH[code])}


def messages(log_lines: Sequence[dict[str, Any]]) -> Counter[tuple[int, str]]:
    """Return how often each replica logged each message.

    A replica sees at its next query that the reading database is back, which may be in a later test. The question log
    has timeouts of its own: a busy database makes it wait in any test. Tables that this SQL user may not make are
    looked for once a minute, in whichever test.
    """
    others = ("the reading database is back", "questions wait to be logged", "migration waits", "tables are missing")
    return Counter((line["by"], line["message"]) for line in log_lines if line["message"] not in others)


def assert_logged_once(log_lines: Sequence[dict[str, Any]], bubbles: Sequence[Bubble]) -> None:
    """Check that each of these answers has one log line with the cause of its failure, however often it was polled."""
    lines = Counter(line["stream_id"] for line in log_lines if line["message"] == "answer error" and line["cause"])
    assert {bubble.stream_id: lines[bubble.stream_id] for bubble in bubbles} == {b.stream_id: 1 for b in bubbles}


@contextmanager
def full(here: Office) -> Iterator[None]:
    """Set Redis's memory limit below its use, with the policy noeviction that the store needs."""
    with here.redis.client() as client:
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


@contextmanager
def demoted(here: Office) -> Iterator[None]:
    """Make Redis the replica of a master that cannot be reached."""
    with here.redis.client() as client:
        client.replicaof("127.0.0.1", str(free_port()))
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


REDIS: dict[str, Fault] = {
    "refused": lambda here: here.redis_gate.refusing(),
    "silent": lambda here: here.redis_gate.silent(),
    "unreachable": lambda here: here.redis_gate.unreachable(),
    "full": full,
    "demoted": demoted,
}


@pytest.mark.parametrize("fault", REDIS)
def test_an_outage_of_redis(here: Office, fault: str, record_property: Record) -> None:
    """A question gets a sentence and a poll the text shown before, both in time; running answers end whole."""
    with here.nothing_left_behind(), here.logged_warnings() as log_lines:
        talks = begin(here)
        with REDIS[fault](here), ThreadPoolExecutor(40) as pool:
            polls = [
                (talk, pool.submit(here.watch, talk.person, talk.bubble, at, OUTAGE))
                for talk in talks
                for at in range(8)
            ]
            asked = [pool.submit(here.ask, person, "还在吗？", at) for at, person in enumerate(here.newcomers(8))]
            watched = [(talk, future.result(TIMEOUT).frames) for talk, future in polls]
            refused = [future.result(TIMEOUT) for future in asked]
        back = max(at_once(partial(here.taken_again, at) for at in range(2)))
        at_once(partial(here.follow, talk.person, talk.bubble, at) for at, talk in enumerate(talks))
        wait_until(here.redis_is_back, TIMEOUT)

    frames = [frame for _, seen in watched for frame in seen[1:]] + [bubble.last for bubble in refused]
    slowest = max(frame.ms for frame in frames) / 1000
    print(f"\nRedis {fault}: slowest of {len(frames)} callbacks {slowest:.2f} s, taken again after {back:.2f} s")
    record_property("slowest_callback_seconds", slowest)
    record_property("recovery_seconds", back)
    assert slowest < CALLBACK
    assert_sentence(refused, "store_unavailable")
    for talk, seen in watched:
        assert_only_grows(seen, here.dify.expected_answer(talk.question))
    assert_whole(here, talks)
    assert messages(log_lines) == dict.fromkeys(
        [(n, f"redis is {what}") for n in range(2) for what in ("away", "back")], 1
    )
    assert all(line["cause"] for line in log_lines if line["message"] == "redis is away")


def test_a_slow_redis_slows_answers_and_loses_none(here: Office, record_property: Record) -> None:
    """With every reply 0.4 s late, callbacks are in time, and a question is answered or gets a sentence."""
    with here.nothing_left_behind():
        talks = begin(here)
        with here.redis_gate.slow(0.4):
            crowd = here.newcomers(4)
            bubbles = at_once(partial(here.answered, person, "年假", at) for at, person in enumerate(crowd))
            at_once(partial(here.follow, talk.person, talk.bubble, at) for at, talk in enumerate(talks))
        wait_until(here.redis_is_back, TIMEOUT)

    slowest = max(frame.ms for bubble in bubbles for frame in bubble.frames) / 1000
    answered = sum(
        bubble.content == render_frame(here.dify.expected_answer("年假"), growing=False) for bubble in bubbles
    )
    print(f"\nRedis slow: slowest callback {slowest:.2f} s, {answered} of {len(bubbles)} questions answered")
    record_property("slowest_callback_seconds", slowest)
    assert slowest < CALLBACK
    assert answered + sum(bubble.content == ZH["store_unavailable"] for bubble in bubbles) == len(bubbles)
    assert_whole(here, talks)


def test_producers_at_every_step_survive_an_outage_of_redis(here: Office) -> None:
    """Questions in authentication, in the queue and before their first words are answered when Redis is back."""
    busy, known, new = here.newcomers(3)
    here.answered(known, "第一个问题")
    with here.nothing_left_behind(), here.auth_gate.slow(0.4):
        long, queued, spoken, unknown = (f"{who} 问" for who in (f"{busy} [[slow]]", busy, f"{known} [[slow]]", new))
        asked = [(busy, long), (busy, queued), (known, spoken), (new, unknown)]
        talks = [Talk(who, question, 0, here.ask(who, question)) for who, question in asked[:1]]
        wait_until(lambda: here.dify.asked(long), TIMEOUT)
        talks += [Talk(who, question, 0, here.ask(who, question)) for who, question in asked[1:]]
        wait_until(lambda: here.dify.asked(spoken) and here.auth.calls[code_of(new)], TIMEOUT)
        with here.redis_gate.refusing():
            time.sleep(7.0)
        at_once(partial(here.follow, talk.person, talk.bubble, at) for at, talk in enumerate(talks))
        wait_until(here.redis_is_back, TIMEOUT)

    assert_whole(here, talks)
    here.answered(known, "然后呢？")
    conversations = {here.dify.asked(question)[-1].body.get("conversation_id") for question in (spoken, "然后呢？")}
    assert len(conversations) == 1, "the conversation is remembered although Redis was away when it had news"


def code_of(userid: str) -> str:
    """Return the usercode of one of the office's users."""
    return f"E0{userid.removeprefix('user')}"


def answered_whole(here: Office, people: Sequence[str], at: int = 0) -> bool:
    """Let these users ask at once; return whether all got the whole answer."""
    bubbles = at_once(partial(here.answered, person, "营业时间", at + n) for n, person in enumerate(people))
    return {bubble.content for bubble in bubbles} == {
        render_frame(here.dify.expected_answer("营业时间"), growing=False)
    }


def test_the_main_database_serves_while_the_reading_one_is_gone(here: Office) -> None:
    """Users are answered without the reading database; each replica logs its outage once."""
    with here.logged_warnings() as log_lines, here.reader_gate.refusing():
        for _ in range(2):
            assert answered_whole(here, here.newcomers(4))

    # A replica that found the outage shortly before does not log it again.
    assert set(messages(log_lines).values()) <= {1}
    assert all("the reading database is away, the main one serves" in replica.log for replica in here.replicas)


@pytest.mark.parametrize("fault", ["refusing", "silent"])
def test_an_outage_of_the_user_database(here: Office, fault: str, record_property: Record) -> None:
    """A user with a cached token is answered; others get a sentence, and answers once the database is back."""
    known, crowd = here.newcomers(2), here.newcomers(10)
    assert answered_whole(here, known)
    with here.nothing_left_behind(), here.logged_warnings() as log_lines:
        with ExitStack() as stack:
            for gate in (here.sql_gate, here.reader_gate):
                stack.enter_context(getattr(gate, fault)())
            assert answered_whole(here, known)
            bubbles = at_once(partial(here.answered, person, "营业时间", at) for at, person in enumerate(crowd))
        began = time.monotonic()
        wait_until(lambda: answered_whole(here, crowd[:2]), TIMEOUT)
        back = time.monotonic() - began

    seconds = max(bubble.last.at for bubble in bubbles)
    print(f"\nMySQL {fault}: the sentence after {seconds:.1f} s, answered again after {back:.1f} s")
    record_property("sentence_seconds", seconds)
    record_property("recovery_seconds", back)
    assert_sentence(bubbles, "auth_unavailable")
    assert seconds < AUTH_SENTENCE
    assert_logged_once(log_lines, bubbles)


def test_connections_closed_by_the_database_are_replaced(here: Office) -> None:
    """After connections are killed, or the server restarts, the next questions use new ones."""
    assert answered_whole(here, here.newcomers(2))
    with here.logged_warnings() as log_lines:
        # In one statement: a listed connection may be gone before it is killed by its id.
        here.maria.execute("KILL USER reader")
        assert answered_whole(here, here.newcomers(4))
        here.maria.restart()
        assert answered_whole(here, here.newcomers(4))

    assert not messages(log_lines)


def test_a_database_that_became_read_only_serves(here: Office) -> None:
    """Users are read from a former primary after a failover: the product writes nothing there."""
    here.maria.execute("SET GLOBAL read_only = 1")

    with here.logged_warnings() as log_lines:
        assert answered_whole(here, here.newcomers(4))

    here.maria.execute("SET GLOBAL read_only = 0")
    assert not messages(log_lines)


def test_an_auth_api_that_misbehaves(here: Office, record_property: Record) -> None:
    """Errors, invalid replies, silence and half a reply count as an outage, not as a rejection of the user."""
    kinds = [(500, b"{}", {}), (200, b"<html>", {}), (503, b"", {}), (200, b'{"succ', {"Content-Length": "99"}), None]
    crowd = here.newcomers(2 * len(kinds))
    here.auth.moods = {code_of(person): kinds[n // 2] for n, person in enumerate(crowd)}
    with here.nothing_left_behind(), here.logged_warnings() as log_lines:
        bubbles = at_once(partial(here.answered, person, "营业时间", at) for at, person in enumerate(crowd))
        here.auth.moods.clear()
        with here.auth_gate.refusing():
            bubbles += at_once(partial(here.answered, person, "营业时间") for person in here.newcomers(4))
        wait_until(lambda: answered_whole(here, crowd[-2:]), TIMEOUT)

    seconds = max(bubble.last.at for bubble in bubbles)
    print(f"\nauth API: the sentence after at most {seconds:.1f} s")
    record_property("sentence_seconds", seconds)
    assert_sentence(bubbles, "auth_unavailable")
    assert seconds < AUTH_SENTENCE
    assert_logged_once(log_lines, bubbles)


#: Failures of Dify or its proxy, with the code of the sentence.
DIFY = {
    "silent": "provider_timeout",
    "no-headers": "provider_timeout",
    "429-too_many_requests": "provider_busy",
    "429-html": "provider_busy",
    "500-internal_server_error": "provider_error",
    "502-html": "provider_error",
    "503-html": "provider_error",
    "504-html": "provider_error",
}


def test_a_storm_of_failures_at_dify(here: Office, record_property: Record) -> None:
    """Every question gets the sentence of its failure in time, and the next question is answered.

    A question that a busy machine could not store in time is asked again, as its sentence says.
    """
    asked = [(person, script, code) for script, code in DIFY.items() for person in here.newcomers(6)]

    def answered(person: str, question: str, at: int) -> Bubble:
        bubble = here.answered(person, question, at)
        return here.answered(person, question, at) if bubble.content == ZH["store_unavailable"] else bubble

    with here.nothing_left_behind(), here.logged_warnings() as log_lines:
        bubbles = at_once(
            partial(answered, person, f"{person} [[{script}]]", at) for at, (person, script, _) in enumerate(asked)
        )
        assert answered_whole(here, here.newcomers(4))

    seconds = max(bubble.last.at for bubble in bubbles)
    print(f"\nDify fails: the sentence after at most {seconds:.1f} s")
    record_property("sentence_seconds", seconds)
    assert [(script, bubble.content) for (_, script, _), bubble in zip(asked, bubbles, strict=True)] == [
        (script, ZH[code]) for _, script, code in asked
    ]
    assert seconds < 3 * DIFY_TIMEOUT + LOOK_UP + 10
    assert_logged_once(log_lines, bubbles)


def test_an_outage_of_dify(here: Office) -> None:
    """While Dify refuses connections, questions get a sentence, and cut answers one after their text."""
    with here.nothing_left_behind():
        talks = begin(here)
        with here.dify_gate.refusing():
            crowd = here.newcomers(12)
            bubbles = at_once(partial(here.answered, person, "营业时间", at) for at, person in enumerate(crowd))
            broken = at_once(partial(here.follow, talk.person, talk.bubble, talk.at) for talk in talks)
        assert answered_whole(here, here.newcomers(4))

    assert_sentence(bubbles, "provider_unreachable")
    assert all(bubble.content.endswith(ZH["provider_truncated"]) for bubble in broken)


def test_connections_to_dify_that_fall_silent(here: Office, record_property: Record) -> None:
    """Answers and questions on half-open connections lose at most DIFY_TIMEOUT, later questions nothing."""
    assert answered_whole(here, here.newcomers(8))
    with here.nothing_left_behind():
        talks = begin(here)
        with here.dify_gate.silent():
            broken = at_once(partial(here.follow, talk.person, talk.bubble, talk.at) for talk in talks)
        assert answered_whole(here, here.newcomers(8))

    seconds = max(bubble.last.at for bubble in broken)
    record_property("sentence_seconds", seconds)
    assert all(bubble.content.endswith(ZH["provider_timeout"]) for bubble in broken)
    assert all("入职" in bubble.content for bubble in broken), "what came stays"
