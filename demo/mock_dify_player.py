"""The mock Dify's stream side: writes a script's steps to a socket, byte for byte."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

from demo.mock_dify_plays import stopped
from demo.mock_dify_scripts import Script
from demo.mock_dify_wire import Cut, Pause, Run, Step

#: How often a script that waits looks whether it was stopped, in seconds.
_LOOK = 0.05


class ClientGone(Exception):
    """The client closed the connection; nobody reads on."""


class Player:
    """Writes a script's steps to a socket until they, the client, the time or the mock itself come to an end."""

    def __init__(
        self, sock: socket.socket, script: Script, run: Run, *, limit: float, closing: threading.Event
    ) -> None:
        self._closing = closing
        self._socket = sock
        self._script = script
        self._run = run
        self._ends = time.monotonic() + limit
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        sock.settimeout(limit)

    def play(self, steps: Iterator[Step]) -> bool:
        """Play them; True means that the connection can be used again."""
        for step in steps:
            if self._run.stopped:
                for last in stopped(self._run):
                    self._write(last)
                break
            if not self._step(step):
                return False
        if self._script.chunked:
            self._socket.sendall(b"0\r\n\r\n")
        return True

    def _step(self, step: Step) -> bool:
        if isinstance(step, Cut):
            # Lingering for no time makes the close a reset.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if isinstance(step, Pause):
            return self.wait(step.seconds)
        self._write(step)
        return time.monotonic() < self._ends

    def _write(self, step: Step) -> None:
        for piece in self._script.cut(step) if isinstance(step, bytes) else ():
            self._socket.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if self._script.chunked else piece)

    def wait(self, seconds: float) -> bool:
        """Wait; False means that the mock closes or the run's time is over.

        Raises:
            ClientGone: the client closed the connection meanwhile.
        """
        until = min(time.monotonic() + seconds, self._ends)
        while (left := until - time.monotonic()) > 0 and not self._run.stopped and not self._closing.is_set():
            if self._readable(min(left, _LOOK)) and not self._socket.recv(1, socket.MSG_PEEK):
                raise ClientGone
        return time.monotonic() < self._ends and not self._closing.is_set()

    def _readable(self, seconds: float) -> bool:
        return bool(self._poll.poll(1000 * seconds))
