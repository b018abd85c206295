"""Every neighbour away in every way it can be: what the person sees, in what time, and that nothing remains of it."""

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

#: Seconds in which a callback is answered, whatever Redis does.
CALLBACK = 2.0
#: Seconds Dify is asked what became of a run whose stream broke, where nothing tells.
LOOK_UP = 15.0
#: Seconds an outage of Redis lasts here: longer than its clients wait, shorter than an answer.
OUTAGE = 1.5
#: Seconds a person waits at most for the word that nobody can tell who asks: the bounds of two databases and the API.
AUTH_WORD = 25.0

Record = Callable[[str, object], None]
Fault = Callable[[Office], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """The office, after a crowd that made its replicas' pools grow: what comes later is no growth."""
    with office(tmp_path_factory.mktemp("replicas")) as opened:
        at_once(partial(opened.answered, person, "你好", n) for n, person in enumerate(opened.newcomers(24)))
        yield opened


@dataclass(frozen=True)
class Talk:
    """A question whose answer grows, on the replica `at`."""

    person: str
    question: str
    at: int
    bubble: Bubble


def begin(here: Office, count: int = 4) -> list[Talk]:
    """Let people ask, one replica and the other in turn, and wait until each sees a first piece of the answer.

    All but the last also look at the other replica.
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
        assert (found.text, found.said, found.fields["status"]) == (answer, answer, "completed")
        assert len(here.dify.asked(talk.question)) == 1


def assert_only_grows(frames: Sequence[BubbleFrame], answer: str) -> None:
    """Check that each frame shows a beginning of the answer, none shorter than the one before, and is not the last."""
    shown = {render_frame(answer[:end], growing=True): end for end in range(1, len(answer) + 1)}
    places = [shown.get(frame.content, -1) for frame in frames]
    assert -1 not in places
    assert places == sorted(places)
    assert not any(frame.finish for frame in frames)


def assert_sentence(bubbles: Sequence[Bubble], code: str) -> None:
    """Check that all ended with the sentence of this code and nothing else."""
    assert {(bubble.finish, bubble.content) for bubble in bubbles} == {(True, ZH[code])}


def messages(told: Sequence[dict[str, Any]]) -> Counter[tuple[int, str]]:
    """Return how often each replica said what."""
    return Counter((line["by"], line["message"]) for line in told)


def assert_told_once(told: Sequence[dict[str, Any]], bubbles: Sequence[Bubble]) -> None:
    """Check that each of these answers has one line that says why it failed, however often it was polled."""
    lines = Counter(line["stream_id"] for line in told if line["message"] == "answer error" and line["cause"])
    assert {bubble.stream_id: lines[bubble.stream_id] for bubble in bubbles} == {b.stream_id: 1 for b in bubbles}


@contextmanager
def full(here: Office) -> Iterator[None]:
    """Leave Redis no byte, with the policy that a store needs: noeviction."""
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
    """A new question gets a finished sentence, a poll what was shown, in time; running answers end whole."""
    with here.nothing_left_behind(), here.overheard() as told:
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
    assert messages(told) == dict.fromkeys([(n, f"redis is {what}") for n in range(2) for what in ("away", "back")], 1)
    assert all(line["cause"] for line in told if line["message"] == "redis is away")


def test_a_slow_redis_slows_answers_and_loses_none(here: Office, record_property: Record) -> None:
    """With every reply 0.4 s late a callback is in time all the same; a question is answered, or refused at once."""
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


def test_an_outage_finds_producers_at_every_step(here: Office) -> None:
    """Whoever is authenticated, waits in line or is first spoken to when Redis goes gets the answer when it is back."""
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
    """Return the user_code of one of the office's people."""
    return f"E0{userid.removeprefix('user')}"


def answered_whole(here: Office, people: Sequence[str], at: int = 0) -> bool:
    """Let these people ask at once; tell whether all got the whole answer."""
    bubbles = at_once(partial(here.answered, person, "营业时间", at + n) for n, person in enumerate(people))
    return {bubble.content for bubble in bubbles} == {
        render_frame(here.dify.expected_answer("营业时间"), growing=False)
    }


def test_the_main_database_serves_while_the_reading_one_is_gone(here: Office) -> None:
    """Nobody notices but the log, once on each replica."""
    with here.overheard() as told, here.reader_gate.refusing():
        for _ in range(2):
            assert answered_whole(here, here.newcomers(4))

    # A replica that had found out shortly before says it no second time.
    assert set(messages(told).values()) <= {1}
    assert all("the reading database is away, the main one serves" in replica.log for replica in here.replicas)


@pytest.mark.parametrize("fault", ["refusing", "silent"])
def test_an_outage_of_the_user_database(here: Office, fault: str, record_property: Record) -> None:
    """A person with a token is answered; another gets a sentence, and the answer as soon as the database is back."""
    known, crowd = here.newcomers(2), here.newcomers(10)
    assert answered_whole(here, known)
    with here.nothing_left_behind(), here.overheard() as told:
        with ExitStack() as stack:
            for gate in (here.sql_gate, here.reader_gate):
                stack.enter_context(getattr(gate, fault)())
            assert answered_whole(here, known)
            bubbles = at_once(partial(here.answered, person, "营业时间", at) for at, person in enumerate(crowd))
        began = time.monotonic()
        wait_until(lambda: answered_whole(here, crowd[:2]), TIMEOUT)
        back = time.monotonic() - began

    word = max(bubble.last.at for bubble in bubbles)
    print(f"\nMySQL {fault}: the sentence after {word:.1f} s, answered again after {back:.1f} s")
    record_property("sentence_seconds", word)
    record_property("recovery_seconds", back)
    assert_sentence(bubbles, "auth_unavailable")
    assert word < AUTH_WORD
    assert_told_once(told, bubbles)


def test_connections_the_database_closed_cost_nobody_anything(here: Office) -> None:
    """Killed by the server, or dead with it: the next questions get new ones."""
    assert answered_whole(here, here.newcomers(2))
    with here.overheard() as told:
        # In one statement: a connection that is listed may be gone when its turn comes.
        here.maria.execute("KILL USER reader")
        assert answered_whole(here, here.newcomers(4))
        here.maria.restart()
        assert answered_whole(here, here.newcomers(4))

    assert {message for _, message in messages(told)} <= {"the reading database is back"}


def test_a_database_that_became_read_only_serves(here: Office) -> None:
    """A primary after a failover: nothing is ever written there."""
    here.maria.execute("SET GLOBAL read_only = 1")

    with here.overheard() as told:
        assert answered_whole(here, here.newcomers(4))

    here.maria.execute("SET GLOBAL read_only = 0")
    assert {message for _, message in messages(told)} <= {"the reading database is back"}


def test_an_auth_api_that_misbehaves(here: Office, record_property: Record) -> None:
    """Errors, garbage, silence and half an answer are an outage, not a refusal; within its bound comes the sentence."""
    kinds = [(500, b"{}", {}), (200, b"<html>", {}), (503, b"", {}), (200, b'{"succ', {"Content-Length": "99"}), None]
    crowd = here.newcomers(2 * len(kinds))
    here.auth.moods = {code_of(person): kinds[n // 2] for n, person in enumerate(crowd)}
    with here.nothing_left_behind(), here.overheard() as told:
        bubbles = at_once(partial(here.answered, person, "营业时间", at) for at, person in enumerate(crowd))
        here.auth.moods.clear()
        with here.auth_gate.refusing():
            bubbles += at_once(partial(here.answered, person, "营业时间") for person in here.newcomers(4))
        wait_until(lambda: answered_whole(here, crowd[-2:]), TIMEOUT)

    word = max(bubble.last.at for bubble in bubbles)
    print(f"\nauth API: the sentence after at most {word:.1f} s")
    record_property("sentence_seconds", word)
    assert_sentence(bubbles, "auth_unavailable")
    assert word < AUTH_WORD
    assert_told_once(told, bubbles)


#: What Dify, or what stands before it, may do instead of answering, and the code of the sentence.
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
    """Whatever fails, fails for everybody within its bound, and the next question is answered."""
    asked = [(person, script, code) for script, code in DIFY.items() for person in here.newcomers(6)]
    with here.nothing_left_behind(), here.overheard() as told:
        bubbles = at_once(
            partial(here.answered, person, f"{person} [[{script}]]", at) for at, (person, script, _) in enumerate(asked)
        )
        assert answered_whole(here, here.newcomers(4))

    word = max(bubble.last.at for bubble in bubbles)
    print(f"\nDify fails: the sentence after at most {word:.1f} s")
    record_property("sentence_seconds", word)
    assert [(script, bubble.content) for (_, script, _), bubble in zip(asked, bubbles, strict=True)] == [
        (script, ZH[code]) for _, script, code in asked
    ]
    assert word < 3 * DIFY_TIMEOUT + LOOK_UP + 10
    assert_told_once(told, bubbles)


def test_a_dify_that_is_gone(here: Office) -> None:
    """Nobody waits long for what refuses connections, and an answer it broke off says so; then all is as before."""
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
    """Half-open in mid-answer or idle in the pool: who waits on one loses `DIFY_TIMEOUT`, and nobody does after."""
    assert answered_whole(here, here.newcomers(8))
    with here.nothing_left_behind():
        talks = begin(here)
        with here.dify_gate.silent():
            broken = at_once(partial(here.follow, talk.person, talk.bubble, talk.at) for talk in talks)
        assert answered_whole(here, here.newcomers(8))

    word = max(bubble.last.at for bubble in broken)
    record_property("sentence_seconds", word)
    assert all(bubble.content.endswith(ZH["provider_timeout"]) for bubble in broken)
    assert all("入职" in bubble.content for bubble in broken), "what came stays"
