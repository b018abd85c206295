"""A realtime session for tests: the desk carries out its effects and reports the progress of answers to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from channels.realtime.channel import RealtimeOptions
from config.texts import Texts
from services.models import Status
from services.realtime.effects import AskQuestion, Cancel, Close, Effect, Follow, Frame, SessionAnswer
from services.realtime.session import RealtimeSession
from utils.markdown.blocks import BlockRenderer
from utils.questions import detection as rules
from utils.questions.detection import Detection

NOW = "2026-11-21T03:56:57.133Z"


def detect(text: str) -> Detection:
    """Return what the product's rules find, with a confidence of more digits than frames show."""
    return replace(rules.detect(text), confidence=0.97318)


def options_for(detect: Callable[[str], Detection], stop: Literal["idle", "close"] = "idle") -> RealtimeOptions:
    """Return a channel's options with Chinese sentences and no pictures."""
    return RealtimeOptions(detect, Texts("zh"), stop, BlockRenderer, lambda stream_id, url: "")


class Desk:
    """One session with its effects: the client's frames, the questions asked, and the queue of its answers."""

    def __init__(self, stop: Literal["idle", "close"] = "idle", session_id: str = "s1") -> None:
        self.texts = Texts("zh")
        self.session = RealtimeSession(
            session_id,
            detect=detect,
            texts=self.texts,
            now=lambda: NOW,
            blocks=BlockRenderer,
            picture=lambda stream_id, url: f"/files/{stream_id}.png",
            stop=stop,
        )
        self.frames: list[Frame] = []
        #: The questions asked, each with its conversation.
        self.asked: list[tuple[str, str]] = []
        self.line: list[SessionAnswer] = []
        self.cancelled: list[str] = []
        self.close: Close | None = None
        #: Error codes with which the next questions fail.
        self.refusals: list[str] = []

    def sends(self, message: object) -> list[Frame]:
        """Send a client message; return the frames that it gets at once."""
        return self.does(self.session.received(message))

    def says(self, text: str, **members: Any) -> list[Frame]:
        """Send a final transcript."""
        return self.sends({"type": "asr_chunk", "text": text, "is_final": True, **members})

    def controls(self, action: str, **members: Any) -> list[Frame]:
        return self.sends({"type": "control", "action": action, **members})

    def asks(self, text: str = "年假有几天？") -> SessionAnswer:
        """Send a question as transcript and begin its answer; return the answer."""
        self.says(text)
        answer = self.line[0]
        self.begins()
        return answer

    def begins(self) -> list[Frame]:
        """Begin the first answer in the queue."""
        return self.does(self.session.answers.begun(self.line[0]))

    def grows(self, *pieces: str, first: int = 0, cursor: int = 0, reset: bool = False) -> list[Frame]:
        """Add pieces to the first answer in the queue; `cursor` is the index of the first piece."""
        placed = [(piece, cursor + number) for number, piece in enumerate(pieces, start=1)]
        end = cursor + len(pieces)
        return self.does(self.session.answers.grew(self.line[0], placed, first=first, cursor=end, reset=reset))

    def ends(self, status: Status = "completed", **news: Any) -> list[Frame]:
        return self.does(self.session.answers.ended(self.line.pop(0), status, **news))

    def does(self, effects: Sequence[Effect]) -> list[Frame]:
        """Carry out the session's effects in their order; return the frames among them."""
        start = len(self.frames)
        for effect in effects:
            self._do(effect)
        return self.frames[start:]

    def _do(self, effect: Effect) -> None:
        match effect:
            case dict():
                self.frames.append(effect)
            case AskQuestion(answer, text):
                if self.refusals:
                    self.does(self.session.answers.refused(answer, self.refusals.pop(0)))
                else:
                    self.asked.append((text, answer.session_id))
                    self.does(self.session.asked(answer, f"stream{len(self.asked)}"))
            case Follow(answer):
                self.line.append(answer)
            case Cancel(answers):
                self.cancelled += [answer.stream_id for answer in answers]
                self.line = [waiting for waiting in self.line if waiting not in answers]
            case Close():
                self.close = effect


def stages(frames: Sequence[Frame]) -> list[str]:
    """Return one word a frame: a status's stage, an answer's content, otherwise the type or the code."""
    return [_word(frame) for frame in frames]


def html_of(frames: Sequence[Frame]) -> str:
    """Return an answer as HTML: the blocks of its frames, each as last sent."""
    blocks: dict[int, str] = {}
    for frame in frames:
        if frame["type"] == "reset":
            blocks.clear()
        blocks |= {changed["block"]: changed["html"] for changed in frame.get("html", ())}
    assert sorted(blocks) == list(range(len(blocks)))
    return "".join(blocks[number] for number in sorted(blocks))


def _word(frame: Frame) -> str:
    if frame["type"] == "answer":
        return f"final {frame.get('error', '')}".strip() if frame["final"] else str(frame["content"])
    return str(frame.get("stage") or frame.get("code") or frame["type"])
