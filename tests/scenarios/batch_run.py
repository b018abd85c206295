"""A batch through replicas that are lost and a Redis that restarts: `python -m tests.scenarios.batch_run --items 2000`.

Three replicas work on one task against a mock Dify that is slow and sometimes fails. A replica is killed when a third
of the items is done, Redis (AOF) is killed and restarted at two thirds, and another replica gets SIGTERM at five
sixths. Prints the figures; exits with status 1 if an item has no result, a wrong one, or was asked too often.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import requests

from demo.mocks.dify import faults as mock_faults
from demo.mocks.dify import plays
from demo.mocks.dify.scripts import DifyScript
from demo.mocks.dify.server import SCRIPTS, MockDify
from demo.mocks.dify.wire import Run, Step
from services.batches.records import Item
from services.batches.store import SqlBatchStore
from tests.support.replicas import Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import MariaServer, RedisServer, wait_until

#: Concurrent answers, over all replicas.
CONCURRENT = 20
#: Seconds between two deltas of an answer, of which there are seven.
PACE = 0.04
#: One of so many items is flaky: its first answer breaks off with an error.
FLAKY = 20
#: Base of the timeout in seconds; a tenth of a second is added for each item.
TIMEOUT = 120.0


def answer_to(question: str) -> str:
    return f"见{question[1:6]}条"


@dataclass
class Flaky:
    """The mock's script for items that fail the first time; counts the failures."""

    failures: int = 0
    _seen: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, run: Run) -> Iterator[Step]:
        with self._lock:
            first = run.query not in self._seen
            self._seen.add(run.query)
            self.failures += first
        yield from (mock_faults.error_after_text if first else plays.chatflow)(run)


@dataclass
class Report:
    """The figures of a run."""

    items: int
    seconds: float = 0.0
    #: Seconds of one answer of the provider, from which `ideal` is the time of all with every lane always busy.
    one: float = 0.0
    #: Seconds until the first item was done.
    first: float = 0.0
    peak: int = 0
    calls: int = 0
    failures: int = 0
    #: Answers that were running when the replica was killed.
    in_flight: int = 0
    takeovers: int = 0
    attempts: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def ideal(self) -> float:
        return self.one * (self.items + self.failures) / CONCURRENT

    @property
    def right(self) -> bool:
        asked = self.calls <= self.items + self.failures + self.in_flight
        return not self.wrong and asked and self.peak <= CONCURRENT

    def __str__(self) -> str:
        lines = [
            f"{self.items} items in {self.seconds:.1f} s; ideal {self.ideal:.1f} s ({self.one * 1000:.0f} ms each,"
            f" {CONCURRENT} at once); the first after {self.first:.1f} s",
            f"at most {self.peak} calls at once; {self.calls} calls for {self.items} items, {self.failures} counted"
            f" failures and {self.in_flight} in flight at the kill; {self.takeovers} streams taken over",
            f"items by attempts: {dict(sorted(self.attempts.items()))}; wrong: {self.wrong[:5] or 'none'}",
        ]
        return "\n".join(lines)


