"""Slots: a semaphore whose waiting ends with a deadline or an abort."""

from __future__ import annotations

import threading

from utils.deadline import Deadline
from utils.slots import Slots


def test_at_most_the_limit_of_slots_is_held() -> None:
    """With two slots, a third thread waits until one is released; a wait ends at its deadline."""
    slots, order = Slots(2), []
    release, both_in = threading.Event(), threading.Barrier(3)

    def hold() -> None:
        with slots.held(Deadline(30.0)) as taken:
            assert taken
            both_in.wait(30.0)
            release.wait(30.0)
            order.append("holder")

    def wait() -> None:
        with slots.held(Deadline(30.0)) as taken:
            order.append(f"waiter {taken}")

    holders = [threading.Thread(target=hold) for _ in range(2)]
    for thread in holders:
        thread.start()
    both_in.wait(30.0)
    waiter = threading.Thread(target=wait)
    waiter.start()
    with slots.held(Deadline(0.05)) as taken:
        assert not taken
    release.set()
    for thread in [*holders, waiter]:
        thread.join(30.0)

    assert order[0] == "holder"
    assert "waiter True" in order


def test_zero_is_no_limit() -> None:
    """A limit of 0 gives a slot to every caller."""
    slots = Slots(0)

    with slots.held(Deadline(30.0)) as first, slots.held(Deadline(30.0)) as second:
        assert first
        assert second


def test_an_abort_ends_the_wait() -> None:
    """A waiting thread gets no slot after an abort, and the slot can be taken again later."""
    slots, deadline = Slots(1), Deadline(600.0)

    with slots.held(Deadline(60.0)):
        threading.Timer(0.05, deadline.abort, ("cancelled",)).start()
        with slots.held(deadline) as taken:
            assert not taken

    with slots.held(Deadline(30.0)) as taken:
        assert taken
