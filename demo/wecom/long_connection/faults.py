"""What goes wrong on the long connection: acks that are late or missing, refused and lost frames, closed sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Fault:
    """One fault. It applies to the frames that match, and counts them.

        server.faults.add(Fault("aibot_respond_msg", ack_seconds=None, times=1))   one ack never comes
        server.faults.add(Fault("aibot_respond_msg", errcode=846608))              every reply is refused

    A test may change the members while the server runs.
    """

    #: The command; "" for each of them, `ping` and `aibot_subscribe` included.
    cmd: str = ""
    #: Seconds by which the ack is later; None for an ack that never comes.
    ack_seconds: float | None = 0.0
    #: The frame has no effect, and its ack says this; 0 lets it have its effect.
    errcode: int = 0
    #: The frame never reached the server: it has no effect and no ack.
    lost: bool = False
    #: The connection is closed after the frame, without its ack.
    closes: bool = False
    #: The fault applies to so many frames; None for each of them.
    times: int | None = None
    #: Whether a frame with this body matches.
    where: Callable[[Mapping[str, Any]], bool] = lambda body: True
    #: Frames to which it applied.
    met: int = 0

    def matches(self, cmd: str, body: Mapping[str, Any]) -> bool:
        used = self.times is not None and self.met >= self.times
        return not used and self.cmd in ("", cmd) and self.where(body)


class Faults:
    """The faults of a server; the first that matches a frame applies."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Add a fault and return it."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def take(self, cmd: str, body: Mapping[str, Any]) -> Fault:
        """Return the fault of a frame and count it; the default one does nothing."""
        with self._lock:
            found = next((fault for fault in self._faults if fault.matches(cmd, body)), None)
            if found is None:
                return Fault()
            found.met += 1
            return found
