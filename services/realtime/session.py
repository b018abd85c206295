"""The state machine of a realtime socket: messages and events go in, frames and effects come out.

It does no I/O: it returns in order what the caller must send, ask, follow and cancel. Calls may come from any thread,
one at a time.

    a question      AskQuestion → `asked` → Follow → `begun` → `grew`* → `ended`. `failed` may come instead of `ended`;
                    `refused` comes instead of `asked` if no stream was opened
    its frames      analyzing or instant_query → querying_rag → answer* → answer with final: true → idle

Each final text is judged by itself; frames show the question found in it as `question`. The provider is asked that
text, preceded by the texts since the last question (bounded, see `Transcript`). An instant query asks the last final
text alone. A question spoken during an answer gets its frames when its turn comes; a `queued` frame tells the client
its stream before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from config.texts import Texts
from services.batches.records import Task
from services.models import Status
from services.realtime.effects import AskQuestion, Cancel, Close, Effect, Follow, Frame, SessionAnswer
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
from services.realtime.tasks import Subscriptions
from services.realtime.transcript import Transcript, joined
from utils.questions.detection import Detection

#: Unfinished answers a session may have: one that is shown, and three that wait.
MOST = 4


class RealtimeSession:
    """The state of one client's socket, which has one session at a time."""

    def __init__(
        self,
        session_id: str,
        *,
        detect: Callable[[str], Detection],
        texts: Texts,
        now: Callable[[], str],
        stop: Literal["idle", "close"] = "idle",
    ) -> None:
        """Start with a first session. `now` returns the time in the format of frames; `stop` is the effect of stop."""
        self._detect = detect
        self._texts = texts
        self._now = now
        self._stops = stop
        self._answers: list[SessionAnswer] = []
        self._over = False
        self._tasks = Subscriptions(now)
        self._begin(session_id)

    @property
    def session_id(self) -> str:
        return self._frames.session_id

    @property
    def unfinished(self) -> tuple[SessionAnswer, ...]:
        """The answers that are being asked, wait in the queue, or are shown."""
        return tuple(self._answers)

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
        return [self._frames.ack(typed["type"], piece, paused=self._paused), *switched, *self._do(incoming)]

    def asked(self, answer: SessionAnswer, stream_id: str) -> list[Effect]:
        """Handle that a question has its stream. If its answer was interrupted meanwhile, the stream is cancelled."""
        answer.stream_id = stream_id
        if answer not in self._answers:
            return [Cancel((answer,))]
        self._transcript.forget_context()
        waits = answer is not self._answers[0]
        return [self._frames.queued(answer), Follow(answer)] if waits else [Follow(answer)]

    def refused(self, answer: SessionAnswer, code: str) -> list[Effect]:
        """Handle that a question could not be asked. `code` picks the sentence."""
        if not self._leaves(answer):
            return []
        return [self._frames.error(code), *([] if self._answers else self._rest())]

    def begun(self, answer: SessionAnswer) -> list[Effect]:
        """Handle that an answer is the next to be shown."""
        if answer not in self._answers:
            return []
        answer.begun = True
        return [*self._frames.begun(answer)]

    def grew(
        self, answer: SessionAnswer, pieces: Sequence[tuple[str, int]], *, first: int, cursor: int, reset: bool = False
    ) -> list[Effect]:
        """Handle new pieces of an answer, each given with the cursor after it.

        `first` is the number of the first piece within the text, `cursor` the cursor after all known chunks. With
        `reset` the pieces start the text over.
        """
        if answer not in self._answers:
            return []
        if reset or answer.index is None:
            answer.index = first
        answer.cursor = cursor
        begins: list[Effect] = [self._frames.reset(answer)] if reset else []
        return [*begins, *(self._frames.answer(answer, content, cursor=after) for content, after in pieces)]

    def ended(
        self,
        answer: SessionAnswer,
        status: Status,
        *,
        code: str = "",
        sentence: str = "",
        mock: bool = False,
        usage: Frame | None = None,
        sources: Sequence[Mapping[str, Any]] = (),
    ) -> list[Effect]:
        """Handle the end of an answer. An error has a code and may have its own sentence.

        The last frame carries usage and sources, if the provider sent them.
        """
        if status == "error":
            return self.failed(answer, code or "answer_failed", sentence)
        told = {"mock": mock, "usage": usage, "sources": list(sources)}
        members = {name: value for name, value in told.items() if value}
        return self._finish(answer, **members, **({"error": "CANCELLED"} if status == "cancelled" else {}))

    def failed(self, answer: SessionAnswer, code: str, sentence: str = "") -> list[Effect]:
        """Handle that an answer failed or cannot be followed any more."""
        if answer not in self._answers:
            return []
        return [self._frames.failed(answer, code, sentence), *self._finish(answer, error=code.upper())]

    def progressed(self, task: Task) -> list[Effect]:
        """Handle the progress of a batch task that the client follows."""
        return [] if self._over else self._tasks.progressed(task, self._frames)

    def unfollowed(self, task_id: str, code: str) -> list[Effect]:
        """Handle that a batch task cannot be followed (any more). `code` picks the sentence."""
        return [] if self._over else self._tasks.failed(task_id, code, self._frames)

    def closed(self, *, orderly: bool) -> list[Effect]:
        """Handle the end of the socket. An orderly close cancels the answers; after any other the client may resume."""
        self._over = True
        answers, self._answers = self._answers, []
        return [Cancel(tuple(answers))] if orderly and answers else []

    def _begin(self, session_id: str) -> None:
        self._frames = RealtimeFrames(session_id, self._texts)
        self._transcript = Transcript()
        self._paused = False

    def _switch(self, session_id: str) -> list[Effect]:
        """Start a new session, with a new conversation, if a message names another one."""
        if not session_id or session_id == self.session_id:
            return []
        left = self._interrupt("session_switch")
        listening = self._frames.stage == "listening"
        self._begin(session_id)
        return left if listening else [*left, self._frames.status("listening", "note_listening")]

    def _do(self, incoming: SessionMessage) -> list[Effect]:
        match incoming:
            case TranscriptPiece():
                return self._hear(incoming)
            case Control():
                return self._control(incoming)
            case ResumeStream():
                return self._resume(incoming)
            case PingMessage():
                return [self._frames.pong(incoming.timestamp, self._now())]
            case Subscribe():
                return self._tasks.begin(incoming.task_id, self._frames)
            case Unsubscribe():
                return self._tasks.end(incoming.task_id)
        return []

    def _hear(self, piece: TranscriptPiece) -> list[Effect]:
        if self._paused:
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
        return self._ask(answer, joined(self._transcript.context, text))

    def _control(self, control: Control) -> list[Effect]:
        match control.action:
            case "pause":
                self._paused = True
                return [self._frames.status("paused", "note_paused")]
            case "resume":
                self._paused = False
                return [self._frames.status("listening", "note_resumed")]
            case "instant_query":
                return self._instant()
        return self._stop(close=control.close or self._stops == "close")

    def _instant(self) -> list[Effect]:
        """Ask the last final text, and cancel all unfinished answers."""
        question = self._transcript.last
        if not question:
            return [self._frames.error("no_final_asr")]
        if not any(character.isalnum() for character in question):
            return [self._frames.error("empty_question")]
        left = self._interrupt("instant_query")
        return [*left, *self._ask(SessionAnswer(self.session_id, "instant", question), question)]

    def _stop(self, *, close: bool) -> list[Effect]:
        """Cancel all answers and reset the session."""
        left = self._interrupt("stop")
        self._begin(self.session_id)
        if not close:
            return [*left, self._frames.status("idle", "note_stopped")]
        self._over = True
        return [*left, self._frames.status("closed", "note_closed"), Close(reason="stopped")]

    def _resume(self, resume: ResumeStream) -> list[Effect]:
        """Show a stream from the client's cursor on. Ignored if the stream is already queued or shown here."""
        if any(answer.stream_id == resume.stream_id for answer in self._answers):
            return []
        if len(self._answers) >= MOST:
            return [self._frames.error("too_many_questions")]
        answer = SessionAnswer(self.session_id, "resumed", stream_id=resume.stream_id, cursor=resume.cursor)
        self._answers.append(answer)
        return [Follow(answer)]

    def _ask(self, answer: SessionAnswer, text: str) -> list[Effect]:
        if len(self._answers) >= MOST:
            return [self._frames.error("too_many_questions")]
        self._answers.append(answer)
        return [AskQuestion(answer, text)]

    def _interrupt(self, why: str) -> list[Effect]:
        """Cancel all unfinished answers. Answers with frames get a final frame."""
        answers, self._answers = self._answers, []
        if not answers:
            return []
        ends = [self._final(answer, error="CANCELLED") for answer in answers if answer.begun]
        cancel = Cancel(tuple(answer for answer in answers if answer.stream_id))
        return [self._frames.interrupting(why), *ends, cancel]

    def _finish(self, answer: SessionAnswer, **members: Any) -> list[Effect]:
        return [self._final(answer, **members), *self._rest()] if self._leaves(answer) else []

    def _leaves(self, answer: SessionAnswer) -> bool:
        """Remove an answer; return whether it was unfinished."""
        there = answer in self._answers
        self._answers = [other for other in self._answers if other is not answer]
        return there

    def _final(self, answer: SessionAnswer, **members: Any) -> Frame:
        return self._frames.answer(answer, "", cursor=answer.cursor, final=True, **members)

    def _rest(self) -> list[Effect]:
        """Report that no answer is shown, and again that the session is paused, if it is."""
        idle = self._frames.status("idle", "note_idle")
        return [idle, self._frames.status("paused", "note_paused")] if self._paused else [idle]
