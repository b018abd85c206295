"""Redis is killed, emptied and stopped while three replicas answer: no stream of a living owner is taken over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import sleep

import pytest

from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble
from tests.scenarios.stage.chaos_fleet import Fleet, fleet
from tests.scenarios.stage.chaos_record import Record, records_of, table
from tests.scenarios.stage.people import TIMEOUT, ask, empty
from tests.support.replicas import dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

PEOPLE = 12
#: Seconds of STREAM_LEASE, which no busy machine lets lapse, and between two deltas of an answer, which has thirty.
LEASE, PACE = 10.0, 0.15
#: Limit in seconds of a callback's reply during outages of Redis, the longest of which takes longer.
CALLBACK = 10.0


@dataclass
class Stage:
    """Three replicas, their Redis, which keeps every acknowledged write, and their Dify."""

    redis: RedisServer
    dify: MockDify
    fleet: Fleet

    def talk(self, word: str, happens: Callable[[RedisServer], None]) -> list[Bubble]:
        """Let all users ask, and call `happens` once all answers grow; return the finished bubbles."""
        urls = [replica.url for replica in self.fleet.members]
        self.dify.requests.clear()
        self.dify.holds_at = 8
        with ThreadPoolExecutor(PEOPLE) as pool:
            asking = [
                pool.submit(partial(ask, urls[n % 3 :] + urls[: n % 3], f"{word}-{n}", question(word, n), 0.2))
                for n in range(PEOPLE)
            ]
            wait_until(lambda: self.dify.open_streams == PEOPLE and self._all_answering(), TIMEOUT)
            self.dify.holds_at = 16
            happens(self.redis)
            self.dify.holds_at = None
            return [future.result(TIMEOUT) for future in asking]

    def _all_answering(self) -> bool:
        with self.redis.client() as client:
            return len(list(client.scan_iter("{dify_stream:*}:messages"))) >= PEOPLE

    def records(self, word: str, bubbles: list[Bubble]) -> list[Record]:
        """Return the records of the questions: the streams end in Redis shortly after their users see the end."""
        asked = {question(word, n): bubble for n, bubble in enumerate(bubbles)}
        return records_of(asked, self.fleet, self.redis, self.dify)


def question(word: str, number: int) -> str:
    return f"{word} 的第 {number} 个问题"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("replicas")
    with RedisServer(aof=True) as redis, MockDify(delay=PACE, limit=120.0) as dify:
        env = settings_for(redis.url(), **dify_settings(dify.base_url), STREAM_LEASE=f"{LEASE:g}")
        with fleet(3, env, folder) as replicas:
            yield Stage(redis, dify, replicas)


@pytest.fixture(autouse=True)
def _empty(stage: Stage) -> None:
    """Remove the previous test's keys."""
    empty(stage.redis)


def killed(redis: RedisServer) -> None:
    redis.kill()
    redis.start()


def emptied(redis: RedisServer) -> None:
    redis.kill()
    for path in (redis.directory / "appendonlydir").iterdir():
        path.unlink()
    redis.start()


def frozen(redis: RedisServer, *, seconds: float) -> None:
    redis.pause()
    sleep(seconds)
    redis.resume()


FAULTS: dict[str, Callable[[RedisServer], None]] = {
    "killed": killed,
    "emptied": emptied,
    "frozen-5": partial(frozen, seconds=5.0),
    "frozen-15": partial(frozen, seconds=1.5 * LEASE),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage_of_redis_costs_no_answer_and_no_owner(
    stage: Stage, fault: str, record_property: Callable[[str, object], None]
) -> None:
    """Every answer is whole, byte for byte, asked for once and written by its first owner."""
    bubbles = stage.talk(fault, FAULTS[fault])

    records = stage.records(fault, bubbles)
    slowest = max(frame.ms for bubble in bubbles for frame in bubble.frames) / 1000
    print(f"\n{table(f'Redis {fault}', {'answers': records})}\nslowest callback {slowest:.2f} s")
    record_property("stall_seconds", max(record.stall for record in records))
    record_property("slowest_callback_seconds", slowest)
    assert [str(record) for record in records if not record.right] == []
    assert {(record.calls, tuple(record.takeovers)) for record in records} == {(1, ())}
    assert slowest < CALLBACK
    anew = {line["stream_id"] for line in stage.fleet.logged("stream written anew")}
    assert ({bubble.stream_id for bubble in bubbles} <= anew) == (fault == "emptied")
