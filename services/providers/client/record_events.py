"""What the providers that stream JSON records share: the loop between a stream and the answer's state machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from services.errors import ProviderError
from services.models import ProviderEvent
from services.providers.client.record_stream import RecordStream
from utils.formats.json_records import Record


class RecordTurn(Protocol):
    """One answer, record by record, without I/O."""

    state: Literal["running", "finishing", "done"]

    def take(self, record: Record) -> Iterator[ProviderEvent]:
        """Yield what a record says."""

    def leave(self) -> Iterator[ProviderEvent]:
        """Yield what is known of an answer that failed."""


def record_events(
    stream: RecordStream, turn: RecordTurn, *, end_grace: float, linger: float
) -> Iterator[ProviderEvent]:
    """Yield what the records say, until the answer is done or the stream ends.

    `end_grace` is how many seconds an answer that has ended may take to say its last record, `linger` how many the
    stream may take to close after that. The caller closes the turn.

    Raises:
        ProviderError: the stream failed; what the turn knows was yielded before, unless the answer was aborted.
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
        # An aborted answer is somebody else's by now, or nobody's.
        if exc.code != "interrupted":
            yield from turn.leave()
        raise
