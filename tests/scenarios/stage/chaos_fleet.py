"""A fleet of replicas: each conversation's callbacks go to them in turn, and a killed replica can be replaced."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from demo.wecom.simulator import (
    Callback,
    CallbackFailed,
    MediaStore,
    ResponseServer,
    SimulatedBot,
    WeComUser,
    WeComWire,
)
from demo.wecom.wire import Delivery
from tests.scenarios.stage.people import TIMEOUT
from tests.support.replicas import AES_KEY, TOKEN, Replica

#: Seconds between two rounds of attempts while no replica takes a callback.
PAUSE = 0.5


class FleetOver(Exception):
    """The fleet is closed: no more replicas start."""


class Fleet:
    """Equal replicas. A dead one stays a member until its successor is ready, as a Service keeps it briefly."""

    def __init__(self, env: Mapping[str, str], folder: Path, *, timeout: float = TIMEOUT) -> None:
        """A callback that no member takes is sent again for `timeout` seconds."""
        #: The settings of each replica.
        self.env = env
        self._folder = folder
        self.timeout = timeout
        self._lock = threading.Lock()
        self._over = False
        #: Every replica ever started: their logs are read at the end.
        self.everyone: list[Replica] = []
        self.members: list[Replica] = []
        self._people: list[WeComUser] = []

    def _launch(self) -> Replica:
        with self._lock:
            if self._over:
                raise FleetOver
            replica = self.launch(self.env)
            self.everyone.append(replica)
            return replica

    def launch(self, env: Mapping[str, str]) -> Replica:
        """Start one replica with these settings, and do not wait for it."""
        return Replica(env, self._folder)

    def start(self, count: int) -> None:
        """Start `count` more members, and wait until they are ready."""
        fresh = [self._launch() for _ in range(count)]
        self.members.extend(replica.wait_ready() for replica in fresh)

    def complete(self, count: int) -> list[Replica]:
        """Start new members for those that tests have killed, up to `count`, and return all members."""
        self.members = [member for member in self.members if member.process.poll() is None]
        self.start(count - len(self.members))
        return self.members

    def replace(self, replica: Replica) -> None:
        """Start another replica and, once it is ready, put it in this one's position.

        Raises: FleetOver if the fleet is closed meanwhile.
        """
        successor = self._launch()
        try:
            successor.wait_ready()
        except AssertionError as exc:
            raise FleetOver if self._over else exc from None
        self.members[self.members.index(replica)] = successor

    def succeed(self, replica: Replica) -> None:
        """Do the same as `replace`, or nothing once the fleet is closed."""
        with suppress(FleetOver):
            self.replace(replica)

    @contextmanager
    def paused(self, member: Replica) -> Iterator[None]:
        """Stop a member's processes (SIGSTOP) during the block; meanwhile no callbacks are sent to it."""
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

    def person(
        self,
        userid: str,
        *,
        at: int = 0,
        bot: str = "",
        responses: ResponseServer | None = None,
        store: MediaStore | None = None,
    ) -> WeComUser:
        """Return a WeCom user whose first callback goes to member number `at`, and later ones to all in turn."""
        ours = SimulatedBot(TOKEN, AES_KEY)
        person = WeComUser("http://127.0.0.1:9", ours, userid, responses=responses, store=store)
        person.wire = Service(self, at, f"/wechat/callback/{bot}" if bot else "/wechat/callback")
        self._people.append(person)
        return person

    def logged(self, message: str) -> list[dict[str, Any]]:
        """Return the log lines with this message, of dead replicas too, by time; `by` is the replica's number."""
        lines: list[dict[str, Any]] = []
        for number, replica in enumerate(self.everyone):
            found = [line for line in replica.log.splitlines() if f'"message": "{message}"' in line]
            lines.extend({**json.loads(line), "by": number} for line in found)
        return sorted(lines, key=lambda line: str(line["time"]))

    def takeovers(self) -> Mapping[str, list[str]]:
        """Return the kinds of takeovers of each stream, [] for a stream that had none."""
        kinds: defaultdict[str, list[str]] = defaultdict(list)
        for line in self.logged("stream taken over"):
            kinds[line["stream_id"]].append(line["kind"])
        return kinds

    def close(self) -> None:
        """Kill all replicas, start no more, and close the users' connections."""
        with self._lock:
            self._over = True
        for replica in self.everyone:
            replica.kill()
        for person in self._people:
            person.close()


@contextmanager
def fleet(count: int, env: Mapping[str, str], folder: Path) -> Iterator[Fleet]:
    """Run `count` replicas during the block, all ready; kill them and their successors at its end."""
    replicas = Fleet(env, folder)
    try:
        replicas.start(count)
        yield replicas
    finally:
        replicas.close()


class Service(WeComWire):
    """Send one conversation's callbacks to the members of a fleet in turn; if one does not take it, to the next."""

    def __init__(self, fleet: Fleet, first: int, path: str) -> None:
        # Its own connection is not used: each member has one.
        super().__init__((f"http://127.0.0.1:9{path}",), TOKEN, AES_KEY)
        self._fleet = fleet
        self._turn = itertools.count(first)
        self._path = path
        self._wires: dict[str, WeComWire] = {}

    def deliver(self, callback: Callback) -> Delivery:
        """Post a callback; if no member takes it, try again, as WeCom does, for at most the fleet's `timeout`.

        Raises: CallbackFailed, at once for any HTTP status but 200; RuleBroken.
        """
        end = time.monotonic() + self._fleet.timeout
        for tries in itertools.count(1):
            try:
                return self._next().deliver(callback)
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
