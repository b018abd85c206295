"""Posts handoffs, persons' requests for a human (转人工), to a WeCom group through the group's robot.

One thread per replica posts the messages that callbacks queue, each at most once. A replica that ends loses the queued
ones, and logs their number.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from config.texts import Texts
from services import metrics
from services.errors import ProviderError, StoreUnavailable
from services.streams.records import Snapshot
from services.wecom.markdown_service import MarkdownRefused
from utils.stream_utils import clip_utf8, render_frame

log = logging.getLogger(__name__)

#: Bytes of UTF-8 of the longest message that a robot accepts.
MOST_BYTES = 4096
#: The most queued messages of one replica; more are dropped and counted.
MOST_WAITING = 100
#: Bytes of the question, and of the person with name and chat, in a message; the answer gets the rest.
QUESTION_BYTES, PERSON_BYTES = 1200, 300
#: The end of a text that was cut.
_CUT = "…"
#: Seconds for which a leaving replica continues to post.
STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Handoff:
    """A person's request for a human. Its repr shows no words."""

    bot: str
    userid: str
    chatid: str
    msgid: str
    name: str = field(repr=False)
    question: str = field(repr=False)
    #: The stream of the last answer, "" for none.
    stream_id: str = ""


class HandoffManager:
    """Posts handoffs in a thread of its own."""

    def __init__(
        self,
        robots: Mapping[str, str],
        *,
        post: Callable[[str, str], None],
        read: Callable[[str], Snapshot | None],
        texts: Texts,
    ) -> None:
        """`robots` has the address of the group robot of each bot that has one, to which `post` sends a message.

        `read` returns the snapshot of a stream.
        """
        self._robots = robots
        self._send = post
        self._read = read
        self._texts = texts
        self._waiting: queue.Queue[Handoff | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="handoffs", daemon=True)
        self._stopping = False

    def serves(self, bot: str) -> bool:
        """Return whether the bot has a group robot."""
        return bot in self._robots

    def add(self, handoff: Handoff) -> None:
        """Queue a message without waiting; drop it if the queue is full."""
        try:
            self._waiting.put_nowait(handoff)
        except queue.Full:
            self._note(handoff, "full")

    def start(self) -> None:
        if self._robots:
            self._thread.start()

    def leave(self) -> None:
        """Nothing to close: the thread runs until `stop`."""

    def close_all(self) -> None:
        """Nothing to close: the thread runs until `stop`."""

    def stop(self) -> None:
        """Post the queued messages, for `STOP_SECONDS` at most."""
        self._stopping = True
        if self._thread.is_alive():
            self._wake()
            self._thread.join(STOP_SECONDS)
        if lost := self._waiting.qsize():
            log.warning("handoffs lost", extra={"count": lost})

    def _wake(self) -> None:
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            # With a full queue the thread does not wait; it reads `_stopping` once the queue is empty.
            return

    def _run(self) -> None:
        while not (self._stopping and self._waiting.empty()):
            handoff = self._waiting.get()
            if handoff is not None:
                self._post(handoff)

    def _post(self, handoff: Handoff) -> None:
        try:
            self._send(self._robots[handoff.bot], message(self._texts, handoff, self._answer(handoff)))
            self._note(handoff, "posted")
        except MarkdownRefused as exc:
            self._note(handoff, "refused", str(exc))
        except ProviderError as exc:
            self._note(handoff, "failed", str(exc))
        except Exception:
            metrics.HANDOFFS.labels("failed").inc()
            log.exception("handoff failed", extra={"bot": handoff.bot, "msgid": handoff.msgid})

    def _answer(self, handoff: Handoff) -> str:
        try:
            shown = self._read(handoff.stream_id) if handoff.stream_id else None
        except StoreUnavailable:
            shown = None
        return shown.text if shown else ""

    def _note(self, handoff: Handoff, outcome: str, cause: str = "") -> None:
        metrics.HANDOFFS.labels(outcome).inc()
        fields = {"bot": handoff.bot, "msgid": handoff.msgid, "outcome": outcome}
        level = logging.INFO if outcome == "posted" else logging.WARNING
        log.log(level, "handoff", extra={**fields, **({"cause": cause} if cause else {})})


def message(texts: Texts, handoff: Handoff, answer: str) -> str:
    """Return the Markdown for the group, at most `MOST_BYTES`; long parts are cut."""
    none = texts.get("handoff_none")
    person = handoff.userid + (f" ({handoff.name})" if handoff.name else "")
    parts = {
        "person": cut(" · ".join(filter(None, (person, handoff.chatid))), PERSON_BYTES),
        "bot": handoff.bot,
        "question": _quoted(handoff.question, QUESTION_BYTES) or none,
    }
    room = MOST_BYTES - len(texts.get("handoff_message", **parts, answer="").encode())
    shown = render_frame(answer, growing=False, thinking="hide")
    # The sentence of TEXTS_FILE may be long, or have a part twice.
    return clip_utf8(texts.get("handoff_message", **parts, answer=_quoted(shown, room) or none), MOST_BYTES)


def _quoted(text: str, max_bytes: int) -> str:
    """Return a text as a Markdown quotation of at most `max_bytes`."""
    return cut("\n".join(f"> {line}" for line in text.strip().splitlines()), max_bytes)


def cut(text: str, max_bytes: int) -> str:
    """Return a text of at most `max_bytes` in which no `<@userid>` mentions somebody."""
    safe = text.replace("<@", "<\u200b@")
    if len(safe.encode("utf-8", "replace")) <= max_bytes:
        return safe
    return clip_utf8(safe, max_bytes - len(_CUT.encode())) + _CUT
