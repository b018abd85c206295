"""The frames of one realtime session; each of them says whose it is."""

from __future__ import annotations

from typing import Any

from config.texts import Texts
from services.batches.records import Task
from services.realtime.effects import Answer, Frame
from services.realtime.messages import Piece, clipped

#: Characters of a question that a status's note shows.
NOTE_CHARACTERS = 50

#: What is counted of a batch task; an item is in one of the last five.
COUNTS = ("total", "completed", "failed", "cancelled", "running", "pending")

#: What goes wrong without the provider's doing; any other end of an answer is told as RAG_ERROR.
_OURS = {
    "server_error": "SERVER_ERROR",
    "service_unavailable": "SERVICE_UNAVAILABLE",
    "store_unavailable": "SERVICE_UNAVAILABLE",
    "stream_unknown": "STREAM_UNKNOWN",
}


class RealtimeFrames:
    """Makes the frames."""

    def __init__(self, session_id: str, texts: Texts) -> None:
        self.session_id = session_id
        self._texts = texts

    def connected(self) -> Frame:
        return self._frame("ack", message="connected")

    def ack(self, kind: str, piece: Piece | None = None, *, paused: bool = False) -> Frame:
        """Acknowledge a message; with a `piece`, one of the transcript."""
        members: Frame = {"received_type": clipped(kind)}
        if piece:
            members["is_final"] = piece.is_final
        if piece and piece.timestamp is not None:
            members["timestamp"] = piece.timestamp
        if piece and paused:
            members["message"] = "paused"
        return self._frame("ack", **members)

    def pong(self, timestamp: str | float | None, now: str) -> Frame:
        return self._frame("pong", timestamp=timestamp, server_time=now)

    def status(self, stage: str, note: str, **members: Any) -> Frame:
        """Tell a stage; `note` is the key of a sentence."""
        return self._frame("status", stage=stage, note=self._texts.get(note), **members)

    def interrupting(self, why: str) -> Frame:
        """Tell that answers are given up; the reason is a word for programs."""
        return self._frame("status", stage="interrupting", note=why)

    def analyzing(self, answer: Answer) -> Frame:
        question = answer.question
        short = question if len(question) <= NOTE_CHARACTERS else f"{question[:NOTE_CHARACTERS]}..."
        note = self._texts.get("note_analyzing", question=short)
        confidence = round(answer.confidence, 3)
        names = {"question": question, "confidence": confidence, "stream_id": answer.stream_id}
        return self._frame("status", stage="analyzing", note=note, **names)

    def queued(self, answer: Answer) -> Frame:
        """Name the stream of a question that waits behind others: whoever is cut off can ask for it."""
        return self._frame("queued", question=answer.question, stream_id=answer.stream_id)

    def reset(self, answer: Answer) -> Frame:
        """Tell that the text begins anew; whoever is cut off then begins at the beginning."""
        return self._frame("reset", stream_id=answer.stream_id, cursor=0)

    def answer(self, answer: Answer, content: str, *, cursor: int, final: bool = False, **members: Any) -> Frame:
        """Return the next frame of an answer."""
        number = answer.index or 0
        answer.index = number + 1
        said = {"stream_index": number, "content": content, "final": final}
        return self._frame("answer", **said, stream_id=answer.stream_id, cursor=cursor, **members)

    def error(self, code: str, **params: str) -> Frame:
        """Tell what is wrong with a message or its question; the code is that of a sentence, too."""
        words = self._texts.get(code, **params) if params else self._texts.error(code)
        return self._frame("error", code=_OURS.get(code, code.upper()), message=words)

    def batch_progress(self, task: Task, now: str) -> Frame:
        """Tell how a batch task is."""
        counts = {name: getattr(task, name) for name in COUNTS}
        words = self._texts.get("batch_progress", done=str(task.done), total=str(task.total))
        state = {"progress": task.percentage, "status": task.status, "message": words}
        return self._frame("batch_progress", task_id=task.task_id, **state, counts=counts, timestamp=now)

    def task_error(self, code: str, task_id: str) -> Frame:
        """Tell what is wrong with a batch task, or with following it."""
        words = self._texts.error(code)
        return self._frame("error", code=_OURS.get(code, code.upper()), message=words, task_id=task_id)

    def failed(self, answer: Answer, code: str, sentence: str) -> Frame:
        """Tell why there is no answer, or no more of it; `sentence` is "" where the code's own will do."""
        words = sentence or self._texts.error(code)
        if code in _OURS:
            return self._frame("error", code=_OURS[code], message=words, stream_id=answer.stream_id)
        words = self._texts.get("rag_error", sentence=words)
        detail = {"detail": code.upper(), "stream_id": answer.stream_id}
        return self._frame("error", code="RAG_ERROR", message=words, **detail)

    def _frame(self, kind: str, **members: Any) -> Frame:
        return {"type": kind, **members, "session_id": self.session_id}
