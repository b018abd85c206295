"""`bench.growth`: what is compared, how flat is worked out, and that prepared answers are the product's own."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator

import pytest

from bench import growth
from bench.figures import Figure
from bench.growing import length as growth_length
from bench.growing import live as growth_live
from bench.growing import replicas as growth_replicas
from bench.growing.live import Shelf
from bench.growing.meter import Said, settle, table
from bench.growing.replicas import Asked, Round, Slice
from bench.load.live_streams import prose
from services.redis.store import ScriptRunner, connect
from services.streams.store import StreamStore

pytestmark = pytest.mark.full

COSTS = {"cpu": ("µs", "CPU")}
FIELDS = {"status": "processing", "owner": "somebody", "access": "a b", "lease": "1", "suspect": "1", "epoch": "7"}


@pytest.fixture
def runner(redis_url: str) -> Iterator[ScriptRunner]:
    with connect(redis_url, pool_size=1) as client:
        yield ScriptRunner(client)


def said(*values: float) -> Said:
    return defaultdict(list, {"cpu": list(values)})


def test_a_row_is_as_flat_as_its_medians() -> None:
    """One disturbed round changes nothing; the largest median by the smallest is the spread."""
    rows = {row.name: row for row in table("part", COSTS, {"1k": said(10, 10, 90), "2k": said(12, 12, 12)})}

    assert rows["part.1k.cpu"] == Figure("part.1k.cpu", (10, 10, 90), "µs", "CPU")
    assert rows["part.cpu.spread"].value == pytest.approx(1.2)
    assert rows["part.cpu.spread"].met is False


def test_a_round_is_what_its_quiet_slices_cost() -> None:
    """Of slices most of which a neighbour made dearer, the others count."""
    rounds = said(7)

    settle(rounds, said(10, 30, 10, 31, 32))

    assert rounds["cpu"] == [7, 10]


def test_replicas_are_measured_by_the_machine_once_it_is_full() -> None:
    """Two that answer what all cores have room for add up, though it is less than twice one."""
    cores = os.sched_getaffinity(0)
    one = Slice(polls=1000, seconds=1.0, served=0.6 * len(cores), load=0.1 * len(cores))
    full = Slice(polls=1400, seconds=1.0, served=0.9 * len(cores), load=0.1 * len(cores))
    rounds = {1: [Round([one])], 2: [Round([full])], 4: [Round([full])]}
    floor = {1: [Round([one])], 2: [Round([one])], 4: [Round([one])]}

    figures = {figure.name: figure for figure in growth_replicas._figures(Asked(rounds, rounds), Asked(floor, floor))}

    # One takes 70 % of the machine, so all of it would answer 1000 / 0.7.
    assert figures["growth.replicas.2.adds_up"].value == pytest.approx(1400 / (1000 / 0.7))
    assert figures["growth.replicas.2.most"].value == 1400
    assert figures["growth.replicas.2.most_machine"].value == pytest.approx(100)
    assert figures["growth.replicas.efficiency"].value == pytest.approx((0.6 / 1000) / (0.9 / 1400))
    assert figures["growth.replicas.2.floor_adds_up"].value == pytest.approx(0.7)
    assert figures["growth.replicas.floor_efficiency"].value == 1.0


def test_prepared_answers_are_running_ones_of_the_product(runner: ScriptRunner) -> None:
    """Each shows its text and lapses in no run; what Redis keeps of the one they are made after is not theirs."""
    streams, ids = StreamStore(runner), ["a" * 32, "b" * 32]

    runner.run(Shelf(runner, FIELDS).calls(ids))

    for stream in ids:
        seen = streams.read(stream)
        assert seen
        assert (seen.status, seen.text, seen.lapsed, seen.frame_over) == ("processing", prose(1024), False, False)
        assert (seen.epoch, seen.access, seen.size) == (1, "a b", 1024)
        assert seen.length == -(-len(prose(1024)) // growth_live.DELTA)
        fields, _ = streams.load(stream)
        assert float(fields["lease"]) > time.time() + 1800
        assert "suspect" not in fields
    assert streams.lapsed() == []


def test_prepared_answers_stand_in_the_indexes(runner: ScriptRunner, redis_url: str) -> None:
    """A live answer is a hash, a list and a text, and has its place with its person, its conversation and the sweep."""
    runner.run(Shelf(runner, FIELDS).calls(["a" * 32, "b" * 32]))

    with connect(redis_url, pool_size=1) as client:
        keys = list(client.scan_iter())
        running = sum(client.zcard(key) for key in keys if key.startswith("dify_streams:running:"))
    assert running == 2
    counted = [sum(part in key for key in keys) for part in ("dify_user:", ":turns", ":messages", ":text")]
    assert counted == [2, 2, 2, 2]


def names_of(part: str, steps: Iterable[str], costs: Iterable[str]) -> set[str]:
    """Return the names that sizing reads: each step's costs, and each cost's spread."""
    spreads = {f"growth.{part}.{cost}.spread" for cost in costs}
    return spreads | {f"growth.{part}.{step}.{cost}" for step in steps for cost in costs}


@pytest.mark.scenario
@pytest.mark.timeout(240)
def test_each_length_has_its_costs_and_each_cost_its_spread() -> None:
    """The part is found by its name, and nothing costs nothing."""
    figures = list(growth.measure(0.02, ["length"]))

    assert {figure.name for figure in figures} == names_of("length", growth_length.LENGTHS, growth_length.COSTS)
    assert all(figure.value > 0 for figure in figures)


@pytest.mark.scenario
@pytest.mark.timeout(240)
def test_each_number_of_live_answers_has_its_costs_and_each_cost_its_spread() -> None:
    """Shown with two of the three numbers."""
    counts = dict(list(growth_live.COUNTS.items())[:2])

    figures = list(growth_live.measure(0.02, counts))

    assert {figure.name for figure in figures} == names_of("live", counts, growth_live.COSTS)
    assert all(figure.value > 0 for figure in figures)


@pytest.mark.scenario
@pytest.mark.timeout(240)
def test_replicas_are_polled_at_a_pace_and_as_fast_as_they_answer() -> None:
    """Every number of them has its rows, and answered something; shown with one and two."""
    figures = {figure.name: figure for figure in growth_replicas.measure(0.05, (1, 2))}

    names = {f"{count}.{what}" for count in (1, 2) for what in ("cpu", "polls", "machine", "most", "most_machine")}
    names |= {"2.adds_up", "efficiency", "2.floor_adds_up", "floor_efficiency"}
    assert set(figures) == {f"growth.replicas.{name}" for name in names}
    assert all(figure.value > 0 for figure in figures.values())
