"""A queue of answers for one socket. One thread shows them in order; it runs only while the queue is not empty."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from channels.asking import StreamSource
from channels.following import AnswerWait
from services.errors import StoreUnavailable, StreamUnknown
from services.streams.following import Update
from services.streams.long_text import FullAnswer

log = logging.getLogger(__name__)

#: Seconds after which an answer without updates fails.
SILENT_SECONDS = 1800.0


@dataclass(eq=False)
class Shown:
    """A queued answer; a channel's subclass adds the data for showing it."""

    stream_id: str
    #: For whom it is read: the bot and the principal of its question.
    bot: str
    principal: str
    #: The id the client gave its question, "" for none.
    id: str = ""


S = TypeVar("S", bound=Shown)


@dataclass(frozen=True)
class AnswerCallbacks(Generic[S]):
    """The functions that an `AnswerQueue` calls in its thread, and `closing`, which any thread calls."""

    begun: Callable[[S], object]
    #: Returns whether the client still wants the answer.
    show: Callable[[S, Update], bool]
    ended: Callable[[S, Update, FullAnswer], object]
    #: Called with an error code.
    failed: Callable[[S, str], object]
    #: Whether the socket is closing.
    closing: Callable[[], bool]


class AnswerQueue(Generic[S]):
    """A queue of streams. The first one is being shown; the others wait, while their answers are already produced.

    For each stream the queue's thread calls `begun`, then `show` with each update (the last one included), then `ended`
    with the complete answer. When the stream cannot be read (any further), `failed` replaces the remaining calls.
    Callbacks may call `add` and `drop`. After `show` has returned False nothing more is called for that answer, and
    after `close`, or once `closing` is true, for none. The streams themselves go on.
    """

    def __init__(
        self,
        gateway: StreamSource,
        callbacks: AnswerCallbacks[S],
        *,
        most: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an empty queue for `most` answers; one without updates for `SILENT_SECONDS` fails."""
        self._gateway = gateway
        self._callbacks = callbacks
        self._most = most
        self._clock = clock
        self._entries: deque[tuple[S, int]] = deque()
        self._running = False
        self._closed = threading.Event()
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether an answer is being shown or waiting."""
        return bool(self._entries)

    @property
    def full(self) -> bool:
        return len(self._entries) >= self._most

    def add(self, shown: S, cursor: int = 0) -> bool:
        """Append a stream, to be shown from `cursor` on; return False when the queue is full or the socket closes."""
        with self._lock:
            if self.full or self._is_closed():
                return False
            if not self._running:
                threading.Thread(target=self._run, name="answers", daemon=True).start()
                self._running = True
            self._entries.append((shown, cursor))
            return True

    def unfinished(self) -> list[S]:
        """Return the answers being shown or waiting, in order."""
        with self._lock:
            return [shown for shown, _ in self._entries]

    def drop(self, stream_id: str) -> None:
        """Stop showing a stream. A callback that is running may end after this call has returned."""
        with self._lock:
            self._entries = deque(entry for entry in self._entries if entry[0].stream_id != stream_id)

    def close(self) -> None:
        """Stop showing answers; the thread ends within a second plus the time of a running callback."""
        self._closed.set()
        with self._lock:
            self._entries.clear()

    def _is_closed(self) -> bool:
        return self._closed.is_set() or self._callbacks.closing()

    def _wanted(self, shown: S) -> bool:
        return not self._is_closed() and any(shown is other for other in self.unfinished())

    def _run(self) -> None:
        while entry := self._head():
            try:
                self._show(*entry)
            except Exception:
                log.exception("an answer could not be shown", extra={"stream_id": entry[0].stream_id})
            finally:
                with self._lock:
                    self._entries = deque(other for other in self._entries if other[0] is not entry[0])

    def _head(self) -> tuple[S, int] | None:
        """Return the first entry, or None when the thread must end."""
        with self._lock:
            if self._entries and not self._is_closed():
                return self._entries[0]
            self._running = False
            return None

    def _show(self, shown: S, cursor: int) -> None:
        self._callbacks.begun(shown)
        try:
            self._follow(shown, cursor)
        except (StreamUnknown, StoreUnavailable) as exc:
            self._fail(shown, exc.code)
        except Exception:
            log.exception("following an answer failed", extra={"stream_id": shown.stream_id})
            self._fail(shown, "server_error")

    def _fail(self, shown: S, code: str) -> None:
        if self._wanted(shown):
            self._callbacks.failed(shown, code)

    def _follow(self, shown: S, cursor: int) -> None:
        following = self._gateway.follow(shown.stream_id, cursor, bot=shown.bot, principal=shown.principal)
        wait = AnswerWait(
            following,
            leaving=lambda: not self._wanted(shown),
            timeout=SILENT_SECONDS,
            clock=self._clock,
            sleep=self._closed.wait,
        )
        last: Update | None = None
        for step in wait.steps():
            if isinstance(step, Update):
                last = step
                if not self._wanted(shown) or not self._callbacks.show(shown, step):
                    return
            elif step and last:
                self._callbacks.ended(shown, last, step.full)
