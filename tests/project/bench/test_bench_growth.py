"""The parts of growth: how rounds and spreads are calculated, and that prepared answers are like the product's own."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Iterator

import pytest

from bench.figures import Figure
from bench.load.generator import Outcome
from bench.load.live_streams import DELTA, prose
from bench.parts import growth_replicas
from bench.parts.growth import Costs, table
from bench.parts.growth_live import creation
from bench.parts.growth_replicas import Round
from bench.stage.stage import Turn, Usage
from services.redis.store import ScriptRunner, connect
from services.streams.store import StreamStore

pytestmark = pytest.mark.full

FIELDS = {"status": "processing", "owner": "somebody", "access": "a b", "lease": "1", "suspect": "1", "epoch": "7"}


@pytest.fixture
def runner(redis_url: str) -> Iterator[ScriptRunner]:
    with connect(redis_url, pool_size=1) as client:
        yield ScriptRunner(client)


def costs(*values: float) -> Costs:
    rounds = Costs()
    for value in values:
        rounds.add(cpu=value)
    return rounds


def test_a_spread_is_of_the_medians() -> None:
    """One disturbed round changes nothing; the spread is the largest median over the smallest."""
    steps = {"1k": costs(10, 10, 90), "2k": costs(12, 12, 12)}
    rows = {row.name: row for row in table("part", {"cpu": ("µs", "CPU")}, steps)}

    assert rows["part.1k.cpu"] == Figure("part.1k.cpu", (10, 10, 90), "µs", "CPU")
    assert rows["part.cpu.spread"].value == pytest.approx(1.2)
    assert rows["part.cpu.spread"].met is False


def test_a_round_is_the_25th_percentile_of_its_slices() -> None:
    """Slices that other load made dearer do not count while they are less than three quarters."""
    rounds = costs(7)

    rounds.end_round(costs(10, 30, 10, 31, 32))

    assert rounds["cpu"] == [7, 10]


def turn(polls: int, served: float, load: float) -> Turn:
    """Return a turn of one second, with CPU seconds of servers and load generator per core."""
    cores = len(os.sched_getaffinity(0))
    outcome = Outcome(delays=array("d", [0.001] * polls), seconds=1.0, cpu=load * cores)
    return Turn(outcome, Usage(1.0, workers=served * cores, redis=0.0, net=0.0))


class Measured:
    """The rounds of some replicas, as `growth_replicas.Servers` has them."""

    def __init__(self, *turns: Turn) -> None:
        rounds = {count: [Round([one])] for count, one in zip((1, 2, 4), turns, strict=True)}
        self.most = self.paced = rounds


def test_replicas_are_compared_with_the_whole_machine() -> None:
    """Two replicas on fully used cores add up, although they answer less than twice as much as one."""
    one, full = turn(1000, 0.6, 0.1), turn(1400, 0.9, 0.1)

    product, floor = Measured(one, full, full), Measured(one, one, one)
    figures = {figure.name: figure for figure in growth_replicas.figures(product, floor)}  # type: ignore[arg-type]

    # One takes 70 % of the machine, so all of it would answer 1000 / 0.7.
    assert figures["growth.replicas.2.adds_up"].value == pytest.approx(1400 / (1000 / 0.7))
    assert figures["growth.replicas.2.most"].value == 1400
    assert figures["growth.replicas.2.most_machine"].value == pytest.approx(100)
    assert figures["growth.replicas.efficiency"].value == pytest.approx((0.6 / 1000) / (0.9 / 1400))
    assert figures["growth.replicas.2.floor_adds_up"].value == pytest.approx(0.7)
    assert figures["growth.replicas.floor_efficiency"].value == 1.0


def test_prepared_answers_are_running_ones_of_the_product(runner: ScriptRunner) -> None:
    """Each shows its text and does not lapse; the lease and suspicion of the copied answer are not copied."""
    streams, ids = StreamStore(runner), ["a" * 32, "b" * 32]

    runner.run(creation(runner, FIELDS, ids))

    for stream in ids:
        seen = streams.read(stream)
        assert seen
        assert (seen.status, seen.text, seen.lapsed, seen.frame_over) == ("processing", prose(1024), False, False)
        assert (seen.epoch, seen.access, seen.size) == (1, "a b", 1024)
        assert seen.length == -(-len(prose(1024)) // DELTA)
        fields, _ = streams.load(stream)
        assert float(fields["lease"]) > time.time() + 1800
        assert "suspect" not in fields
    assert streams.lapsed() == []


def test_prepared_answers_are_in_the_indexes(runner: ScriptRunner, redis_url: str) -> None:
    """Each has a hash, a list and a text, and is in the queues of its person, its conversation and the sweep."""
    runner.run(creation(runner, FIELDS, ["a" * 32, "b" * 32]))

    with connect(redis_url, pool_size=1) as client:
        keys = list(client.scan_iter())
        running = sum(client.zcard(key) for key in keys if key.startswith("dify_streams:running:"))
    assert running == 2
    counted = [sum(part in key for key in keys) for part in ("dify_user:", ":turns", ":messages", ":text")]
    assert counted == [2, 2, 2, 2]
