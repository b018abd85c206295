"""The long connection's server: bots subscribe, people's messages go out to them, and their frames are shown.

    with LongConnectionServer({"aibDEMO": "secret"}) as wecom:
        ...                                       # a client subscribes at `wecom.url`
        alice = wecom.user("zhangsan")
        bubble = alice.says("年假怎么申请")
        answer = alice.sees_finish(bubble)

A message that nobody is subscribed for is dropped, as with WeCom, and counted (`dropped`). A newer connection evicts
the older one. Every frame is checked against the documented rules (`broken`), and `faults` plays what goes wrong.
"""

from __future__ import annotations

import itertools
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from types import TracebackType
from typing import Any, NamedTuple, Self

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from demo.wecom.bubble import SHRUNK
from demo.wecom.long_connection import commands
from demo.wecom.long_connection.account import BotAccount, ReceivedFrame
from demo.wecom.long_connection.commands import ErrorCode
from demo.wecom.long_connection.connection import BotConnection
from demo.wecom.long_connection.faults import Faults
from demo.wecom.long_connection.frame_handler import FrameHandler
from demo.wecom.long_connection.frame_outcome import FrameOutcome
from demo.wecom.long_connection.screen import SentCallback
from demo.wecom.long_connection.user import LongConnectionUser
from demo.wecom.media_store import MediaStore
from demo.wecom.violation import RuleViolation

#: Bytes of a frame at most: a chunk of 512 KB in Base64, and its frame.
MAX_FRAME = 2**20
#: Frames that `frames` keeps.
MOST_FRAMES = 50_000


class HandledFrame(NamedTuple):
    """A frame of a bot, and what the server said of it."""

    frame: ReceivedFrame
    errcode: int
    broken: tuple[RuleViolation, ...]


