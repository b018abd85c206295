"""The session behind a realtime socket: which frames follow from what is said and from what becomes of its answers.

A state machine: it takes messages and events, returns what is to be done about them in order, and does none of it
itself. Somebody else sends the frames, asks, follows and cancels; one call at a time, from whatever threads.

    a question      Ask → `asked` → Follow → `begun` → `grew`* → `ended`; `failed` may come in the place of `ended`,
                    `refused` in that of `asked`, where no stream came into being
    its frames      analyzing or instant_query → querying_rag → answer* → answer, the one that is final → idle

A final text is judged by itself; the question in it is what frames show as `question`. What is asked is that text with
what was said since the last question in front, where that had no question in it: bounded, see `Transcript`. An instant
query asks the last final text alone. A question spoken during an answer gets its frames when its turn comes; until
then the client knows its stream from a frame of its own, queued.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from config.texts import Texts
from services.batches.records import Task
from services.models import Status
from services.realtime.effects import Answer, Ask, Cancel, Close, Effect, Follow, Frame
from services.realtime.frames import RealtimeFrames
from services.realtime.messages import (
    Control,
    Incoming,
    MessageRefused,
    Piece,
    Ping,
    Resume,
    Subscribe,
    Unsubscribe,
    read_message,
    session_of,
    with_type,
)
from services.realtime.tasks import Subscriptions
from services.realtime.transcript import Transcript, joined

#: Answers of a session that may be unfinished: one that is shown, and three that wait.
MOST = 4


class Detected(Protocol):
    """What a detector says of an utterance."""

    @property
    def is_question(self) -> bool: ...

    @property
    def confidence(self) -> float: ...

    @property
    def question(self) -> str: ...


class RealtimeSession:
    """What one client says on its socket, in one session after the other."""

    def __init__(
        self,
        session_id: str,
        *,
        detect: Callable[[str], Detected],
        texts: Texts,
        now: Callable[[], str],
        stop: Literal["idle", "close"] = "idle",
    ) -> None:
        """Take the first session's name, who tells questions, the time as frames say it, and what `stop` does."""
        self._detect = detect
        self._texts = texts
        self._now = now
        self._stops = stop
        self._answers: list[Answer] = []
        self._over = False
        self._tasks = Subscriptions(now)
        self._begin(session_id)

    @property
    def session_id(self) -> str:
        return self._frames.session_id

    @property
    def unfinished(self) -> tuple[Answer, ...]:
        """The answers that are shown, or wait for it, or are being asked for."""
        return tuple(self._answers)

    def open(self) -> list[Effect]:
        """Greet the client."""
        return [self._frames.connected(), self._status("listening", "note_listening")]

    def unreadable(self) -> list[Effect]:
        """Tell the client that its message was no JSON."""
        return [] if self._over else [self._frames.error("invalid_json")]

    def troubled(self) -> list[Effect]:
        """Tell the client that its message came to nothing by our fault."""
        return [] if self._over else [self._frames.error("server_error")]

    def received(self, message: object) -> list[Effect]:
        """Take a message. One with a type is acknowledged first; one that is refused changes nothing."""
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
        piece = incoming if isinstance(incoming, Piece) else None
        return [self._frames.ack(typed["type"], piece, paused=self._paused), *switched, *self._do(incoming)]

    def asked(self, answer: Answer, stream_id: str) -> list[Effect]:
        """Take in that a question has its stream; one that was given up meanwhile is not wanted any more."""
        answer.stream_id = stream_id
        if answer not in self._answers:
            return [Cancel((answer,))]
        self._transcript.forget_context()
        waits = answer is not self._answers[0]
        return [self._frames.queued(answer), Follow(answer)] if waits else [Follow(answer)]

    def refused(self, answer: Answer, code: str) -> list[Effect]:
        """Take in that a question could not be asked; its code picks the sentence."""
        if not self._leaves(answer):
            return []
        return [self._frames.error(code), *([] if self._answers else self._rest())]

    def begun(self, answer: Answer) -> list[Effect]:
        """Take in that it is an answer's turn."""
        if answer not in self._answers:
            return []
        answer.begun = True
        stream = {"stream_id": answer.stream_id}
        if answer.kind == "resumed":
            return [self._status("querying_rag", "note_querying", **stream)]
        if answer.kind == "spoken":
            return [self._frames.analyzing(answer), self._status("querying_rag", "note_querying", **stream)]
        instant = {"mode": "instant", **stream}
        asking = self._status("instant_query", "note_instant", question=answer.question, **instant)
        return [asking, self._status("querying_rag", "note_querying", **instant)]

    def grew(
        self, answer: Answer, pieces: Sequence[tuple[str, int]], *, first: int, cursor: int, reset: bool = False
    ) -> list[Effect]:
        """Take in what is new of an answer.

        Args:
            pieces: the text's new pieces, each with the cursor after it.
            first: the number of the first of them within the text.
            cursor: the place after all that is known.
            reset: the pieces begin the text anew.
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
        answer: Answer,
        status: Status,
        *,
        code: str = "",
        sentence: str = "",
        mock: bool = False,
        usage: Frame | None = None,
        sources: Sequence[Mapping[str, Any]] = (),
    ) -> list[Effect]:
        """Take in how an answer ended; an error has a code, and perhaps its sentence.

        Its last frame tells what it cost and where it comes from, as far as the provider said so.
        """
        if status == "error":
            return self.failed(answer, code or "answer_failed", sentence)
        told = {"mock": mock, "usage": usage, "sources": list(sources)}
        members = {name: value for name, value in told.items() if value}
        return self._finish(answer, **members, **({"error": "CANCELLED"} if status == "cancelled" else {}))

    def failed(self, answer: Answer, code: str, sentence: str = "") -> list[Effect]:
        """Take in that an answer failed, or cannot be followed any more."""
        if answer not in self._answers:
            return []
        return [self._frames.failed(answer, code, sentence), *self._finish(answer, error=code.upper())]

    def progressed(self, task: Task) -> list[Effect]:
        """Take in how a batch task is that the client follows."""
        return [] if self._over else self._tasks.progressed(task, self._frames)

    def unfollowed(self, task_id: str, code: str) -> list[Effect]:
        """Take in that a batch task cannot be followed, or not any more; the code picks the sentence."""
        return [] if self._over else self._tasks.failed(task_id, code, self._frames)

    def closed(self, *, orderly: bool) -> list[Effect]:
        """Take in the socket's end: a client that takes its leave wants no more, any other may come back."""
        self._over = True
        answers, self._answers = self._answers, []
        return [Cancel(tuple(answers))] if orderly and answers else []

    def _begin(self, session_id: str) -> None:
        self._frames = RealtimeFrames(session_id, self._texts)
        self._transcript = Transcript()
        self._paused = False
        self._stage = "listening"

    def _switch(self, session_id: str) -> list[Effect]:
        """Begin a new session when a message names one; its conversation is a new one, too."""
        if not session_id or session_id == self.session_id:
            return []
        left = self._interrupt("session_switch")
        listening = self._stage == "listening"
        self._begin(session_id)
        return left if listening else [*left, self._status("listening", "note_listening")]

    def _do(self, incoming: Incoming) -> list[Effect]:
        match incoming:
            case Piece():
                return self._hear(incoming)
            case Control():
                return self._control(incoming)
            case Resume():
                return self._resume(incoming)
            case Ping():
                return [self._frames.pong(incoming.timestamp, self._now())]
            case Subscribe():
                return self._tasks.begin(incoming.task_id, self._frames)
            case Unsubscribe():
                return self._tasks.end(incoming.task_id)
        return []

    def _hear(self, piece: Piece) -> list[Effect]:
        if self._paused:
            return [self._status("paused", "note_paused_chunk")]
        text = piece.text.strip()
        if not piece.is_final or not text:
            return []
        self._transcript.last = text
        found = self._detect(text)
        if not found.is_question:
            self._transcript.keep(text)
            return [self._status("waiting_for_question", "note_waiting")]
        answer = Answer(self.session_id, "spoken", found.question.strip() or text, found.confidence)
        return self._ask(answer, joined(self._transcript.context, text))

    def _control(self, control: Control) -> list[Effect]:
        match control.action:
            case "pause":
                self._paused = True
                return [self._status("paused", "note_paused")]
            case "resume":
                self._paused = False
                return [self._status("listening", "note_resumed")]
            case "instant_query":
                return self._instant()
        return self._stop(close=control.close or self._stops == "close")

    def _instant(self) -> list[Effect]:
        """Ask the last final text, in the place of all that is unfinished."""
        question = self._transcript.last
        if not question:
            return [self._frames.error("no_final_asr")]
        if not any(character.isalnum() for character in question):
            return [self._frames.error("empty_question")]
        left = self._interrupt("instant_query")
        return [*left, *self._ask(Answer(self.session_id, "instant", question), question)]

    def _stop(self, *, close: bool) -> list[Effect]:
        """Give up and forget everything."""
        left = self._interrupt("stop")
        self._begin(self.session_id)
        if not close:
            return [*left, self._status("idle", "note_stopped")]
        self._over = True
        return [*left, self._status("closed", "note_closed"), Close(reason="stopped")]

    def _resume(self, resume: Resume) -> list[Effect]:
        """Show a stream from where the client was; one that is on its way here already needs nothing."""
        if any(answer.stream_id == resume.stream_id for answer in self._answers):
            return []
        if len(self._answers) >= MOST:
            return [self._frames.error("too_many_questions")]
        answer = Answer(self.session_id, "resumed", stream_id=resume.stream_id, cursor=resume.cursor)
        self._answers.append(answer)
        return [Follow(answer)]

    def _ask(self, answer: Answer, text: str) -> list[Effect]:
        if len(self._answers) >= MOST:
            return [self._frames.error("too_many_questions")]
        self._answers.append(answer)
        return [Ask(answer, text)]

    def _interrupt(self, why: str) -> list[Effect]:
        """Give up what runs and what waits; what has begun gets its end."""
        answers, self._answers = self._answers, []
        if not answers:
            return []
        self._stage = "interrupting"
        ends = [self._final(answer, error="CANCELLED") for answer in answers if answer.begun]
        cancel = Cancel(tuple(answer for answer in answers if answer.stream_id))
        return [self._frames.interrupting(why), *ends, cancel]

    def _finish(self, answer: Answer, **members: Any) -> list[Effect]:
        return [self._final(answer, **members), *self._rest()] if self._leaves(answer) else []

    def _leaves(self, answer: Answer) -> bool:
        """Take an answer out; return whether it was there."""
        there = answer in self._answers
        self._answers = [other for other in self._answers if other is not answer]
        return there

    def _final(self, answer: Answer, **members: Any) -> Frame:
        return self._frames.answer(answer, "", cursor=answer.cursor, final=True, **members)

    def _rest(self) -> list[Effect]:
        """Say that an answer is over, and that the session is still paused if it is."""
        idle = self._status("idle", "note_idle")
        return [idle, self._status("paused", "note_paused")] if self._paused else [idle]

    def _status(self, stage: str, note: str, **members: str) -> Frame:
        self._stage = stage
        return self._frames.status(stage, note, **members)
