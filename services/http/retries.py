"""Retries of requests with exponential backoff and jitter. An abort of the deadline ends the pause between attempts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType

from tenacity import RetryCallState, Retrying, retry_if_exception
from tenacity.wait import wait_exponential_jitter

from services.errors import ProviderError
from services.http.service import CertificateRefused, TransientError
from utils.deadline import Deadline

log = logging.getLogger(__name__)

#: The longest `Retry-After`, in seconds, that is waited for here. With a longer one the error is raised at once.
LONGEST_WAIT = 2.0


#: Returns whether a request that failed with this error may be sent again.
MayRetry = Callable[[BaseException], bool]


def is_transient(error: BaseException) -> bool:
    return isinstance(error, TransientError)


def is_unsent(error: BaseException) -> bool:
    """Return whether no byte of the request can have left, and another attempt may: for requests that must not arrive
    twice.
    """
    return isinstance(error, ProviderError) and error.unsent and not isinstance(error, CertificateRefused)


class _First(AbstractContextManager[None]):
    """The first attempt. It keeps its error, so that `Retrying` is built only after a failure."""

    def __init__(self, may_retry: MayRetry) -> None:
        self._may_retry = may_retry
        self.error: BaseException | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error if error is not None and self._may_retry(error) else None
        return self.error is not None


def attempts(
    deadline: Deadline,
    *,
    retries: int,
    backoff: float,
    longest_wait: float = LONGEST_WAIT,
    may_retry: MayRetry = is_transient,
) -> Iterator[AbstractContextManager[object]]:
    """Yield a context manager for each attempt at a call; the last error is raised, and each that `may_retry` rejects.

    `backoff`, in seconds, doubles with each of the `retries` and has jitter. A longer `Retry-After` replaces it. No
    retry starts after a pause that would outlast `deadline`, or after a `Retry-After` longer than `longest_wait`.
    """
    # Nearly every call succeeds at once, and building `Retrying` cost more than most of the call.
    first = _First(may_retry)
    yield first
    if first.error is None:
        return
    retrying = iter(_retrying(deadline, retries, backoff, longest_wait, may_retry))
    with next(retrying):
        raise first.error
    yield from retrying


def _retrying(deadline: Deadline, retries: int, backoff: float, longest_wait: float, may_retry: MayRetry) -> Retrying:
    own = wait_exponential_jitter(multiplier=backoff, max=8 * backoff, jitter=backoff)

    def is_over(state: RetryCallState) -> bool:
        late = deadline.remaining() <= state.upcoming_sleep
        return late or state.attempt_number > retries or _asked_for(state) > longest_wait

    return Retrying(
        retry=retry_if_exception(may_retry),
        stop=is_over,
        wait=lambda state: max(own(state), _asked_for(state)),
        sleep=lambda seconds: pause(seconds, deadline),
        before_sleep=_log_retry,
        reraise=True,
    )


def _asked_for(state: RetryCallState) -> float:
    """Return the `Retry-After` of the last error, in seconds; 0 if it had none."""
    error = state.outcome.exception() if state.outcome else None
    return error.retry_after if isinstance(error, ProviderError) else 0.0


def pause(seconds: float, deadline: Deadline) -> None:
    """Sleep for this many seconds, or until the deadline is aborted."""
    woken = threading.Event()
    with deadline.interrupting(woken.set):
        woken.wait(seconds)


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("request: %s, attempt %d, asking again in %.1f s", error, state.attempt_number, state.upcoming_sleep)
