"""Invariants 2, 3, 6 and 7 on real processes, in `make test`. `make test-all` adds the other scenarios.

The tests share a Redis, a mock Dify and a fleet. Each begins with two replicas: it starts those that were killed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import pytest
import requests

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble
from tests.scenarios.stage.chaos_fleet import Fleet, fleet
from tests.scenarios.stage.chaos_record import Record, examine
from tests.scenarios.stage.chaos_talk import LEASE, Talk, begin
from tests.scenarios.stage.people import TIMEOUT, at_once, sees_end, stored
from tests.support.replicas import Replica, dify_settings, settings_for, wecom_user
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = pytest.mark.scenario

#: Seconds between two deltas of an answer, and the number of deltas after which a held answer waits.
PACE, SOME = 0.1, 8
#: DRAIN_SECONDS: longer than a leaving replica needs on a busy machine.
DRAIN = 40.0


@dataclass
class Stage:
    """Two replicas, their Redis, which keeps every acknowledged write, and their Dify."""

    redis: RedisServer
    dify: MockDify
    replicas: Fleet

    def record(self, question: str, bubble: Bubble) -> Record:
        """Return the record of a question whose bubble is finished."""
        found, answer = stored(self.redis, bubble.stream_id), self.dify.expected_answer(question)
        takeovers = self.replicas.takeovers()[bubble.stream_id]
        return examine(question, bubble, found, answer, calls=len(self.dify.asked(question)), takeovers=takeovers)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with RedisServer(aof=True) as redis, MockDify(slow=PACE, limit=120.0, after_disconnect="runs on") as dify:
        changes = {"STREAM_LEASE": f"{LEASE:g}", "DRAIN_SECONDS": f"{DRAIN:g}"}
        env = settings_for(redis.url(), **dify_settings(dify.base_url), **changes)
        with fleet(0, env, tmp_path_factory.mktemp("replicas")) as replicas:
            yield Stage(redis, dify, replicas)


@pytest.fixture
def stage(servers: Stage) -> Stage:
    """The servers with two running replicas; answers wait after `SOME` deltas until the test releases them."""
    servers.replicas.complete(2)
    servers.dify.holds_at = SOME
    return servers


#: Lines of `.env` that no reload may accept, and what the log says of each: a wrong value, a provider that cannot be
#: imported, and another port than that of the listener.
UNACCEPTABLE = {
    "RATE_LIMIT_USER=often": "RATE_LIMIT_USER='often' is wrong: expected a rate like",
    "SEARCH_PROVIDER=tests.nothing:Search": "SEARCH_PROVIDER: tests.nothing:Search cannot be imported",
    "OPS_PORT=9": "OPS_PORT='9' is wrong: expected none until a restart",
}


def have_logged(logs: Sequence[Replica], message: str) -> bool:
    """Return whether each of these replicas has logged the message."""
    return all(f'"message": "{message}"' in replica.log for replica in logs)


def test_2_a_redis_that_hangs_and_is_killed_costs_and_doubles_no_text(stage: Stage) -> None:
    """Invariant 2: while ten users poll, Redis hangs until replies are lost, and is then killed and restarted.

    Owners send writes with an unknown result again. The text, the list of chunks and every bubble equal the provider's
    answer, byte for byte.
    """
    members = stage.replicas.members
    urls = [member.url for member in members]
    questions = [f"第{number}个问题 [[slow]]" for number in range(4)]
    with ExitStack() as stack:
        people = [stack.enter_context(wecom_user(urls[n % 2 :] + urls[: n % 2], f"asks{n}")) for n in range(4)]
        bubbles = [person.says(question) for person, question in zip(people, questions, strict=True)]
        wait_until(lambda: all(stored(stage.redis, bubble.stream_id).text for bubble in bubbles), TIMEOUT)
        crowd = [stack.enter_context(wecom_user(urls, f"asks{n % 4}")) for n in range(10)]
        seen = [Bubble(bubbles[n % 4].msgid, [bubbles[n % 4].last]) for n in range(10)]
        polls = [partial(person.sees_finish, bubble, TIMEOUT, 0.3) for person, bubble in zip(crowd, seen, strict=True)]
        with ThreadPoolExecutor(len(polls)) as pool:
            polling = [pool.submit(poll) for poll in polls]
            hang_and_kill(stage, members)
            for person in polling:
                person.result(TIMEOUT)

    records = [stage.record(questions[n % 4], bubble) for n, bubble in enumerate(seen)]
    assert [str(record) for record in records if not record.right] == []
    assert {(record.calls, record.backwards) for record in records} == {(1, 0)}


def hang_and_kill(stage: Stage, members: Sequence[Replica]) -> None:
    """Stop Redis (SIGSTOP) until every replica has missed a reply, resume it until it is back, then restart it.

    The answers grow while it hangs, and end while it is dead.
    """
    stage.redis.pause()
    stage.dify.holds_at = 2 * SOME
    try:
        wait_until(lambda: have_logged(members, "redis is away"), TIMEOUT)
    finally:
        stage.redis.resume()
    wait_until(lambda: have_logged(members, "redis is back"), TIMEOUT)
    stage.redis.kill()
    stage.dify.holds_at = None
    stage.redis.start()


def test_3_a_redelivered_message_is_asked_once_also_when_its_owner_is_killed(stage: Stage) -> None:
    """Invariant 3: delivered to both replicas at once, and again to the survivor of a SIGKILL: one stream, one call."""
    killed, survivor = stage.replicas.members
    twice = [(number, member.url) for number in range(4) for member in (killed, survivor)]

    first = at_once(partial(delivered, number, url) for number, url in twice)
    wait_until(lambda: all(stage.dify.asked(redelivered(number)) for number in range(4)), TIMEOUT)
    killed.kill()
    stage.dify.holds_at = None
    again = at_once(partial(delivered, number, survivor.url) for number, _ in twice)
    ends = at_once(partial(poll_to_the_end, survivor.url, number, bubble) for number, bubble in enumerate(again[::2]))

    ids = [bubble.stream_id for bubble in first]
    assert ids[::2] == ids[1::2]
    assert [bubble.stream_id for bubble in again] == ids
    assert len(set(ids)) == 4
    records = [stage.record(redelivered(number), bubble) for number, bubble in enumerate(ends)]
    assert [(record.right, record.calls) for record in records] == [(True, 1)] * 4, list(map(str, records))


def redelivered(number: int) -> str:
    return f"重复的问题{number} [[slow]]"


def delivered(number: int, url: str) -> Bubble:
    """Deliver a user's message to a replica."""
    with wecom_user([url], f"again{number}") as person:
        return person.says(redelivered(number), f"message-{number}")


