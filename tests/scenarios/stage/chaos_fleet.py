"""Replicas behind one address: a conversation's callbacks go round them, and a replica that dies gets a successor."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo.wecom.simulator import Callback, CallbackFailed, SimulatedBot, WeComUser, WeComWire
from tests.scenarios.stage.people import TIMEOUT
from tests.support.replicas import AES_KEY, TOKEN, Replica

#: Seconds between two tries while no replica takes a callback.
PAUSE = 0.5


class FleetOver(Exception):
    """No more replicas start."""


class Fleet:
    """Equal replicas. A dead one stays on the list until its successor is ready, as a Service keeps it for a moment."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        self._env = env
        self._folder = folder
        self._lock = threading.Lock()
        self._over = False
        #: Every replica there ever was: their logs are read to the end.
        self.everyone: list[Replica] = []
        self.members: list[Replica] = []
        self._people: list[WeComUser] = []

    def _launch(self) -> Replica:
        with self._lock:
            if self._over:
                raise FleetOver
            replica = Replica(self._env, self._folder)
            self.everyone.append(replica)
            return replica

    def start(self, count: int) -> None:
        """Add so many members, and wait until they are ready."""
        fresh = [self._launch() for _ in range(count)]
        self.members.extend(replica.wait_ready() for replica in fresh)

    def complete(self, count: int) -> list[Replica]:
        """Start as many as are missing of so many members, and return all of them: tests that share a fleet kill."""
        self.members = [member for member in self.members if member.process.poll() is None]
        self.start(count - len(self.members))
        return self.members

    def replace(self, replica: Replica) -> None:
        """Start another replica and, once it is ready, let it have the place of this one.

        Raises: FleetOver.
        """
        successor = self._launch()
        try:
            successor.wait_ready()
        except AssertionError as exc:
            raise FleetOver if self._over else exc from None
        self.members[self.members.index(replica)] = successor

    @contextmanager
    def paused(self, member: Replica) -> Iterator[None]:
        """Stop a member's processes where they are (SIGSTOP) for the block; meanwhile nobody's callbacks go there."""
        pids = [member.process.pid, *member.workers]
        self.members.remove(member)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        self.members.append(member)

    def person(self, userid: str, *, at: int = 0, bot: str = "") -> WeComUser:
        """Return a person whose first callback goes to the member of this number, and the rest round them all."""
        person = WeComUser("http://127.0.0.1:9", SimulatedBot(TOKEN, AES_KEY), userid)
        person.wire = Service(self, at, f"/wechat/callback/{bot}" if bot else "/wechat/callback")
        self._people.append(person)
        return person

    def said(self, message: str) -> list[dict[str, Any]]:
        """Return the log lines with this message in their order, of every replica there was; `by` is its number."""
        lines: list[dict[str, Any]] = []
        for number, replica in enumerate(self.everyone):
            found = [line for line in replica.log.splitlines() if f'"message": "{message}"' in line]
            lines.extend({**json.loads(line), "by": number} for line in found)
        return sorted(lines, key=lambda line: str(line["time"]))

    def takeovers(self) -> Mapping[str, list[str]]:
        """Return the kinds of the changes of owner of each stream, [] for one that had none."""
        kinds: defaultdict[str, list[str]] = defaultdict(list)
        for line in self.said("stream taken over"):
            kinds[line["stream_id"]].append(line["kind"])
        return kinds

    def close(self) -> None:
        """End every process, start no more, and close people's connections."""
        with self._lock:
            self._over = True
        for replica in self.everyone:
            replica.kill()
        for person in self._people:
            person.close()


@contextmanager
def fleet(count: int, env: Mapping[str, str], folder: Path) -> Iterator[Fleet]:
    """Run so many replicas, all ready; none is left behind, nor is a successor."""
    replicas = Fleet(env, folder)
    try:
        replicas.start(count)
        yield replicas
    finally:
        replicas.close()


class Service(WeComWire):
    """One conversation's way to a fleet: its callbacks go round the members, and what one does not take to the next."""

    def __init__(self, fleet: Fleet, first: int, path: str) -> None:
        super().__init__((), TOKEN, AES_KEY)
        self._fleet = fleet
        self._turn = itertools.count(first)
        self._path = path
        self._wires: dict[str, WeComWire] = {}

    def post(self, callback: Callback) -> dict[str, Any] | None:
        """Post a callback; where nobody takes it, again and again, as WeCom does, for a bounded time.

        Raises: CallbackFailed, also at once for any HTTP status but 200; RuleBroken.
        """
        end = time.monotonic() + TIMEOUT
        for tries in itertools.count(1):
            try:
                return self._next().post(callback)
            except CallbackFailed as exc:
                if exc.status or time.monotonic() > end:
                    raise
            if tries % len(self._fleet.members) == 0:
                time.sleep(PAUSE)
        raise AssertionError("unreachable")

    def close(self) -> None:
        for wire in self._wires.values():
            wire.close()
        super().close()

    def _next(self) -> WeComWire:
        members = self._fleet.members
        url = members[next(self._turn) % len(members)].url + self._path
        if url not in self._wires:
            self._wires[url] = WeComWire((url,), TOKEN, AES_KEY)
        return self._wires[url]
