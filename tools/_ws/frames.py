"""The frames of the WebSocket test client, without I/O: patterns, received answers, and the steps of a script."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

Frame = Mapping[str, Any]


class Seen(NamedTuple):
    """A received frame, and the text of its answer so far."""

    frame: Any
    raw: str
    so_far: str = ""


class Pattern:
    """An expected frame: a JSON object contained in the frame, or a text in the frame or in its answer so far."""

    def __init__(self, text: str) -> None:
        """Raises: ValueError: the text is empty, or starts like a JSON object and is not one."""
        if not text.strip():
            raise ValueError("an empty pattern matches anything")
        self.text = text
        self._part: Any = json.loads(text) if text.lstrip().startswith("{") else None

    def matches(self, seen: Seen) -> bool:
        if self._part is not None:
            return is_part(self._part, seen.frame)
        return self.text in seen.raw or self.text in seen.so_far


def is_part(part: Any, whole: Any) -> bool:
    """Return whether all members of `part` are in `whole`. Lists are compared item by item, other values are equal."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(name in whole and is_part(part[name], whole[name]) for name in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(is_part, part, whole))
    return type(part) is type(whole) and bool(part == whole)


class AnswerLog:
    """The answers received on a connection, and which of them are unfinished."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._under_way: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether an answer is unfinished."""
        return bool(self._under_way)

    def take(self, raw: str) -> Seen:
        """Record one message. If it is not JSON, its frame is a string."""
        try:
            frame = json.loads(raw)
        except ValueError:
            return Seen(raw, raw)
        return Seen(frame, raw, self._follow(frame) if isinstance(frame, dict) else "")

    def _follow(self, frame: Frame) -> str:
        stream_id = str(frame.get("stream_id", ""))
        match frame:
            case {"type": "chat", "role": "user"} | {"type": "typing", "status": True}:
                self._under_way.add(stream_id)
            case {"type": "typing", "status": False}:
                self._under_way.discard(stream_id)
            case {"type": "status", "stage": "analyzing" | "instant_query" | "querying_rag"}:
                self._under_way.add("session")
            case {"type": "status", "stage": "idle" | "closed"}:
                self._under_way.discard("session")
            case {"type": "reset"}:
                self._texts.pop(stream_id, None)
            case {"type": "chat_delta" | "answer", "content": str(content)}:
                self._texts[stream_id] = self._texts.get(stream_id, "") + content
        return self._texts.get(stream_id, "")


#: A frame to send, seconds to wait, or a pattern that must arrive before the next step. None ends the session.
ScriptStep = Frame | float | Pattern | None


def read_steps(lines: Iterable[str]) -> Iterator[ScriptStep]:
    """Yield the steps of a script: one JSON object per line, a frame, `{"sleep": s}` or `{"expect": pattern}`.

    Empty lines and lines that start with # are skipped.

    Raises:
        ValueError: a line is none of these; the message has its number.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            yield _step(json.loads(line))
        except (TypeError, ValueError) as exc:
            raise ValueError(f"line {number} of the script: {exc}") from exc


def _step(written: Any) -> ScriptStep:
    match written:
        case {"sleep": int(seconds) | float(seconds)} if seconds >= 0:
            return float(seconds)
        case {"expect": str(words)}:
            return Pattern(words)
        case {"expect": dict(part)}:
            return Pattern(json.dumps(part, ensure_ascii=False))
        case dict() if not {"sleep", "expect"} & written.keys():
            return written
    raise ValueError("expected a frame as a JSON object, a sleep in seconds, or an expect")


#: The actions of control frames of the realtime channel.
CONTROLS = ("pause", "resume", "stop", "instant_query")


def frame_of(text: str, channel: str) -> Frame:
    """Return the frame for a line: a JSON object unchanged, /word as an order, any other text as a question."""
    if text.startswith("{"):
        try:
            written = json.loads(text)
        except ValueError:
            written = None
        if isinstance(written, dict):
            return written
    if text.startswith("/") and (order := text[1:]).isidentifier():
        return {"type": "control", "action": order} if channel == "realtime" and order in CONTROLS else {"type": order}
    if channel == "realtime":
        return {"type": "asr_chunk", "text": text, "is_final": True}
    return {"type": "chat", "content": text}
