"""Kill replicas while people ask, and count what it cost them: `python -m tests.scenarios.chaos`, or `make chaos`.

Prints a table by the number of takeovers of a question. Exits with status 1 if an answer was lost, doubled or
interrupted, if its text went backwards, or if Dify kept a run and was asked for it a second time.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self, get_args

import pytest

from demo.mocks.dify.runs import AfterDisconnect
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble, CallbackFailed, RuleBroken, WeComUser
from tests.scenarios.stage.chaos_fleet import Fleet, FleetOver, fleet
from tests.scenarios.stage.chaos_record import Record, records_of, table
from tests.support.replicas import Replica, dify_settings, settings_for
from tests.support.servers.processes import RedisServer, require_binary

#: Seconds between two polls of a bubble: WeCom's own interval is about one.
POLL = 0.7
#: Seconds from a replica's kill to its successor's start.
MOMENT = 1.0
#: Timeout in seconds of an answer, kills included.
TIMEOUT = 90.0
#: How often a text may become shorter before its user gives up: all are counted, and any is a failure.
SHRINKS = 20
#: Seconds between two deltas of an answer, of which there are about thirty.
PACE = 0.25
#: App types, used in turn: one whose runs can be fetched by id, and one with its message history only.
SCRIPTS = ("chatflow", "chat")
#: Log messages about takeovers, with the field that has the kind.
EVENTS = {
    "stream taken over": "kind",
    "answer recovered": "outcome",
    "question asked again": "cause",
    "stream handed over": "",
    "owner refused": "",
}


class Crowd:
    """Users who ask one question after the other."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._threads: list[threading.Thread] = []
        #: The bubble of each question.
        self.asked: dict[str, Bubble] = {}
        #: Errors: broken callback rules, failed callbacks, and timeouts.
        self.broken: list[str] = []

    def begin(self, people: int, seconds: float = 0.0) -> None:
        """Let `people` users ask once, and go on asking for `seconds`."""
        end = time.monotonic() + seconds
        for number in range(people):
            self._threads.append(threading.Thread(target=self._converse, args=(number, end), daemon=True))
            self._threads[-1].start()

    def wait_end(self) -> None:
        """Wait until every user has seen the end of the last answer, or has given up."""
        for thread in self._threads:
            thread.join()

    def _converse(self, number: int, end: float) -> None:
        person = self._fleet.person(f"user{number}", at=number)
        for turn in count(1):
            self._ask(person, f"{number} 号的第 {turn} 个问题 [[{SCRIPTS[number % len(SCRIPTS)]}]]")
            if time.monotonic() > end:
                return

    def _ask(self, person: WeComUser, question: str) -> None:
        try:
            self.asked[question] = bubble = person.says(question)
            person.sees_finish(bubble, TIMEOUT, POLL, replacements=SHRINKS)
        except (CallbackFailed, RuleBroken, TimeoutError) as exc:
            self.broken.append(f"{question}: {exc}")


class Killer:
    """Kill one member after the other with SIGKILL, master and workers at once; each gets a successor a moment later.

    A context manager: the kills end with the block, which waits for the last successor.
    """

    def __init__(self, fleet: Fleet, every: float, most: int | None = None) -> None:
        self._fleet = fleet
        self._every = every
        self._most = most
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True)]
        self.kills = 0

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads if exc is None else ():
            thread.join()

    def _run(self) -> None:
        while self.kills != self._most and not self._over.wait(self._every):
            victim = self._fleet.members[self.kills % len(self._fleet.members)]
            if victim.process.poll() is not None:
                # It was killed before, and its successor is still starting.
                continue
            victim.kill()
            self.kills += 1
            self._threads.append(threading.Thread(target=self._succeed, args=(victim,), daemon=True))
            self._threads[-1].start()

    def _succeed(self, victim: Replica) -> None:
        time.sleep(MOMENT)
        with suppress(FleetOver):
            self._fleet.replace(victim)


def by_takeovers(records: Sequence[Record]) -> str:
    """Return the table: a row for each number of takeovers, and one for all."""
    rows = {f"{number}": [r for r in records if len(r.takeovers) == number] for number in range(6)}
    return table("changes of owner", {**rows, "any": records})


def happened(fleet: Fleet) -> str:
    """Return how often each event was logged."""
    lines = [(message, line.get(how, "")) for message, how in EVENTS.items() for line in fleet.logged(message)]
    counted = Counter(f"{message} ({how})" if how else message for message, how in lines)
    return ", ".join(f"{event}: {times}" for event, times in sorted(counted.items())) or "no change of owner"


def run(options: argparse.Namespace, folder: Path) -> bool:
    """Run the chaos, print the results, and return whether every answer was right."""
    keeps: AfterDisconnect = options.after_disconnect
    with RedisServer() as redis, MockDify(delay=PACE, after_disconnect=keeps) as dify:
        env = settings_for(redis.url(), **dify_settings(dify.base_url), STREAM_LEASE=f"{options.lease:g}")
        with fleet(options.replicas, env, folder) as replicas:
            crowd = Crowd(replicas)
            crowd.begin(options.questions, options.seconds)
            with Killer(replicas, options.kill_every) as killer:
                time.sleep(options.seconds)
            crowd.wait_end()
        records = records_of(crowd.asked, replicas, redis, dify)
    print(f"{options.questions} questions in flight on {options.replicas} replicas, {killer.kills} kills\n")
    print(f"{by_takeovers(records)}\n\n{happened(replicas)}", *crowd.broken, sep="\n")
    twice = keeps == "runs on" and any(record.calls > 1 for record in records)
    return not crowd.broken and not twice and all(record.right and not record.backwards for record in records)


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Exit, and ignore further signals during the cleanup."""
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> int:
    """Return 0 if every answer arrived once and whole."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.chaos", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=180.0, help="for how long people ask")
    parser.add_argument("--questions", type=int, default=60, help="how many people ask, each one question at a time")
    parser.add_argument("--kill-every", type=float, default=10.0, metavar="SECONDS", help="from one kill to the next")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--lease", type=float, default=6.0, help="STREAM_LEASE, in seconds")
    fates = get_args(AfterDisconnect)
    parser.add_argument("--after-disconnect", choices=fates, default="runs on", help="a run whose owner was killed")
    options = parser.parse_args()
    try:
        require_binary("redis-server")
    except pytest.skip.Exception as exc:
        parser.error(str(exc))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    with tempfile.TemporaryDirectory(prefix="laibao-chaos-") as folder:
        return 0 if run(options, Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
