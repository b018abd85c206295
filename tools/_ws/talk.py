"""One conversation over a socket: sends its steps, prints what comes, and judges whether it was what was expected."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from tools._ws.frames import Frame, Pattern, Seen, Step, Transcript, frame_of

#: Seconds without a frame after which a conversation is over, unless an answer is under way.
QUIET = 2.0
#: Seconds one wait for a frame may take: then clock and keyboard are looked at again.
LOOK = 0.1
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
    host = urlsplit(url).netloc
    try:
        # No pings of the library's: the server would take them for life, and never send a heartbeat.
        return connect(
            url, additional_headers=headers, compression=None, max_size=_LARGEST, ping_interval=None, legacy=True
        )
    except InvalidStatus as exc:
        raise Refused(f"refused: {_reason(exc)}") from exc
    except (WebSocketException, EOFError, ValueError) as exc:
        raise Refused(f"{host} opens no WebSocket there: {exc}") from exc
    except TimeoutError as exc:
        raise Refused(f"{host} does not answer") from exc
    except OSError as exc:
        raise Refused(f"cannot connect to {host}: {exc.strerror or exc}") from exc


def _reason(exc: InvalidStatus) -> str:
    """Return a refusal's status, with the message and code of its body where it has them."""
    try:
        body = json.loads(exc.response.body or b"")
        words = f"{body['message']} (code {body['code']})"
    except (ValueError, KeyError, TypeError):
        words = exc.response.reason_phrase
    return f"HTTP {exc.response.status_code}, {words}"


def typed(fd: int, door: str) -> Iterator[Step]:
    """Yield the lines of a terminal or pipe as frames, and a short wait while there is none; /quit ends at once."""
    rest = b""
    while True:
        if not select.select([fd], [], [], 0)[0]:
            yield LOOK
            continue
        read = os.read(fd, 65536)
        *lines, rest = (rest + (read or b"\n")).split(b"\n")
        for words in (line.decode("utf-8", "replace").strip() for line in lines):
            if words:
                yield None if words == "/quit" else frame_of(words, door)
        if not read:
            return


@dataclass(frozen=True, slots=True)
class Plan:
    """What is said, and what must come in this order or must not come; `by_hand` a person types the steps."""

    steps: Iterable[Step]
    expected: Sequence[Pattern] = ()
    rejected: Sequence[Pattern] = ()
    by_hand: bool = False
    as_json: bool = False
    key: str = ""
    #: Seconds in all.
    timeout: float = float("inf")


class _Over(Exception):
    """The conversation ends before its plan does."""


class Talk:
    """One conversation, from what is to be sent to whether what was expected came."""

    def __init__(self, socket: ClientConnection, plan: Plan) -> None:
        self._socket = socket
        self._plan = plan
        self._expected = list(plan.expected)
        self._awaited: Pattern | None = None
        self._unwanted: Pattern | None = None
        self._transcript = Transcript()
        self._started = self._news = time.monotonic()
        #: Whether the plan has no more steps. A person may leave at any time.
        self._all_said = plan.by_hand
        self._quits = False

    def run(self) -> list[str]:
        """Talk until it is over; return what went wrong, a line each.

        Raises:
            Refused: the server closed for want of a valid key.
        """
        try:
            for step in self._plan.steps:
                self._do(step)
            self._all_said = True
            self._listen(self._is_over)
        except _Over:
            pass
        except ConnectionClosed:
            return self._closed()
        return self._judged()

    def _do(self, step: Step) -> None:
        if step is None:
            self._quits = True
            raise _Over
        if isinstance(step, Pattern):
            self._awaited = step
            self._listen(lambda: self._awaited is None)
        elif isinstance(step, float):
            self._listen(lambda: False, seconds=step)
        else:
            self._send(step)

    def _is_over(self) -> bool:
        if self._plan.expected:
            return not self._expected
        return not self._transcript.busy and time.monotonic() - self._news >= QUIET

    def _listen(self, done: Callable[[], bool], *, seconds: float = float("inf")) -> None:
        """Take frames until this is true or the seconds are over."""
        until = time.monotonic() + seconds
        while not done() and (now := time.monotonic()) < until:
            if now >= self._started + self._plan.timeout:
                raise _Over
            with suppress(TimeoutError):
                self._take(self._socket.recv(min(LOOK, until - now)))

    def _send(self, frame: Frame) -> None:
        self._socket.send(json.dumps(frame, ensure_ascii=False))
        self._news = time.monotonic()
        self._print("out", frame)

    def _take(self, raw: str | bytes) -> None:
        seen = self._transcript.take(raw if isinstance(raw, str) else repr(raw))
        self._print("in", seen.frame)
        self._compare(seen)
        if self._unwanted:
            raise _Over
        self._react(seen.frame.get("type") if isinstance(seen.frame, dict) else None)

    def _compare(self, seen: Seen) -> None:
        if self._awaited and self._awaited.matches(seen):
            self._awaited = None
        if self._expected and self._expected[0].matches(seen):
            del self._expected[0]
        self._unwanted = next((each for each in self._plan.rejected if each.matches(seen)), None)

    def _react(self, kind: str | None) -> None:
        """Do what any client does by itself; where nobody types, silence is meant."""
        if kind == "heartbeat":
            if self._plan.by_hand:
                self._send({"type": "pong"})
            return
        self._news = time.monotonic()
        if kind == "auth_required" and self._plan.key:
            self._send({"type": "auth", "token": self._plan.key})

    def _print(self, direction: str, frame: Any) -> None:
        """Print a frame with the seconds since the connection opened, the key masked wherever it stands."""
        at = time.monotonic() - self._started
        if self._plan.as_json:
            line = _dump({"time": round(at, 3), "direction": direction, "frame": frame})
        else:
            line = f"{at:9.3f} {MARKS[direction]} {_dump(frame)}"
        print(line.replace(self._plan.key, MASK) if self._plan.key else line, flush=True)

    def _closed(self) -> list[str]:
        """Take the server's close as the last frame that came."""
        end = {"type": "closed", "code": self._socket.close_code, "reason": self._socket.close_reason or ""}
        self._print("closed", end)
        self._compare(Seen(end, _dump(end)))
        if self._plan.expected and not self._expected:
            return self._judged()
        if end["code"] == NOT_AUTHENTICATED:
            raise Refused("refused: the key is missing or wrong; give it as --key or in LAIBAO_WS_KEY")
        wrong = [] if end["code"] == 1000 or self._plan.expected else [f"closed with {end['code']}"]
        return wrong + self._judged()

    def _judged(self) -> list[str]:
        if self._unwanted:
            return [f"came, and was not to: {self._unwanted.text}"]
        awaited = [self._awaited] if self._awaited else []
        wrong = [f"did not come: {pattern.text}" for pattern in (*awaited, *self._expected)]
        if self._quits:
            return wrong
        if not self._all_said and not awaited:
            wrong.append("not all of the script was said")
        if self._transcript.busy and not self._plan.expected:
            wrong.append("an answer did not come to its end")
        return wrong


def _dump(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