class LongConnectionServer:
    """A server in threads of this process; a context manager. `bots` are BotIDs with their Secrets."""

    def __init__(
        self,
        bots: Mapping[str, str],
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        clock: Callable[[], float] = time.monotonic,
        ack_seconds: float = 0.0,
        stream_seconds: float = commands.STREAM_SECONDS,
        evicted_seconds: float = 2.0,
        silence_seconds: float = commands.SILENCE_SECONDS,
    ) -> None:
        """`ack_seconds` delays every ack; an evicted connection is closed after `evicted_seconds`."""
        self.clock = clock
        self.bots = {bot_id: BotAccount(bot_id, secret) for bot_id, secret in bots.items()}
        self.faults = Faults()
        #: Every open connection by its number, subscribed or not.
        self.connections: dict[int, BotConnection] = {}
        #: The frames of all bots in the order in which they came; the oldest are dropped.
        self.frames: deque[HandledFrame] = deque(maxlen=MOST_FRAMES)
        #: The HTTP status that refuses every new connection; 0 accepts them.
        self.refuse_status = 0
        #: Called with each frame after it had its effect and before its ack; a test may block or kill here.
        self.before_ack: Callable[[ReceivedFrame], None] = lambda frame: None
        #: Notified after each change.
        self.changed = threading.Condition(threading.RLock())
        self._ack_seconds, self._evicted_seconds, self._silence = ack_seconds, evicted_seconds, silence_seconds
        self._numbers = itertools.count(1)
        self._handler = FrameHandler(clock, stream_seconds)
        self._server = self._listen(host, port)
        self._thread = threading.Thread(target=self._server.serve_forever, name=f"server {self.url}", daemon=True)

    def _listen(self, host: str, port: int) -> Server:
        # WeCom's heartbeat is the command `ping`; WebSocket's own would hide a client without it.
        return serve(
            self._serve, host, port, compression=None, ping_interval=None, close_timeout=1.0, max_size=MAX_FRAME,
            process_request=self._admit,
        )  # fmt: skip

    @property
    def url(self) -> str:
        """The address for WECHAT_WS_URL."""
        host, port = self._server.socket.getsockname()[:2]
        return f"ws://{host}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.disconnect()
        self._server.shutdown()

    # What tests and the page do.

    def user(
        self, userid: str, chatid: str = "", *, bot_id: str = "", store: MediaStore | None = None
    ) -> LongConnectionUser:
        """Return a person who talks to a bot, by default the first one; `chatid` is a group's."""
        return LongConnectionUser(self, bot_id or next(iter(self.bots)), userid, chatid, store=store)

    def deliver(self, bot_id: str, callback: SentCallback) -> None:
        """Send a message or an event to a bot, or drop it."""
        with self.changed:
            self.bots[bot_id].deliver(callback)
            self.changed.notify_all()

    def wait_until(self, condition: Callable[[], bool], timeout: float = 30.0) -> None:
        """Wait until a condition holds, which is looked at after each change.

        Raises:
            TimeoutError: it does not within `timeout` seconds.
        """
        with self.changed:
            if not self.changed.wait_for(condition, timeout):
                raise TimeoutError(f"not within {timeout:g} s")

    def subscribed(self, bot_id: str) -> int:
        """Return the number of the connection that is subscribed; 0 for none."""
        with self.changed:
            subscriber = self.bots[bot_id].subscriber
            return subscriber.number if subscriber else 0

    def evict(self, bot_id: str) -> None:
        """Tell the subscriber that somebody else subscribed. Until the next one, messages are dropped."""
        with self.changed:
            bot = self.bots[bot_id]
            if bot.subscriber:
                self._evict(bot, bot.subscriber)

    def disconnect(self) -> None:
        """Cut every connection without a closing handshake."""
        with self.changed:
            connections = list(self.connections.values())
        for connection in connections:
            connection.drop()

    @property
    def dropped(self) -> list[SentCallback]:
        """The messages and events of all bots that nobody was subscribed for."""
        with self.changed:
            return [callback for bot in self.bots.values() for callback in bot.dropped]

    @property
    def broken(self) -> list[str]:
        """Every rule that a frame broke, `shrinking text` excepted: a taken over answer may be shorter."""
        with self.changed:
            return [
                f"{handled.frame.cmd}: {violation}"
                for handled in self.frames
                for violation in handled.broken
                if violation.rule != SHRUNK
            ]

    # The connections' threads.

    def _admit(self, websocket: ServerConnection, request: Request) -> Response | None:
        return websocket.respond(HTTPStatus(self.refuse_status), "refused") if self.refuse_status else None

    def _serve(self, websocket: ServerConnection) -> None:
        with self.changed:
            connection = BotConnection(next(self._numbers), websocket)
            self.connections[connection.number] = connection
        try:
            with suppress(ConnectionClosed, TimeoutError):
                while True:
                    self._receive(connection, websocket.recv(self._silence))
        finally:
            self._leave(connection)

    def _leave(self, connection: BotConnection) -> None:
        with self.changed:
            connection.end()
            del self.connections[connection.number]
            bot = self.bots.get(connection.bot_id)
            if bot and bot.subscriber is connection:
                bot.subscriber = None
            self.changed.notify_all()

    def _receive(self, connection: BotConnection, text: str | bytes) -> None:
        frame = _read(connection, text)
        fault = self.faults.take(frame.cmd, frame.body)
        if fault.lost:
            return
        serial = not connection.awaits_ack(frame.req_id)
        connection.received(frame.cmd, frame.req_id)
        with self.changed:
            outcome = FrameOutcome(fault.errcode) if fault.errcode else self._apply(frame)
            if not serial:
                late = RuleViolation("serial", "a frame came before the ack of the earlier one of its req_id")
                outcome = outcome._replace(broken=(*outcome.broken, late))
            # A chunk's bytes are in its upload.
            body = {name: value for name, value in frame.body.items() if name != "base64_data"}
            self.frames.append(HandledFrame(replace(frame, body=body), outcome.errcode, outcome.broken))
            self.changed.notify_all()
        self.before_ack(frame)
        if fault.closes:
            connection.drop()
        elif fault.ack_seconds is not None:
            connection.put(_ack(frame, outcome), seconds=self._ack_seconds + fault.ack_seconds)

    def _apply(self, frame: ReceivedFrame) -> FrameOutcome:
        connection = frame.connection
        if frame.cmd == commands.SUBSCRIBE:
            return self._subscribe(connection, frame.body)
        bot = self.bots.get(connection.bot_id)
        if frame.cmd == commands.PING:
            connection.pings += 1
            return FrameOutcome()
        if bot is None or bot.subscriber is not connection:
            return FrameOutcome(ErrorCode.NOT_SUBSCRIBED)
        return self._handler.apply(bot, frame)

    def _subscribe(self, connection: BotConnection, body: Mapping[str, Any]) -> FrameOutcome:
        bot = self.bots.get(str(body.get("bot_id")))
        if bot is None or bot.secret != body.get("secret"):
            return FrameOutcome(ErrorCode.INVALID_SECRET)
        if not bot.subscribe_limit.take(self.clock()):
            return FrameOutcome(ErrorCode.TOO_OFTEN, broken=(RuleViolation("rate", "too many subscriptions"),))
        if bot.subscriber and bot.subscriber is not connection:
            self._evict(bot, bot.subscriber)
        bot.subscriber, connection.bot_id = connection, bot.bot_id
        bot.subscriptions.append(connection.number)
        return FrameOutcome()

    def _evict(self, bot: BotAccount, connection: BotConnection) -> None:
        body = {
            "msgid": secrets.token_hex(16),
            "create_time": int(time.time()),
            "aibotid": bot.bot_id,
            "msgtype": "event",
            "event": {"eventtype": "disconnected_event"},
        }
        connection.put({"cmd": commands.EVENT, "headers": {"req_id": secrets.token_hex(8)}, "body": body})
        connection.close_in(self._evicted_seconds)
        bot.subscriber = None
        bot.evictions += 1
        self.changed.notify_all()


def _read(connection: BotConnection, text: str | bytes) -> ReceivedFrame:
    """Parse a frame. What is missing or wrong is empty, so that its ack refuses it."""
    value: Any = None
    with suppress(ValueError):
        value = json.loads(text)
    members = value if isinstance(value, dict) else {}
    headers, body = members.get("headers"), members.get("body")
    req_id = headers.get("req_id", "") if isinstance(headers, dict) else ""
    return ReceivedFrame(connection, str(members.get("cmd", "")), str(req_id), body if isinstance(body, dict) else {})


def _ack(frame: ReceivedFrame, outcome: FrameOutcome) -> dict[str, Any]:
    said = {"errcode": int(outcome.errcode), "errmsg": "ok" if not outcome.errcode else f"error {outcome.errcode:d}"}
    body = {"body": dict(outcome.body)} if outcome.body is not None else {}
    return {"headers": {"req_id": frame.req_id}, **said, **body}
