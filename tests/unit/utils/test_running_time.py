"""The clock that stands still while the process does, and waits by it."""

from __future__ import annotations

import inspect
import math
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from services.files.delivery import FileDelivery
from services.identity.auth_api_service import AuthApi
from services.identity.auth_service import AuthService
from services.providers.client.json_service import JSONService
from services.providers.dify.forms import DifyForms
from services.providers.dify.provider import DifyProvider
from services.providers.dify.recovery import DifyRecovery
from services.providers.dify.service import DifyService
from services.providers.openai.provider import OpenAIProvider
from services.providers.recovery import Poller
from services.providers.search.serper import SerperSearch
from services.streams.following import Misses
from services.wecom.long_connection.link import Link
from tests.support.servers.processes import FakeClock
from utils.deadline import Deadline
from utils.running_time import MOST, RunningClock, running_time, wait_running

#: Prints how long a wait of four seconds took, by this clock and by the system's, and the pauses.
WAITS = """
import threading, time
from utils.running_time import running_time, wait_running
running_time.start()
began, real = running_time(), time.monotonic()
print("begun", flush=True)
wait_running(threading.Event().wait, 4.0)
print(running_time() - began, time.monotonic() - real, running_time.paused)
"""


def test_a_pause_counts_for_two_seconds_at_most() -> None:
    """Whether the clock is read before or after the first tick that follows, and it never goes back."""
    clock = FakeClock()
    running = RunningClock(clock)
    running.tick()
    began = running()

    clock.advance(1.5)
    assert running() - began == 1.5
    clock.advance(60.0)
    before = running()
    running.tick()

    assert before - began == running() - began == MOST
    assert running.paused == 61.5 - MOST
    clock.advance(1.0)
    assert running() - began == MOST + 1.0


def test_a_pause_ends_with_the_next_look_and_is_remembered() -> None:
    """A pause is seen before the first tick that follows, too; without one, none ever was."""
    clock = FakeClock()
    running = RunningClock(clock)
    before = running.since_pause
    running.tick()
    clock.advance(MOST)
    awake = running.since_pause
    clock.advance(60.0)
    resumed = running.since_pause
    running.tick()
    clock.advance(1.0)

    assert (before, awake, resumed, running.since_pause) == (math.inf, math.inf, 0.0, 1.0)


def test_a_clock_that_was_not_started_is_the_monotonic_one() -> None:
    """A tool without the ticking thread waits as ever."""
    clock = FakeClock()
    running = RunningClock(clock)

    clock.advance(3600.0)

    assert (running(), running.paused) == (clock.now, 0.0)


def test_a_wait_outlasts_a_stop_of_the_process() -> None:
    """A real process is stopped for longer than its wait: the wait goes on for the rest."""
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(6.0)
        os.kill(process.pid, signal.SIGCONT)
        running, real, paused = map(float, process.stdout.readline().split())

    assert running >= 4.0
    # The stop, of which `MOST` counts.
    assert paused >= 6.0 - MOST
    assert real >= running + 6.0 - MOST


@pytest.mark.parametrize(
    "waits",
    [
        *(Deadline, Poller, DifyService, DifyProvider, DifyRecovery, DifyForms, JSONService, OpenAIProvider),
        *(SerperSearch, AuthApi, AuthService, FileDelivery, Misses, Link),
    ],
    ids=lambda kind: kind.__name__,
)
def test_waits_for_another_party_go_by_this_clock(waits: type) -> None:
    """The party had no part in a pause of this process."""
    assert inspect.signature(waits).parameters["clock"].default is running_time


def test_a_wait_ends_when_it_happens() -> None:
    """It returns what the wait returns, or its last value after the seconds."""
    happened = threading.Event()

    assert wait_running(happened.wait, 0.01) is False
    happened.set()
    assert wait_running(happened.wait, 60.0) is True


def test_a_forked_child_has_a_clock_that_runs() -> None:
    """It has no thread that ticks, so its clock must not stand still."""
    clock = FakeClock()
    running = RunningClock(clock)
    running.tick()
    running._forked()

    clock.advance(60.0)

    assert running.paused == 0.0
    assert running_time() > 0.0
