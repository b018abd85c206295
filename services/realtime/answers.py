"""The unfinished answers of a realtime socket: the one that is shown, and those that are queued behind it.

Like the session it does no I/O: each step returns in order what the caller must send, ask, follow and cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.models import Status
from services.realtime.effects import AskQuestion, Cancel, Effect, Follow, Frame, SessionAnswer
from services.realtime.frames import RealtimeFrames
from utils.markdown.blocks import BlockRenderer

#: Unfinished answers a session may have: one that is shown, and three that wait.
MOST = 4


class SessionAnswers:
    """The unfinished answers of one socket, in the order of their questions."""

    def __init__(self, frames: RealtimeFrames, blocks: Callable[[], BlockRenderer]) -> None:
        """`blocks` makes the renderer of an answer that is sent as HTML."""
        self._frames = frames
        self._blocks = blocks
        self._answers: list[SessionAnswer] = []

    @property
    def unfinished(self) -> tuple[SessionAnswer, ...]:
        """The answers that are being asked, wait in the queue, or are shown."""
        return tuple(self._answers)

    def ask(self, answer: SessionAnswer, text: str, *, html: bool) -> list[Effect]:
        """Ask a question as `text`; with `html` its answer is sent as HTML too."""
        if len(self._answers) >= MOST:
            return [self._frames.error("too_many_questions")]
        answer.blocks = self._blocks() if html else None
        self._answers.append(answer)
        return [AskQuestion(answer, text)]

    def resume(self, stream_id: str, cursor: int, *, html: bool) -> list[Effect]:
        """Show a stream from the client's cursor on. Ignored if the stream is already queued or shown here.

        As HTML the whole answer is sent again, because a block may begin anywhere before the cursor.
        """
        if any(answer.stream_id == stream_id for answer in self._answers):
            return []
        if len(self._answers) >= MOST:
            return [self._frames.error("too_many_questions")]
        answer = SessionAnswer(self._frames.session_id, "resumed", stream_id=stream_id, cursor=cursor)
        if html:
            answer.blocks, answer.cursor, answer.anew = self._blocks(), 0, cursor > 0
        self._answers.append(answer)
        return [Follow(answer)]

    def asked(self, answer: SessionAnswer, stream_id: str) -> list[Effect]:
        """Handle that a question has its stream. If its answer was interrupted meanwhile, the stream is cancelled."""
        answer.stream_id = stream_id
        if answer not in self._answers:
            return [Cancel((answer,))]
        waits = answer is not self._answers[0]
        return [self._frames.queued(answer), Follow(answer)] if waits else [Follow(answer)]

    def refused(self, answer: SessionAnswer, code: str) -> list[Effect]:
        """Handle that a question could not be asked. `code` picks the sentence."""
        if not self._leaves(answer):
            return []
        return [self._frames.error(code), *([] if self._answers else self._frames.rest())]

    def begun(self, answer: SessionAnswer) -> list[Effect]:
        """Handle that an answer is the next to be shown."""
        if answer not in self._answers:
            return []
        answer.begun = True
        return [*self._frames.begun(answer), *([self._frames.reset(answer)] if answer.anew else [])]

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
        if reset and answer.blocks:
            answer.blocks, answer.pictured = self._blocks(), {}
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
        files: Sequence[Mapping[str, Any]] = (),
    ) -> list[Effect]:
        """Handle the end of an answer. An error has a code and may have its own sentence.

        The last frame carries usage, sources and files, if the provider sent them.
        """
        if status == "error":
            return self.failed(answer, code or "answer_failed", sentence)
        known = {"mock": mock, "usage": usage, "sources": list(sources), "files": list(files)}
        members = {name: value for name, value in known.items() if value}
        return self._finish(answer, **members, **({"error": "CANCELLED"} if status == "cancelled" else {}))

    def failed(self, answer: SessionAnswer, code: str, sentence: str = "") -> list[Effect]:
        """Handle that an answer failed or cannot be followed any more."""
        if answer not in self._answers:
            return []
        return [self._frames.failed(answer, code, sentence), *self._finish(answer, error=code.upper())]

    def interrupt(self, reason: str) -> list[Effect]:
        """Cancel all answers. Answers with frames get a final frame."""
        answers, self._answers = self._answers, []
        if not answers:
            return []
        ends = [self._final(answer, error="CANCELLED") for answer in answers if answer.begun]
        cancel = Cancel(tuple(answer for answer in answers if answer.stream_id))
        return [self._frames.interrupting(reason), *ends, cancel]

    def closed(self, *, orderly: bool) -> list[Effect]:
        """Handle the end of the socket. An orderly close cancels the answers; after any other the client may resume."""
        answers, self._answers = self._answers, []
        return [Cancel(tuple(answers))] if orderly and answers else []

    def _finish(self, answer: SessionAnswer, **members: Any) -> list[Effect]:
        return [self._final(answer, **members), *self._frames.rest()] if self._leaves(answer) else []

    def _leaves(self, answer: SessionAnswer) -> bool:
        """Remove an answer; return whether it was unfinished."""
        there = answer in self._answers
        self._answers = [other for other in self._answers if other is not answer]
        return there

    def _final(self, answer: SessionAnswer, **members: Any) -> Frame:
        return self._frames.answer(answer, "", cursor=answer.cursor, final=True, **members)
