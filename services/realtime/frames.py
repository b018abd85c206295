"""The frames of a realtime socket. Each carries the id of the current session."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from config.texts import Texts
from services.batches.records import Task
from services.realtime.effects import Frame, SessionAnswer
from services.realtime.messages import TranscriptPiece, clipped
from utils.markdown.blocks import BlockRenderer
from utils.markdown.pictures import with_pictures

#: Characters of a question shown in the note of a status.
NOTE_CHARACTERS = 50

#: The counts of a batch task. Each item is in one of the last five.
COUNTS = ("total", "completed", "failed", "cancelled", "running", "pending")

#: Errors that the provider did not cause, with their frame codes. All others are sent as RAG_ERROR.
_OURS = {
    "server_error": "SERVER_ERROR",
    "service_unavailable": "SERVICE_UNAVAILABLE",
    "store_unavailable": "SERVICE_UNAVAILABLE",
    "store_refused": "SERVICE_UNAVAILABLE",
    "stream_unknown": "STREAM_UNKNOWN",
}


class RealtimeFrames:
    """Builds the frames of a socket from the state of its session: id, last reported stage, and pause."""

    def __init__(self, session_id: str, texts: Texts, picture: Callable[[str, str], str]) -> None:
        """`picture` returns the link to the gateway's copy of a picture, by the answer's stream and its address."""
        self._texts = texts
        self._picture = picture
        self.begin(session_id)

    def begin(self, session_id: str) -> None:
        """Start a session, which is not paused."""
        self.session_id = session_id
        #: The stage of the last status frame.
        self.stage = "listening"
        self.paused = False

    def connected(self) -> Frame:
        return self._frame("ack", message="connected")

    def ack(self, kind: str, piece: TranscriptPiece | None = None) -> Frame:
        """Acknowledge a message. `piece` is set for pieces of the transcript."""
        members: Frame = {"received_type": clipped(kind)}
        if piece:
            members["is_final"] = piece.is_final
        if piece and piece.timestamp is not None:
            members["timestamp"] = piece.timestamp
        if piece and self.paused:
            members["message"] = "paused"
        return self._frame("ack", **members)

    def pong(self, timestamp: str | float | None, now: str) -> Frame:
        return self._frame("pong", timestamp=timestamp, server_time=now)

    def status(self, stage: str, note: str, **members: Any) -> Frame:
        """Report a stage. `note` is the key of a sentence."""
        self.stage = stage
        return self._frame("status", stage=stage, note=self._texts.get(note), **members)

    def rest(self) -> list[Frame]:
        """Report that no answer is shown, and again that the session is paused, if it is."""
        idle = self.status("idle", "note_idle")
        return [idle, self.status("paused", "note_paused")] if self.paused else [idle]

    def interrupting(self, reason: str) -> Frame:
        """Report that answers are cancelled. `reason` is a word for programs."""
        self.stage = "interrupting"
        return self._frame("status", stage="interrupting", note=reason)

    def begun(self, answer: SessionAnswer) -> list[Frame]:
        """Return the frames that precede an answer's first text."""
        stream = {"stream_id": answer.stream_id}
        if answer.kind == "resumed":
            return [self.status("querying_rag", "note_querying", **stream)]
        if answer.kind == "spoken":
            return [self.analyzing(answer), self.status("querying_rag", "note_querying", **stream)]
        instant = {"mode": "instant", **stream}
        asking = self.status("instant_query", "note_instant", question=answer.question, **instant)
        return [asking, self.status("querying_rag", "note_querying", **instant)]

    def analyzing(self, answer: SessionAnswer) -> Frame:
        question = answer.question
        short = question if len(question) <= NOTE_CHARACTERS else f"{question[:NOTE_CHARACTERS]}..."
        note = self._texts.get("note_analyzing", question=short)
        confidence = round(answer.confidence, 3)
        names = {"question": question, "confidence": confidence, "stream_id": answer.stream_id}
        return self._frame("status", stage="analyzing", note=note, **names)

    def queued(self, answer: SessionAnswer) -> Frame:
        """Name the stream of a question that waits behind others, so that a client can resume it after a disconnect."""
        return self._frame("queued", question=answer.question, stream_id=answer.stream_id)

    def reset(self, answer: SessionAnswer) -> Frame:
        """Report that the text starts over. Its cursor is 0, for clients that resume after a disconnect."""
        return self._frame("reset", stream_id=answer.stream_id, cursor=0)

    def answer(self, answer: SessionAnswer, content: str, *, cursor: int, final: bool = False, **members: Any) -> Frame:
        """Return the next frame of an answer; for a client that wants HTML, with the blocks that have changed."""
        number = answer.index or 0
        answer.index = number + 1
        shown: Frame = {"stream_index": number, "content": content, "final": final}
        if answer.blocks:
            shown["html"] = self._html(answer, answer.blocks, content, final=final)
        return self._frame("answer", **shown, stream_id=answer.stream_id, cursor=cursor, **members)

    def _html(self, answer: SessionAnswer, blocks: BlockRenderer, content: str, *, final: bool) -> list[Frame]:
        """Return the changed blocks; in the last frame also those with a picture, which has been fetched by then."""
        shown: dict[int, str] = {}
        for block in [*blocks.add(content), *(blocks.finish() if final else ())]:
            shown[block.block] = with_pictures(block.html, partial(self._picture, answer.stream_id))
            answer.pictured.pop(block.block, None)
            if shown[block.block] != block.html:
                answer.pictured[block.block] = shown[block.block]
        if final:
            shown |= answer.pictured
        return [{"block": number, "html": html} for number, html in sorted(shown.items())]

    def error(self, code: str, **params: str) -> Frame:
        """Report an error of a message or its question. `code` is also the key of the sentence."""
        words = self._texts.get(code, **params) if params else self._texts.error(code)
        return self._frame("error", code=_OURS.get(code, code.upper()), message=words)

    def batch_progress(self, task: Task, now: str) -> Frame:
        """Report the progress of a batch task."""
        counts = {name: getattr(task, name) for name in COUNTS}
        words = self._texts.get("batch_progress", done=str(task.done), total=str(task.total))
        state = {"progress": task.percentage, "status": task.status, "message": words}
        return self._frame("batch_progress", task_id=task.task_id, **state, counts=counts, timestamp=now)

    def task_error(self, code: str, task_id: str) -> Frame:
        """Report that a batch task failed or cannot be followed."""
        words = self._texts.error(code)
        return self._frame("error", code=_OURS.get(code, code.upper()), message=words, task_id=task_id)

    def failed(self, answer: SessionAnswer, code: str, sentence: str) -> Frame:
        """Report why an answer failed. `sentence=""` uses the sentence of `code`."""
        words = sentence or self._texts.error(code)
        if code in _OURS:
            return self._frame("error", code=_OURS[code], message=words, stream_id=answer.stream_id)
        words = self._texts.get("rag_error", sentence=words)
        detail = {"detail": code.upper(), "stream_id": answer.stream_id}
        return self._frame("error", code="RAG_ERROR", message=words, **detail)

    def _frame(self, kind: str, **members: Any) -> Frame:
        return {"type": kind, **members, "session_id": self.session_id}
