"""From the queue to SQL and the provider: what fails is tried later, for a day, each party for itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from config.texts import ZH, Texts
from services import metrics
from services.errors import AuthError, ProviderError
from services.feedback.delivery import GIVE_UP_SECONDS, LONGEST_AWAY, LONGEST_DELAY, PAUSE, FeedbackDelivery
from services.feedback.inbox import FeedbackInbox
from services.feedback.rating_store import LEASE, RatingStore
from services.feedback.records import RatedAnswer, Rating
from services.feedback.sql_store import FEEDBACK, SqlFeedbackStore
from services.models import ProviderEvent, Query, Question
from services.providers.base import BaseRAGProvider
from services.redis.store import Call, ScriptRunner
from services.streams.access import Access
from services.streams.records import NewStream
from services.streams.store import StreamStore, stream_keys
from tests.support.schema import migrated
from tests.support.servers.processes import FakeClock
from utils.deadline import Deadline

NOW = 1_700_000_000


class RatedProvider(BaseRAGProvider):
    """A provider that keeps ratings, unless `error` is set."""

    name = "rated"
    app = "app1"
    takes_ratings = True

    def __init__(self) -> None:
        self.error: ProviderError | None = None
        self.fault = False
        self.calls = 0
        self.told: list[tuple[str, str, str, str]] = []
        self.tokens: list[str] = []

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        raise NotImplementedError

    def health_check(self) -> bool:
        return True

    def rate(self, message_id: str, user: str, rating: str, content: str, *, token: str = "") -> None:
        self.calls += 1
        if self.fault:
            raise LookupError("a fault of a plug-in")
        if self.error:
            raise self.error
        self.told.append((message_id, user, rating, content))
        self.tokens.append(token)


class Worker:
    """A replica's delivery without its thread; `advance` moves the clocks of Redis and of the process."""

    def __init__(self, runner: ScriptRunner, clock: FakeClock, url: str) -> None:
        self.runner, self.clock = runner, clock
        self.url = url
        self.provider = RatedProvider()
        self.token_error: AuthError | None = None
        self.access = Access({"default": lambda: (b"k" * 32,)})
        self.ratings = RatingStore(runner, now=str(NOW))
        self.sql = SqlFeedbackStore(migrated(url), clock=lambda: float(NOW))
        self.inbox = FeedbackInbox(self.ratings, self.access, wake=lambda: None)
        self.delivery = FeedbackDelivery(
            self.ratings,
            self.access,
            sql=self.sql,
            providers={"default": self.provider},
            texts=Texts(),
            token=self._token,
            clock=clock,
        )

    def _token(self, answer: RatedAnswer) -> str:
        if self.token_error:
            raise self.token_error
        return f"token of {answer.asker}"

    def answers(self, stream_id: str) -> None:
        asker = '{"bot": "default", "channel": "wecom", "user": "zhangsan"}'
        readers = self.access.readers(Question("", "wecom", "default", "zhangsan"))
        fields: dict[str, Any] = {"status": "completed", "access": readers, "asks": "1", "asker": asker}
        fields |= {"provider": "rated", "message_id": f"m-{stream_id}", "conversation_id": "c1"}
        StreamStore(self.runner).open(NewStream(stream_id, "a", fields))

    def rates(self, stream_id: str = "s1", kind: Any = "like", at: int = NOW, **words: Any) -> str:
        return self.inbox.rate(
            stream_id,
            Rating(kind, at=at, event_id=f"{stream_id}{kind}{at}", **words),
            bot="default",
            principal="zhangsan",
        )

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.ratings.now = str(float(self.ratings.now) + seconds)

    def changes(self, statement: str) -> None:
        """Run a statement on the table without the store."""
        self.sql._database.transact(lambda connection: connection.exec_driver_sql(statement))

    def rows(self) -> list[tuple[str, str | None]]:
        engine = sa.create_engine(self.url)
        with engine.connect() as connection:
            asked = sa.select(FEEDBACK.c.stream_id, FEEDBACK.c.rating).order_by(FEEDBACK.c.stream_id)
            found = [(row.stream_id, row.rating) for row in connection.execute(asked)]
        engine.dispose()
        return found

    @property
    def waiting(self) -> int:
        return self.ratings.claim().waiting


