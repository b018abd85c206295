"""Ratings of events that come while Redis is away are kept in the process, and queued when it is back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

import services.feedback.inbox as inbox_module
from services import metrics
from services.errors import StoreUnavailable
from services.feedback.inbox import IDLE, FeedbackInbox
from services.feedback.rating_store import RatingStore
from services.feedback.records import Rating
from services.models import Question
from services.redis.store import ScriptRunner, connect
from services.streams.access import Access
from services.streams.records import NewStream
from services.streams.store import StreamStore
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.servers.relay import Relay

NOW = 1_700_000_000


class Desk:
    """One process's inbox; `redis` is the way from it to Redis."""

    def __init__(self, redis: Relay, runner: ScriptRunner) -> None:
        self.redis = redis
        self.ratings = RatingStore(runner)
        self.access = Access({"default": lambda: (b"k" * 32,)})
        self.woken = 0
        self.inbox = FeedbackInbox(self.ratings, self.access, wake=self._wake)
        asker = '{"bot": "default", "channel": "wecom", "user": "zhangsan"}'
        readers = self.access.readers(Question("", "wecom", "default", "zhangsan"))
        fields: dict[str, Any] = {"status": "completed", "access": readers, "asks": "1", "asker": asker}
        StreamStore(runner).open(NewStream("s1", "a", fields))

    def _wake(self) -> None:
        self.woken += 1

    def rates(self, kind: Any, *, at: int = NOW, keep: bool = True) -> str:
        rating = Rating(kind, at=at, event_id=f"{kind}{at}")
        return self.inbox.rate("s1", rating, bot="default", principal="zhangsan", keep=keep)

    def stored(self) -> list[str]:
        """Return the kinds of the queued ratings, one for each person."""
        assert self.ratings.claim().stream_id == "s1"
        ratings = self.ratings.load("s1")
        assert ratings
        question = Question("", "", "default", "")
        return [
            Rating.from_json(self.access.unsealed(question, one.sealed), one.at).kind for one in ratings.people
        ]  # fmt: skip


@pytest.fixture
def desk() -> Iterator[Desk]:
    with RedisServer() as server, Relay(server.port) as relay:
        client = connect(f"redis://127.0.0.1:{relay.port}/0", pool_size=4, timeout=5.0)
        yield Desk(relay, ScriptRunner(client))
        client.close()


def refused() -> float:
    return float(metrics.FEEDBACK_REFUSED.labels("store_unavailable")._value.get())


def kept() -> float:
    return float(metrics.FEEDBACK_KEPT._value.get())


def test_a_rating_during_an_outage_is_queued_after_it(desk: Desk) -> None:
    """Its event is answered as any other; delivery is woken once it is queued."""
    with desk.redis.refusing():
        assert desk.rates("like") == "kept"
        with pytest.raises(StoreUnavailable):
            desk.inbox.take_kept()
        assert (kept(), desk.woken) == (1.0, 0)

    assert desk.inbox.take_kept() == IDLE

    assert (kept(), desk.woken, desk.stored()) == (0.0, 1, ["like"])


def test_a_kept_rating_does_not_overwrite_a_later_one(desk: Desk) -> None:
    """The events' times decide, not the moments at which Redis got them."""
    with desk.redis.refusing():
        desk.rates("like")
    desk.rates("dislike", at=NOW + 1)

    desk.inbox.take_kept()

    assert desk.stored() == ["dislike"]


def test_a_rating_that_its_client_can_repeat_is_not_kept(desk: Desk) -> None:
    """A program or a page gets an error instead."""
    with desk.redis.refusing(), pytest.raises(StoreUnavailable):
        desk.rates("like", keep=False)

    assert kept() == 0.0


def test_kept_ratings_are_bounded_and_counted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One beyond the limit is lost; so are those that a leaving process could not queue."""
    monkeypatch.setattr(inbox_module, "MAX_KEPT_RATINGS", 2)
    before = refused()
    with desk.redis.refusing():
        desk.inbox.start()
        assert [desk.rates("like", at=NOW + n) for n in range(2)] == ["kept", "kept"]
        with pytest.raises(StoreUnavailable):
            desk.rates("like", at=NOW + 2)
        assert (refused(), kept()) == (before + 1, 2.0)
        with caplog.at_level(logging.ERROR):
            desk.inbox.close()

    assert refused() == before + 3
    (line,) = [record for record in caplog.records if record.getMessage() == "kept feedback lost"]
    assert getattr(line, "count") == 2  # noqa: B009 - mypy knows no extra fields


def test_the_thread_queues_kept_ratings_when_redis_is_back(desk: Desk) -> None:
    """Without a further event."""
    desk.inbox.start()
    with desk.redis.refusing():
        assert desk.rates("like") == "kept"

    wait_until(lambda: desk.woken == 1)

    desk.inbox.close()
    assert desk.stored() == ["like"]
