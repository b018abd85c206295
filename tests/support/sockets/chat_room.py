"""Chat clients, in memory and over a network: they collect their frames and wait for expected ones."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from websockets.exceptions import ConnectionClosed

from channels.chat.answers import ChatDisplay, Html
from channels.chat.channel import ChatChannel
from channels.options import AnswerReader, AskableBots
from channels.sockets.socket import Closed
from config.texts import Texts
from services.attachments import SentFile
from services.errors import AnswerError
from services.feedback.records import Outcome, Rating
from services.identity.callers import Caller
from tests.support.servers.processes import wait_until
from tests.support.sockets.connecting import connected
from tests.support.sockets.frames import kinds
from utils.markdown.blocks import RenderedBlock

#: Timeout in seconds within which a frame must arrive: long, for a busy machine.
WIDE = 30.0

Frame = dict[str, Any]


ANYBODY = Caller("anonymous", "sealed-anonymous")


class Limit:
    """A rate limiter that admits questions while `allows` is true, and records its calls."""

    def __init__(self) -> None:
        self.allows = True
        self.asked: list[tuple[str, str]] = []

    def question(self, principal: str, client_id: str) -> bool:
        self.asked.append((principal, client_id))
        return self.allows


class Ratings:
    """An inbox that records the ratings, and says `outcome` of each."""

    def __init__(self) -> None:
        self.outcome: Outcome = "taken"
        self.fails: Exception | None = None
        self.taken: list[tuple[str, str, str, str]] = []
        self.readers: list[AnswerReader] = []

    def rate(self, stream_id: str, rating: Rating, *, bot: str, principal: str, running: bool) -> Outcome:
        if self.fails:
            raise self.fails
        assert not running
        self.readers.append(AnswerReader(bot=bot, principal=principal))
        self.taken.append((stream_id, rating.kind, rating.content, principal))
        return self.outcome


class Lines:
    """Render a text line by line: the changed blocks are those from the last line on."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, text: str) -> list[RenderedBlock]:
        first = self.text.count("\n")
        self.text += text
        return [
            RenderedBlock(number, f"<p>{line}</p>")
            for number, line in enumerate(self.text.split("\n"))
            if number >= first
        ]


class NoFiles:
    """Knows no uploaded file."""

    def claim(self, principal: str, file_ids: Sequence[str]) -> Sequence[SentFile]:
        if file_ids:
            raise AnswerError(code="file_unknown")
        return ()


NO_FILES = NoFiles()
#: The bots that may be asked, with the options that each one takes.
BOTS = {"default": ("inputs", "model", "temperature"), "hr": ("inputs",)}
LINES = Html(blocks=Lines, whole=lambda slices: iter(["<main>", *slices, "</main>"]), picture=lambda *_: "")


class Screen:
    """The frames that a client received, in their order, with ways to search them."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def copy(self) -> Screen:
        """Return the frames so far, so that text and cursor are of the same moment."""
        copied = Screen()
        copied.frames = list(self.frames)
        return copied

    def of(self, stream_id: str, *types: str) -> list[Frame]:
        """Return a stream's frames, without the question's echo; only those of `types` if any are given."""
        named = [f for f in list(self.frames) if f.get("stream_id") == stream_id and f.get("role") != "user"]
        return [frame for frame in named if not types or frame["type"] in types]

    def sees(self, **members: Any) -> Frame:
        """Wait for a frame with these members, and return it."""

        def found() -> Frame | None:
            return next((frame for frame in list(self.frames) if members.items() <= frame.items()), None)

        return wait_until(found, WIDE) or {}

    def sees_text(self, stream_id: str, length: int) -> None:
        """Wait until `length` characters of an answer have arrived."""
        wait_until(lambda: len(self.text(stream_id)) >= length, WIDE)

    def sees_end(self, stream_id: str) -> list[Frame]:
        """Wait for a stream's last frame, and return all of its frames."""
        self.sees(type="typing", status=False, stream_id=stream_id)
        return self.of(stream_id)

    def text(self, stream_id: str) -> str:
        """Return the text of a stream as its deltas build it."""
        text = ""
        for frame in self.of(stream_id, "chat_delta", "reset"):
            text = text + frame["content"] if frame["type"] == "chat_delta" else ""
        return text

    def cursor(self, stream_id: str) -> int:
        """Return the cursor to resume a stream from."""
        return next((f["cursor"] for f in reversed(self.of(stream_id)) if "cursor" in f), 0)

    def unknown(self) -> list[Frame]:
        """Return the frames that do not match the published schema."""
        return [frame for frame in self.frames if len(kinds("chat.server", frame)) != 1]


