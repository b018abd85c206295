"""A deadline: how long is left, who ends it sooner, and who is woken then."""

from __future__ import annotations

import threading

import pytest

from tests.support.servers.processes import FakeClock
from utils.deadline import Deadline


def test_a_deadline_runs_out_by_its_clock(clock: FakeClock) -> None:
    """What is left shrinks to zero and no further."""
    deadline = Deadline(10.0, clock=clock)
    assert (deadline.remaining(), deadline.over) == (10.0, False)

    clock.advance(9.5)
    assert (deadline.remaining(), deadline.over) == (0.5, False)

    clock.advance(100.0)
    assert (deadline.remaining(), deadline.over, deadline.aborted) == (0.0, True, "")


def test_an_abort_ends_it_at_once_and_its_first_reason_stays(clock: FakeClock) -> None:
    """A stream that was fenced stays fenced when somebody cancels it later."""
    deadline = Deadline(10.0, clock=clock)

    deadline.abort("fenced")
    deadline.abort("cancelled")

    assert (deadline.remaining(), deadline.over, deadline.aborted) == (0.0, True, "fenced")


def test_an_abort_calls_every_hook_once() -> None:
    """All that is under way is interrupted, however often it is asked for."""
    deadline, calls = Deadline(10.0), []

    with deadline.interrupting(lambda: calls.append("outer")), deadline.interrupting(lambda: calls.append("inner")):
        deadline.abort("cancelled")
        deadline.abort("cancelled")

    assert calls == ["outer", "inner"]


def test_a_block_entered_after_the_abort_is_interrupted_at_once() -> None:
    """Nobody begins to wait for what was ended already."""
    deadline, calls = Deadline(10.0), []
    deadline.abort("released")

    with deadline.interrupting(lambda: calls.append("hook")):
        assert calls == ["hook"]


def test_a_hook_is_forgotten_after_its_block() -> None:
    """A socket that went back to its pool is not shut down, also when the block failed."""
    deadline, calls = Deadline(10.0), []

    with pytest.raises(LookupError), deadline.interrupting(lambda: calls.append("hook")):
        raise LookupError
    deadline.abort("cancelled")

    assert calls == []


def test_an_abort_wakes_a_waiting_thread() -> None:
    """The waiter is blocked in another thread and ends long before its time."""
    deadline, waiting, woken = Deadline(600.0), threading.Event(), threading.Event()

    def wait() -> None:
        with deadline.interrupting(woken.set):
            waiting.set()
            woken.wait(60.0)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert waiting.wait(30.0)

    deadline.abort("cancelled")

    thread.join(30.0)
    assert not thread.is_alive()
    assert woken.is_set()
