"""Feeds a stream of JSON records into an answer's state machine; shared by the OpenAI and the custom provider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from services.errors import ProviderError
from services.models import ProviderEvent
from services.providers.client.record_stream import RecordStream
from utils.formats.json_records import Record

#: running: read on · finishing: the answer is over, its usage may follow · done: stop reading.
RecordState = Literal["running", "finishing", "done"]


class RecordTurn(Protocol):
    """The state machine of one answer, without I/O."""

    state: RecordState

    def take(self, record: Record) -> Iterator[ProviderEvent]:
        """Yield the events of a record."""

    def leave(self) -> Iterator[ProviderEvent]:
        """Yield the metadata and usage known so far, for an answer that failed."""


def record_events(
    stream: RecordStream, turn: RecordTurn, *, end_grace: float, linger: float
) -> Iterator[ProviderEvent]:
    """Yield the events of the records until the answer is done or the stream ends. The caller closes the turn.

    After the answer's end the last record may take `end_grace` seconds to arrive, and the stream may then take
    `linger` seconds to close.

    Raises:
        ProviderError: the stream failed. The turn's metadata and usage were yielded before, unless it was aborted.
    """
    try:
        for record in stream:
            yield from turn.take(record)
            if turn.state == "done":
                stream.drain(linger)
                break
            if turn.state == "finishing":
                stream.end_within(end_grace)
    except ProviderError as exc:
        # An aborted answer belongs to another owner by now, or was cancelled: its events must not be written.
        if exc.code != "interrupted":
            yield from turn.leave()
        raise
