"""The text of an ended stream; a long one is read in slices, so that no reader holds more than one slice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from services.errors import StoreUnavailable
from services.forms import OfferedChoices
from services.models import Status, Usage

#: Seconds of a Redis outage that a reader waits through within a text, and between two attempts.
OUTAGE_SECONDS = 20.0
PAUSE = 0.5


class TextSlice(NamedTuple):
    """A part of a text, cut between two characters; `end` and `size` are in bytes."""

    text: str
    #: The offset at which the next slice begins.
    end: int
    #: The size of the whole text.
    size: int


class LongText:
    """A text in Redis; each iteration reads it again."""

    def __init__(
        self,
        read: Callable[[int], TextSlice],
        size: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Take the function that reads the slice at an offset, and the size of the whole text in bytes."""
        self._read = read
        self._clock = clock
        self._sleep = sleep
        self.size = size

    def __iter__(self) -> Iterator[str]:
        """Yield the slices; each one is read when it is requested.

        Raises:
            StoreUnavailable: Redis was away for longer than `OUTAGE_SECONDS`, or the text has changed.
        """
        offset = 0
        while offset < self.size:
            found = self._read_slice(offset)
            if found.size != self.size or found.end == offset:
                raise StoreUnavailable("the text is not the one that was begun")
            offset = found.end
            yield found.text

    def _read_slice(self, offset: int) -> TextSlice:
        end = self._clock() + OUTAGE_SECONDS
        while True:
            try:
                return self._read(offset)
            except StoreUnavailable:
                if self._clock() > end:
                    raise
                self._sleep(PAUSE)


@dataclass(frozen=True, slots=True)
class FullAnswer:
    """A stream's whole text, and the other fields that go with it."""

    #: The text if it is short, else "".
    short: str
    status: Status
    error_code: str = ""
    #: The sources as the provider gives them: title, content, score, position.
    sources: tuple[Mapping[str, Any], ...] = ()
    #: Whether the built-in mock answered instead of the provider.
    mock: bool = False
    #: The usage, without the sources.
    usage: Usage = field(default_factory=Usage)
    #: The provider's name and its ids; "" for none.
    provider: str = ""
    message_id: str = ""
    conversation_id: str = ""
    #: The provider's other fields as JSON.
    reported: str = ""
    #: The questions that the app suggests after the answer, one per line.
    suggested: str = ""
    #: The choices of the form that the answer asks, as `OfferedChoices` in JSON; "" for none and for several.
    choices: str = ""
    #: For a failed answer: seconds the provider asks to wait before the next request; 0.0 if it did not.
    retry_after: float = 0.0
    #: The limit that refused the question, as of `AnswerError.limit`.
    limit: str = ""
    #: A long text, read from Redis; None if it is short.
    long: LongText | None = None
    #: Seconds until the stream's record expires.
    left: float = field(default=0.0, compare=False)
    #: Whether pictures or files are stored with the answer, and those that this reader may see.
    has_files: bool = False
    files: tuple[Mapping[str, Any], ...] = ()
    #: Converts the text's slices for this reader.
    shown: Callable[[Iterable[str]], Iterator[str]] = iter

    @property
    def text(self) -> str:
        """The whole text.

        Raises:
            StoreUnavailable: Redis is away.
        """
        return "".join(self.slices())

    @property
    def size(self) -> int:
        """Size of the whole text in bytes."""
        return self.long.size if self.long else len(self.short.encode())

    @property
    def suggestions(self) -> list[str]:
        return self.suggested.splitlines()

    @property
    def asks(self) -> OfferedChoices | None:
        """The form that a completed answer ends with; None for none, and for several."""
        if self.status != "completed" or not self.choices:
            return None
        return OfferedChoices.from_json(self.choices)

    def slices(self) -> Iterator[str]:
        """Yield the text in slices, each read when it is requested; raises what `text` does."""
        yield from self.shown(self.long or (self.short,))

    def complete(self) -> FullAnswer:
        """Return a copy whose text is a short one; raises what `text` does."""
        return replace(self, short=self.text, long=None, shown=iter) if self.long else self

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the provider, its ids and its other fields."""
        names = {"provider": self.provider, "message_id": self.message_id, "conversation_id": self.conversation_id}
        reported = json.loads(self.reported) if self.reported else {}
        return {**reported, **{name: value for name, value in names.items() if value}}
