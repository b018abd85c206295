"""Late answers on real replicas, some of which are killed: each reply address gets one message at most."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble, CallbackFailed, ResponseServer, RuleBroken
from services.streams.store import stream_keys
from tests.scenarios.stage.chaos_fleet import Fleet, fleet
from tests.scenarios.stage.killer import Killer
from tests.scenarios.stage.people import TIMEOUT, stored
from tests.scenarios.stage.whole_bot import is_whole
from tests.support.replicas import ADMIN_TOKEN, dify_settings, settings_for
from tests.support.servers.processes import RedisServer, free_port, wait_until

pytestmark = pytest.mark.scenario

ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
LEASE = 3.0
POLL = 0.4
#: Shrinks of a bubble's text that are no errors here: other scenarios count them.
SHRINKS = 20
#: `delivered` of answers whose owner was killed between the claim and the stored outcome.
CUT_OFF = ("claimed", "lost")


class Numbers(Iterator[int]):
    """The numbers of the questions, for several threads: `least`, and more while `more()` is true."""

    def __init__(self, least: int, more: Callable[[], bool] = lambda: False) -> None:
        self._numbers = itertools.count()
        self._least = least
        self._more = more

    def __next__(self) -> int:
        number = next(self._numbers)
        if number >= self._least and not self._more():
            raise StopIteration
        return number


@dataclass
class Stage:
    """Replicas whose frames end long before the answers, and WeCom's side of their late messages."""

    redis: RedisServer
    dify: MockDify
    responses: ResponseServer
    replicas: Fleet
    #: The bubble of each question.
    asked: dict[str, Bubble] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def converse(self, number: int, questions: Iterator[int]) -> None:
        """Ask one question after the other, each when the answer before it has ended."""
        person = self.replicas.person(f"late{number}", at=number, responses=self.responses)
        for turn in questions:
            question = f"第 {turn} 个要等很久的问题 [[chatflow]]"
            try:
                self.asked[question] = bubble = person.says(question)
                person.sees_finish(bubble, TIMEOUT, POLL, replacements=SHRINKS)
                # Its owner may be killed again and again.
                wait_until(lambda: self.fields(bubble)["status"] != "processing", 3 * TIMEOUT)  # noqa: B023 - called here
            except (CallbackFailed, RuleBroken, TimeoutError) as exc:
                self.broken.append(f"{question}: {exc}")

    def fields(self, bubble: Bubble) -> dict[str, str]:
        return dict(stored(self.redis, bubble.stream_id).fields)

    def delivered(self, bubble: Bubble) -> str:
        """Return the state of the late message, without a claim's details."""
        return self.fields(bubble).get("delivered", "").partition(" ")[0]

    def gave_up(self, bubble: Bubble) -> bool:
        """Return whether the answer ended with the sentence for one that lost too many owners, and lost two or more."""
        fields = self.fields(bubble)
        ended = (fields["status"], fields.get("error_code"))
        return ended == ("error", "interrupted") and int(fields.get("takeovers", "0")) >= 2

    def wait_delivered(self) -> None:
        """Wait until every living owner has stored its outcome: what then stays claimed belongs to killed ones."""
        end = time.monotonic() + 25.0
        while [one for one in self.asked.values() if self.delivered(one) == "claimed"] and time.monotonic() < end:
            time.sleep(POLL)


@contextmanager
def stage(count: int, delay: float, frame: float, folder: Path) -> Iterator[Stage]:
    with (
        RedisServer(aof=True) as redis,
        MockDify(delay=delay, limit=120.0, after_disconnect="runs on") as dify,
        ResponseServer() as responses,
    ):
        changes = {"STREAM_LEASE": f"{LEASE:g}", "WECHAT_ANSWER_SECONDS": f"{frame:g}"}
        env = settings_for(redis.url(), **dify_settings(dify.base_url), **changes, WECHAT_RESPONSE_HOSTS="127.0.0.1")
        with fleet(count, env, folder) as replicas:
            yield Stage(redis, dify, responses, replicas)


def crowd(stage: Stage, people: int, questions: Iterator[int]) -> list[threading.Thread]:
    threads = [threading.Thread(target=stage.converse, args=(n, questions), daemon=True) for n in range(people)]
    for thread in threads:
        thread.start()
    return threads


def verdicts(stage: Stage) -> Counter[str]:
    """Count the answers: whole, cut off (the owner was killed between claim and outcome), or what is wrong."""
    counted: Counter[str] = Counter()
    for question, bubble in stage.asked.items():
        posts, state = stage.responses.of(bubble.msgid), stage.delivered(bubble)
        if len(posts) > 1:
            counted["sent twice"] += 1
        elif stage.gave_up(bubble) and (posts or state in CUT_OFF):
            counted["interrupted"] += 1
        elif posts and not is_whole(stage.dify.expected_answer(question), bubble, posts[0]):
            print(f"not whole: {question}: shown {bubble.content[-200:]!r}, late {posts[0].content!r}")
            counted["not whole"] += 1
        elif state in CUT_OFF:
            counted["cut off, sent" if posts else "cut off, not sent"] += 1
        else:
            counted["whole" if posts else f"not sent: {state}"] += 1
    return counted