class ChatClient(Screen):
    """One client and its socket in memory, on a chat endpoint with the test's gateway."""

    def __init__(
        self, gateway: Any, *, caller: Caller = ANYBODY, client_id: str = "c1", limit: Limit | None = None
    ) -> None:
        super().__init__()
        self.closing = False
        self.limit = limit or Limit()
        self.ratings = Ratings()
        texts = Texts("zh")
        self.endpoint = ChatChannel(
            ChatDisplay(self, client_id, texts=texts, html=LINES),
            caller,
            gateway=gateway,
            limiter=self.limit,
            ratings=self.ratings,
            bots=AskableBots(BOTS, texts),
            files=NO_FILES,
        )
        self.endpoint.opened()

    def send(self, frame: Mapping[str, Any]) -> bool:
        """Receive a frame that the endpoint sends."""
        if self.closing:
            return False
        self.frames.append(json.loads(json.dumps(frame)))
        return True

    def says(self, **frame: Any) -> None:
        self.endpoint.received(json.dumps(frame, ensure_ascii=False))

    def asks(self, content: str, **others: Any) -> str:
        """Ask, and return the stream's id."""
        self.says(type="chat", content=content, **others)
        echo = next(frame for frame in reversed(self.frames) if frame.get("role") == "user")
        return str(echo["stream_id"])

    def leaves(self) -> None:
        self.closing = True
        self.endpoint.closed(Closed(1006))


class ChatSocket(Screen):
    """One client on a real socket; a thread reads the frames as they arrive."""

    def __init__(self, url: str, client_id: str = "", *, key: str = "") -> None:
        """Connect to the replica at `url`, an http address."""
        super().__init__()
        address = url.replace("http", "ws", 1) + "/ws/chat" + (f"/{client_id}" if client_id else "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        options: dict[str, Any] = {"compression": None, "open_timeout": WIDE, "ping_interval": None, "max_size": 2**24}
        self._open = ExitStack()
        self._connection = self._open.enter_context(connected(address, additional_headers=headers, **options))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.sees(type="system")

    def says(self, **frame: Any) -> None:
        self._connection.send(json.dumps(frame, ensure_ascii=False))

    def asks(self, content: str, **others: Any) -> str:
        """Ask, and return the stream's id."""
        known = len(self.frames)
        self.says(type="chat", content=content, **others)
        echo = wait_until(lambda: next((f for f in self.frames[known:] if f.get("role") == "user"), None), WIDE)
        return str((echo or {})["stream_id"])

    def is_cut(self) -> None:
        """Cut the connection without a close frame, as a network failure does."""
        self._connection.socket.shutdown(socket.SHUT_RDWR)
        self.close_code()

    def leaves(self) -> None:
        self._open.close()
        self.close_code()

    @property
    def over(self) -> bool:
        return not self._reader.is_alive()

    def close_code(self) -> int | None:
        """Wait for the connection's end, and return its close code; None or 1006 if there was no close frame."""
        self._reader.join(WIDE)
        assert self.over, self.frames[-3:]
        code: int | None = self._connection.close_code
        return code

    def _read(self) -> None:
        with suppress(ConnectionClosed):
            for message in self._connection:
                self.frames.append(json.loads(message))
