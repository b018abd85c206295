"""Asking again: how often, for how long, and what ends the pause."""

from __future__ import annotations

import threading
import time

import pytest

from services.errors import ProviderError
from services.http.service import TransientError
from services.providers.client.retries import attempts
from tests.support.answers import TIMEOUT
from utils.deadline import Deadline


def tried(
    error: ProviderError, deadline: Deadline, *, retries: int = 2, backoff: float = 0.001, **bounds: float
) -> int:
    """Return how often a call is made that always raises this error, which leaves as it is."""
    calls: list[int] = []

    def try_it() -> None:
        for attempt in attempts(deadline, retries=retries, backoff=backoff, **bounds):
            with attempt:
                calls.append(1)
                raise error

    with pytest.raises(ProviderError) as caught:
        try_it()
    assert caught.value is error
    return len(calls)


def test_what_may_pass_is_tried_again_a_few_times() -> None:
    """Its last error leaves as it is."""
    assert tried(TransientError(code="provider_busy"), Deadline(TIMEOUT)) == 3


def test_a_wait_that_the_service_asks_for_is_kept() -> None:
    """A short one takes the place of a shorter pause of ours."""
    began = time.monotonic()

    assert tried(TransientError(code="provider_busy", retry_after=0.3), Deadline(TIMEOUT)) == 3
    assert time.monotonic() - began >= 0.6


@pytest.mark.parametrize(("wait", "longest"), [(2.5, 2.0), (600.0, 2.0), (0.1, 0.0)])
def test_a_wait_that_is_too_long_is_left_to_the_caller(wait: float, longest: float) -> None:
    """The call is not made again before its time."""
    error = TransientError(code="provider_busy", retry_after=wait)

    assert tried(error, Deadline(TIMEOUT), longest_wait=longest) == 1


def test_what_stays_is_tried_once() -> None:
    """A refusal is not mended by asking."""
    assert tried(ProviderError(code="provider_rejected"), Deadline(TIMEOUT)) == 1


def test_what_succeeds_is_not_tried_again() -> None:
    """Neither at once nor after a failure."""
    calls: list[int] = []
    for attempt in attempts(Deadline(TIMEOUT), retries=5, backoff=0.001):
        with attempt:
            calls.append(1)
            if len(calls) < 3:
                raise TransientError(code="provider_busy")

    assert len(calls) == 3
    assert [1 for attempt in attempts(Deadline(TIMEOUT), retries=5, backoff=0.001)] == [1]


def test_no_pause_outlasts_the_deadline() -> None:
    """There would be no time left to ask in."""
    assert tried(TransientError(code="provider_busy"), Deadline(5.0), backoff=1000.0) == 1


def test_an_abort_ends_the_pause() -> None:
    """Whoever cancels does not wait for the next attempt."""
    deadline, paused = Deadline(10_000.0), threading.Event()

    def abort_in_the_pause() -> None:
        paused.wait(TIMEOUT)
        deadline.abort("cancelled")

    threading.Thread(target=abort_in_the_pause, daemon=True).start()

    for attempt in attempts(deadline, retries=1, backoff=600.0):
        with attempt:
            if not deadline.aborted:
                paused.set()
                raise TransientError(code="provider_busy")

    assert deadline.aborted
