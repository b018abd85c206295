"""The state machine of a realtime socket: messages and events go in, frames and effects come out.

It does no I/O: it returns in order what the caller must send, ask, follow and cancel. Calls may come from any thread,
one at a time.

    a question      AskQuestion → `asked` → Follow → `begun` → `grew`* → `ended`. `failed` may come instead of `ended`;
                    `refused` comes instead of `asked` if no stream was opened
    its frames      analyzing or instant_query → querying_rag → answer* → answer with final: true → idle

Each final text is judged by itself; frames show the question found in it as `question`. It is asked with what
follows it in that text, without the sentences before it. A question that points to what was said before (病假呢, how
long does it take) is asked as the whole text, preceded by the texts since the last question (bounded, see
`Transcript`). An instant query asks the last final text alone. A question spoken during an answer gets its frames
when its own answer is shown; a `queued` frame names its stream before. `Transcript` holds the last final text and
the context of the next question, `Subscriptions` the batch tasks that the client follows.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Literal

from config.texts import Texts
from services.batches.records import Task
from services.realtime.answers import SessionAnswers
from services.realtime.effects import Close, Effect, SessionAnswer, UnwatchTask, WatchTask
from services.realtime.frames import RealtimeFrames
from services.realtime.messages import (
    Control,
    MessageRefused,
    PingMessage,
    ResumeStream,
    SessionMessage,
    Subscribe,
    TranscriptPiece,
    Unsubscribe,
    read_message,
    session_of,
    with_type,
)
from utils.markdown.blocks import BlockRenderer
from utils.questions.detection import Detection

#: Final texts without a question that are kept as context, and their characters in all. The oldest are dropped first.
MOST_TEXTS = 20
MOST_CHARACTERS = 2_000

#: Characters that are joined without a space: Chinese, kana, and their punctuation.
_CJK = re.compile(r"[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")


class Transcript:
    """The bounded transcript of a session."""

    def __init__(self) -> None:
        #: The last final text, "" before the first. Answers and their failures do not clear it.
        self.last = ""
        self._context: deque[str] = deque(maxlen=MOST_TEXTS)

    @property
    def context(self) -> str:
        """The final texts since the last question, as one text."""
        return joined(*self._context)

    def keep(self, text: str) -> None:
        """Add a text to the context of the next question, and drop the oldest texts beyond the limits."""
        self._context.append(text[-MOST_CHARACTERS:])
        while sum(map(len, self._context)) > MOST_CHARACTERS:
            self._context.popleft()

    def forget_context(self) -> None:
        """Clear the context, after it was sent with a question."""
        self._context.clear()


def joined(*texts: str) -> str:
    """Join texts: Chinese without spaces, all others with one."""
    whole = ""
    for text in filter(None, texts):
        together = not whole or _CJK.match(whole[-1]) or _CJK.match(text[0])
        whole += text if together else f" {text}"
    return whole


#: Tasks that one connection may follow at once.
MOST_TASKS = 20


class Subscriptions:
    """The tasks one connection follows, across its sessions. Frames carry the current session's id."""

    def __init__(self, now: Callable[[], str]) -> None:
        """`now` returns the time in the format of frames."""
        self._now = now
        self._task_ids: set[str] = set()

    def begin(self, task_id: str, frames: RealtimeFrames) -> list[Effect]:
        """Follow a task. A repeated subscription reports its progress again."""
        if len(self._task_ids | {task_id}) > MOST_TASKS:
            return [frames.task_error("too_many_subscriptions", task_id)]
        self._task_ids.add(task_id)
        return [WatchTask(task_id)]

    def end(self, task_id: str) -> list[Effect]:
        """Stop following a task."""
        self._task_ids.discard(task_id)
        return [UnwatchTask(task_id)]

    def progressed(self, task: Task, frames: RealtimeFrames) -> list[Effect]:
        """Handle a task's progress. After its end the task is no longer followed."""
        if task.task_id not in self._task_ids:
            return []
        progress: list[Effect] = [frames.batch_progress(task, self._now())]
        if task.ended:
            self._task_ids.discard(task.task_id)
        return (
            [*progress, frames.task_error("batch_task_failed", task.task_id)] if task.status == "failed" else progress
        )

    def failed(self, task_id: str, code: str, frames: RealtimeFrames) -> list[Effect]:
        """Handle that a task cannot be followed (any more)."""
        if task_id not in self._task_ids:
            return []
        self._task_ids.discard(task_id)
        return [frames.task_error(code, task_id)]