def test_late_answers_of_two_replicas_arrive_whole(tmp_path: Path) -> None:
    """Twelve answers outlast their frames: each is sent once, and frame and message together are the answer."""
    with stage(2, delay=0.03, frame=1.0, folder=tmp_path) as here:
        here.dify.holds_at = 5
        threads = crowd(here, 12, Numbers(12))
        wait_until(lambda: len(here.asked) == 12 and all(bubble.finish for bubble in here.asked.values()), TIMEOUT)
        here.dify.holds_at = None
        for thread in threads:
            thread.join()
        here.wait_delivered()
        counted = verdicts(here)
        lines = here.replicas.logged("late answer")

    assert (here.broken, here.responses.broken) == ([], [])
    assert counted == {"whole": 12}
    assert Counter(line["outcome"] for line in lines) == {"sent": 12}
    assert not [line for line in lines if "response_code" in str(line)]


@pytest.mark.full
@pytest.mark.timeout(400)
def test_200_late_answers_over_20_kills_are_sent_once(tmp_path: Path) -> None:
    """No address gets two messages. Each answer is sent whole, unless its owner was killed while it was sending.

    WeCom's replies are slow, so that kills meet owners between claim and outcome.
    """
    dice = random.Random(14)
    with stage(3, delay=0.2, frame=2.0, folder=tmp_path) as here:
        here.responses.before_reply = lambda post: time.sleep(dice.uniform(0.0, 1.5))
        with Killer(here.replicas, every=3.5, most=20) as killer:
            threads = crowd(here, 24, Numbers(200, lambda: killer.kills < 20))
            for thread in threads:
                thread.join()
        here.wait_delivered()
        counted = verdicts(here)

    print(f"{len(here.asked)} answers, {killer.kills} kills: {dict(counted)}")
    assert (here.broken, here.responses.broken) == ([], [])
    assert killer.kills == 20
    assert len(here.asked) >= 200
    assert set(counted) <= {"whole", "cut off, not sent", "cut off, sent", "interrupted"}
    # An answer that lost several owners is given up: takeovers, and how often the provider is asked, are bounded.
    assert counted["interrupted"] <= 4
    # A kill cuts off the messages that one replica is sending; most kills meet few of them.
    assert counted["whole"] > len(here.asked) / 2


def test_an_owner_killed_between_claim_and_post_sends_nothing_again(tmp_path: Path) -> None:
    """WeCom cannot be reached when the answer ends, and then the owner is killed: no other replica sends the message.

    It is counted and logged once as lost.
    """
    port = free_port()
    with stage(2, delay=0.05, frame=1.0, folder=tmp_path) as here:
        here.dify.holds_at = 5
        here.responses.url_for = lambda code: f"http://127.0.0.1:{port}/cgi-bin/aibot/response?response_code={code}"  # type: ignore[method-assign]
        owner, survivor = here.replicas.members
        person = here.replicas.person("unlucky", at=0, responses=here.responses)
        bubble = person.says("要等很久的问题 [[chatflow]]")
        person.sees_finish(bubble, TIMEOUT, POLL)
        here.dify.holds_at = None
        wait_until(lambda: here.delivered(bubble) == "claimed", TIMEOUT)
        owner.kill()
        with ResponseServer(port) as later:
            make_claim_old(here.redis, bubble)
            wait_until(lambda: here.delivered(bubble) == "lost", TIMEOUT)
            wait_until(lambda: not indexed(here.redis, bubble), TIMEOUT)
            lines = here.replicas.logged("late answer lost")

            def counted() -> bool:
                metrics = requests.get(f"{survivor.url}/metrics", headers=ADMIN, timeout=30).text
                return 'wechatlaibao_late_answers_total{outcome="lost"} 1.0' in metrics

            # A page of metrics may be a second old.
            wait_until(counted)

    assert later.posts == []
    assert [line["stream_id"] for line in lines] == [bubble.stream_id]


def make_claim_old(redis: RedisServer, bubble: Bubble) -> None:
    """Let a claim look as if its owner had got it an hour ago."""
    key = stream_keys(bubble.stream_id).hash
    with redis.client() as client:
        word, since, *rest = str(client.hget(key, "delivered")).split(" ")
        client.hset(key, "delivered", " ".join([word, f"{float(since) - 3600:.3f}", *rest]))


def indexed(redis: RedisServer, bubble: Bubble) -> bool:
    """Return whether the index of running streams has the bubble's stream."""
    with redis.client() as client:
        shards = [str(key) for key in client.scan_iter("dify_streams:running:*")]
        return any(client.zscore(shard, bubble.stream_id) is not None for shard in shards)
