"""Requests that wait for an answer: how many may, each one's way along its stream, and their end with this replica."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from channels.sockets.answer_queue import FollowedStream
from services import metrics
from services.errors import StoreUnavailable
from services.streams.following import News
from services.streams.records import Whole

#: Seconds of one wait for news: about as long as a request goes on when nobody wants it any more.
SLICE = 1.0
#: Seconds between two tries to have an ended answer whole while Redis is away.
AGAIN = 0.5
#: Seconds for the first look at a stream; longer than one that Redis lacks may stay away (`services/streams/misses`).
FIRST_SECONDS = 8.0
#: Seconds in which the last requests end when this replica leaves.
LAST_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Ended:
    """An answer that is over, whatever its end."""

    whole: Whole
    #: The error's sentence as the stream has it, "" for none.
    sentence: str = ""


WaitStep = News | Ended | None


class AnswerWait:
    """One request's way along a stream; used by one thread at a time."""

    def __init__(
        self,
        following: FollowedStream,
        *,
        leaving: Callable[[], bool],
        patience: float = 1800.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Take who says that this replica leaves, and for how many seconds without any news a stream is waited for."""
        self._following = following
        self._leaving = leaving
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._heard = clock()
        self._first: News | None = None

    def begin(self, seconds: float = FIRST_SECONDS) -> None:
        """Look at the stream for the first time: who may not see it is told so before anything else.

        While Redis is away it is not known who may, and the first step tells.

        Raises:
            StreamUnknown: there is no such stream, it has expired, or it is somebody else's.
        """
        end = self._clock() + seconds
        while self._first is None and self._clock() < end and not self._leaving():
            self._first = self._following.next(SLICE)

    def steps(self) -> Iterator[WaitStep]:
        """Yield all that becomes known, None after about each second without news, and at last the answer's end.

        Where that is missing, this replica leaves: another one goes on from the last news.

        Raises:
            StreamUnknown: the stream has expired.
            StoreUnavailable: there was no news for too long.
        """
        last = yield from self._news()
        if last:
            yield from self._end(last)

    def _news(self) -> Generator[WaitStep, None, News | None]:
        """Yield the news, and return the last of it; None when this replica leaves before that."""
        # Nobody holds what was taken.
        news, self._first = self._first, None
        while not self._leaving():
            yield news
            if news and news.ended:
                return news
            news = None
            news = self._following.next(SLICE)
            self._note(heard=news is not None)
        return None

    def _end(self, last: News) -> Iterator[WaitStep]:
        while not self._leaving():
            try:
                yield Ended(self._following.whole(), last.sentence)
                return
            except StoreUnavailable:
                self._note(heard=False)
                self._sleep(AGAIN)
            yield None

    def _note(self, *, heard: bool) -> None:
        now = self._clock()
        if heard:
            self._heard = now
        elif now - self._heard > self._patience:
            raise StoreUnavailable("no news of an answer for too long", code="service_unavailable")


class WaitingRequests:
    """The requests of this process that wait; one of `services.container`'s guests."""

    def __init__(self, *, most: int = 500, patience: float = 1800.0) -> None:
        """Take how many may wait at once, and for how many seconds without any news."""
        self._most = most
        self._patience = patience
        self._count = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()

    @property
    def count(self) -> int:
        """How many wait."""
        return self._count

    def enter(self) -> bool:
        """Take a place, to be given back by `exit`; False when there is none."""
        with self._changed:
            if self._count >= self._most:
                return False
            self._count += 1
        metrics.HTTP_WAITS.inc()
        return True

    def exit(self) -> None:
        """Give a place back."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()
        metrics.HTTP_WAITS.dec()

    def along(self, following: FollowedStream) -> AnswerWait:
        """Return a request's way along a stream."""
        return AnswerWait(following, leaving=self._closing.is_set, patience=self._patience, sleep=self._closing.wait)

    def start(self) -> None:
        """Say how many may wait."""
        metrics.HTTP_WAITS_MAX.inc(self._most)

    def leave(self) -> None:
        """Let everybody have their answer: each waits for one, and resuming costs more than staying."""

    def close_all(self) -> None:
        """End whoever is left, for another replica to go on with, and see them go for a few seconds."""
        self._closing.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._count, LAST_SECONDS)

    def stop(self) -> None:
        """Nothing of it is left."""