def poll_to_the_end(url: str, number: int, bubble: Bubble) -> Bubble:
    with wecom_user([url], f"again{number}") as person:
        person.sees_finish(bubble, TIMEOUT, every=0.3)
    return bubble


def test_6_answers_of_a_killed_replica_go_on_within_seconds(stage: Stage) -> None:
    """Invariant 6: after SIGKILL of the owner its answers are whole, without another call of the provider.

    One of them is not polled until it is complete: the sweep finds it.
    """
    talks = [begin(stage.replicas, stage.dify, "", f"killed{n}", f"第{n}件事怎么办？[[slow]]") for n in range(3)]
    at_once(talk.wait_text for talk in talks)
    stage.replicas.members[0].kill()
    stage.dify.holds_at = None
    *polled, unpolled = talks
    ends: list[Callable[[], object]] = [talk.wait_end for talk in polled]
    ends.append(partial(completed, stage.redis, unpolled))
    at_once(ends)

    records = [talk.record(stage.redis, stage.replicas) for talk in talks]
    assert [(r.right, r.calls, set(r.takeovers)) for r in records] == [(True, 1, {"takeover"})] * 3, records


def completed(redis: RedisServer, talk: Talk) -> None:
    """Wait until the answer is whole in Redis, and only then poll once."""
    wait_until(lambda: stored(redis, talk.bubble.stream_id).fields["status"] == "completed", TIMEOUT)
    talk.person.polls(talk.bubble)


