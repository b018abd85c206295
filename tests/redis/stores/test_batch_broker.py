"""Lane messages over dramatiq on the product's own Redis client: fetched once, shared fairly, quiet in an outage."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from services.batches.broker import LaneMessages
from services.errors import StoreUnavailable
from services.redis.store import ScriptRunner, connect
from tests.support.servers.processes import RedisServer, free_port, wait_until


class Steps:
    """A worker's step: records each message's lane, and blocks until `go_on` is set."""

    def __init__(self, *, hold: bool = False) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.go_on = threading.Event()
        if not hold:
            self.go_on.set()

    def __call__(self, lane: int) -> None:
        self.begun.append(lane)
        self.go_on.wait(30.0)
        self.ended.append(lane)


@contextmanager
def working(runner: ScriptRunner, steps: Callable[[int], None], *, threads: int = 4) -> Iterator[LaneMessages]:
    """Run the workers of one process for the block."""
    messages = LaneMessages(runner, steps, threads=threads, poll=0.05)
    messages.start()
    try:
        yield messages
    finally:
        messages.leave()
        messages.stop(30.0)


@pytest.mark.every_redis
def test_a_message_runs_its_lane(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """On any Redis, a Cluster of three nodes included: all keys are in one slot, and none is left at the end."""
    steps = Steps()
    with working(runner, steps) as messages:
        for lane in (2, 0, 1):
            messages.send(lane)
        wait_until(lambda: len(steps.ended) == 3, timeout=30.0)
        # Only the worker's heartbeat stays.
        wait_until(lambda: redis_client.keys("{dramatiq}*") == ["{dramatiq}:__heartbeats__"], timeout=30.0)

    assert sorted(steps.begun) == [0, 1, 2]
    assert redis_client.keys("*") == []


def test_a_message_without_a_worker_waits(runner: ScriptRunner) -> None:
    """A process that only accepts tasks sends messages to the processes with workers."""
    sender = LaneMessages(runner, Steps(), threads=1)
    sender.send(3)
    sender.send(4)
    assert sender.waiting() == 2

    steps = Steps()
    with working(runner, steps):
        wait_until(lambda: sorted(steps.ended) == [3, 4], timeout=30.0)

    assert sender.waiting() == 0


def test_each_message_is_fetched_by_one_worker(runner: ScriptRunner) -> None:
    """Two processes that fetch at once get each message once between them."""
    one, other = Steps(), Steps()
    with working(runner, one) as messages, working(runner, other):
        for lane in range(30):
            messages.send(lane)
        wait_until(lambda: len(one.ended) + len(other.ended) >= 30, timeout=30.0)

    assert sorted(one.begun + other.begun) == list(range(30))


def test_a_process_fetches_only_its_share(runner: ScriptRunner) -> None:
    """Further messages are left to other processes until lanes of its own are done."""
    steps = Steps(hold=True)
    with working(runner, steps) as messages:
        # Before the first message: a fetch that has begun asks for the share of before.
        messages.share(2)
        messages.send(0)
        wait_until(lambda: steps.begun == [0], timeout=30.0)
        for lane in range(1, 6):
            messages.send(lane)
        wait_until(lambda: len(steps.begun) == 2, timeout=30.0)
        other = Steps()
        with working(runner, other):
            wait_until(lambda: len(other.ended) == 4, timeout=30.0)
        steps.go_on.set()

    assert len(steps.begun) == 2


def test_an_error_in_a_step_affects_only_its_message(runner: ScriptRunner, caplog: pytest.LogCaptureFixture) -> None:
    """The error is logged, and the worker continues."""
    done: list[int] = []

    def step(lane: int) -> None:
        if lane == 0:
            raise ValueError("broken")
        done.append(lane)

    with working(runner, step, threads=1) as messages:
        messages.send(0)
        messages.send(1)
        wait_until(lambda: done == [1], timeout=30.0)
        wait_until(lambda: messages.waiting() == 0, timeout=30.0)

    assert "ValueError: broken" in caplog.text


def test_a_leaving_process_fetches_no_more(runner: ScriptRunner) -> None:
    """The lane in progress is finished; a later message waits for another process."""
    steps = Steps(hold=True)
    with working(runner, steps, threads=2) as messages:
        messages.send(0)
        wait_until(lambda: steps.begun == [0], timeout=30.0)
        messages.leave()
        wait_until(lambda: not [each for each in threading.enumerate() if type(each).__name__ == "_ConsumerThread"])
        messages.send(1)
        steps.go_on.set()
        messages.stop(30.0)

        assert steps.ended == [0]
        assert messages.waiting() == 1


def test_an_outage_is_waited_through_quietly(caplog: pytest.LogCaptureFixture) -> None:
    """One log line of the product reports the outage; afterwards messages are fetched as before."""
    with RedisServer(aof=True) as server:
        client = connect(server.url(), pool_size=4)
        steps = Steps()
        with working(ScriptRunner(client), steps) as messages:
            messages.send(0)
            wait_until(lambda: steps.ended == [0], timeout=30.0)
            with caplog.at_level(logging.INFO):
                server.stop()
                wait_until(lambda: "redis is away" in caplog.text, timeout=30.0)
                with pytest.raises(StoreUnavailable):
                    messages.send(1)
                server.start()
            wait_until(lambda: _sent(messages, 2), timeout=30.0)
            wait_until(lambda: 2 in steps.ended, timeout=30.0)
        client.close()

    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert {record.name for record in warnings} == {"services.redis.outages"}
    assert [record.message for record in warnings].count("redis is away") == 1


def test_a_worker_may_start_before_redis(caplog: pytest.LogCaptureFixture) -> None:
    """It fetches messages as soon as Redis starts, and dramatiq logs nothing."""
    port = free_port()
    client = connect(f"redis://127.0.0.1:{port}/1", pool_size=4)
    steps = Steps()
    with working(ScriptRunner(client), steps) as messages:
        wait_until(lambda: "redis is away" in caplog.text, timeout=30.0)
        with RedisServer(port=port):
            wait_until(lambda: _sent(messages, 7), timeout=30.0)
            wait_until(lambda: steps.ended == [7], timeout=30.0)
            messages.leave()
            messages.stop(30.0)
    client.close()

    assert not [record for record in caplog.records if record.name.startswith("dramatiq")]


def _sent(messages: LaneMessages, lane: int) -> bool:
    try:
        messages.send(lane)
    except StoreUnavailable:
        return False
    return True
