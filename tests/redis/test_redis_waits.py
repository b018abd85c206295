"""Waits with timeouts: the budget of a thread, and lookups that may hang."""

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
    """Returns increasing numbers; hangs or fails on demand."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.error: Exception | None = None
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        number = self.calls
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
    """Outside `within` a wait keeps its limit; inside it gets the rest of the budget, and at last MOMENT."""
    assert left(5.0) == 5.0
    with within(60.0):
        assert left(0.01) == 0.01
        assert 1.0 < left(100.0) <= 60.0
    with within(0.05):
        wait_until(lambda: left(5.0) == MOMENT)
    assert left(5.0) == 5.0


def test_a_budget_inside_another_never_makes_it_longer() -> None:
    """An inner budget cannot exceed the outer one, which is unchanged afterwards."""
    with within(10.0):
        with within(100.0):
            assert left(50.0) <= 10.0
        with within(1.0):
            assert left(50.0) <= 1.0
        assert 1.0 < left(50.0) <= 10.0


def test_a_budget_is_a_threads_own() -> None:
    """A budget applies only to its own thread."""
    waits: list[float] = []
    with within(0.1):
        thread = threading.Thread(target=lambda: waits.append(left(5.0)))
        thread.start()
        thread.join(60.0)

    assert waits == [5.0]


def test_a_lookup_runs_again_each_time(oracle: Oracle) -> None:
    """Without an error its earlier answer is not used."""
    lookup = Lookup(oracle, name="oracle")

    assert [lookup.get(30.0), lookup.get(30.0)] == [1, 2]


def test_concurrent_callers_share_a_lookup(oracle: Oracle) -> None:
    """Threads that call during a lookup share its answer."""
    lookup = Lookup(oracle, name="oracle")
    oracle.free.clear()
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(lookup.get(60.0)), daemon=True) for _ in range(20)]

    for thread in threads:
        thread.start()
    wait_until(lambda: oracle.calls)
    oracle.free.set()
    for thread in threads:
        thread.join(60.0)

    # Threads that came after the first lookup started another.
    assert len(answers) == 20
    assert oracle.calls <= 20
    assert max(answers) == oracle.calls


def test_a_hanging_lookup_times_out(oracle: Oracle) -> None:
    """A hanging lookup raises in time; with an earlier answer it returns that, soon without any wait."""
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


def test_a_late_answer_is_used_the_next_time(oracle: Oracle) -> None:
    """An answer that arrives after the timeout is kept."""
    lookup = Lookup(oracle, name="oracle")
    lookup.get(30.0)
    oracle.free.clear()
    assert lookup.get(30.0) == 1
    oracle.free.set()

    wait_until(lambda: lookup.get(30.0) > 1)


def test_the_last_good_answer_replaces_an_error(oracle: Oracle) -> None:
    """Without an earlier answer the caller gets the lookup's error."""
    lookup = Lookup(oracle, name="oracle")
    oracle.error = OSError("no such name")
    with pytest.raises(OSError, match="no such name"):
        lookup.get(30.0)
    oracle.error = None
    known = lookup.get(30.0)
    oracle.error = OSError("no such name")

    assert lookup.get(30.0) == known


def test_ask_does_not_wait(oracle: Oracle) -> None:
    """Two calls start one lookup, and `last` is the earlier answer until the new one arrives."""
    lookup = Lookup(oracle, name="oracle")
    oracle.free.clear()

    lookup.ask()
    lookup.ask()
    before = lookup.last
    oracle.free.set()
    wait_until(lambda: lookup.last)

    assert (before, lookup.last, oracle.calls) == (None, 1, 1)
    assert lookup.age < 60.0


def hangs() -> int:
    threading.Event().wait(60.0)
    return 0


def fails() -> int:
    raise OSError("refused")


def test_the_first_answers_are_enough() -> None:
    """A function that hangs or fails delays no other."""
    assert first_answers([hangs, fails, lambda: 3, hangs], enough=1, timeout=30.0) == [3]
    assert sorted(first_answers([lambda: 1, fails, lambda: 3], enough=2, timeout=30.0)) == [1, 3]


def test_fewer_answers_than_wanted_are_better_than_none() -> None:
    """The call ends once all have answered or failed; after a first answer it does not wait for one that hangs."""
    assert first_answers([lambda: 1, fails], enough=2, timeout=30.0) == [1]
    assert seconds_of(lambda: first_answers([lambda: 1, hangs], enough=2, timeout=30.0)) < 15.0


def test_no_answer_at_all_is_an_error() -> None:
    """It raises the error of one function, or a timeout."""
    with pytest.raises(OSError, match="refused"):
        first_answers([fails, fails], enough=1, timeout=30.0)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
        first_answers([hangs], enough=1, timeout=0.1)