@contextmanager
def failing_checks(replica: Replica, running: Callable[[], bool]) -> Iterator[list[str]]:
    """Request /healthz repeatedly; the list gets the failures that happen while answers run."""
    failures: list[str] = []
    over = threading.Event()

    def check() -> None:
        while not over.wait(0.1):
            try:
                answer = str(requests.get(f"{replica.url}/healthz", timeout=30).status_code)
            except requests.RequestException as exc:
                answer = type(exc).__name__
            if answer != "200" and running():
                failures.append(answer)

    thread = threading.Thread(target=check)
    thread.start()
    try:
        yield failures
    finally:
        over.set()
        thread.join()


def test_7_a_terminated_replica_serves_until_its_answers_are_whole(stage: Stage) -> None:
    """Invariant 7: after SIGTERM polls and /healthz are served, new questions get a sentence, no answer is handed over.

    A connection that is idle does not hold the process until the end of its drain.
    """
    leaving, staying = stage.replicas.members
    logged = len(leaving.log)
    running: Callable[[], bool] = lambda: stage.dify.open_streams > 0  # noqa: E731 - passed on twice
    questions = [f"最后的问题{number} [[slow]]" for number in range(6)]
    with requests.Session() as idle, ExitStack() as stack:
        assert idle.get(f"{leaving.url}/healthz", timeout=30).ok
        people = [stack.enter_context(wecom_user([leaving.url], f"last{n}")) for n in range(6)]
        bubbles = at_once(partial(person.says, text) for person, text in zip(people, questions, strict=True))
        wait_until(lambda: stage.dify.open_streams == 6, TIMEOUT)
        leaving.signal(signal.SIGTERM)
        with failing_checks(leaving, running) as failures:
            wait_until(lambda: requests.get(f"{leaving.url}/readyz", timeout=30).status_code == 503, TIMEOUT)
            late = stack.enter_context(wecom_user([leaving.url], "late")).says("还在吗？")
            stage.dify.holds_at = None
            at_once(partial(sees_end, *each, staying.url, running) for each in zip(people, bubbles, strict=True))
        code = leaving.process.wait(DRAIN - 5)

    records = [stage.record(text, bubble) for text, bubble in zip(questions, bubbles, strict=True)]
    assert [(r.right, r.calls) for r in records] == [(True, 1)] * 6, list(map(str, records))
    assert "handover" not in {kind for record in records for kind in record.takeovers}
    assert (late.finish, late.content, code, failures) == (True, ZH["draining"], 0, [])
    assert '"level": "ERROR"' not in leaving.log[logged:]