@pytest.fixture
def worker(runner: ScriptRunner, clock: FakeClock, tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(runner, clock, f"sqlite:///{tmp_path / 'laibao.db'}")
    for stream_id in ("s1", "s2", "s3"):
        worker.answers(stream_id)
    yield worker
    worker.sql.close()


def lost(target: str) -> float:
    return float(metrics.FEEDBACK_DELIVERED.labels(target, "lost")._value.get())


def test_a_rating_is_stored_and_told_once(worker: Worker) -> None:
    """With the words and a sentence for each reason; an empty queue is looked at every few seconds."""
    worker.rates(kind="dislike", content="更具体", reasons=(2, 9))

    assert [worker.delivery.work() for _ in range(2)] == [PAUSE, PAUSE]

    assert worker.rows() == [("s1", "dislike")]
    assert worker.provider.told == [("m-s1", "zhangsan", "dislike", f"更具体\n{ZH['feedback_reason_2']}")]


def test_a_provider_that_is_away_is_told_later(worker: Worker) -> None:
    """It is tried once and again after a pause, not for each answer that waits; SQL has all rows meanwhile."""
    worker.provider.error = ProviderError("no connection", code="provider_unreachable")
    for stream_id in ("s1", "s2", "s3"):
        worker.rates(stream_id)
    pause = worker.delivery.work()

    assert 0 < pause <= PAUSE
    assert worker.rows() == [("s1", "like"), ("s2", "like"), ("s3", "like")]
    assert worker.provider.calls == 1

    worker.provider.error = None
    worker.advance(LONGEST_AWAY)
    worker.delivery.work()
    assert sorted(told[0] for told in worker.provider.told) == ["m-s1", "m-s2", "m-s3"]
    assert worker.waiting == 0


def test_only_the_last_state_is_told_after_an_outage(worker: Worker) -> None:
    """What was said meanwhile is not repeated one by one."""
    worker.provider.error = ProviderError("HTTP 502", http_status=502)
    worker.rates(kind="like")
    worker.delivery.work()
    worker.rates(kind="dislike", at=NOW + 1)
    worker.provider.error = None
    worker.advance(LONGEST_AWAY)
    worker.delivery.work()

    assert [told[2] for told in worker.provider.told] == ["dislike"]
    assert worker.rows() == [("s1", "dislike")]


def test_a_provider_that_stays_away_for_a_day_loses_the_rating(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted and logged as lost, SQL keeps it, and it leaves the queue."""
    before = (lost("provider"), lost("sql"))
    worker.provider.error = ProviderError("HTTP 503", http_status=503)
    worker.rates(content="机密")
    for _ in range(4):
        worker.delivery.work()
        worker.advance(GIVE_UP_SECONDS / 3.5)
    worker.delivery.work()

    assert (lost("provider"), lost("sql")) == (before[0] + 1, before[1])
    assert worker.rows() == [("s1", "like")]
    assert worker.waiting == 0
    (line,) = [vars(record) for record in caplog.records if record.message == "feedback lost"]
    assert (line["stream_id"], line["target"], line["cause"]) == ("s1", "provider", "provider_error: HTTP 503")
    assert "机密" not in caplog.text


@pytest.mark.parametrize("status", [400, 404, 422, None])
def test_a_refusal_is_not_repeated(worker: Worker, status: int | None) -> None:
    """The provider does not know the message, or takes no ratings of it, or the directory lacks the asker by now."""
    before = lost("provider")
    if status:
        worker.provider.error = ProviderError(f"HTTP {status}", http_status=status)
    else:
        worker.provider.sends_user_tokens = True
        worker.token_error = AuthError(code="unknown_user")
    worker.rates()
    worker.delivery.work()

    assert lost("provider") == before + 1
    assert (worker.rows(), worker.waiting) == ([("s1", "like")], 0)


def test_sql_that_is_away_does_not_delay_the_provider(worker: Worker, tmp_path: Path) -> None:
    """The row is stored when the database is back."""
    path, elsewhere = tmp_path / "laibao.db", tmp_path / "elsewhere.db"
    path.rename(elsewhere)
    path.mkdir()
    worker.rates()
    worker.delivery.work()
    assert len(worker.provider.told) == 1

    path.rmdir()
    elsewhere.rename(path)
    worker.advance(LONGEST_AWAY)
    worker.delivery.work()

    assert worker.rows() == [("s1", "like")]
    assert len(worker.provider.told) == 1


def test_ratings_wait_for_their_table(worker: Worker) -> None:
    """Before the migration the provider has them already; the row follows."""
    worker.changes("ALTER TABLE laibao_feedback RENAME TO elsewhere")
    worker.rates()
    worker.delivery.work()
    assert len(worker.provider.told) == 1

    worker.changes("ALTER TABLE elsewhere RENAME TO laibao_feedback")
    worker.advance(LONGEST_AWAY)
    worker.delivery.work()

    assert worker.rows() == [("s1", "like")]
    assert len(worker.provider.told) == 1


@pytest.mark.parametrize("needed", [True, False])
def test_a_provider_that_needs_it_gets_the_askers_token(worker: Worker, needed: bool) -> None:
    """It is looked up for each delivery, and only where it is sent; an outage of the auth API is waited for."""
    worker.provider.sends_user_tokens = needed
    worker.token_error = AuthError(code="auth_unavailable") if needed else None
    worker.rates()
    worker.delivery.work()
    worker.token_error = None
    worker.advance(LONGEST_AWAY)
    worker.delivery.work()

    assert worker.provider.tokens == ["token of zhangsan" if needed else ""]
    assert worker.waiting == 0


def test_a_provider_with_a_fault_loses_only_its_own(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception is logged once; SQL has the row, and the answer leaves the queue."""
    worker.provider.fault = True
    worker.rates()
    worker.delivery.work()

    assert (worker.rows(), worker.waiting) == ([("s1", "like")], 0)
    assert [record.message for record in caplog.records if record.exc_info] == ["feedback failed"]


def test_an_entry_that_cannot_be_read_does_not_keep_others(worker: Worker) -> None:
    """It is tried again much later."""
    worker.rates("s1")
    worker.runner.run([Call(None, ("HSET", "{dify_stream:s1}:answer"), ("asker", "not json"))])
    worker.runner.run([Call(None, ("DEL", stream_keys("s1").hash))])
    worker.rates("s2")
    worker.delivery.work()

    assert worker.rows() == [("s2", "like")]
    claimed = worker.ratings.claim()
    assert (claimed.waiting, claimed.stream_id, claimed.wait) == (1, "", LONGEST_DELAY)


def test_a_killed_workers_claim_is_delivered_by_another(worker: Worker) -> None:
    """Also what it had delivered without noting it: the same state again changes nothing."""
    worker.rates()
    claimed = worker.ratings.claim()
    worker.provider.rate("m-s1", "zhangsan", "like", "")
    assert claimed.stream_id == "s1"
    assert worker.delivery.work() == PAUSE
    assert len(worker.provider.told) == 1

    worker.advance(LEASE + 1)
    worker.delivery.work()

    assert worker.rows() == [("s1", "like")]
    assert worker.provider.told == [("m-s1", "zhangsan", "like", "")] * 2
