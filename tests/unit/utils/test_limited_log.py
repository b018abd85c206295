"""Lines that strangers cause do not fill a disk, and none is dropped without a word."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from utils.limited_log import LimitedLog

log = logging.getLogger("tests.limited")


class Clock:
    """Time and timers that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, call))

    def go(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for _, call in due:
            call()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limited(clock: Clock, caplog: pytest.LogCaptureFixture) -> LimitedLog:
    caplog.set_level("WARNING", log.name)
    return LimitedLog(log, "refused", lines=3, seconds=10.0, clock=clock, later=clock.later)


def test_a_flood_is_some_lines_and_a_count(limited: LimitedLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The count comes when the window ends, though nothing more is refused."""
    for number in range(50):
        limited.warning({"number": number})
    before = list(caplog.messages)
    clock.go(10.0)

    assert before == ["refused"] * 3
    assert caplog.messages[3:] == ["lines dropped"]
    assert vars(caplog.records[-1])["dropped"] == 47
    assert vars(caplog.records[-1])["line"] == "refused"
    assert not clock.timers


def test_each_window_has_its_lines(limited: LimitedLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Also one that follows a flood at once."""
    for _ in range(3):
        for _ in range(5):
            limited.warning({})
        clock.go(10.0)

    assert caplog.messages == ["refused", "refused", "refused", "lines dropped"] * 3


def test_few_lines_are_all_written(limited: LimitedLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """With what they say, and no timer."""
    for number in range(30):
        limited.warning({"number": number})
        clock.go(4.0)

    assert [vars(record)["number"] for record in caplog.records] == list(range(30))
    assert not clock.timers


def test_the_count_comes_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    """A real timer of a real clock; many threads lose no line of the count."""
    limited = LimitedLog(log, "refused", lines=1, seconds=0.05)
    told = threading.Event()

    class Waits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "lines dropped":
                told.set()

    log.addHandler(handler := Waits())
    try:
        for _ in range(2):
            limited.warning({})
        assert told.wait(10)
    finally:
        log.removeHandler(handler)
