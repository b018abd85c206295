"""How long a recovery looks for what, on a clock that goes on only when it sleeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.server import MockDify
from services.errors import ProviderError, Unrecoverable
from services.models import ProviderIds, Recovered
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
    """Who asks, and dies."""
    asker = DifyProvider(base_url=dify.base_url, api_keys=[KEY], timeout=5.0)
    yield asker
    asker.close()


class Sleeper:
    """Sleeps by moving a clock on; something may happen at a time."""

    def __init__(self) -> None:
        self.clock = FakeClock(0.0)
        self.events: list[tuple[float, Callable[[], None]]] = []

    def at(self, seconds: float, happens: Callable[[], None]) -> None:
        self.events.append((seconds, happens))

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
    """A clock of this test's own."""
    return Sleeper()


def test_a_lost_chat_is_looked_for_six_times_in_fifteen_seconds(
    provider: DifyProvider, dify: MockDify, sleeper: Sleeper
) -> None:
    """At 0, 0.5, 1.5, 3.5, 7.5, 11.5 s, then the person has waited long enough."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    ids = lose(provider, "[[chat]]", text=True)

    assert isinstance(sleeper.fails(dify.base_url, ids), Unrecoverable)
    assert sleeper.clock.now == 15.0
    assert dify.looked_up() == {"messages": 6}


def test_a_lost_run_of_an_old_dify_is_looked_at_for_a_minute(
    provider: DifyProvider, dify: MockDify, sleeper: Sleeper
) -> None:
    """It says `running` for ever; nothing but time can tell."""
    dify.after_disconnect, dify.delay, dify.events = "dies", 0.05, False
    ids = lose(provider, "年假", text=True)

    assert isinstance(sleeper.fails(dify.base_url, ids), Unrecoverable)
    assert 60.0 <= sleeper.clock.now < 64.0
    assert dify.looked_up() == {"run": 19, "events": 1, "messages": 1}


@pytest.mark.parametrize("script", ["chatflow", "chat"])
@pytest.mark.parametrize("refusal", ["502-html", "500-internal_server_error", "429-too_many_requests", "504-html"])
def test_an_outage_of_dify_is_waited_out(
    provider: DifyProvider, dify: MockDify, sleeper: Sleeper, script: str, refusal: str
) -> None:
    """Eleven seconds of refusals cost eleven seconds and the rest of a pause."""
    ids = lose(provider, f"[[{script}]] 年假")
    ended(dify, ids)
    dify.outage = ERROR_REPLIES[refusal]
    sleeper.at(11.0, lambda: setattr(dify, "outage", None))

    assert sleeper.recover(dify.base_url, ids).text == dify.expected_answer("年假")
    assert sleeper.clock.now == 11.5


@pytest.mark.parametrize("script", ["chatflow", "chat"])
def test_a_dify_that_stays_away_is_given_up(
    provider: DifyProvider, dify: MockDify, sleeper: Sleeper, script: str
) -> None:
    """Fifteen seconds in all, whatever is looked for meanwhile."""
    ids = lose(provider, f"[[{script}]] 年假")
    ended(dify, ids)
    dify.outage = ERROR_REPLIES["502-html"]

    error = sleeper.fails(dify.base_url, ids)

    assert isinstance(error, Unrecoverable)
    assert "502" in str(error)
    assert sleeper.clock.now == 15.0


def test_the_time_nothing_is_known_is_counted_over_all_looks(
    provider: DifyProvider, dify: MockDify, sleeper: Sleeper
) -> None:
    """Eleven seconds away and then an empty row: four more are left."""
    dify.saves, dify.outputs = False, "none"
    ids = lose(provider, "年假")
    wait_until(lambda: run_of(dify, ids).status == "succeeded")
    dify.outage = ERROR_REPLIES["502-html"]
    sleeper.at(11.0, lambda: setattr(dify, "outage", None))

    assert isinstance(sleeper.fails(dify.base_url, ids), Unrecoverable)
    assert sleeper.clock.now == 15.0


def test_a_dify_that_is_not_there_is_given_up(sleeper: Sleeper) -> None:
    """Nobody listens at its address."""
    with RawServer(b"") as gone:
        url = gone.url

    assert isinstance(sleeper.fails(url, ProviderIds("c", "m", "t", "r")), Unrecoverable)
    assert sleeper.clock.now == 15.0


@pytest.mark.parametrize("body", [b"<html>login</html>", b'{"cut', b"[1]", b'{"data": 7, "status": 7}'])
def test_a_reply_that_makes_no_sense_tells_nothing(sleeper: Sleeper, body: bytes) -> None:
    """It is not an answer, and not a refusal: the next one may be better, until patience ends."""
    reply = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body
    with RawServer(reply) as server:
        error = sleeper.fails(server.url, ProviderIds(STRANGER, STRANGER))

        assert isinstance(error, Unrecoverable)
        assert len(server.heads) == 6


@pytest.mark.parametrize("refusal", ["401-unauthorized", "403-forbidden", "400-invalid_param"])
def test_a_refusal_that_will_not_pass_ends_it_at_once(
    provider: DifyProvider, dify: MockDify, sleeper: Sleeper, refusal: str
) -> None:
    """A wrong key stays wrong."""
    ids = lose(provider, "[[chat]] 年假")
    ended(dify, ids)
    dify.outage = ERROR_REPLIES[refusal]

    assert isinstance(sleeper.fails(dify.base_url, ids), Unrecoverable)
    assert sleeper.clock.now == 0.0


def test_the_total_time_ends_it(provider: DifyProvider, dify: MockDify, sleeper: Sleeper) -> None:
    """Its code is the one of an answer that took too long."""
    dify.after_disconnect, dify.delay = "dies", 0.05
    ids = lose(provider, "[[chat]]", text=True)

    assert sleeper.fails(dify.base_url, ids, seconds=2.0).code == "answer_timeout"
    assert sleeper.clock.now == 2.0
    assert sleeper.fails(dify.base_url, ids, seconds=0.0).code == "answer_timeout"
