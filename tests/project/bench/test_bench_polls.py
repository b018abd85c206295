"""The benchmark's parts about polls and questions, once through in short: each row is there, each reply is right."""

from __future__ import annotations

import pytest

from bench import asking, polls
from bench.load.generator import Outcome
from bench.load.turns import Turn

pytestmark = pytest.mark.full

SIZED = ("floor", "product", "ratio", "floor_cpu", "cpu", "redis_cpu", "redis_net", "bytes")
POLLS = {f"polls.{name}.{size}" for name in SIZED for size in ("1k", "16k")}
POLLS |= {f"polls.{name}" for name in ("mean", "load_share", "p50", "p99", "rss")}
QUESTIONS = {f"questions.{pace}.{name}" for pace in (50, 100, 200) for name in ("p50", "p99", "polls")}
QUESTIONS |= {f"questions.{name}" for name in ("poll_cpu", "cpu", "polls", "redis_cpu", "redis_net")}


@pytest.mark.scenario
def test_polls_are_measured() -> None:
    """Floor and product serve the same polls with the right text, and the agreed rows come of it."""
    figures = {figure.name: figure for figure in polls.measure(0.03)}

    assert set(figures) == POLLS
    assert all(value > 0 for name in POLLS if "cpu" not in name for value in figures[name].rounds)
    # A reply of 16 KiB is in base64, and what Redis sent is in it.
    assert figures["polls.bytes.16k"].value > figures["polls.redis_net.16k"].value > 16 * 1024


@pytest.mark.scenario
def test_questions_are_measured() -> None:
    """Every question gets its first frame, and its whole answer in the end; the agreed rows come of it."""
    figures = {figure.name: figure for figure in asking.measure(0.05)}

    assert set(figures) == QUESTIONS
    assert figures["questions.cpu"].value > figures["questions.poll_cpu"].value > 0


def test_what_is_taken_at_rest_is_taken_off() -> None:
    """Of an idle second, a turn of three seconds has three."""
    rest = Turn(Outcome(), worker=0.02, redis=0.01, redis_bytes=200.0, seconds=2.0)
    turn = Turn(Outcome(), worker=1.0, redis=0.5, redis_bytes=1000.0, seconds=3.0)

    net = turn.without(rest)

    assert (net.worker, net.redis, net.redis_bytes) == pytest.approx((0.97, 0.485, 700.0))
