"""Asking again where nothing of an answer was seen: a few times, with growing pauses that an abort ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType

from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.wait import wait_exponential_jitter

from services.http.service import TransientError
from utils.deadline import Deadline

log = logging.getLogger(__name__)

#: Seconds of the longest Retry-After that is waited for here; with a longer one the error goes to the caller at once.
LONGEST_WAIT = 2.0


class _First(AbstractContextManager[None]):
    """The first attempt. Only where it fails there is something to count and to wait for."""

    error: TransientError | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error if isinstance(error, TransientError) else None
        return self.error is not None


def attempts(
    deadline: Deadline, *, retries: int, backoff: float, longest_wait: float = LONGEST_WAIT
) -> Iterator[AbstractContextManager[object]]:
    """Yield a block for each attempt at a call that may raise `TransientError`; its last one is raised as it is.

    `backoff`, in seconds, grows with each of the `retries` and has jitter; none begins that would outlast `deadline`.
    A service that asks to be left alone for longer than that is, and for longer than `longest_wait` not asked again.
    """
    # Nearly every call succeeds at once, and making ready to repeat it cost more than most of what it does.
    first = _First()
    yield first
    if first.error is None:
        return
    retrying = iter(_retrying(deadline, retries, backoff, longest_wait))
    with next(retrying):
        raise first.error
    yield from retrying


def _retrying(deadline: Deadline, retries: int, backoff: float, longest_wait: float) -> Retrying:
    own = wait_exponential_jitter(multiplier=backoff, max=8 * backoff, jitter=backoff)

    def is_over(state: RetryCallState) -> bool:
        late = deadline.remaining() <= state.upcoming_sleep
        return late or state.attempt_number > retries or _asked_for(state) > longest_wait

    return Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=is_over,
        wait=lambda state: max(own(state), _asked_for(state)),
        sleep=lambda seconds: pause(seconds, deadline),
        before_sleep=_log_retry,
        reraise=True,
    )


def _asked_for(state: RetryCallState) -> float:
    """Return how long the service asked to be left alone, in seconds."""
    error = state.outcome.exception() if state.outcome else None
    return error.retry_after if isinstance(error, TransientError) else 0.0


def pause(seconds: float, deadline: Deadline) -> None:
    """Sleep; an abort of the deadline wakes."""
    woken = threading.Event()
    with deadline.interrupting(woken.set):
        woken.wait(seconds)


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("provider: %s, attempt %d, asking again in %.1f s", error, state.attempt_number, state.upcoming_sleep)
