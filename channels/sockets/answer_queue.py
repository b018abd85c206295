"""The answers of one socket, shown one after the other by one thread that lives only while there is one to show."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from config.bots import DEFAULT_BOT
from services.errors import StoreUnavailable, StreamUnknown
from services.streams.following import News
from services.streams.records import Whole

log = logging.getLogger(__name__)

#: Seconds of one wait for news: as long as it takes at the most until a closed socket's thread ends.
SLICE = 1.0
#: Seconds between two tries to have an ended answer whole while Redis is away.
AGAIN = 0.5


@dataclass(eq=False)
class Shown:
    """An answer on its way to a socket; a door's subclass keeps what else it needs to show it."""

    stream_id: str
    #: The client's own id of the question, "" for none.
    id: str = ""


S = TypeVar("S", bound=Shown)


class FollowedStream(Protocol):
    """What is used of a reader's way along a stream."""

    def next(self, timeout: float) -> News | None: ...

    def whole(self) -> Whole: ...


class StreamSource(Protocol):
    """What is used of the gateway."""

    def follow(
        self, stream_id: str, cursor: int = 0, *, bot: str, principal: str, text: bool = True
    ) -> FollowedStream: ...


class AnswerQueue(Generic[S]):
    """A line of streams; its head is being shown, the others wait, though they are being answered already.

    For each of them the callbacks come from the queue's thread in this order: `begun`; `show` with all that becomes
    known, the end included; `ended` with the whole answer. `failed` with a code comes instead of the rest when there is
    nothing (more) to be had. A callback may add and drop. Once `show` has returned False, nothing more comes of that
    answer; once `closing` or `close` has said that nobody is there any more, of none. The streams themselves go on.
    """

    def __init__(
        self,
        gateway: StreamSource,
        principal: str,
        *,
        begun: Callable[[S], object],
        show: Callable[[S, News], bool],
        ended: Callable[[S, News, Whole], object],
        failed: Callable[[S, str], object],
        closing: Callable[[], bool],
        most: int = 8,
        patience: float = 1800.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how many may be unfinished, and after how many seconds without any news an answer is given up."""
        self._gateway = gateway
        self._principal = principal
        self._begun, self._show, self._ended, self._failed = begun, show, ended, failed
        self._closing = closing
        self._most = most
        self._patience = patience
        self._clock = clock
        self._line: deque[tuple[S, int]] = deque()
        self._running = False
        self._closed = threading.Event()
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether an answer is being shown or waits for it."""
        return bool(self._line)

    @property
    def full(self) -> bool:
        return len(self._line) >= self._most

    def add(self, shown: S, cursor: int = 0) -> bool:
        """Show a stream from `cursor` on after those before it; False when there are too many, or nobody is there."""
        with self._lock:
            if self.full or self._gone():
                return False
            if not self._running:
                threading.Thread(target=self._run, name="answers", daemon=True).start()
                self._running = True
            self._line.append((shown, cursor))
            return True

    def unfinished(self) -> list[S]:
        """Return those being shown or waiting for it, in their order."""
        with self._lock:
            return [shown for shown, _ in self._line]

    def drop(self, stream_id: str) -> None:
        """Show no more of a stream; a callback that is under way ends first, perhaps after this returned."""
        with self._lock:
            self._line = deque(entry for entry in self._line if entry[0].stream_id != stream_id)

    def close(self) -> None:
        """Show nothing more; the thread ends within `SLICE` and a callback's time."""
        self._closed.set()
        with self._lock:
            self._line.clear()

    def _gone(self) -> bool:
        return self._closed.is_set() or self._closing()

    def _wanted(self, shown: S) -> bool:
        return not self._gone() and any(shown is other for other in self.unfinished())

    def _run(self) -> None:
        while entry := self._head():
            try:
                self._tell(*entry)
            except Exception:
                log.exception("an answer could not be shown", extra={"stream_id": entry[0].stream_id})
            finally:
                self._leave(entry[0])

    def _head(self) -> tuple[S, int] | None:
        """Return whose turn it is, or None when the thread ends."""
        with self._lock:
            if self._line and not self._gone():
                return self._line[0]
            self._running = False
            return None

    def _leave(self, shown: S) -> None:
        with self._lock:
            self._line = deque(entry for entry in self._line if entry[0] is not shown)

    def _tell(self, shown: S, cursor: int) -> None:
        self._begun(shown)
        try:
            self._follow(shown, cursor)
        except (StreamUnknown, StoreUnavailable) as exc:
            self._fail(shown, exc.code)
        except Exception:
            log.exception("following an answer failed", extra={"stream_id": shown.stream_id})
            self._fail(shown, "server_error")

    def _fail(self, shown: S, code: str) -> None:
        if self._wanted(shown):
            self._failed(shown, code)

    def _follow(self, shown: S, cursor: int) -> None:
        following = self._gateway.follow(shown.stream_id, cursor, bot=DEFAULT_BOT, principal=self._principal)
        last = self._last(shown, following)
        whole = self._whole(shown, following) if last else None
        if last and whole:
            self._ended(shown, last, whole)

    def _last(self, shown: S, following: FollowedStream) -> News | None:
        """Show what comes; return the last of it, or None when nobody wants to see it any more.

        Raises:
            StoreUnavailable: nothing came for too long.
        """
        end = self._clock() + self._patience
        while self._wanted(shown):
            news = following.next(SLICE)
            if news is None:
                self._check(end)
                continue
            if not self._wanted(shown) or not self._show(shown, news):
                return None
            if news.ended:
                return news
            end = self._clock() + self._patience
        return None

    def _whole(self, shown: S, following: FollowedStream) -> Whole | None:
        """Return the whole answer, waiting for Redis; None when nobody wants to see it any more."""
        end = self._clock() + self._patience
        while self._wanted(shown):
            try:
                return following.whole()
            except StoreUnavailable:
                self._check(end)
                self._closed.wait(AGAIN)
        return None

    def _check(self, end: float) -> None:
        if self._clock() > end:
            raise StoreUnavailable("no news of an answer for too long", code="service_unavailable")
