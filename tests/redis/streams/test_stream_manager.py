"""Producers on a Redis: every answer ends, with its whole text, through errors, takeovers, drains and outages."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import redis

from services import metrics
from services.errors import AnswerError, AuthError, ProviderError
from services.models import Attempt, Delta, Identity, Metadata, ProviderIds, Question, Usage, UserInfo
from services.redis.store import ScriptRunner, connect
from services.streams import manager
from services.streams.answer_events import AnswerEvent, Asking, Waiting
from services.streams.manager import StreamLimits, StreamManager
from services.streams.records import Appended, Chunk, NewStream, Snapshot, Write
from services.streams.store import StreamStore, stream_keys
from tests.support.answers import typed
from tests.support.servers.processes import FakeClock, RedisServer, wait_until
from tests.support.streams.handlers import answers_of
from tests.support.texts import KEYS
from tools.streams import documented
from utils.deadline import Deadline

QUESTION = Question("年假?", "wecom", "default", "zhangsan")


class Replica:
    """A stream manager whose answers are scripted by the test."""

    def __init__(self, url: str, *, lease: float = 60.0, max_streams: int = 10, **options: Any) -> None:
        self.client = connect(url, pool_size=6, timeout=5.0)
        self.store = StreamStore(ScriptRunner(self.client), lease=lease, max_seconds=options.pop("max_seconds", 60.0))
        self.script: Callable[[Deadline], Iterator[AnswerEvent]] = lambda _: iter([Delta("答")])
        self.attempts: list[Attempt | None] = []
        self.manager = StreamManager(
            self.store,
            self.store,
            answers_of(self._play),
            texts=KEYS,
            limits=StreamLimits(max_streams, max_bytes=100_000),
            **options,
        )
        self.manager.start()

    def _play(
        self, question: Question, stream_id: str, deadline: Deadline, attempt: Attempt | None
    ) -> Iterator[AnswerEvent]:
        self.attempts.append(attempt)
        yield from self.script(deadline)

    def says(self, *before: str, then: Sequence[str]) -> threading.Event:
        """Let the next answer say `before`, wait for the returned event, and say the rest."""
        go_on = threading.Event()

        def script(deadline: Deadline) -> Iterator[AnswerEvent]:
            yield from map(Delta, before)
            go_on.wait(60.0)
            yield from map(Delta, then)

        self.script = script
        return go_on

    def asks(self, stream_id: str = "s", **options: Any) -> NewStream:
        fields = {"status": "processing", "content": QUESTION.text, "question": QUESTION.to_json()}
        new = NewStream(stream_id, f"owner-of-{stream_id}", fields, frame_seconds=330.0)
        assert self.store.open(new)[0]
        assert self.manager.reserve() == ""
        self.manager.produce(new, QUESTION, **options)
        return new

    def sees(self, stream_id: str = "s") -> Snapshot:
        snapshot = self.store.read(stream_id)
        assert snapshot
        return snapshot

    def sees_end(self, stream_id: str = "s") -> Snapshot:
        wait_until(lambda: self.sees(stream_id).status != "processing")
        return self.sees(stream_id)

    def lines(self, caplog: pytest.LogCaptureFixture, message: str = "") -> list[dict[str, Any]]:
        """Return the stream's log lines, "" for all: a producer of an earlier test may still be ending."""
        found = [vars(line) for line in caplog.records if line.getMessage() == (message or line.getMessage())]
        return [line for line in found if line.get("stream_id", "s") == "s"]

    def close(self) -> None:
        self.manager.drain(1.0)
        self.manager.close()
        self.client.close()


@pytest.fixture
def replica(any_redis_url: str) -> Iterator[Replica]:
    replica = Replica(any_redis_url)
    yield replica
    replica.close()


def test_an_answer_arrives_whole(replica: Replica) -> None:
    """The text is the concatenation of the deltas, and the stream is completed."""
    pieces = [f"第{i}段\n" for i in range(300)]
    replica.script = lambda _: (Delta(piece) for piece in pieces)

    replica.asks()

    end = replica.sees_end()
    document = documented(replica.store, "s")
    assert document
    assert (end.status, end.text) == ("completed", "".join(pieces))
    assert "".join(m["content"] for m in document["messages"]) == "".join(pieces)
    assert document["messages"][-1]["is_final"]
    assert document["dify_finished"]