class RealtimeSession:
    """The state of one client's socket, which has one session at a time."""

    def __init__(
        self,
        session_id: str,
        *,
        detect: Callable[[str], Detection],
        texts: Texts,
        now: Callable[[], str],
        blocks: Callable[[], BlockRenderer],
        picture: Callable[[str, str], str],
        stop: Literal["idle", "close"] = "idle",
    ) -> None:
        """Start with a first session. `now` returns the time in the format of frames; `stop` is the effect of stop.

        `blocks` makes the renderer of an answer that is sent as HTML; `picture` returns the link to the gateway's copy
        of a picture in it, by its stream and the picture's address, "" for none.
        """
        self._detect = detect
        self._now = now
        self._stops = stop
        self._over = False
        self._tasks = Subscriptions(now)
        self._frames = RealtimeFrames(session_id, texts, picture)
        self._transcript = Transcript()
        #: The steps of its answers; those that are asked begin with `asked`.
        self.answers = SessionAnswers(self._frames, blocks)

    @property
    def session_id(self) -> str:
        return self._frames.session_id

    def open(self) -> list[Effect]:
        """Return the first frames of a connection."""
        return [self._frames.connected(), self._frames.status("listening", "note_listening")]

    def unreadable(self) -> list[Effect]:
        """Report that a message was not JSON."""
        return [] if self._over else [self._frames.error("invalid_json")]

    def troubled(self) -> list[Effect]:
        """Report that a message failed because of an internal error."""
        return [] if self._over else [self._frames.error("server_error")]

    def received(self, message: object) -> list[Effect]:
        """Handle a message. Every message with a type is acknowledged first; an invalid one changes nothing."""
        if self._over:
            return []
        ack: list[Effect] = []
        try:
            typed = with_type(message)
            ack = [self._frames.ack(typed["type"])]
            session_id, incoming = session_of(typed), read_message(typed)
        except MessageRefused as refused:
            return [*ack, self._frames.error(refused.code, **refused.params)]
        switched = self._switch(session_id)
        piece = incoming if isinstance(incoming, TranscriptPiece) else None
        return [self._frames.ack(typed["type"], piece), *switched, *self._do(incoming)]

    def asked(self, answer: SessionAnswer, stream_id: str) -> list[Effect]:
        """Handle that a question has its stream: its context was sent with it."""
        if answer in self.answers.unfinished:
            self._transcript.forget_context()
        return self.answers.asked(answer, stream_id)

    def progressed(self, task: Task) -> list[Effect]:
        """Handle the progress of a batch task that the client follows."""
        return [] if self._over else self._tasks.progressed(task, self._frames)

    def unfollowed(self, task_id: str, code: str) -> list[Effect]:
        """Handle that a batch task cannot be followed (any more). `code` picks the sentence."""
        return [] if self._over else self._tasks.failed(task_id, code, self._frames)

    def closed(self, *, orderly: bool) -> list[Effect]:
        """Handle the end of the socket. An orderly close cancels the answers; after any other the client may resume."""
        self._over = True
        return self.answers.closed(orderly=orderly)

    def _begin(self, session_id: str) -> None:
        self._frames.begin(session_id)
        self._transcript = Transcript()

    def _switch(self, session_id: str) -> list[Effect]:
        """Start a new session, with a new conversation, if a message names another one."""
        if not session_id or session_id == self.session_id:
            return []
        left = self.answers.interrupt("session_switch")
        listening = self._frames.stage == "listening"
        self._begin(session_id)
        return left if listening else [*left, self._frames.status("listening", "note_listening")]

    def _do(self, incoming: SessionMessage) -> list[Effect]:
        match incoming:
            case TranscriptPiece():
                return self._take_piece(incoming)
            case Control():
                return self._control(incoming)
            case ResumeStream():
                return self.answers.resume(incoming.stream_id, incoming.cursor, html=incoming.html)
            case PingMessage():
                return [self._frames.pong(incoming.timestamp, self._now())]
            case Subscribe():
                return self._tasks.begin(incoming.task_id, self._frames)
            case Unsubscribe():
                return self._tasks.end(incoming.task_id)
        return []

    def _take_piece(self, piece: TranscriptPiece) -> list[Effect]:
        if self._frames.paused:
            return [self._frames.status("paused", "note_paused_chunk")]
        text = piece.text.strip()
        if not piece.is_final or not text:
            return []
        self._transcript.last = text
        found = self._detect(text)
        if not found.is_question:
            self._transcript.keep(text)
            return [self._frames.status("waiting_for_question", "note_waiting")]
        answer = SessionAnswer(self.session_id, "spoken", found.question.strip() or text, found.confidence)
        asked = joined(self._transcript.context, text) if found.points_back else found.onwards or text
        return self.answers.ask(answer, asked, html=piece.html)

    def _control(self, control: Control) -> list[Effect]:
        match control.action:
            case "pause":
                self._frames.paused = True
                return [self._frames.status("paused", "note_paused")]
            case "resume":
                self._frames.paused = False
                return [self._frames.status("listening", "note_resumed")]
            case "instant_query":
                return self._instant(html=control.html)
        return self._stop(close=control.close or self._stops == "close")

    def _instant(self, *, html: bool) -> list[Effect]:
        """Ask the last final text, and cancel all unfinished answers."""
        question = self._transcript.last
        if not question:
            return [self._frames.error("no_final_asr")]
        if not any(character.isalnum() for character in question):
            return [self._frames.error("empty_question")]
        left = self.answers.interrupt("instant_query")
        asked = self.answers.ask(SessionAnswer(self.session_id, "instant", question), question, html=html)
        return [*left, *asked]

    def _stop(self, *, close: bool) -> list[Effect]:
        """Cancel all answers and reset the session."""
        left = self.answers.interrupt("stop")
        self._begin(self.session_id)
        if not close:
            return [*left, self._frames.status("idle", "note_stopped")]
        self._over = True
        return [*left, self._frames.status("closed", "note_closed"), Close(reason="stopped")]
