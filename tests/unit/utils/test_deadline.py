"""Deadline: remaining time, abort, and hooks that an abort calls."""

from __future__ import annotations

import threading

import pytest

from tests.support.servers.processes import FakeClock
from utils.deadline import Deadline


def test_a_deadline_ends_by_its_clock(clock: FakeClock) -> None:
    """The remaining time never becomes negative; the end by the clock is no abort."""
    deadline = Deadline(10.0, clock=clock)
    assert (deadline.remaining(), deadline.over) == (10.0, False)

    clock.advance(9.5)
    assert (deadline.remaining(), deadline.over) == (0.5, False)

    clock.advance(100.0)
    assert (deadline.remaining(), deadline.over, deadline.aborted) == (0.0, True, "")


def test_an_abort_ends_a_deadline_and_keeps_its_first_reason(clock: FakeClock) -> None:
    """A stream that lost its ownership keeps the reason "fenced" when it is cancelled later."""
    deadline = Deadline(10.0, clock=clock)

    deadline.abort("fenced")
    deadline.abort("cancelled")

    assert (deadline.remaining(), deadline.over, deadline.aborted) == (0.0, True, "fenced")


def test_an_abort_calls_every_hook_once() -> None:
    """Hooks run in the order in which their blocks were entered; a second abort calls none."""
    deadline, calls = Deadline(10.0), []

    with deadline.interrupting(lambda: calls.append("outer")), deadline.interrupting(lambda: calls.append("inner")):
        deadline.abort("cancelled")
        deadline.abort("cancelled")

    assert calls == ["outer", "inner"]


def test_a_block_entered_after_the_abort_is_interrupted_at_once() -> None:
    """Otherwise the block would begin to wait although the work has ended."""
    deadline, calls = Deadline(10.0), []
    deadline.abort("released")

    with deadline.interrupting(lambda: calls.append("hook")):
        assert calls == ["hook"]


def test_a_hook_is_removed_after_its_block() -> None:
    """A later abort does not shut down a socket that is back in its pool, also if the block raised an error."""
    deadline, calls = Deadline(10.0), []

    with pytest.raises(LookupError), deadline.interrupting(lambda: calls.append("hook")):
        raise LookupError
    deadline.abort("cancelled")

    assert calls == []


def test_the_end_of_the_time_is_told_while_the_block_runs() -> None:
    """Not after the block, and not before the time is over."""
    told: list[str] = []
    with Deadline(600.0).ending(lambda: told.append("early")):
        pass
    over = threading.Event()

    with Deadline(0.01).ending(over.set):
        assert over.wait(30.0)

    assert told == []


def test_a_pause_of_the_process_is_no_part_of_the_time(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end is told when the process has run for so long, and not when it wakes."""
    monkeypatch.setattr("utils.running_time.running_time", clock)
    over = threading.Event()

    with Deadline(0.05, clock=clock).ending(over.set):
        assert not over.wait(0.3)
        clock.advance(1.0)
        assert over.wait(30.0)


def test_an_abort_wakes_a_waiting_thread() -> None:
    """A thread that waits for up to 60 s inside the block ends at once."""
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
