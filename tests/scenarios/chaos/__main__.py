"""Use every channel while everything around the replicas fails, and print what it cost: `make chaos`.

Exits with status 1 if an answer was lost, doubled or cut off, had no end or went backwards, or if the provider was
asked for one a third time.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import FrameType
from typing import NoReturn, get_args

import pytest

from demo.mocks.dify.runs import AfterDisconnect
from tests.scenarios.chaos.channels import CHANNELS, Channel, Seen, ratings_lost
from tests.scenarios.chaos.faults import FAULTS, recovery
from tests.scenarios.chaos.report import Report, verdict
from tests.scenarios.chaos.world import PATIENCE, World, world
from tests.support.servers.processes import require_binary

#: Most seconds for which everybody waits for the last ends.
LAST = PATIENCE + 30.0
#: Seconds until a person asks again after a question without an answer.
BREATH = 2.0


class Crowd:
    """People and programs that ask one question after the other until a time."""

    def __init__(
        self, here: World, report: Report, channels: Mapping[str, Channel], people: float, *, pause: float = 0.0
    ) -> None:
        """`people` multiplies the numbers of the channels; each of them waits for `pause` seconds in the mean."""
        self._here = here
        self._report = report
        self._channels = channels
        self._pause = pause
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(channel, number), daemon=True)
            for channel in channels
            for number in range(max(1, round(channels[channel].people * people)))
        ]

    def begin(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._here.end = self._end + PATIENCE
        for thread in self._threads:
            thread.start()

    def wait_end(self) -> None:
        """Wait until everybody has seen the end of the last answer, or has given up."""
        end = time.monotonic() + LAST
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        stuck = [thread.name for thread in self._threads if thread.is_alive()]
        self._report.broken += [f"{len(stuck)} clients hang: {stuck}"] if stuck else []

    def _ask(self, channel: str, number: int) -> None:
        threading.current_thread().name = f"{channel}-{number}"
        for turn in count():
            self._wait()
            if turn and time.monotonic() > self._end:
                return
            try:
                seen = self._channels[channel].use(self._here, number, turn)
            except Exception as exc:  # a client that ends unnoticed would hide what it met
                where = traceback.extract_tb(exc.__traceback__)[-1]
                self._report.broken.append(f"{channel}-{number}-{turn}: {type(exc).__name__}: {exc} ({where})")
                seen = []
            seen = [seen] if isinstance(seen, Seen) else seen
            with self._lock:
                self._report.seen.setdefault(channel, []).extend(seen)
            if "whole" not in map(verdict, seen):
                time.sleep(BREATH)

    def _wait(self) -> None:
        """Wait for a random time, at most until people stop asking."""
        time.sleep(max(0.0, min(random.uniform(0, 2 * self._pause), self._end - time.monotonic())))


def inject(here: World, report: Report, names: Sequence[str], options: argparse.Namespace) -> None:
    """Inject the faults, all of them in a random order and then again, until the time is over."""
    began, deck = time.monotonic(), list[str]()
    while time.monotonic() - began + options.every < options.seconds:
        time.sleep(options.every)
        if not deck:
            deck = here.dice.sample(names, len(names))
        name = deck.pop()
        fault = FAULTS[name]
        seconds = here.dice.uniform(fault.least, max(fault.least, min(fault.most, options.longest)))
        say(f"{time.monotonic() - began:5.0f} s  {name}" + (f" for {seconds:.0f} s" if seconds else ""))
        fault.inject(here, seconds)
        report.faults.setdefault(name, []).append(recovery(here))
    time.sleep(max(0.0, began + options.seconds - time.monotonic()))


def run(options: argparse.Namespace, folder: Path) -> Report:
    """Run the chaos and return what was seen."""
    report, dice = Report(), random.Random(options.seed)
    with world(options.replicas, folder, dice, lease=options.lease, fate=options.after_disconnect) as here:
        crowd = Crowd(here, report, {name: CHANNELS[name] for name in options.channels}, options.people)
        crowd.begin(options.seconds)
        inject(here, report, options.faults, options)
        crowd.wait_end()
        rated = sum(verdict(seen) == "whole" for seen in report.seen.get("ratings", ()))
        report.ratings_lost = ratings_lost(here, rated)
        report.count(here.dify, here.replicas, here.redis)
    return report


def say(line: str) -> None:
    print(line, flush=True)


def made_folder(path: str) -> Path:
    """Return a folder of the command line, which is made where it is missing."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Exit, and ignore further signals during the cleanup."""
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    sys.exit(128 + number)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments, those of the command line by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.chaos", description=(__doc__ or "").split("\n")[0])
    one_of: Callable[[Collection[str]], dict[str, object]] = lambda names: {  # noqa: E731 - one line of two arguments
        "choices": list(names), "default": list(names), "nargs": "+", "metavar": "NAME",
        "help": f"by default all: {' '.join(names)}",
    }  # fmt: skip
    parser.add_argument("--seconds", type=float, default=300.0, help="for how long people ask and faults are injected")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2)), help="of order, time and victims")
    parser.add_argument("--every", type=float, default=7.0, metavar="SECONDS", help="from one fault's end to the next")
    parser.add_argument("--longest", type=float, default=math.inf, metavar="SECONDS", help="of one fault, if it can be")
    parser.add_argument("--people", type=float, default=1.0, metavar="TIMES", help="so many times the usual people")
    parser.add_argument("--faults", **one_of(FAULTS))  # type: ignore[arg-type]
    parser.add_argument("--channels", **one_of(CHANNELS))  # type: ignore[arg-type]
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--lease", type=float, default=6.0, help="STREAM_LEASE, in seconds")
    fates = get_args(AfterDisconnect)
    parser.add_argument("--after-disconnect", choices=fates, default="runs on", help="a run whose owner was killed")
    parser.add_argument("--logs", type=made_folder, metavar="FOLDER", help="keep the replicas' logs there")
    options = parser.parse_args(given)
    try:
        for server in ("redis-server", "mariadbd"):
            require_binary(server)
    except pytest.skip.Exception as exc:
        parser.error(str(exc))
    return options


def main() -> int:
    """Return 0 if no invariant was broken."""
    options = arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    say(f"{options.replicas} replicas, {options.seconds:g} s, seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="laibao-chaos-") as folder:
        report = run(options, options.logs or Path(folder))
    say(f"\n{report}")
    return 0 if report.right else 1


if __name__ == "__main__":
    sys.exit(main())
