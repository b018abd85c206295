"""Replicas are replaced under load with the Kubernetes manifest's values: no question is lost or rejected."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble, Callback, MediaStore, ResponseServer, WeComUser
from tests.scenarios.stage.chaos_fleet import Fleet, Service, fleet
from tests.scenarios.stage.chaos_record import Record, records_of, table
from tests.scenarios.stage.people import TIMEOUT, stored
from tests.scenarios.stage.whole_bot import WholeBot
from tests.support.replicas import AES_KEY, ROOT, TOKEN, Replica, dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

PEOPLE = 12
#: Seconds until clients learn that a pod is terminating; preStop must be longer.
ENDPOINTS_SECONDS = 1.0
#: STREAM_LEASE in seconds.
LEASE = 3.0

#: Settings that switch on what a bot can do; the frames of the bot `late` end before its slow answers.
EVERYTHING = {
    "STREAM_LEASE": f"{LEASE:g}",
    "WECHAT_BOTS": json.dumps(
        {"late": {"WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": AES_KEY, "WECHAT_ANSWER_SECONDS": "2"}}
    ),
    "WECHAT_RESPONSE_HOSTS": "127.0.0.1",
    "MEDIA_HOSTS": "127.0.0.1",
    "WECHAT_PROGRESS": "true",
    "WECHAT_SUGGESTIONS": "true",
}

Property = Callable[[str, object], None]


class Strict(Service):
    """Callbacks to a fleet's members in turn, without retries: a callback without a reply is an error."""

    def post(self, callback: Callback) -> dict[str, Any] | None:
        return self._next().post(callback)


def strict(replicas: Fleet, person: WeComUser, at: int = 0, bot: str = "") -> WeComUser:
    """Return a person whose callbacks are sent once."""
    person.wire = Strict(replicas, at, f"/wechat/callback/{bot}" if bot else "/wechat/callback")
    return person


@contextmanager
def whole_bot(replicas: Fleet, dify: MockDify) -> Iterator[WholeBot]:
    """Give people who use all of the bot, and WeCom's side for them."""
    with ResponseServer() as responses, MediaStore() as store:

        def person(name: str, bot: str) -> WeComUser:
            return strict(replicas, replicas.person(name, bot=bot, responses=responses, store=store), bot=bot)

        yield WholeBot(person, dify, responses)
        assert (responses.broken, store.broken) == ([], [])


class Load:
    """Users who ask one question after the other until the end of the block, with long or short answers."""

    def __init__(self, replicas: Fleet, *scripts: str, strict: bool = True) -> None:
        self._replicas = replicas
        self._scripts = scripts
        self._strict = strict
        self._over = threading.Event()
        #: The bubble of each question.
        self.asked: dict[str, Bubble] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask during the block, then wait for the last answers.

        Raises: the first error of a user's conversation.
        """
        with ThreadPoolExecutor(PEOPLE) as pool:
            asking = [pool.submit(self._ask, number) for number in range(PEOPLE)]
            try:
                yield
            finally:
                self._over.set()
            for future in asking:
                future.result(2 * TIMEOUT)

    def all_answering(self, redis: RedisServer) -> bool:
        """Return whether all users have asked, and their first answers have begun."""
        asked = list(self.asked.values())[:PEOPLE]
        return len(asked) == PEOPLE and all(stored(redis, bubble.stream_id).text for bubble in asked)

    def _person(self, number: int) -> WeComUser:
        person = self._replicas.person(f"user{number}", at=number)
        if self._strict:
            strict(self._replicas, person, number)
        return person

    def _ask(self, number: int) -> None:
        with self._person(number) as person:
            for turn in range(1000):
                question = f"{number} 号的第 {turn} 个问题 [[{self._scripts[number % len(self._scripts)]}]]"
                self.asked[question] = bubble = person.says(question)
                person.sees_finish(bubble, TIMEOUT, every=0.4)
                if self._over.is_set():
                    return


def assert_nothing_lost(records: Sequence[Record], record_property: Property, title: str) -> None:
    """Check that every answer is whole and was asked for once; print the table."""
    print(f"\n{table(title, {'answers': records})}")
    record_property("stall_seconds", max(record.stall for record in records))
    assert [str(record) for record in records if not record.right] == []
    assert {record.calls for record in records} == {1}


class Manifest:
    """The values of `k8s/base` that govern a pod's termination, in seconds."""

    def __init__(self) -> None:
        manifests = yaml.safe_load_all((ROOT / "k8s/base/deployment.yaml").read_text("utf-8"))
        (manifest,) = (manifest for manifest in manifests if manifest["kind"] == "Deployment")
        recipe = yaml.safe_load((ROOT / "k8s/base/kustomization.yaml").read_text("utf-8"))
        pod = manifest["spec"]["template"]["spec"]
        command = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert command[0] == "sleep"
        self.pre_stop = float(command[1])
        self.grace = float(pod["terminationGracePeriodSeconds"])
        self.replicas = int(manifest["spec"]["replicas"])
        self.update = manifest["spec"]["strategy"]["rollingUpdate"]
        settings = dict(literal.split("=", 1) for literal in recipe["configMapGenerator"][0]["literals"])
        self.drain = settings["DRAIN_SECONDS"]

    def leave(self, replicas: Fleet, old: Replica) -> float:
        """Terminate a pod as the kubelet does; return the seconds from SIGTERM to its end."""
        time.sleep(ENDPOINTS_SECONDS)
        replicas.members = [replica for replica in replicas.members if replica is not old]
        time.sleep(self.pre_stop - ENDPOINTS_SECONDS)
        old.signal(signal.SIGTERM)
        signalled = time.monotonic()
        assert old.process.wait(self.grace - self.pre_stop) == 0
        return time.monotonic() - signalled