@pytest.mark.full
def test_7_a_reload_loses_no_answer_and_refuses_no_question(stage: Stage) -> None:
    """Invariant 7: on HUP the old worker finishes its answers while its successor takes new questions."""
    replica = stage.replicas.members[0]
    logged = len(replica.log)
    running: Callable[[], bool] = lambda: stage.dify.open_streams > 0  # noqa: E731 - passed on twice
    questions, old = [f"重载前的问题{number} [[slow]]" for number in range(6)], set(replica.workers)
    late: list[Bubble] = []
    with ExitStack() as stack:
        people = [stack.enter_context(wecom_user([replica.url], f"reload{n}")) for n in range(6)]
        bubbles = at_once(partial(person.says, text) for person, text in zip(people, questions, strict=True))
        wait_until(lambda: stage.dify.open_streams == 6, TIMEOUT)
        with failing_checks(replica, running) as failures:
            replica.signal(signal.SIGHUP)
            while len(late) < 10 or not set(replica.workers) - old:
                with wecom_user([replica.url], f"after{len(late)}") as person:
                    late.append(person.says("新问题"))
            stage.dify.holds_at = None
            at_once(partial(sees_end, *each, replica.url, running) for each in zip(people, bubbles, strict=True))
        wait_until(lambda: not old & set(replica.workers), TIMEOUT)
        ids = [bubble.stream_id for bubble in late]
        wait_until(lambda: {stored(stage.redis, each).fields["status"] for each in ids} == {"completed"}, TIMEOUT)

    records = [stage.record(text, bubble) for text, bubble in zip(questions, bubbles, strict=True)]
    assert [(r.right, r.calls) for r in records] == [(True, 1)] * 6, list(map(str, records))
    assert failures == []
    assert '"level": "ERROR"' not in replica.log[logged:]


def test_7_a_reload_with_wrong_settings_changes_nothing(stage: Stage) -> None:
    """Invariant 7: on HUP with a wrong setting both masters log one line; their workers finish and take questions.

    A worker that dies is replaced under the settings from before. A reload with right settings is then carried out.
    """
    members, folder = stage.replicas.members, stage.replicas.members[0].log_path.parent
    logged, old = [len(member.log) for member in members], [set(member.workers) for member in members]
    running: Callable[[], bool] = lambda: stage.dify.open_streams > 0  # noqa: E731 - passed on twice
    questions = [f"配置写错时的问题{number} [[slow]]" for number in range(4)]
    with ExitStack() as stack:
        people = [stack.enter_context(wecom_user([members[n % 2].url], f"wrong{n}")) for n in range(4)]
        bubbles = at_once(partial(person.says, text) for person, text in zip(people, questions, strict=True))
        wait_until(lambda: stage.dify.open_streams == 4, TIMEOUT)
        checks = [stack.enter_context(failing_checks(member, running)) for member in members]
        for line in UNACCEPTABLE:
            (folder / ".env").write_text(f"{line}\n")
            refused = [refusals(member) + 1 for member in members]
            for member in members:
                member.signal(signal.SIGHUP)
            for member, count in zip(members, refused, strict=True):
                wait_until(partial(has_refused, member, count), TIMEOUT)
        late = [stack.enter_context(wecom_user([member.url], "during")).says("还能问吗？") for member in members]
        stage.dify.holds_at = None
        at_once(partial(sees_end, *each, members[0].url, running) for each in zip(people, bubbles, strict=True))

    records = [stage.record(text, bubble) for text, bubble in zip(questions, bubbles, strict=True)]
    assert [(r.right, r.calls) for r in records] == [(True, 1)] * 4, list(map(str, records))
    assert {bubble.content for bubble in late}.isdisjoint({ZH["draining"]})
    wait_until(lambda: [set(member.workers) for member in members] == old, TIMEOUT)
    assert checks == [[], []]
    for member, start in zip(members, logged, strict=True):
        errors = [line for line in member.log[start:].splitlines() if '"level": "ERROR"' in line or "[ERROR]" in line]
        assert len(errors) == len(UNACCEPTABLE)
        assert all(reason in line for reason, line in zip(UNACCEPTABLE.values(), errors, strict=True))

    replica, (worker,) = members[0], old[0]
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: set(replica.workers) - {worker} and replica.ready, TIMEOUT)
    (folder / ".env").write_text("APP_NAME=reloaded\n")
    replica.signal(signal.SIGHUP)
    wait_until(lambda: requests.get(f"{replica.url}/healthz", timeout=30).json()["service"] == "reloaded", TIMEOUT)
    (folder / ".env").unlink()


def refusals(replica: Replica) -> int:
    return replica.log.count("not reloaded")


def has_refused(replica: Replica, count: int) -> bool:
    return refusals(replica) == count
