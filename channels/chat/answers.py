"""Builds and sends the frames of the chat channel: deltas of a growing answer, and the complete text at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from channels.asking import iso_now
from channels.chat.frames import ChatAsk, ChatFeedback, ChatPing, FrameRefused, names_of
from channels.options import ThinkingMode
from channels.sockets.answer_queue import AnswerCallbacks, Shown
from channels.sockets.peer import FrameSocket
from channels.thinking import ShownText, text_members
from config.texts import Texts
from services.answers.forms.words import without_choices
from services.forms import OfferedChoices, clicked_choice
from services.models import Question
from services.streams.following import Update
from services.streams.long_text import FullAnswer
from utils.formats.json_slices import Slices, text_member
from utils.markdown.blocks import RenderedBlock
from utils.markdown.pictures import with_pictures


class Blocks(Protocol):
    """Renders a growing text; `add` returns the blocks that changed."""

    def add(self, text: str) -> Sequence[RenderedBlock]: ...


@dataclass(frozen=True, slots=True)
class Html:
    """The functions that render answers as HTML: block by block while they grow, and whole."""

    blocks: Callable[[], Blocks]
    whole: Callable[[Iterable[str]], Iterator[str]]
    #: Returns the address of the gateway's copy of an answer's picture, by the answer's stream and the picture's
    #: address; "" for none.
    picture: Callable[[str, str], str]


@dataclass(eq=False)
class ChatAnswer(Shown):
    """An answer queued for a chat client."""

    #: Renders its blocks; None for a client that wants text only.
    blocks: Blocks | None = None
    #: Whether the client must discard the text that it has, and start again.
    anew: bool = False
    thinking: ThinkingMode = "show"
    #: The running step that was named last.
    step: str = ""
    #: None if the question was not asked on this socket.
    question: Question | None = None

    def __post_init__(self) -> None:
        #: The text since the beginning or the last reset.
        self.text = ShownText(self.thinking)

    def has_id_of(self, question: Question) -> bool:
        """Return whether its question was asked here with the same id, by the same user, of the same bot."""
        own = self.question
        if not (own and question.msgid):
            return False
        return (own.bot, own.principal, own.msgid) == (question.bot, question.principal, question.msgid)

    def equals(self, question: Question) -> bool:
        """Return whether its question has this text, choice and options."""
        own = self.question
        wanted = (question.text, question.choice, question.options)
        return own is not None and (own.text, own.choice, own.options) == wanted

    @property
    def names(self) -> dict[str, str]:
        """The members that every frame of this answer has."""
        return names_of(self.stream_id, self.id)


class ChatDisplay:
    """Sends one client's frames; its `AnswerQueue` calls it for those of answers."""

    def __init__(self, socket: FrameSocket, client_id: str, *, texts: Texts, html: Html) -> None:
        self._socket = socket
        self.client_id = client_id
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

    def show(self, shown: ChatAnswer, update: Update) -> bool:
        """Send new text, or the step before it; return False when the socket is closed."""
        if update.reset:
            self._reset(shown)
        if shown.blocks and update.step not in ("", shown.step):
            shown.step = update.step
            self._typing(shown, True, step=update.step)
        pieces = [*shown.text.feed("".join(chunk.content for chunk in update.chunks))]
        pieces += shown.text.end() if update.ended else ()
        reasoning, content = ("".join(text for thinking, text in pieces if thinking is kind) for kind in (True, False))
        if not (content or reasoning):
            return not self._socket.closing
        frame = {"type": "chat_delta", **shown.names, "cursor": update.cursor, "content": content}
        if reasoning:
            frame["reasoning"] = reasoning
        if shown.blocks and content:
            changed, pictured = shown.blocks.add(content), self._pictured(shown)
            frame["html"] = [{"block": block.block, "html": pictured(block.html)} for block in changed]
        return self._socket.send(frame)

    def ended(self, shown: ChatAnswer, update: Update, full: FullAnswer) -> None:
        if full.size or full.status == "completed":
            self._socket.send(self._answer(shown, update, full))
        if full.status == "error":
            self.error(full.error_code or "answer_failed", update.sentence, **shown.names)
        self._typing(shown, False)

    def failed(self, shown: ChatAnswer, code: str) -> None:
        self.error(code, **shown.names)
        self._typing(shown, False)

    def connected(self) -> None:
        self._socket.send({"type": "system", "content": self._texts.get("socket_connected"), **self._now()})

    def echo(self, ask: ChatAsk, stream_id: str) -> None:
        """Repeat a question that was taken, with the id of its stream."""
        question = {"type": "chat", "role": "user", "content": ask.content, **names_of(stream_id, ask.id)}
        self._socket.send({**question, **self._now()})

    def pong(self, ping: ChatPing) -> None:
        self._socket.send({"type": "pong", "timestamp": ping.timestamp, "server_time": iso_now()})

    def rated(self, feedback: ChatFeedback) -> None:
        self._socket.send({"type": "feedback", "stream_id": feedback.stream_id, "rating": feedback.rating})

    def refused(self, refused: FrameRefused) -> None:
        """Send the error of a frame that was not accepted."""
        if refused.error:
            error = refused.error.translated(self._texts)
            self.error(refused.code, error.message, errors=error.data.get("errors", ()), id=refused.id)
        else:
            self.error(refused.code, self._texts.get(refused.code, **refused.params), id=refused.id)

    def error(self, code: str, sentence: str = "", *, of: str = "", **members: object) -> None:
        """Send an `error` frame without empty members. `sentence` defaults to the text of `of`, or of the code."""
        words = {"code": code.upper(), "content": sentence or self._texts.error(of or code)}
        self._socket.send({"type": "error", **words, **{name: value for name, value in members.items() if value}})

    def _reset(self, shown: ChatAnswer) -> None:
        """Tell the client to discard the text; a client that disconnects now resumes from the beginning."""
        shown.blocks = self.blocks(shown.blocks is not None)
        shown.text = ShownText(shown.thinking)
        self._socket.send({"type": "reset", **shown.names, "cursor": 0})

    def _answer(self, shown: ChatAnswer, update: Update, full: FullAnswer) -> dict[str, Any]:
        # A long answer is read from Redis while it is sent: once for the text, once for its HTML.
        text = text_members(full, shown.thinking)
        frame: dict[str, Any] = {"type": "chat", "role": "assistant", **text, **shown.names, "cursor": update.cursor}
        frame |= {"status": full.status, "sources": list(full.sources)}
        frame |= self._now()
        if full.files:
            frame["files"] = list(full.files)
        if full.suggestions:
            frame["suggestions"] = full.suggestions
        if asks := full.asks:
            titles = enumerate(asks.titles)
            frame["choices"] = [{"title": title, "choice": clicked_choice(asks.form_id, at)} for at, title in titles]
            if asks.inputs:
                frame["inputs"] = [{"name": each.name, "options": list(each.options)} for each in asks.inputs]
        if full.error_code:
            frame["code"] = full.error_code.upper()
        if full.usage.known:
            frame["usage"] = full.usage.known
        if full.mock:
            frame["mock"] = True
        if shown.blocks:
            frame["html"] = self._rendered(shown, text["content"], asks)
        return frame

    def _rendered(self, shown: ChatAnswer, content: str | Slices, asks: OfferedChoices | None) -> str | Slices:
        """Return the HTML of the answer's text, in slices where the text is; choices that it `asks` are left out."""

        def slices() -> Iterator[str]:
            texts = iter((content,)) if isinstance(content, str) else iter(content)
            if asks:
                texts = without_choices(texts, asks, self._texts)
            return map(self._pictured(shown), self._html.whole(texts))

        return text_member(slices, long=isinstance(content, Slices))

    def _pictured(self, shown: ChatAnswer) -> Callable[[str], str]:
        """Return the function that replaces other hosts' pictures in an answer's HTML by the gateway's copies."""
        return partial(with_pictures, address=partial(self._html.picture, shown.stream_id))

    def _typing(self, shown: ChatAnswer, status: bool, **step: str) -> None:
        self._socket.send({"type": "typing", "status": status, **shown.names, **step})

    def _now(self) -> dict[str, str]:
        return {"client_id": self.client_id, "timestamp": iso_now()}