def test_a_rolling_update_loses_nothing(tmp_path: Path, record_property: Property) -> None:
    """Every question asked meanwhile is answered whole; none is rejected, asked twice or handed over.

    Late answers, photos, forms and ratings reach their parties once, and pictures of answers are shown.

    As in Kubernetes, a new pod is ready before an old one is deleted, and the old one's end is not waited for. Without
    minReadySeconds it all happens faster than in production. Half of the answers take longer than preStop.
    """
    manifest = Manifest()
    assert manifest.update == {"maxUnavailable": 0, "maxSurge": 1}
    with RedisServer() as redis, MockDify(delay=0.02, slow=manifest.pre_stop / 20) as dify:
        env = settings_for(redis.url(), **dify_settings(dify.base_url), **EVERYTHING, DRAIN_SECONDS=manifest.drain)
        with (
            fleet(manifest.replicas, env, tmp_path) as replicas,
            whole_bot(replicas, dify) as everything,
            ThreadPoolExecutor() as kubelet,
        ):
            load = Load(replicas, "slow", "chat")
            leaving: list[Future[float]] = []
            with load.running(), everything.running():
                wait_until(lambda: load.all_answering(redis), TIMEOUT)
                for old in list(replicas.members):
                    replicas.start(1)
                    leaving.append(kubelet.submit(manifest.leave, replicas, old))
                took = [future.result(manifest.grace) for future in leaving]
            records = records_of(load.asked, replicas, redis, dify)
            wrong = everything.wrong()

    print(f"\nuses {everything.uses}")
    assert wrong == {}
    assert all(everything.uses.values())
    print(f"\nended {', '.join(f'{seconds:.1f}' for seconds in took)} s after SIGTERM")
    assert_nothing_lost(records, record_property, "rolling update")
    assert {tuple(record.takeovers) for record in records} == {()}
    assert len(records) > PEOPLE


def test_answers_beyond_a_short_drain_are_handed_over(tmp_path: Path, record_property: Property) -> None:
    """Answers longer than DRAIN_SECONDS are handed over to the other replica, without another call of the provider.

    So do late answers, photos, forms and ratings.
    """
    with RedisServer() as redis, MockDify(slow=0.3) as dify:
        env = settings_for(redis.url(), **dify_settings(dify.base_url), **EVERYTHING, DRAIN_SECONDS="2")
        with fleet(2, env, tmp_path) as replicas, whole_bot(replicas, dify) as everything:
            load = Load(replicas, "slow")
            with load.running(), everything.running():
                wait_until(lambda: load.all_answering(redis), TIMEOUT)
                old = replicas.members[0]
                replicas.members = replicas.members[1:]
                old.signal(signal.SIGTERM)
                assert old.process.wait(TIMEOUT) == 0
            records = records_of(load.asked, replicas, redis, dify)
            wrong = everything.wrong()

    assert wrong == {}
    assert_nothing_lost(records, record_property, "short drain")
    assert Counter(kind for record in records for kind in record.takeovers) == {"handover": PEOPLE // 2}


def producing_worker(redis: RedisServer) -> int:
    """Return the pid of a worker that is producing an answer, from the owner's name; 0 if there is none."""
    with redis.client() as client:
        for key in client.keys("dify_stream:*"):
            status, owner = client.hmget(key, "status", "owner")
            if status == "processing":
                return int(str(owner).split(":")[1])
    return 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["terminated", "killed"])
def test_a_worker_that_ends_costs_no_answer(tmp_path: Path, record_property: Property, how: signal.Signals) -> None:
    """After SIGTERM a worker finishes its answers and its sibling takes new questions; after SIGKILL others take over.

    The arbiter starts a new worker in its place.
    """
    with RedisServer() as redis, MockDify(delay=0.02, slow=0.12) as dify:
        env = settings_for(redis.url(), **dify_settings(dify.base_url), STREAM_LEASE=f"{LEASE:g}", WORKERS="2")
        with fleet(1, env, tmp_path) as replicas:
            replica = replicas.members[0]
            wait_until(lambda: len(replica.workers) == 2, TIMEOUT)
            # A killed worker's connections break, and WeCom delivers the callback again.
            scripts = {signal.SIGTERM: ("slow", "chat"), signal.SIGKILL: ("slow",)}[how]
            load = Load(replicas, *scripts, strict=how is signal.SIGTERM)
            with load.running():
                wait_until(lambda: load.all_answering(redis), TIMEOUT)
                # Kill a worker that is in the middle of an answer: the other may be between two.
                old = wait_until(lambda: producing_worker(redis), TIMEOUT)
                os.kill(old, how)
                wait_until(lambda: old not in replica.workers and len(replica.workers) == 2, TIMEOUT)
            records = records_of(load.asked, replicas, redis, dify)

    assert_nothing_lost(records, record_property, f"worker ended by {how.name}")
    kinds = {kind for record in records for kind in record.takeovers}
    assert kinds == (set() if how is signal.SIGTERM else {"takeover"})
