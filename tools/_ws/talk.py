"""One session over a WebSocket: sends steps, prints received frames, and checks them against expectations."""

from __future__ import annotations

import json
import os
import select
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from services.http.certificates import tls_context, tls_failure
from tools._command import NOT_THERE, OTHER_KEY
from tools._ws.frames import AnswerLog, Frame, Pattern, ScriptStep, Seen, frame_of

#: Seconds without a frame after which a session ends, unless an answer is unfinished.
QUIET = 2.0
#: Seconds of one wait for a frame. Between two waits the clock and the keyboard are checked.
LOOK = 0.1
#: Bytes of the largest frame: the last frame of an answer has its whole text, and its HTML if requested.
_LARGEST = 16 * 2**20
#: The close code of a connection that sent no valid key.
NOT_AUTHENTICATED = 4401
MASK = "***"
MARKS = {"out": ">", "in": "<", "closed": "x"}


class NotConnected(Exception):
    """The connection could not be opened or was refused; the message says why."""


def connected(url: str, key: str) -> ClientConnection:
    """Open a connection and send the key in a header.

    Raises:
        NotConnected: the server does not answer, or refuses the connection.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    host = urlsplit(url).netloc
    try:
        # No pings by the library: they would keep the server from sending its heartbeats.
        return connect(
            url,
            additional_headers=headers,
            compression=None,
            max_size=_LARGEST,
            ping_interval=None,
            legacy=True,
            ssl=tls_context(f"https{url[3:]}") if url.startswith("wss:") else None,
        )
    except InvalidStatus as exc:
        other = f"; {OTHER_KEY}" if exc.response.status_code == 401 else ""
        raise NotConnected(f"refused: {_reason(exc)}{other}") from exc
    except ssl.SSLError as exc:
        raise NotConnected(f"no safe connection to {host}: {tls_failure(exc) or exc}") from exc
    except (WebSocketException, EOFError, ValueError) as exc:
        raise NotConnected(f"{host} opens no WebSocket there: {exc}") from exc
    except TimeoutError as exc:
        raise NotConnected(f"{host} does not answer") from exc
    except OSError as exc:
        raise NotConnected(f"cannot connect to {host}: {exc.strerror or exc}; {NOT_THERE}") from exc


def _reason(exc: InvalidStatus) -> str:
    """Return the status of a refused handshake, with the message and code of its body if there are any."""
    try:
        body = json.loads(exc.response.body or b"")
        words = f"{body['message']} (code {body['code']})"
    except (ValueError, KeyError, TypeError):
        words = exc.response.reason_phrase
    return f"HTTP {exc.response.status_code}, {words}"


def typed(fd: int, channel: str) -> Iterator[ScriptStep]:
    """Yield the lines of a terminal or pipe as frames, and a short wait while there is none. /quit yields None."""
    rest = b""
    while True:
        if not select.select([fd], [], [], 0)[0]:
            yield LOOK
            continue
        read = os.read(fd, 65536)
        *lines, rest = (rest + (read or b"\n")).split(b"\n")
        for words in (line.decode("utf-8", "replace").strip() for line in lines):
            if words:
                yield None if words == "/quit" else frame_of(words, channel)
        if not read:
            return


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps to send, and the frames that must arrive in this order or must not arrive.

    With `by_hand` the steps are typed by a person.
    """

    steps: Iterable[ScriptStep]
    expected: Sequence[Pattern] = ()
    rejected: Sequence[Pattern] = ()
    by_hand: bool = False
    as_json: bool = False
    key: str = ""
    #: Seconds in all.
    timeout: float = float("inf")


class _Over(Exception):
    """The session ends before all steps of its plan are done."""


class SocketTalk:
    """Run a plan on a socket and report which expectations failed."""

    def __init__(self, socket: ClientConnection, plan: Plan) -> None:
        self._socket = socket
        self._plan = plan
        self._expected = list(plan.expected)
        self._awaited: Pattern | None = None
        self._unwanted: Pattern | None = None
        self._transcript = AnswerLog()
        self._started = self._news = time.monotonic()
        #: Whether all steps are done. True from the start by hand: a person may leave at any time.
        self._all_said = plan.by_hand
        self._quits = False

    def run(self) -> list[str]:
        """Run to the end; return the problems, one line each.

        Raises:
            NotConnected: the server closed the connection because the key is missing or wrong.
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

    def _do(self, step: ScriptStep) -> None:
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
        """Receive frames until `done` returns True or `seconds` have passed."""
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
        """Send the key if the server asks for it. Answer heartbeats only by hand; scripts send a pong as a step."""
        if kind == "heartbeat":
            if self._plan.by_hand:
                self._send({"type": "pong"})
            return
        self._news = time.monotonic()
        if kind == "auth_required" and self._plan.key:
            self._send({"type": "auth", "token": self._plan.key})

    def _print(self, direction: str, frame: Any) -> None:
        """Print a frame with the seconds since the connection opened. The key is masked."""
        at = time.monotonic() - self._started
        if self._plan.as_json:
            line = _dump({"time": round(at, 3), "direction": direction, "frame": frame})
        else:
            line = f"{at:9.3f} {MARKS[direction]} {_dump(frame)}"
        print(line.replace(self._plan.key, MASK) if self._plan.key else line, flush=True)

    def _closed(self) -> list[str]:
        """Treat the server's close as the last received frame."""
        end = {"type": "closed", "code": self._socket.close_code, "reason": self._socket.close_reason or ""}
        self._print("closed", end)
        self._compare(Seen(end, _dump(end)))
        if self._plan.expected and not self._expected:
            return self._judged()
        if end["code"] == NOT_AUTHENTICATED:
            reason = (
                f"the key is wrong, or no longer valid; {OTHER_KEY}"
                if self._plan.key
                else "no key was given: set LAIBAO_KEY"
            )
            raise NotConnected(f"refused: {reason}")
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