def test_identity_and_ids_are_written_into_the_hash(replica: Replica, redis_client: redis.Redis) -> None:
    """The user without the token, and the provider's ids."""
    user = UserInfo("E001", "张三")
    replica.script = lambda _: iter(
        [Identity("renewed", user, "tok-secret"), ProviderIds("c", "m", "t", "r"), Delta("x"), Usage(total_tokens=7)]
    )

    replica.asks()
    replica.sees_end()

    fields = redis_client.hgetall(stream_keys("s").hash)
    assert (fields["auth_state"], fields["user_info"]) == ("renewed", user.to_json())
    ids = [fields[name] for name in ("conversation_id", "message_id", "task_id", "run_id")]
    assert ids == ["c", "m", "t", "r"]
    assert fields["token"]
    assert "tok-secret" not in str(fields)


def test_waiting_is_shown_until_the_turn_comes(replica: Replica) -> None:
    """The mark is set when the stream is opened, and cleared when its turn comes."""
    turn = threading.Event()

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        turn.wait(60.0)
        yield Waiting(False)
        yield Delta("轮到了")

    replica.script = script
    replica.asks(waiting=True)
    wait_until(lambda: replica.sees().waiting)

    turn.set()

    end = replica.sees_end()
    assert (end.waiting, end.text) == (False, "轮到了")


@pytest.mark.parametrize(
    ("error", "code", "level"),
    [
        (ProviderError("HTTP 500", code="provider_error"), "provider_error", logging.ERROR),
        (AnswerError("nothing fits"), "answer_failed", logging.ERROR),
        (AuthError("no such user", code="unknown_user"), "unknown_user", logging.WARNING),
        (AnswerError("a click on a form that is not known", code="form_gone"), "form_gone", logging.WARNING),
        (AuthError("away", code="auth_unavailable"), "auth_unavailable", logging.ERROR),
        (LookupError("nobody thought of it"), "answer_failed", logging.ERROR),
    ],
)
def test_a_stream_ends_after_any_error(
    replica: Replica, caplog: pytest.LogCaptureFixture, error: Exception, code: str, level: int
) -> None:
    """The partial text stays, and a sentence is the last chunk.

    The one log line has the cause, or the traceback of an unexpected error; what a person did is only a warning.
    """

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        yield Delta("一半")
        raise error

    replica.script = script
    with caplog.at_level(logging.INFO, "services.streams.producer"):
        replica.asks()
        wait_until(lambda: replica.manager.running == 0)

    end, page = replica.sees(), replica.store.chunks("s", 0)
    assert page
    assert (end.status, end.error_code, end.text) == ("error", code, "一半")
    last = page.chunks[-1]
    assert (last.content, last.is_error, last.is_final) == (f"<{code}>", True, True)
    fields, _ = replica.store.load("s")
    assert not isinstance(error, AuthError) or fields["auth_state"] == code
    (line,) = replica.lines(caplog, "stream")
    unexpected = isinstance(error, LookupError)
    assert (line["levelno"], line["outcome"], bool(line["exc_info"])) == (level, code, unexpected)
    assert line.get("cause", "") == ("" if unexpected else str(error))
    errors = [line["msg"] for line in replica.lines(caplog) if line["levelno"] == logging.ERROR]
    assert errors == ["stream"] * (level > logging.WARNING)


def test_the_total_time_ends_an_answer(any_redis_url: str, clock: FakeClock) -> None:
    """A provider that sends text without end is stopped at the stream's own deadline."""
    replica = Replica(any_redis_url, clock=clock)
    closed = threading.Event()

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        try:
            yield Delta("滴")
            clock.advance(60.0)
            while not deadline.over:
                yield Delta("滴")
            raise ProviderError(code="provider_timeout")
        finally:
            closed.set()

    replica.script = script
    replica.asks()

    end = replica.sees_end()
    assert (end.status, end.error_code) == ("error", "answer_timeout")
    assert end.text.startswith("滴")
    assert closed.is_set()
    replica.close()


def test_a_silent_providers_stream_keeps_its_lease(any_redis_url: str, redis_client: redis.Redis) -> None:
    """The flusher renews the lease of a stream without text, also after the end of the first one."""
    replica = Replica(any_redis_url, lease=0.6)
    speak = replica.says(then=["终于"])
    replica.asks()
    first = float(redis_client.hget(stream_keys("s").hash, "lease") or 0)
    wait_until(lambda: float(redis_client.hget(stream_keys("s").hash, "lease") or 0) > first + 0.6)
    speak.set()

    assert replica.sees_end().text == "终于"
    replica.close()


