"""One subscribed connection of one bot: sends frames, matches acknowledgements, and handles messages and events."""

from __future__ import annotations

import json
import logging
import math
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from websockets.frames import CloseCode

from services import metrics
from services.wecom.long_connection.protocol import (
    ACK_SECONDS,
    DISCONNECTED,
    EVENT,
    MESSAGE,
    NOT_SUBSCRIBED,
    PING,
    PING_SECONDS,
    Ack,
    AckMissing,
    LinkLost,
)
from utils.limited_log import LimitedLog
from utils.running_time import running_time, wait_running

log = logging.getLogger(__name__)

#: Messages and events of all bots that one process handles at once; more are dropped, counted and logged.
MOST_HANDLED = 200
#: A frame waits for earlier ones of its req_id for this many times the seconds that its own acknowledgement has: each
#: of them is acknowledged or given up in one, unless the connection takes no bytes.
TURNS = 6


class Closing(Protocol):
    """How a socket ended."""

    @property
    def code(self) -> int: ...


class LinkSocket(Protocol):
    """An open WebSocket to WeCom."""

    @property
    def closing(self) -> bool:
        """Whether nothing is sent any more."""

    def send(self, frame: Mapping[str, Any]) -> bool:
        """Send one JSON message from any thread; return False when it was not sent."""

    def run(self, on_text: Callable[[str], None]) -> Closing:
        """Pass each message to `on_text` until the socket ends."""

    def close(self, code: int, reason: str = "") -> None:
        """Begin the close without waiting for it."""


@dataclass(eq=False)
class _Waiting:
    """A frame that has no acknowledgement yet."""

    #: When its acknowledgement is missing, by the link's clock.
    due: float
    ack: Ack | None = None
    #: Set when there is one, or none can come any more. One per frame: an ack must not wake all threads.
    ended: threading.Event = field(default_factory=threading.Event)


