"""The sockets' test client at work: connects, sends what is due, prints what comes, knows when it is over."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from tools._ws_frames import Frame, Pattern, Script, Seen, Send, Step, Transcript, frame_of

#: Seconds without news after which a conversation is over, unless an answer is under way.
QUIET = 2.0
#: Seconds one look at the socket may take, before clock and keyboard are looked at again.
_LOOK = 0.1
#: Bytes; the whole of an answer comes in one frame, with its HTML where that was asked for.
_LARGEST = 16 * 2**20
#: The close code of a connection that was opened and then showed no valid key.
NOT_AUTHENTICATED = 4401
MASK = "***"
MARKS = {"out": ">", "in": "<", "closed": "x"}


class Refused(Exception):
    """There is no connection, for a reason in words."""


def connected(url: str, key: str) -> ClientConnection:
    """Open a connection; the key goes out in a header.

    Raises:
        Refused: nobody answers there, or the server says no.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        # The library's own pings are news to the server: with them no heartbeat would ever be seen.
        return connect(
            url, additional_headers=headers, compression=None, max_size=_LARGEST, ping_interval=None, legacy=True
        )
    except InvalidStatus as exc:
        raise Refused(f"refused: {_reason(exc)}") from exc
    except (WebSocketException, EOFError, ValueError) as exc:
        raise Refused(f"{urlsplit(url).netloc} opens no WebSocket there: {exc}") from exc
    except TimeoutError as exc:
        raise Refused(f"{urlsplit(url).netloc} does not answer") from exc
    except OSError as exc:
        raise Refused(f"cannot connect to {urlsplit(url).netloc}: {exc.strerror or exc}") from exc


def _reason(exc: InvalidStatus) -> str:
    """Return a refusal's status, with the message and code of its body where it has them."""
    try:
        body = json.loads(exc.response.body or b"")
        words = f"{body['message']} (code {body['code']})"
    except (ValueError, KeyError, TypeError):
        words = exc.response.reason_phrase
    return f"HTTP {exc.response.status_code}, {words}"


class Printer:
    """Prints frames with the seconds since it was made; the key is masked wherever it stands."""

    def __init__(
        self, *, as_json: bool, key: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._as_json = as_json
        self._key = key
        self._say = say
        self._clock = clock
        self._started = clock()

    def frame(self, direction: str, frame: Any) -> None:
        """Print one frame; `direction` is one of MARKS."""
        at = self._clock() - self._started
        if self._as_json:
            line = _dump({"time": round(at, 3), "direction": direction, "frame": frame})
        else:
            line = f"{at:9.3f} {MARKS[direction]} {_dump(frame)}"
        self._say(line.replace(self._key, MASK) if self._key else line)


def _dump(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Keyboard:
    """Somebody who types, or a pipe: its lines as they come, without ever waiting for one."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""
        #: Whether the end has been read.
        self.gone = False

    def lines(self) -> Iterator[str]:
        """Yield the whole lines that are there."""
        while not self.gone and select.select([self._fd], [], [], 0)[0]:
            read = os.read(self._fd, 65536)
            self.gone = not read
            *whole, self._rest = (self._rest + (read or b"\n")).split(b"\n")
            yield from (line.decode("utf-8", "replace").strip() for line in whole if line.strip())


class Talk:
    """One conversation, from what is to be sent to whether what was expected came."""

    def __init__(
        self,
        socket: ClientConnection,
        printer: Printer,
        *,
        door: str,
        steps: Sequence[Step],
        expected: Sequence[Pattern],
        rejected: Sequence[Pattern] = (),
        keyboard: Keyboard | None = None,
        key: str = "",
        timeout: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """With a `keyboard` it goes on until that ends or says /quit; in any case for `timeout` seconds at most.

        What is `expected` must come, in this order; when something `rejected` comes it is over.
        """
        self._socket = socket
        self._printer = printer
        self._door = door
        self._script = Script(steps)
        self._expected = list(expected)
        self._expects = bool(expected)
        self._rejected = rejected
        self._unwanted: list[Pattern] = []
        self._keyboard = keyboard
        self._key = key
        self._clock = clock
        self._transcript = Transcript()
        self._ends = clock() + timeout
        self._news = clock()
        self._quits = False

    def run(self) -> list[str]:
        """Talk until it is over; return what went wrong, a line each.

        Raises:
            Refused: the server closed for want of a valid key.
        """
        try:
            while not self._over():
                self._speak()
                self._listen()
        except ConnectionClosed:
            return self._closed()
        return self._judged()

    def _over(self) -> bool:
        now = self._clock()
        if self._quits or self._unwanted or now >= self._ends:
            return True
        if not self._script.done(now) or (self._keyboard and not self._keyboard.gone):
            return False
        if self._expects:
            return not self._expected
        return not self._transcript.busy and now - self._news >= QUIET

    def _speak(self) -> None:
        for line in self._keyboard.lines() if self._keyboard else ():
            self._quits = self._quits or line == "/quit"
            if not self._quits:
                self._script.add(Send(frame_of(line, self._door)))
        for frame in self._script.due(self._clock()):
            self._send(frame)

    def _send(self, frame: Frame) -> None:
        self._socket.send(json.dumps(frame, ensure_ascii=False))
        self._news = self._clock()
        self._printer.frame("out", frame)

    def _listen(self) -> None:
        try:
            raw = self._socket.recv(_LOOK)
        except TimeoutError:
            return
        seen = self._transcript.take(raw if isinstance(raw, str) else repr(raw))
        self._printer.frame("in", seen.frame)
        self._compare(seen)
        self._react(seen.frame.get("type") if isinstance(seen.frame, dict) else None)

    def _compare(self, seen: Seen) -> None:
        self._script.saw(seen)
        self._unwanted += [pattern for pattern in self._rejected if pattern.matches(seen)]
        if self._expected and self._expected[0].matches(seen):
            del self._expected[0]

    def _react(self, kind: str | None) -> None:
        """Do what any client does by itself; where nobody types, silence is meant."""
        if kind == "heartbeat":
            if self._keyboard:
                self._send({"type": "pong"})
            return
        self._news = self._clock()
        if kind == "auth_required" and self._key:
            self._send({"type": "auth", "token": self._key})

    def _closed(self) -> list[str]:
        """Take the server's close as the last that came."""
        end = {"type": "closed", "code": self._socket.close_code, "reason": self._socket.close_reason or ""}
        self._printer.frame("closed", end)
        self._compare(Seen(end, _dump(end)))
        if self._expects and not self._expected:
            return self._judged()
        if end["code"] == NOT_AUTHENTICATED:
            raise Refused("refused: the key is missing or wrong; give it as --key or in LAIBAO_WS_KEY")
        wrong = [] if end["code"] == 1000 or self._expects else [f"closed with {end['code']}"]
        return wrong + self._judged()

    def _judged(self) -> list[str]:
        if self._unwanted:
            return [f"came, and was not to: {self._unwanted[0].text}"]
        awaited = [self._script.awaited] if self._script.awaited else []
        wrong = [f"did not come: {pattern.text}" for pattern in (*awaited, *self._expected)]
        if self._quits:
            return wrong
        if not self._script.done(self._clock()) and not awaited:
            wrong.append("not all of the script was said")
        if self._transcript.busy and not self._expects:
            wrong.append("an answer did not come to its end")
        return wrong