def test_a_cancelled_stream_stops_its_producer(any_redis_url: str) -> None:
    """The owner gets the cancellation as the reply to its next renewal, and stops the provider."""
    replica = Replica(any_redis_url, lease=0.6)
    reason: list[str] = []

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        yield Delta("一")
        woken = threading.Event()
        with deadline.interrupting(woken.set):
            woken.wait(60.0)
        reason.append(deadline.aborted)
        raise ProviderError(code="interrupted")

    replica.script = script
    replica.asks()
    wait_until(lambda: replica.sees().text == "一")
    replica.store.cancel("s")

    wait_until(lambda: replica.manager.running == 0)
    end = replica.sees()
    assert (reason, end.status, end.error_code, end.text) == (["cancelled"], "cancelled", "cancelled", "一")
    replica.close()


def test_an_owner_that_was_replaced_stops_and_changes_nothing(
    any_redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At most one owner can append: the old one's text and end are refused, and its log lines say so."""
    caplog.set_level(logging.INFO)
    replica = Replica(any_redis_url, lease=0.3)
    go_on = replica.says("旧", then=["旧主的话"])
    new = replica.asks()
    wait_until(lambda: replica.sees().text == "旧")
    replica.client.hset(stream_keys("s").hash, mapping={"epoch": 2, "owner": "another"})
    go_on.set()

    wait_until(lambda: replica.manager.running == 0)
    assert replica.store.write([Write("s", 2, "another", 0, 1, (Chunk("新", "t"),))]) == [Appended("ok", 2)]
    assert (replica.sees().text, replica.sees().status, new.epoch) == ("旧新", "processing", 1)
    (line,) = replica.lines(caplog, "stream")
    assert line["outcome"] == "fenced"
    (refusal,) = replica.lines(caplog, "owner refused")
    assert (refusal["owner"], refusal["present_owner"], refusal["epoch"]) == (new.owner, "another", 2)
    replica.close()


def test_slots_are_bounded_and_released(any_redis_url: str) -> None:
    """A replica without a free slot returns `replica_full`; an ended answer frees its slot."""
    replica = Replica(any_redis_url, max_streams=1)
    end = replica.says(then=["x"])
    replica.asks()

    assert replica.manager.reserve() == "replica_full"
    end.set()
    wait_until(lambda: replica.manager.running == 0)
    assert replica.manager.reserve() == ""
    replica.manager.give_back()
    replica.close()


def test_asking_is_stored_before_the_provider_is_asked(replica: Replica) -> None:
    """The script continues after `Asking` only when Redis has it, so a crash cannot exceed the allowed number."""
    found: list[Any] = []

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        yield Asking(2, "gone")
        found.append(replica.store.load("s")[0]["asks"])
        yield Delta("答")

    replica.script = script
    replica.asks()
    replica.sees_end()

    assert found == ["2"]


def test_a_drain_lets_answers_finish(replica: Replica) -> None:
    """A draining replica refuses new questions, and finishes the running ones."""
    leave = replica.says(then=["完整"])
    replica.asks()
    drain = threading.Thread(target=replica.manager.drain, args=(60.0,))
    drain.start()
    wait_until(lambda: replica.manager.draining)

    assert replica.manager.reserve() == "draining"
    leave.set()
    drain.join(60.0)
    assert (replica.sees().status, replica.sees().text) == ("completed", "完整")


def test_a_drain_releases_unfinished_streams(replica: Replica) -> None:
    """They can be taken over at once, with all text so far, and the provider's run is not stopped."""
    reasons: list[str] = []

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        yield Delta("一半")
        woken = threading.Event()
        with deadline.interrupting(woken.set):
            woken.wait(60.0)
        reasons.append(deadline.aborted)
        raise ProviderError(code="interrupted")

    replica.script = script
    replica.asks()
    wait_until(lambda: replica.sees().text == "一半")

    replica.manager.drain(0.0)
    wait_until(lambda: replica.manager.running == 0)

    left = replica.sees()
    assert (left.status, left.text, left.lapsed, reasons) == ("processing", "一半", True, ["released"])
    assert replica.store.takeover("s", "me").outcome == "taken", "the next reader need not wait for lease or suspicion"


def test_a_stream_that_starts_during_a_drain_is_released_too(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was opened before the drain, and its producer starts after all other streams were released."""
    monkeypatch.setattr(manager, "RELEASE_SECONDS", 0.0)
    replica.manager.reserve()
    replica.manager.drain(0.0)
    new = NewStream("s", "me", {"status": "processing", "question": QUESTION.to_json()})
    replica.store.open(new)

    replica.manager.produce(new, QUESTION)

    wait_until(lambda: replica.manager.running == 0)
    assert replica.sees().lapsed or replica.sees().status == "completed"


def test_an_owner_without_redis_leaves_the_run_to_others() -> None:
    """After the outage limit the producer stops: the provider's run continues, and the stream is not ended."""
    clock, reasons = FakeClock(), []
    with RedisServer(aof=True) as server:
        replica = Replica(server.url(), clock=clock)
        begun, go_on = threading.Event(), threading.Event()

        def script(deadline: Deadline) -> Iterator[AnswerEvent]:
            try:
                yield Delta("一半")
                begun.set()
                go_on.wait(60.0)
                yield Delta("更多")
            finally:
                reasons.append(deadline.aborted)

        replica.script = script
        replica.asks()
        wait_until(lambda: replica.sees().text == "一半")
        begun.wait(60.0)
        server.kill()
        stream = replica.manager._flusher.owned("s")
        assert stream
        stream.set(waiting="1")
        wait_until(lambda: stream.stalled)
        clock.advance(25.0)
        go_on.set()
        wait_until(lambda: replica.manager.running == 0, 40.0)
        server.start()

        assert reasons == ["lost"]
        assert (replica.sees().status, replica.sees().text) == ("processing", "一半")
        replica.close()


def test_a_stream_that_redis_lost_is_written_anew(replica: Replica, redis_client: redis.Redis) -> None:
    """The owner keeps the whole text, and writes it to a Redis that comes back empty."""
    go_on = replica.says("前半", then=["后半"])
    replica.asks()
    wait_until(lambda: replica.sees().text == "前半")
    redis_client.flushdb()
    go_on.set()

    wait_until(lambda: replica.store.read("s") is not None)
    end = replica.sees_end()
    assert (end.status, end.text) == ("completed", "前半后半")
    assert redis_client.hget(stream_keys("s").hash, "content") == "年假?"


def test_an_answer_outlives_an_outage_of_redis() -> None:
    """Deltas wait during the outage, and are appended after it, each once."""
    with RedisServer(aof=True) as server:
        replica = Replica(server.url())
        go_on = replica.says("前", then=[*["中"] * 50, "后"])
        replica.asks()
        wait_until(lambda: replica.sees().text == "前")
        server.stop()
        go_on.set()
        threading.Event().wait(0.5)
        server.restart()

        wait_until(lambda: replica.manager.running == 0, timeout=60.0)
        assert replica.sees_end().text == "前" + "中" * 50 + "后"
        replica.close()


@pytest.mark.parametrize(("log_content", "shown"), [(False, "***"), (True, "年假五天...")])
def test_the_documented_debug_lines(
    embedded_redis: Any, caplog: pytest.LogCaptureFixture, log_content: bool, shown: str
) -> None:
    """They have the original's wording, and the answer's text only with `log_content`."""
    replica = Replica(embedded_redis.url, log_content=log_content)
    replica.script = lambda _: iter([Delta("年假五天")])

    with caplog.at_level(logging.DEBUG, "services.streams.producer"):
        replica.asks()
        replica.sees_end()

    lines = [record.getMessage() for record in caplog.records]
    assert f"[调试] Dify返回内容块 (长度: 4): {shown}" in lines
    assert any(line.startswith("[调试] 累计内容长度: 4, 消息队列长度: ") for line in lines)
    questions = [line["content"] for line in replica.lines(caplog, "question")]
    assert questions == ([QUESTION.text] if log_content else [])
    replica.close()


def test_each_stream_is_one_log_line(replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    """It has ids, outcome, auth state, milliseconds and counts, and no text of question or answer."""
    replica.script = lambda _: iter([Identity("cached"), Delta("答")])
    with caplog.at_level(logging.INFO, "services.streams.producer"):
        replica.asks()
        wait_until(lambda: replica.manager.running == 0)

    lines = replica.lines(caplog, "stream")
    values = [[line[name] for name in ("outcome", "auth_state", "bytes")] for line in lines]
    assert values == [["completed", "cached", 3]]
    assert not any("年假" in str(vars(record)) for record in caplog.records)


@pytest.mark.parametrize(
    ("usage", "counts"), [(Usage(31), (0, 0, 31)), (Usage(31, 21, 10), (21, 10, 0)), (Usage(40, 21, 10), (21, 10, 9))]
)
def test_every_token_is_counted_once(replica: Replica, usage: Usage, counts: tuple[int, ...]) -> None:
    """A total beyond the provider's other counts has a kind of its own, so the sum over all kinds is the usage."""
    replica.script = lambda _: iter([Asking(provider="parrot"), Delta("答"), usage])
    kinds = ("prompt", "completion", "total")
    before = [counted("wechatlaibao_tokens_total", kind=kind) for kind in kinds]

    replica.asks()
    wait_until(lambda: replica.manager.running == 0)

    after = [counted("wechatlaibao_tokens_total", kind=kind) for kind in kinds]
    assert tuple(now - then for now, then in zip(after, before, strict=True)) == counts


def test_usage_is_logged_counted_and_stored(replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    """The stream's log line, the metrics and the whole answer have it, with the provider's metadata."""
    usage = Usage(431, 310, 121, "0.00043", "USD", ({"title": "手册"},))
    replica.script = lambda _: iter(
        [Asking(provider="parrot"), Delta("答"), Metadata({"model": "m-1"}), Usage(sources=usage.sources), usage]
    )
    tokens = counted("wechatlaibao_tokens_total", kind="completion")
    price = counted("wechatlaibao_price_total", currency="USD")
    sources = counted("wechatlaibao_sources_total")

    with caplog.at_level(logging.INFO, "services.streams.producer"):
        replica.asks()
        wait_until(lambda: replica.manager.running == 0)

    (line,) = replica.lines(caplog, "stream")
    values = [line[name] for name in ("provider", "tokens", "prompt", "completion", "price", "currency", "sources")]
    assert values == ["parrot", 431, 310, 121, "0.00043", "USD", 1]
    assert counted("wechatlaibao_sources_total") - sources == 1
    assert counted("wechatlaibao_tokens_total", kind="completion") - tokens == 121
    assert counted("wechatlaibao_price_total", currency="USD") - price == pytest.approx(0.00043)
    whole = replica.store.full_answer("s")
    assert whole
    assert (whole.usage, whole.sources) == (replace(usage, sources=()), (typed("手册"),))
    assert whole.metadata == {"model": "m-1", "provider": "parrot"}


@pytest.mark.parametrize(("price", "currency"), [("free", "USD"), ("-1", "USD"), ("nan", "USD"), ("1", "$" * 300)])
def test_an_invalid_price_is_not_counted(replica: Replica, price: str, currency: str) -> None:
    """An invalid currency does not become a label either."""
    replica.script = lambda _: iter([Asking(provider="parrot"), Delta("答"), Usage(1, 1, 0, price, currency)])
    before = counted("wechatlaibao_price_total", currency="USD")

    replica.asks()
    wait_until(lambda: replica.manager.running == 0)

    assert counted("wechatlaibao_price_total", currency="USD") == before
    assert replica.sees().status == "completed"


def test_a_providers_metadata_is_bounded(replica: Replica) -> None:
    """Metadata that is too large is dropped, and the answer stays."""
    replica.script = lambda _: iter([Delta("答"), Metadata({"log": "x" * 10_000})])

    replica.asks()

    assert replica.sees_end().text == "答"
    assert replica.store.full_answer("s").metadata == {}  # type: ignore[union-attr]


def test_half_a_surrogate_pair_in_metadata_ends_no_answer(replica: Replica) -> None:
    """JSON can contain what Redis cannot store: it becomes a question mark."""
    usage = Usage(1, sources=({"title": "\ud800手册"},))
    replica.script = lambda _: iter([Delta("答"), Metadata({"model": "\udfff"}), usage])

    replica.asks()

    assert (replica.sees_end().status, replica.sees().text) == ("completed", "答")
    whole = replica.store.full_answer("s")
    assert whole
    assert (whole.sources, whole.metadata) == ((typed("?手册"),), {"model": "?"})


def counted(name: str, **labels: str) -> float:
    """Return a counter's value for the bot and provider of these tests, 0.0 before its first count."""
    return metrics.REGISTRY.get_sample_value(name, {"bot": "default", "provider": "parrot", **labels}) or 0.0