class Link:
    """A connection of one bot. Threads of any number may send; a thread of its own reads."""

    def __init__(
        self,
        socket: LinkSocket,
        bot: str,
        fence: int,
        *,
        arrived: Callable[[Link, str, str, Mapping[str, Any]], None],
        clock: Callable[[], float] = running_time,
    ) -> None:
        """Take an open WebSocket, the bot, and the fence of the lease under which it subscribes.

        `arrived` is called in the reader's thread with the link, the command, the req_id and the body of each message
        and event; it must not wait.
        """
        self.bot = bot
        self.fence = fence
        #: Set when nothing may be sent any more. Acknowledgements of what was sent may still come.
        self.lost = threading.Event()
        #: Set when nothing arrives any more either.
        self.over = threading.Event()
        #: The cause of the loss: evicted (`disconnected_event`), unsubscribed (846609), silent (no pong), stalled (an
        #: earlier frame did not leave), closed (by WeCom or the network), or ended (by us).
        self.reason = ""
        self._socket = socket
        self._arrived = arrived
        self._clock = clock
        # Guards the fields below; held briefly.
        self._changed = threading.Condition()
        self._pending: dict[str, _Waiting] = {}
        self._next_ping = clock() + PING_SECONDS
        # The last ping, when its pong counts as missing (infinite: none is awaited), and whether this ping was sent
        # because the acknowledgement of an earlier frame was missing.
        self._ping_id = ""
        self._pong_due = math.inf
        self._doubted = False
        self._malformed = LimitedLog(log, "long connection: frame not understood")

    def request(self, cmd: str, body: Mapping[str, Any], *, req_id: str = "", seconds: float = ACK_SECONDS) -> Ack:
        """Send a frame and wait for its acknowledgement; "" stands for a new req_id.

        Frames of one req_id are serial: this waits until an earlier one is acknowledged or has timed out, and gives the
        connection up after `TURNS` times `seconds`.

        Raises:
            LinkLost: the connection ended or was given up; `sent` is whether the frame may have left.
            AckMissing: no acknowledgement came within `seconds`.
        """
        req_id = req_id or secrets.token_hex(16)
        waiting = self._enter(req_id, seconds)
        try:
            self._send({"cmd": cmd, "headers": {"req_id": req_id}, "body": body})
            return self._acknowledged(waiting, seconds)
        finally:
            with self._changed:
                self._pending.pop(req_id)
                self._changed.notify_all()

    def run(self) -> None:
        """Read until the connection ends."""
        try:
            closed = self._socket.run(self._receive)
            reason = self.reason or "closed"
            log.info("long connection closed", extra={"bot": self.bot, "code": closed.code, "reason": reason})
        finally:
            self._lose("closed")
            self._end()

    def beat(self) -> None:
        """Send a ping if one is due. A ping without its pong is followed by another at once; that one's ends the link.

        Call it several times a second.
        """
        if self.lost.is_set():
            return
        with self._changed:
            now = self._clock()
            missing, doubted = now >= self._pong_due, self._doubted
        if missing and doubted:
            self.drop("silent")
        elif missing or now >= self._next_ping:
            self._ping(doubted=missing)

    def _ping(self, *, doubted: bool) -> None:
        """Send a ping; `doubted`: the acknowledgement of an earlier frame is missing."""
        with self._changed:
            if self._doubted or self.lost.is_set():
                return
            now = self._clock()
            self._ping_id, self._doubted, self._next_ping = secrets.token_hex(16), doubted, now + PING_SECONDS
            # On a slow line a ping waits behind the parts of a file that were sent before it.
            self._pong_due = max([now + ACK_SECONDS, *(waiting.due for waiting in self._pending.values())])
            ping = {"cmd": PING, "headers": {"req_id": self._ping_id}}
        if not self._socket.send(ping):
            self._lose("closed")

    def drop(self, reason: str) -> None:
        """Send nothing more, and close the connection once the frames that were sent are acknowledged, or time out."""
        if self._lose(reason):
            threading.Thread(target=self._close, name=f"link-end-{self.bot}", daemon=True).start()

    def _enter(self, req_id: str, seconds: float) -> _Waiting:
        def turn() -> bool:
            return self.lost.is_set() or req_id not in self._pending

        with self._changed:
            free = wait_running(partial(self._changed.wait_for, turn), TURNS * seconds)
            if free and not self.lost.is_set():
                waiting = self._pending[req_id] = _Waiting(self._clock() + seconds)
                return waiting
        self.drop("stalled")
        raise LinkLost(sent=False)

    def _send(self, frame: Mapping[str, Any]) -> None:
        refused = self._socket.closing
        if self._socket.send(frame):
            return
        self._lose("closed")
        raise LinkLost(sent=not refused)

    def _acknowledged(self, waiting: _Waiting, seconds: float) -> Ack:
        wait_running(waiting.ended.wait, seconds)
        if waiting.ack:
            return waiting.ack
        if self.over.is_set():
            raise LinkLost(sent=True)
        # The connection may be half-open: a reply that does not come is the only sign.
        self._ping(doubted=True)
        raise AckMissing

    def _lose(self, reason: str) -> bool:
        """Refuse further frames; return False if they were refused already."""
        with self._changed:
            if self.lost.is_set():
                return False
            self.reason = reason
            self.lost.set()
            self._changed.notify_all()
            return True

    def _close(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._pending or self.over.is_set(), ACK_SECONDS)
        self._socket.close(CloseCode.NORMAL_CLOSURE)

    def _end(self) -> None:
        with self._changed:
            self.over.set()
            for waiting in self._pending.values():
                waiting.ended.set()
            self._changed.notify_all()

    def _receive(self, text: str) -> None:
        try:
            frame = json.loads(text)
            cmd, req_id = frame.get("cmd") or "", frame.get("headers", {}).get("req_id") or ""
            body = frame.get("body") or {}
            errcode = int(frame.get("errcode") or 0)
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            self._malformed.warning({"bot": self.bot, "cause": type(exc).__name__})
            return
        if not isinstance(req_id, str) or not isinstance(body, dict):
            self._malformed.warning({"bot": self.bot, "cause": "shape"})
        elif cmd in (MESSAGE, EVENT):
            self._take(cmd, req_id, body)
        elif not cmd:
            self._acknowledge(req_id, Ack(errcode, body))

    def _take(self, cmd: str, req_id: str, body: Mapping[str, Any]) -> None:
        event = body.get("event")
        if cmd == EVENT and isinstance(event, dict) and event.get("eventtype") == DISCONNECTED:
            self.drop("evicted")
        else:
            self._arrived(self, cmd, req_id, body)

    def _acknowledge(self, req_id: str, ack: Ack) -> None:
        with self._changed:
            waiting = self._pending.get(req_id)
            if waiting:
                waiting.ack = ack
                waiting.ended.set()
            pong = req_id == self._ping_id
            # Any acknowledgement proves that the connection works.
            self._pong_due, self._doubted = math.inf, False
        if waiting is None and not pong:
            metrics.LATE_ACKS.labels(self.bot).inc()
        if ack.errcode == NOT_SUBSCRIBED:
            self.drop("unsubscribed")


#: Called with the connection, the req_id, and the body of a message or event.
Handler = Callable[[Link, str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class LinkHandlers:
    """The functions that serve the connections of all bots."""

    on_message: Handler
    #: Every event but `disconnected_event`.
    on_event: Handler
    #: Each is started in a thread of its own when a connection has subscribed, and returns soon after `link.lost`.
    serve: tuple[Callable[[Link], None], ...] = ()


class Arrivals:
    """Starts a thread for each message and event."""

    def __init__(self, handlers: LinkHandlers) -> None:
        self._handlers = handlers
        self._changed = threading.Condition()
        self._running = 0
        self._dropped = LimitedLog(log, "long connection: message dropped")

    def take(self, link: Link, cmd: str, req_id: str, body: Mapping[str, Any]) -> None:
        """Handle a message or event without waiting, or drop it."""
        handler = self._handlers.on_message if cmd == MESSAGE else self._handlers.on_event
        with self._changed:
            if self._running < MOST_HANDLED:
                threading.Thread(target=self._run, args=(handler, link, req_id, body), daemon=True).start()
                # After the start: a thread that the system refuses to start takes no slot.
                self._running += 1
                return
        metrics.ARRIVALS_DROPPED.labels(link.bot).inc()
        self._dropped.warning({"bot": link.bot, "most": MOST_HANDLED})

    def wait(self, seconds: float) -> None:
        """Wait until nothing is being handled, for `seconds` at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running, seconds)

    def _run(self, handler: Handler, link: Link, req_id: str, body: Mapping[str, Any]) -> None:
        try:
            handler(link, req_id, body)
        except Exception:
            log.exception("long connection: message failed", extra={"bot": link.bot})
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
