"""Retries: their number, the pauses between them, and the events that end a pause."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from services.errors import ProviderError
from services.http.retries import attempts, is_unsent
from services.http.service import TransientError
from tests.support.answers import TIMEOUT
from utils.deadline import Deadline


def attempts_made(
    error: ProviderError, deadline: Deadline, *, retries: int = 2, backoff: float = 0.001, **bounds: Any
) -> int:
    """Return how often a call that always raises this error is made; the error is raised unchanged."""
    calls: list[int] = []

    def call() -> None:
        for attempt in attempts(deadline, retries=retries, backoff=backoff, **bounds):
            with attempt:
                calls.append(1)
                raise error

    with pytest.raises(ProviderError) as caught:
        call()
    assert caught.value is error
    return len(calls)


BUSY = TransientError(code="provider_busy")
ASKS_TO_WAIT = TransientError(code="provider_busy", retry_after=2.5)


@pytest.mark.parametrize(
    ("error", "bounds", "made"),
    [
        (BUSY, {}, 3),
        (ProviderError(code="provider_rejected"), {}, 1),
        # The pause would end after the deadline.
        (BUSY, {"backoff": 1000.0}, 1),
        # A Retry-After above `longest_wait` is left to the caller.
        (ASKS_TO_WAIT, {"longest_wait": 2.0}, 1),
        (TransientError(code="provider_busy", retry_after=0.1), {"longest_wait": 0.0}, 1),
    ],
)
def test_a_transient_error_is_retried(error: ProviderError, bounds: dict[str, float], made: int) -> None:
    """With `retries=2` there are three attempts, and the last error is raised."""
    assert attempts_made(error, Deadline(TIMEOUT), **bounds) == made  # type: ignore[arg-type]


def test_a_retry_after_is_waited_for() -> None:
    """A Retry-After longer than the backoff replaces it."""
    began = time.monotonic()

    assert attempts_made(TransientError(code="provider_busy", retry_after=0.05), Deadline(TIMEOUT)) == 3
    assert time.monotonic() - began >= 0.1


def test_a_success_ends_the_attempts() -> None:
    """This holds for a success at the first attempt and after failures."""
    calls: list[int] = []
    for attempt in attempts(Deadline(TIMEOUT), retries=5, backoff=0.001):
        with attempt:
            calls.append(1)
            if len(calls) < 3:
                raise TransientError(code="provider_busy")

    assert len(calls) == 3
    assert [1 for attempt in attempts(Deadline(TIMEOUT), retries=5, backoff=0.001)] == [1]


class AbortedInThePause(Deadline):
    """A deadline that is aborted as soon as something waits for its abort."""

    @contextmanager
    def interrupting(self, hook: Callable[[], None]) -> Iterator[None]:
        with super().interrupting(hook):
            self.abort("cancelled")
            yield


def test_an_abort_ends_the_pause() -> None:
    """Aborting the deadline ends a pause of 600 seconds and starts the next attempt at once."""
    deadline = AbortedInThePause(10_000.0)

    for attempt in attempts(deadline, retries=1, backoff=600.0):
        with attempt:
            if not deadline.aborted:
                raise TransientError(code="provider_busy")

    assert deadline.aborted


def test_a_request_that_left_is_not_retried_where_it_must_not_arrive_twice() -> None:
    """With `is_unsent` only the error of a request of which no byte was sent is retried, whatever its kind."""
    sent, unsent = TransientError(code="provider_busy"), ProviderError(code="provider_unreachable")
    unsent.unsent = True

    assert attempts_made(sent, Deadline(TIMEOUT), may_retry=is_unsent) == 1
    assert attempts_made(unsent, Deadline(TIMEOUT), may_retry=is_unsent) == 3