class Scene:
    """The servers and replicas of one run."""

    def __init__(self, stack: ExitStack, folder: Path, redis: RedisServer, sql: MariaServer, *, lanes: int) -> None:
        self.redis = redis
        self.flaky = Flaky()
        SCRIPTS["batch"] = DifyScript(plays.chatflow, "a short answer", answer=answer_to, text=answer_to)
        SCRIPTS["flaky"] = DifyScript(self.flaky, "an error at first", answer=answer_to, text=answer_to)
        self.dify = stack.enter_context(MockDify(delay=PACE, default="batch"))
        url = sql.fresh_database("batches")
        self.store = SqlBatchStore(url)
        stack.callback(self.store.close)
        mysql = {"MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(sql.port), "MYSQL_DATABASE": "batches"}
        limits = {"RATE_LIMIT_USER": "off", "RATE_LIMIT_IP": "off", "WEBSOCKET_AUTH": "none"}
        own = {"BATCH_MAX_CONCURRENT": str(lanes), "MYSQL_USER": "root", "REDIS_POOL_SIZE": "32", **mysql, **limits}
        env = settings_for(redis.url(), **dify_settings(self.dify.base_url), **own)
        self.replicas: list[Replica] = stack.enter_context(replicas(3, env, folder))

    def submits(self, texts: Sequence[str]) -> str:
        answer = requests.post(
            f"{self.replicas[0].url}/api/batch/tasks", json={"name": "run", "texts": list(texts)}, timeout=30
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["data"]["task_id"])

    def done(self, task_id: str, count: int, timeout: float) -> None:
        """Wait until `count` items are done."""

        def enough() -> bool:
            time.sleep(0.1)
            return self.store.get(task_id).done >= count

        wait_until(enough, timeout=timeout)

    def items(self, task_id: str) -> list[Item]:
        found: list[Item] = []
        while page := self.store.rows(task_id, len(found) - 1, 500):
            found += page
        return found


def texts_of(count: int) -> list[str]:
    return [f"第{n:05}条规定{'[[flaky]]' if n % FLAKY == 7 else ''}" for n in range(count)]


def run(scene: Scene, count: int, *, say: Callable[[str], None] = lambda _: None) -> Report:
    """Work a task of `count` items, with all the losses on the way; return the figures."""
    report, timeout, dify = Report(count, one=time_of_one(scene.dify)), TIMEOUT + count / 10, scene.dify
    dify.requests.clear()
    dify.peak_streams = 0
    texts = texts_of(count)
    began = time.monotonic()
    task_id = scene.submits(texts)
    scene.done(task_id, 1, timeout)
    report.first = time.monotonic() - began
    scene.done(task_id, count // 3, timeout)
    report.in_flight = dify.open_streams
    scene.replicas[1].kill()
    say(f"a replica was killed after {time.monotonic() - began:.1f} s")
    scene.done(task_id, 2 * count // 3, timeout)
    scene.redis.kill()
    scene.redis.start()
    say(f"redis was restarted after {time.monotonic() - began:.1f} s")
    scene.done(task_id, 5 * count // 6, timeout)
    scene.replicas[2].signal(signal.SIGTERM)
    scene.done(task_id, count, timeout)
    report.seconds = time.monotonic() - began
    report.peak, report.calls, report.failures = dify.peak_streams, len(dify.requests), scene.flaky.failures
    report.takeovers = sum(replica.log.count("stream taken over") for replica in scene.replicas)
    items = scene.items(task_id)
    report.attempts = Counter(item.attempts for item in items)
    report.wrong = list(faults(items, texts))
    return report


def time_of_one(dify: MockDify) -> float:
    """Return the seconds of one answer of the provider."""
    began = time.monotonic()
    body = {"query": "第00000条规定", "user": "u", "inputs": {}, "response_mode": "streaming"}
    requests.post(f"{dify.base_url}/v1/chat-messages", json=body, headers={"Authorization": "Bearer k"}, timeout=30)
    return time.monotonic() - began


def faults(items: Sequence[Item], texts: Sequence[str]) -> Iterator[str]:
    """Yield the errors in a task's results: each text must have one result, its own, in order."""
    if [item.index for item in items] != list(range(len(texts))):
        yield "the results' indexes are not those of the texts"
    for item, text in zip(items, texts, strict=False):
        if (item.text, item.status, item.content) != (text, "completed", answer_to(text)):
            yield f"{item.index}: {item.status} {item.error}"


def main() -> None:
    """Run the batch and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.batch_run", description=__doc__)
    parser.add_argument("--items", type=int, default=2000)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="laibao-")))
        redis, sql = stack.enter_context(RedisServer(aof=True)), stack.enter_context(MariaServer())
        report = run(Scene(stack, folder, redis, sql, lanes=CONCURRENT), options.items, say=print)
    print(report)
    sys.exit(not report.right)


if __name__ == "__main__":
    main()
