"""Waits that end: the budget of a thread, and questions to what may hang."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from services.redis.routes import FALLBACK_TIMEOUT, MOMENT, Lookup, first_answers, left, within
from tests.support.servers.processes import wait_until

T = TypeVar("T")


class Oracle:
    """Answers with numbers that count up; hangs while it is told to, and fails with what it is given."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.error: Exception | None = None
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        self.free.wait(60.0)
        if self.error:
            raise self.error
        return number


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    oracle = Oracle()
    yield oracle
    oracle.free.set()


def seconds_of(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_a_budget_bounds_each_wait_in_it() -> None:
    """Outside there is none; inside, a wait gets what is left of the whole, and at last next to nothing."""
    assert left(5.0) == 5.0
    with within(60.0):
        assert left(0.01) == 0.01
        assert 1.0 < left(100.0) <= 60.0
    with within(0.05):
        wait_until(lambda: left(5.0) == MOMENT)
    assert left(5.0) == 5.0


def test_a_budget_inside_another_never_makes_it_longer() -> None:
    """The outer one's end counts, and is as it was afterwards."""
    with within(10.0):
        with within(100.0):
            assert left(50.0) <= 10.0
        with within(1.0):
            assert left(50.0) <= 1.0
        assert 1.0 < left(50.0) <= 10.0


def test_a_budget_is_a_threads_own() -> None:
    """Another thread waits as long as it is told."""
    waits: list[float] = []
    with within(0.1):
        thread = threading.Thread(target=lambda: waits.append(left(5.0)))
        thread.start()
        thread.join(60.0)

    assert waits == [5.0]


def test_an_answer_is_new_each_time(oracle: Oracle) -> None:
    """Nothing is remembered where asking works."""
    lookup = Lookup(oracle, name="oracle")

    assert [lookup.get(30.0), lookup.get(30.0)] == [1, 2]


def test_however_many_want_it_one_asks(oracle: Oracle) -> None:
    """Those who come while it is asked get the same answer."""
    lookup = Lookup(oracle, name="oracle")
    oracle.free.clear()
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(lookup.get(60.0)), daemon=True) for _ in range(20)]

    for thread in threads:
        thread.start()
    wait_until(lambda: oracle.asked)
    oracle.free.set()
    for thread in threads:
        thread.join(60.0)

    # Whoever came when the first round was over asked anew.
    assert len(answers) == 20
    assert oracle.asked <= 20
    assert max(answers) == oracle.asked


def test_what_hangs_is_not_waited_for(oracle: Oracle) -> None:
    """Without an answer that is an error in time; with one, the old answer, and soon without any waiting."""
    lookup = Lookup(oracle, name="oracle")
    oracle.free.clear()
    with pytest.raises(TimeoutError, match=r"oracle: no answer within 0\.1 s"):
        lookup.get(0.1)
    oracle.free.set()
    wait_until(lambda: lookup.get(30.0))
    oracle.free.clear()

    first = seconds_of(lambda: lookup.get(30.0))
    others = seconds_of(lambda: [lookup.get(30.0) for _ in range(math.ceil(15.0 / FALLBACK_TIMEOUT))])

    assert first < 15.0
    assert others < 15.0


def test_what_came_late_counts_the_next_time(oracle: Oracle) -> None:
    """An answer that nobody waited for is not lost."""
    lookup = Lookup(oracle, name="oracle")
    lookup.get(30.0)
    oracle.free.clear()
    assert lookup.get(30.0) == 1
    oracle.free.set()

    wait_until(lambda: lookup.get(30.0) > 1)


def test_the_last_good_answer_stands_in_for_an_error(oracle: Oracle) -> None:
    """Where there never was one, the error is the caller's."""
    lookup = Lookup(oracle, name="oracle")
    oracle.error = OSError("no such name")
    with pytest.raises(OSError, match="no such name"):
        lookup.get(30.0)
    oracle.error = None
    known = lookup.get(30.0)
    oracle.error = OSError("no such name")

    assert lookup.get(30.0) == known


def test_asking_without_waiting(oracle: Oracle) -> None:
    """The answer is there when it came; until then the one of before."""
    lookup = Lookup(oracle, name="oracle")
    oracle.free.clear()

    lookup.ask()
    lookup.ask()
    before = lookup.last
    oracle.free.set()
    wait_until(lambda: lookup.last)

    assert (before, lookup.last, oracle.asked) == (None, 1, 1)
    assert lookup.age < 60.0


def hangs() -> int:
    threading.Event().wait(60.0)
    return 0


def fails() -> int:
    raise OSError("refused")


def test_the_first_answers_are_enough() -> None:
    """Who hangs or fails holds nobody up."""
    assert first_answers([hangs, fails, lambda: 3, hangs], enough=1, timeout=30.0) == [3]
    assert sorted(first_answers([lambda: 1, fails, lambda: 3], enough=2, timeout=30.0)) == [1, 3]


def test_fewer_answers_than_wanted_are_better_than_none() -> None:
    """Once all have answered or failed; who hangs is not waited for once there is an answer."""
    assert first_answers([lambda: 1, fails], enough=2, timeout=30.0) == [1]
    assert seconds_of(lambda: first_answers([lambda: 1, hangs], enough=2, timeout=30.0)) < 15.0


def test_no_answer_at_all_is_an_error() -> None:
    """What one of them raised, or that the time was over."""
    with pytest.raises(OSError, match="refused"):
        first_answers([fails, fails], enough=1, timeout=30.0)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
        first_answers([hangs], enough=1, timeout=0.1)
