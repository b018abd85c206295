"""Builds and sends the frames of an answer on the chat channel: deltas while it grows, the whole text at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from channels.asking import iso_now
from channels.chat.frames import names_of
from channels.sockets.answer_queue import AnswerCallbacks, Shown
from channels.sockets.peer import FrameSocket
from config.texts import Texts
from services.streams.following import News
from services.streams.long_text import Whole
from utils.formats.json_slices import text_member
from utils.markdown.blocks import RenderedBlock


class Blocks(Protocol):
    """Renders a growing text; `add` returns the blocks that changed."""

    def add(self, text: str) -> Sequence[RenderedBlock]: ...


@dataclass(frozen=True, slots=True)
class Html:
    """The functions that render answers as HTML: block by block while they grow, and whole."""

    blocks: Callable[[], Blocks]
    whole: Callable[[Iterable[str]], Iterator[str]]


@dataclass(eq=False)
class ChatAnswer(Shown):
    """An answer queued for a chat client."""

    #: Renders its blocks; None for a client that wants text only.
    blocks: Blocks | None = None
    #: The client must discard what it has and start again.
    anew: bool = False
    #: The question's text, "" when it was not asked on this socket.
    question: str = ""

    @property
    def names(self) -> dict[str, str]:
        """The members that every frame of this answer has."""
        return names_of(self.stream_id, self.id)


class ChatDisplay:
    """Sends the frames of one client's answers, called by its `AnswerQueue`."""

    def __init__(self, socket: FrameSocket, client_id: str, *, texts: Texts, html: Html) -> None:
        self._socket = socket
        self._client_id = client_id
        self._texts = texts
        self._html = html

    @property
    def callbacks(self) -> AnswerCallbacks[ChatAnswer]:
        return AnswerCallbacks(self.begun, self.show, self.ended, self.failed, closing=lambda: self._socket.closing)

    def blocks(self, html: bool) -> Blocks | None:
        return self._html.blocks() if html else None

    def begun(self, shown: ChatAnswer) -> None:
        self._typing(shown, True)
        if shown.anew:
            self._reset(shown)

    def show(self, shown: ChatAnswer, news: News) -> bool:
        """Send new text; return False when the socket is closed."""
        if news.reset:
            self._reset(shown)
        if not news.chunks:
            return not self._socket.closing
        text = "".join(chunk.content for chunk in news.chunks)
        frame = {"type": "chat_delta", **shown.names, "cursor": news.cursor, "content": text}
        if shown.blocks:
            frame["html"] = [{"block": changed.block, "html": changed.html} for changed in shown.blocks.add(text)]
        return self._socket.send(frame)

    def ended(self, shown: ChatAnswer, news: News, whole: Whole) -> None:
        if whole.size or whole.status == "completed":
            self._socket.send(self._answer(shown, news, whole))
        if whole.status == "error":
            self.error(whole.error_code or "answer_failed", news.sentence, **shown.names)
        self._typing(shown, False)

    def failed(self, shown: ChatAnswer, code: str) -> None:
        self.error(code, **shown.names)
        self._typing(shown, False)

    def error(self, code: str, sentence: str = "", **names: str) -> None:
        """Send an `error` frame. `sentence` defaults to the text of the code; empty names are left out."""
        words = {"code": code.upper(), "content": sentence or self._texts.error(code)}
        self._socket.send({"type": "error", **words, **{name: value for name, value in names.items() if value}})

    def _reset(self, shown: ChatAnswer) -> None:
        """Tell the client to discard the text; a client that disconnects now resumes from the beginning."""
        shown.blocks = self.blocks(shown.blocks is not None)
        self._socket.send({"type": "reset", **shown.names, "cursor": 0})

    def _answer(self, shown: ChatAnswer, news: News, whole: Whole) -> dict[str, Any]:
        # A long answer is read from Redis while it is sent: once for the text, once for its HTML.
        long = whole.long is not None
        content = text_member(whole.slices, long=long)
        frame: dict[str, Any] = {
            "type": "chat",
            "role": "assistant",
            "content": content,
            **shown.names,
            "cursor": news.cursor,
        }
        frame |= {"status": whole.status, "sources": list(whole.sources)}
        frame |= {"client_id": self._client_id, "timestamp": iso_now()}
        if whole.error_code:
            frame["code"] = whole.error_code.upper()
        if whole.usage.known:
            frame["usage"] = whole.usage.known
        if whole.mock:
            frame["mock"] = True
        if shown.blocks:
            frame["html"] = text_member(lambda: self._html.whole(whole.slices()), long=long)
        return frame

    def _typing(self, shown: ChatAnswer, status: bool) -> None:
        self._socket.send({"type": "typing", "status": status, **shown.names})
