"""The timeouts of a recovery, measured on a fake clock that advances only while the recovery sleeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.server import MockDify
from services.errors import ProviderError, Unrecoverable
from services.models import ProviderIds
from services.providers.base import Recovered
from services.providers.dify.provider import DifyProvider
from services.providers.dify.recovery import DifyRecovery
from services.providers.dify.search import SentQuestion
from services.providers.dify.service import DifyService
from tests.support.servers.processes import FakeClock, wait_until
from tests.support.servers.raw_server import RawServer
from tests.support.streams.lost_runs import ended, lose, run_of
from utils.deadline import Deadline

KEY = "app-fake-key"
STRANGER = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def dify() -> Iterator[MockDify]:
    """A mock Dify."""
    with MockDify() as mock:
        yield mock


@pytest.fixture
def provider(dify: MockDify) -> Iterator[DifyProvider]:
    """The provider that asks the questions and loses their streams."""
    asker = DifyProvider(base_url=dify.base_url, api_keys=[KEY], timeout=5.0)
    yield asker
    asker.close()


class Sleeper:
    """A fake clock and a sleep that advances it; `at` runs a function at a given time."""

    def __init__(self) -> None:
        self.clock = FakeClock(0.0)
        self.events: list[tuple[float, Callable[[], None]]] = []

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        self.events.append((seconds, action))

    def __call__(self, seconds: float, deadline: Deadline) -> None:
        self.clock.advance(seconds)
        for event in [event for event in self.events if event[0] <= self.clock.now]:
            self.events.remove(event)
            event[1]()

    def recover(self, base_url: str, ids: ProviderIds, *, seconds: float = 1200.0) -> Recovered:
        asked = SentQuestion(ids, "u1", f"Bearer {KEY}")
        deadline = Deadline(seconds, clock=self.clock)
        with closing(DifyService(base_url=base_url)) as service:
            return DifyRecovery(service, asked, deadline, clock=self.clock, sleep=self).answer()

    def fails(self, base_url: str, ids: ProviderIds, **options: Any) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            self.recover(base_url, ids, **options)
        return caught.value


@pytest.fixture
def sleeper() -> Sleeper:
    """A fake clock of this test's own, starting at 0."""
    return Sleeper()


def test_a_lost_chat_is_polled_six_times_in_fifteen_seconds(
    provider: DifyProvider, dify: MockDify, sleeper: Sleeper
) -> None:
    """The polls start at 0, 0.5, 1.5, 3.5, 7.5 and 11.5 s; the recovery fails at 15 s."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    ids = lose(provider, "[[chat]]", text=True)

    assert isinstance(sleeper.fails(dify.base_url, ids), Unrecoverable)
    assert sleeper.clock.now == 15.0
    assert dify.looked_up() == {"messages": 6}


def test_a_lost_run_of_an_old_dify_is_polled_for_a_minute(
    provider: DifyProvider, dify: MockDify, sleeper: Sleeper
) -> None:
    """Without an event stream a run that reports `running` for ever ends only by the `running` timeout of 60 s."""
    dify.after_disconnect, dify.delay, dify.events = "dies", 0.05, False
    ids = lose(provider, "年假", text=True)

    assert isinstance(sleeper.fails(dify.base_url, ids), Unrecoverable)
    assert 60.0 <= sleeper.clock.now < 64.0
    assert dify.looked_up() == {"run": 19, "events": 1, "messages": 1}


@pytest.mark.parametrize("script", ["chatflow", "chat"])
@pytest.mark.parametrize("error_reply", ["502-html", "500-internal_server_error", "429-too_many_requests", "504-html"])
def test_recovery_outlasts_a_short_outage_of_dify(
    provider: DifyProvider, dify: MockDify, sleeper: Sleeper, script: str, error_reply: str
) -> None:
    """Dify is down for 11 s; the recovery returns the answer at the next poll, at 11.5 s."""
    ids = lose(provider, f"[[{script}]] 年假")
    ended(dify, ids)
    dify.outage = ERROR_REPLIES[error_reply]
    sleeper.at(11.0, lambda: setattr(dify, "outage", None))

    assert sleeper.recover(dify.base_url, ids).text == dify.expected_answer("年假")
    assert sleeper.clock.now == 11.5


@pytest.mark.parametrize("script", ["chatflow", "chat"])
def test_recovery_fails_when_dify_stays_down(
    provider: DifyProvider, dify: MockDify, sleeper: Sleeper, script: str
) -> None:
    """The recovery fails after 15 s in all, for runs and for messages; the error names the HTTP status."""
    ids = lose(provider, f"[[{script}]] 年假")
    ended(dify, ids)
    dify.outage = ERROR_REPLIES["502-html"]

    error = sleeper.fails(dify.base_url, ids)

    assert isinstance(error, Unrecoverable)
    assert "502" in str(error)
    assert sleeper.clock.now == 15.0


def test_time_without_a_result_is_counted_over_all_polls(
    provider: DifyProvider, dify: MockDify, sleeper: Sleeper
) -> None:
    """After 11 s of an outage, a history row without text gets the remaining 4 s of the 15 s."""
    dify.saves, dify.outputs = False, "none"
    ids = lose(provider, "年假")
    wait_until(lambda: run_of(dify, ids).status == "succeeded")
    dify.outage = ERROR_REPLIES["502-html"]
    sleeper.at(11.0, lambda: setattr(dify, "outage", None))

    assert isinstance(sleeper.fails(dify.base_url, ids), Unrecoverable)
    assert sleeper.clock.now == 15.0


def test_recovery_fails_when_dify_is_unreachable(sleeper: Sleeper) -> None:
    """No server listens at its address: the recovery fails after 15 s."""
    with RawServer(b"") as gone:
        url = gone.url

    assert isinstance(sleeper.fails(url, ProviderIds("c", "m", "t", "r")), Unrecoverable)
    assert sleeper.clock.now == 15.0


@pytest.mark.parametrize("body", [b"<html>login</html>", b'{"cut', b"[1]", b'{"data": 7, "status": 7}'])
def test_a_malformed_reply_is_polled_again(sleeper: Sleeper, body: bytes) -> None:
    """Such a reply counts as no result and is polled again: six polls until the timeout."""
    reply = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body
    with RawServer(reply) as server:
        error = sleeper.fails(server.url, ProviderIds(STRANGER, STRANGER))

        assert isinstance(error, Unrecoverable)
        assert len(server.heads) == 6


@pytest.mark.parametrize("error_reply", ["401-unauthorized", "403-forbidden", "400-invalid_param"])
def test_a_permanent_error_of_dify_fails_the_recovery_at_once(
    provider: DifyProvider, dify: MockDify, sleeper: Sleeper, error_reply: str
) -> None:
    """Dify's 400, 401 and 403 fail the recovery without a second poll."""
    ids = lose(provider, "[[chat]] 年假")
    ended(dify, ids)
    dify.outage = ERROR_REPLIES[error_reply]

    assert isinstance(sleeper.fails(dify.base_url, ids), Unrecoverable)
    assert sleeper.clock.now == 0.0


def test_the_deadline_ends_a_recovery(provider: DifyProvider, dify: MockDify, sleeper: Sleeper) -> None:
    """The error's code is `answer_timeout`, also if the deadline is over from the start."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    ids = lose(provider, "[[chat]]", text=True)

    assert sleeper.fails(dify.base_url, ids, seconds=2.0).code == "answer_timeout"
    assert sleeper.clock.now == 2.0
    assert sleeper.fails(dify.base_url, ids, seconds=0.0).code == "answer_timeout"
