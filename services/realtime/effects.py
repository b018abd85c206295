"""What a realtime session wants done: frames to be sent, what is to be asked, followed, watched, cancelled, closed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

#: How a socket is closed that did what it was for.
NORMAL = 1000

Frame = dict[str, Any]


@dataclass(eq=False)
class Answer:
    """A question of a session, and how far its answer has come on this socket."""

    session_id: str
    kind: Literal["spoken", "instant", "resumed"]
    #: The question alone, as frames show it; "" for a stream that is resumed.
    question: str = field(default="", repr=False)
    confidence: float = 1.0
    #: "" until it was asked.
    stream_id: str = ""
    #: Where the client is in the stream.
    cursor: int = 0
    #: The number of the next answer frame; None until the first is known.
    index: int | None = None
    #: Frames of it were sent.
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Put a question, then say `asked` or `refused`."""

    answer: Answer
    #: All that is asked: the question with its context.
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Follow:
    """Show an answer's stream from its cursor on, after those before it."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Cancel:
    """Show no more of these answers, and end their streams."""

    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Watch:
    """Tell how a batch task is, now and whenever that changes."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Unwatch:
    """Tell nothing more of a batch task."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close the socket, after the frames before this."""

    code: int = NORMAL
    reason: str = ""


Effect = Frame | Ask | Follow | Cancel | Watch | Unwatch | Close
