"""One reader's way along one stream: what is new since its cursor, until the end, wherever the stream is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.models import Status
from services.stream_records import Chunk


@dataclass(frozen=True, slots=True)
class News:
    """What became known of a stream since a reader's cursor."""

    #: The reader's next place: an absolute list index.
    cursor: int
    #: The text's new chunks in order, none of them empty or an error.
    chunks: tuple[Chunk, ...] = ()
    #: What was shown so far no longer counts; `chunks` begin the text anew.
    reset: bool = False
    #: The number of the first of `chunks` within the text, from 0.
    first: int = 0
    #: Nothing follows.
    ended: bool = False
    status: Status = "processing"
    error_code: str = ""
    #: The error's sentence for the user, "" for none.
    sentence: str = ""
    #: The question waits for its conversation's earlier ones.
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """An ended stream: its whole text and what goes with it."""

    text: str
    status: Status
    error_code: str = ""
    sources: tuple[Mapping[str, Any], ...] = ()
    #: The answer is the built-in mock's, not the provider's.
    mock: bool = False
