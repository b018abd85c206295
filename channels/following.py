"""Follows one answer for one client: on a socket, as an event stream or for one reply."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from channels.asking import FollowedStream
from services.errors import StoreUnavailable
from services.streams.following import Update
from services.streams.long_text import FullAnswer

#: Seconds of one wait for updates; the thread of a client that has disconnected ends within about this time.
SLICE = 1.0
#: Seconds between two attempts to read an ended answer while Redis is unavailable.
AGAIN = 0.5
#: Seconds for the first read; longer than a missing stream is waited for (`following.Misses`).
FIRST_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Ended:
    """An answer that has ended: completed, failed or cancelled."""

    full: FullAnswer
    #: The sentence of an error, "" for none.
    sentence: str = ""


WaitStep = Update | Ended | None


class AnswerWait:
    """Follows one stream for one client; used by one thread at a time."""

    def __init__(
        self,
        following: FollowedStream,
        *,
        leaving: Callable[[], bool],
        timeout: float = 1800.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """`leaving` tells whether to stop; a stream without updates for `timeout` seconds fails."""
        self._following = following
        self._leaving = leaving
        self._timeout = timeout
        self._clock = clock
        self._sleep = sleep
        self._received_at = clock()
        self._first: Update | None = None

    def begin(self, seconds: float = FIRST_SECONDS) -> None:
        """Read the stream for the first time, so that a missing one is refused before the reply starts.

        While Redis is unavailable this cannot be checked; `steps` raises later.

        Raises:
            StreamUnknown: there is no such stream, it has expired, or it belongs to another caller.
        """
        end = self._clock() + seconds
        while self._first is None and self._clock() < end and not self._leaving():
            self._first = self._following.next(SLICE)

    def steps(self) -> Iterator[WaitStep]:
        """Yield the updates, None after about each second without any, and finally `Ended`.

        Without `Ended` this replica is stopping; the client resumes on another one after the last update.

        Raises:
            StreamUnknown: the stream has expired.
            StoreUnavailable: no update came for `timeout` seconds.
        """
        last = yield from self._updates()
        if last:
            yield from self._end(last)

    def _updates(self) -> Generator[WaitStep, None, Update | None]:
        """Yield the updates and return the last one; None when this replica stops first."""
        # References are dropped early, so that sent updates can be freed.
        update, self._first = self._first, None
        while not self._leaving():
            yield update
            if update and update.ended:
                return update
            update = None
            update = self._following.next(SLICE)
            self._note(received=update is not None)
        return None

    def _end(self, last: Update) -> Iterator[WaitStep]:
        while not self._leaving():
            try:
                yield Ended(self._following.full_answer(), last.sentence)
                return
            except StoreUnavailable:
                self._note(received=False)
                self._sleep(AGAIN)
            yield None

    def _note(self, *, received: bool) -> None:
        now = self._clock()
        if received:
            self._received_at = now
        elif now - self._received_at > self._timeout:
            raise StoreUnavailable("no update of an answer for too long", code="service_unavailable")
