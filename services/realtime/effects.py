"""The effects of a realtime session, which the channel carries out: send, ask, follow, cancel, watch, close."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from utils.markdown.blocks import BlockRenderer

#: The close code of a socket that ended normally (RFC 6455).
NORMAL = 1000

Frame = dict[str, Any]


@dataclass(eq=False)
class SessionAnswer:
    """A question of a session and the state of its answer on this socket."""

    session_id: str
    kind: Literal["spoken", "instant", "resumed"]
    #: The question alone, as frames show it; "" for a resumed stream.
    question: str = field(default="", repr=False)
    confidence: float = 1.0
    #: "" until the question is asked.
    stream_id: str = ""
    #: The client's cursor in the stream.
    cursor: int = 0
    #: The number of the next answer frame; None until the first is known.
    index: int | None = None
    #: Whether frames of it were sent.
    begun: bool = False
    #: Renders the answer as HTML; None for a client that wants text only.
    blocks: BlockRenderer | None = field(default=None, repr=False)
    #: The HTML of its blocks with a picture of another host, by number.
    pictured: dict[int, str] = field(default_factory=dict, repr=False)
    #: Whether the client must discard the text it has, because the answer is sent from its beginning again.
    anew: bool = False


@dataclass(frozen=True, slots=True)
class AskQuestion:
    """Ask a question, then call `asked` or `refused`."""

    answer: SessionAnswer
    #: What the provider is asked: the question, with its context where it points back to that.
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Follow:
    """Show an answer's stream from its cursor on, after all earlier answers."""

    answer: SessionAnswer


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop showing these answers and cancel their streams."""

    answers: tuple[SessionAnswer, ...]


@dataclass(frozen=True, slots=True)
class WatchTask:
    """Report the progress of a batch task, now and after each change."""

    task_id: str


@dataclass(frozen=True, slots=True)
class UnwatchTask:
    """Stop reporting a batch task."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close the socket after all frames before this."""

    code: int = NORMAL
    reason: str = ""


Effect = Frame | AskQuestion | Follow | Cancel | WatchTask | UnwatchTask | Close
