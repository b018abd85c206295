"""LimitedLog: a limited number of lines per window, and a line with the number of those dropped."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from tests.support.servers.processes import wait_until
from utils.limited_log import LimitedLog

log = logging.getLogger("tests.limited")


class Clock:
    """A clock with timers; `advance` moves it and runs the timers that are due."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, call))

    def advance(self, seconds: float) -> None:
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


def test_a_flood_gives_a_few_lines_and_a_count(
    limited: LimitedLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The count is logged at the end of the window, also without further warnings."""
    for number in range(50):
        limited.warning({"number": number})
    before = list(caplog.messages)
    clock.advance(10.0)

    assert before == ["refused"] * 3
    assert caplog.messages[3:] == ["lines dropped"]
    assert vars(caplog.records[-1])["dropped"] == 47
    assert vars(caplog.records[-1])["line"] == "refused"
    assert not clock.timers


def test_each_window_has_its_own_lines(limited: LimitedLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """This includes a window that begins directly after a flood."""
    for _ in range(3):
        for _ in range(5):
            limited.warning({})
        clock.advance(10.0)

    assert caplog.messages == ["refused", "refused", "refused", "lines dropped"] * 3


def test_few_lines_are_all_written(limited: LimitedLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The extra fields are kept, and no timer is started."""
    for number in range(30):
        limited.warning({"number": number})
        clock.advance(4.0)

    assert [vars(record)["number"] for record in caplog.records] == list(range(30))
    assert not clock.timers


def test_the_count_is_logged_by_a_timer(caplog: pytest.LogCaptureFixture) -> None:
    """With the default timer the count is logged without another call."""
    limited = LimitedLog(log, "refused", lines=1, seconds=0.05, clock=lambda: 100.0)

    for _ in range(2):
        limited.warning({})

    wait_until(lambda: caplog.messages == ["refused", "lines dropped"])
