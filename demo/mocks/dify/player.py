"""Writes a script's steps to a client, byte for byte, and continues a run whose client is gone."""

from __future__ import annotations

import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from demo.mocks.dify.broadcast import Heard
from demo.mocks.dify.features.forms import RunPause, paused_events
from demo.mocks.dify.plays import stopped
from demo.mocks.dify.wire import HANG, PING, Break, Cut, Delay, Loss, Run, Step
from demo.mocks.http import ClientGone

#: Seconds between two checks of whether a waiting script was stopped.
_LOOK = 0.05


def whole(data: bytes) -> list[bytes]:
    return [data]


class StreamClient:
    """The client of a stream."""

    def __init__(
        self, sock: socket.socket, *, limit: float, chunked: bool = True, cut: Callable[[bytes], list[bytes]] = whole
    ) -> None:
        self._socket = sock
        self._chunked = chunked
        self._cut = cut
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        sock.settimeout(limit)

    def write(self, data: bytes) -> None:
        for piece in self._cut(data):
            self._socket.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)

    def finish(self) -> None:
        """Send the end of a chunked body."""
        if self._chunked:
            self._socket.sendall(b"0\r\n\r\n")

    def reset(self) -> None:
        """Make the close of the connection a reset, by a linger time of zero."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def watch(self, seconds: float) -> None:
        """Wait for this many seconds.

        Raises:
            ClientGone: the client closed the connection meanwhile.
        """
        if self._poll.poll(1000 * seconds) and not self._socket.recv(1, socket.MSG_PEEK):
            raise ClientGone


class Player:
    """Plays a run's steps until the steps end, the client is gone, the limit is reached or the mock closes."""

    def __init__(self, run: Run, client: StreamClient | None, *, limit: float, closing: threading.Event) -> None:
        self._run = run
        self._client = client
        self._closing = closing
        self._ends = time.monotonic() + limit
        self._silent = False

    def play(self, steps: Iterator[Step]) -> bool:
        """Play the steps; return True if the connection can be reused."""
        for step in steps:
            if self._run.stopped:
                for last in stopped(self._run):
                    self._write(last)
                break
            if isinstance(step, RunPause):
                self._pause(step, steps)
                return True
            if not self._step(step):
                return False
        self._run.end()
        if self._silent:
            return self.wait(HANG.seconds)
        if self._client is not None:
            self._client.finish()
        return True

    def _pause(self, step: RunPause, rest: Iterator[Step]) -> None:
        """Tell of the pause, and end the streams of all listeners."""
        self._run.pause(step.forms, rest)
        for event in paused_events(self._run):
            # A client that goes meanwhile does not continue the run: it waits for its form.
            with suppress(ClientGone, OSError):
                self._write(event)
        self._run.live.pause()
        if self._client is not None:
            with suppress(ClientGone, OSError):
                self._client.finish()

    def play_on(self, steps: Iterator[Step]) -> None:
        """Play the remaining steps for the run's listeners, at the same pace, after the client is gone."""
        self._client, self._silent = None, False
        self.play(steps)

    def _step(self, step: Step) -> bool:
        if isinstance(step, Cut):
            if self._client is not None:
                self._client.reset()
            return False
        if isinstance(step, Delay):
            return self.wait(step.seconds)
        if isinstance(step, Break):
            self._break(step.how)
        self._write(step)
        return time.monotonic() < self._ends

    def _break(self, how: Loss) -> None:
        """Raise ClientGone, except for `silence`: then nothing more is sent and the connection stays open."""
        if self._client is None:
            return
        if how == "silence":
            self._silent = True
            return
        if how == "reset":
            self._client.reset()
        else:
            self._client.finish()
        raise ClientGone

    def _write(self, step: Step) -> None:
        if isinstance(step, bytes):
            self._run.live.say(step)
            if self._client is not None and not self._silent:
                self._client.write(step)

    def wait(self, seconds: float) -> bool:
        """Wait for this many seconds; return False if the mock closes or the run's limit is reached.

        Raises:
            ClientGone: the client closed the connection meanwhile.
        """
        until = min(time.monotonic() + seconds, self._ends)
        while (left := self._left(until)) > 0 and not self._run.stopped and not self._closing.is_set():
            if self._client is not None:
                self._client.watch(min(left, _LOOK))
            else:
                self._closing.wait(min(left, _LOOK))
        return time.monotonic() < self._ends and not self._closing.is_set()

    def _left(self, until: float) -> float:
        """Return the seconds until a pause is over: at most the run's limit while the run is held."""
        return (self._ends if self._run.held else until) - time.monotonic()


def follow(
    run: Run, client: StreamClient, *, ping_every: float, limit: float, closing: threading.Event, snapshot: bool = False
) -> None:
    """Write a run's later events to a client; for a run that has ended, its last event.

    A `snapshot` of a paused run has its forms and its pause, which ends the stream.

    Raises:
        ClientGone: the client closed the connection meanwhile.
    """
    with run.live.listening() as heard:
        # The status is checked after the queue is registered, so a run that ends in between is not missed.
        if run.status == "paused" and run.forms and snapshot:
            for event in paused_events(run):
                client.write(event)
        elif run.status != "running" and not (run.status == "paused" and run.forms):
            client.write(run.workflow_finished(run.status, **run.outputs))
        else:
            _follow(heard, client, ping_every=ping_every, ends=time.monotonic() + limit, closing=closing)
    client.finish()


def _follow(heard: Heard, client: StreamClient, *, ping_every: float, ends: float, closing: threading.Event) -> None:
    ping_at = 0.0
    while (now := time.monotonic()) < ends and not closing.is_set():
        if now >= ping_at:
            client.write(PING)
            ping_at = now + ping_every
        try:
            words = heard.get(timeout=_LOOK)
        except queue.Empty:
            client.watch(0.0)
            continue
        if words is None:
            return
        client.write(words)
