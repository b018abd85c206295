"""Producers on a Redis: every answer reaches an end, whole, whatever happens on the way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from services import metrics
from services.errors import AnswerError, AuthError, ProviderError
from services.models import Delta, Identity, Past, ProviderIds, Question, Replacement, Told, Usage, UserInfo
from services.redis.store import ScriptRunner, connect
from services.streams.answer_events import AnswerEvent, Asking, Waiting
from services.streams.manager import StreamLimits, StreamManager
from services.streams.records import Appended, Chunk, NewStream, Snapshot, Write
from services.streams.store import StreamStore, stream_keys
from tests.support.servers.processes import FakeClock, RedisServer, wait_until
from utils.deadline import Deadline

QUESTION = Question("年假?", "wecom", "default", "zhangsan")


class Desk:
    """A manager whose answers are written by the test."""

    def __init__(self, url: str, *, lease: float = 6.0, max_streams: int = 10, **options: Any) -> None:
        self.client = connect(url, pool_size=6, timeout=5.0)
        self.store = StreamStore(ScriptRunner(self.client), lease=lease, max_seconds=options.pop("max_seconds", 60.0))
        self.script: Callable[[Deadline], Iterator[AnswerEvent]] = lambda _: iter([Delta("答")])
        self.pasts: list[Past | None] = []
        self.manager = StreamManager(
            self.store,
            self._play,
            sentence=lambda code: f"<{code}>",
            limits=StreamLimits(max_streams, max_bytes=100_000),
            **options,
        )
        self.manager.start()

    def _play(self, question: Question, stream_id: str, deadline: Deadline, past: Past | None) -> Iterator[AnswerEvent]:
        self.pasts.append(past)
        yield from self.script(deadline)

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

    def close(self) -> None:
        self.manager.drain(1.0)
        self.manager.close()
        self.client.close()


@pytest.fixture
def desk(any_redis_url: str) -> Iterator[Desk]:
    desk = Desk(any_redis_url)
    yield desk
    desk.close()


def test_an_answer_arrives_whole(desk: Desk) -> None:
    """The text is the concatenation of the deltas, and the stream is completed."""
    pieces = [f"第{i}段\n" for i in range(300)]
    desk.script = lambda _: (Delta(piece) for piece in pieces)

    desk.asks()

    end = desk.sees_end()
    document = desk.store.document("s")
    assert document
    assert (end.status, end.text) == ("completed", "".join(pieces))
    assert "".join(m["content"] for m in document["messages"]) == "".join(pieces)
    assert document["messages"][-1]["is_final"]
    assert document["dify_finished"]


def test_what_becomes_known_is_written_into_the_hash(desk: Desk, redis_client: redis.Redis) -> None:
    """Identity without its secret, and the provider's ids."""
    user = UserInfo("E001", "张三")
    desk.script = lambda _: iter(
        [Identity("renewed", user, "tok-secret"), ProviderIds("c", "m", "t", "r"), Delta("x"), Usage(total_tokens=7)]
    )

    desk.asks()
    desk.sees_end()

    fields = redis_client.hgetall(stream_keys("s").hash)
    assert (fields["auth_state"], fields["user_info"]) == ("renewed", user.to_json())
    ids = [fields[name] for name in ("conversation_id", "message_id", "task_id", "run_id")]
    assert ids == ["c", "m", "t", "r"]
    assert fields["token"]
    assert "tok-secret" not in str(fields)


def test_a_replacement_is_what_remains(desk: Desk) -> None:
    """What was said before no longer counts."""
    desk.script = lambda _: iter([Delta("不好的"), Replacement("好的"), Delta("回答")])

    desk.asks()

    assert desk.sees_end().text == "好的回答"


def test_waiting_is_shown_until_the_turn_comes(desk: Desk) -> None:
    """The mark is there from the beginning and goes with the turn."""
    turn = threading.Event()

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        turn.wait(10.0)
        yield Waiting(False)
        yield Delta("轮到了")

    desk.script = script
    desk.asks(waiting=True)
    wait_until(lambda: desk.sees().waiting)

    turn.set()

    end = desk.sees_end()
    assert (end.waiting, end.text) == (False, "轮到了")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProviderError(code="provider_timeout"), "provider_timeout"),
        (AnswerError(), "answer_failed"),
        (AuthError(code="unknown_user"), "unknown_user"),
        (RuntimeError("a bug"), "answer_failed"),
    ],
)
def test_whatever_is_raised_the_stream_ends(desk: Desk, error: Exception, code: str) -> None:
    """The partial text stays, and a sentence for the user is the last chunk."""

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        yield Delta("一半")
        raise error

    desk.script = script
    desk.asks()

    end = desk.sees_end()
    page = desk.store.chunks("s", 0)
    assert page
    assert (end.status, end.error_code, end.text) == ("error", code, "一半")
    assert page.chunks[-1].content == f"<{code}>"
    assert (page.chunks[-1].is_error, page.chunks[-1].is_final) == (True, True)


def test_the_state_of_a_failed_authentication_is_kept(desk: Desk, redis_client: redis.Redis) -> None:
    """`auth_state` says why nobody was asked."""

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        raise AuthError(code="auth_refused")
        yield

    desk.script = script
    desk.asks()
    desk.sees_end()

    assert redis_client.hget(stream_keys("s").hash, "auth_state") == "auth_refused"


def test_the_total_time_ends_an_answer(any_redis_url: str) -> None:
    """A provider that drips for ever is ended by the stream's own deadline, and asked to stop."""
    desk = Desk(any_redis_url, max_seconds=0.3)
    closed = threading.Event()

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        try:
            while not deadline.over:
                yield Delta("滴")
                threading.Event().wait(0.02)
            raise ProviderError(code="provider_timeout")
        finally:
            closed.set()

    desk.script = script
    desk.asks()

    end = desk.sees_end()
    assert (end.status, end.error_code) == ("error", "answer_timeout")
    assert end.text.startswith("滴")
    assert closed.is_set()
    desk.close()


def test_a_silent_provider_keeps_its_lease(any_redis_url: str, redis_client: redis.Redis) -> None:
    """Heartbeats renew the lease of a stream that says nothing, also beyond its first one's end."""
    desk = Desk(any_redis_url, lease=0.6)
    speak = threading.Event()

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        speak.wait(10.0)
        yield Delta("终于")

    desk.script = script
    desk.asks()
    first = float(redis_client.hget(stream_keys("s").hash, "lease") or 0)
    wait_until(lambda: float(redis_client.hget(stream_keys("s").hash, "lease") or 0) > first + 0.6)
    speak.set()

    assert desk.sees_end().text == "终于"
    desk.close()


def test_a_cancelled_stream_stops_its_producer(any_redis_url: str) -> None:
    """The owner learns of it with its next heartbeat and closes the provider."""
    desk = Desk(any_redis_url, lease=0.6)
    reason: list[str] = []

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        yield Delta("一")
        woken = threading.Event()
        with deadline.interrupting(woken.set):
            woken.wait(10.0)
        reason.append(deadline.aborted)
        raise ProviderError(code="interrupted")

    desk.script = script
    desk.asks()
    wait_until(lambda: desk.sees().text == "一")
    desk.store.cancel("s")

    wait_until(lambda: desk.manager.running == 0)
    end = desk.sees()
    assert (reason, end.status, end.error_code, end.text) == (["cancelled"], "cancelled", "cancelled", "一")
    desk.close()


def test_an_owner_that_was_replaced_stops_and_changes_nothing(
    any_redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At most one owner can append: the old one is refused, even if it had said its end, and its line says so."""
    caplog.set_level(logging.INFO)
    desk = Desk(any_redis_url, lease=0.3)
    go_on = threading.Event()

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        yield Delta("旧")
        go_on.wait(10.0)
        yield Delta("旧主的话")

    desk.script = script
    new = desk.asks()
    wait_until(lambda: desk.sees().text == "旧")
    desk.client.hset(stream_keys("s").hash, mapping={"epoch": 2, "owner": "another"})
    go_on.set()

    wait_until(lambda: desk.manager.running == 0)
    assert desk.store.write([Write("s", 2, "another", 0, 1, (Chunk("新", "t"),))]) == [Appended("ok", 2)]
    assert (desk.sees().text, desk.sees().status, new.epoch) == ("旧新", "processing", 1)
    (line,) = [vars(record) for record in caplog.records if record.getMessage() == "stream"]
    assert line["outcome"] == "fenced"
    (refusal,) = [vars(record) for record in caplog.records if record.getMessage() == "owner refused"]
    assert (refusal["owner"], refusal["present_owner"], refusal["epoch"]) == (new.owner, "another", 2)
    desk.close()


def test_places_are_bounded_and_given_back(any_redis_url: str) -> None:
    """Beyond its bound a replica says that it is full; an ended answer makes room."""
    desk = Desk(any_redis_url, max_streams=1)
    end = threading.Event()

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        end.wait(10.0)
        yield Delta("x")

    desk.script = script
    desk.asks()

    assert desk.manager.reserve() == "replica_full"
    end.set()
    wait_until(lambda: desk.manager.running == 0)
    assert desk.manager.reserve() == ""
    desk.manager.give_back()
    desk.close()


def test_what_is_to_be_done_after_an_answer_is_done(desk: Desk, redis_client: redis.Redis) -> None:
    """The person's place is given back when the stream has ended, in the step in which it leaves the index."""
    place = desk.store.enter_call("default", "zhangsan", "s", slots=3, seconds=300.0)
    desk.store.write([], place, *desk.store.running_calls(["s"]))

    desk.asks(after=[desk.store.leave_call("default", "zhangsan", "s")])

    wait_until(lambda: desk.manager.running == 0)
    assert redis_client.exists("dify_user:default:zhangsan") == 0
    assert redis_client.keys("dify_streams:running:*") == []


def test_a_stream_of_another_owner_is_gone_on_with(desk: Desk) -> None:
    """Its text stays, what is said is added to it, and its producer knows what was done before."""
    fields = {"status": "processing", "message_id": "m1", "conversation_id": "c1", "asks": "1", "waiting": ""}
    desk.store.open(NewStream("s", "me", fields, (Chunk("一半，", "t"),)))
    new = NewStream("s", "me", fields, (Chunk("一半，", "t"),))
    desk.script = lambda _: iter([Delta("另一半")])

    desk.manager.reserve()
    desk.manager.resume(new, QUESTION, former_owner="dead", seconds_left=60.0)

    end = desk.sees()
    assert (end.status, end.text) == ("completed", "一半，另一半")
    assert desk.pasts == [Past(1, ProviderIds("c1", "m1"), "一半，")]
    assert desk.manager.running == 0


def test_a_stream_may_be_taken_over_to_end_it(desk: Desk) -> None:
    """The partial text stays, with a sentence; nobody is asked."""
    desk.store.open(NewStream("s", "me", {"status": "processing"}, (Chunk("一半", "t"),)))
    new = NewStream("s", "me", {}, (Chunk("一半", "t"),))

    desk.manager.reserve()
    desk.manager.resume(new, QUESTION, former_owner="dead", seconds_left=60.0, ending="interrupted")

    end = desk.sees()
    assert (end.status, end.error_code, end.text, desk.pasts) == ("error", "interrupted", "一半", [])


def test_a_question_is_stored_as_asked_before_it_is(desk: Desk) -> None:
    """What comes after `Asking` happens only when Redis has it: no crash makes it one time more than is allowed."""
    found: list[Any] = []

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        yield Asking(2, "gone")
        found.append(desk.store.load("s")[0]["asks"])
        yield Delta("答")

    desk.script = script
    desk.asks()
    desk.sees_end()

    assert found == ["2"]


def test_a_drain_lets_answers_finish(desk: Desk) -> None:
    """A leaving replica takes nothing new and finishes what runs."""
    leave = threading.Event()

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        leave.wait(10.0)
        yield Delta("完整")

    desk.script = script
    desk.asks()
    drain = threading.Thread(target=desk.manager.drain, args=(10.0,))
    drain.start()
    wait_until(lambda: desk.manager.draining)

    assert desk.manager.reserve() == "draining"
    leave.set()
    drain.join(10.0)
    assert (desk.sees().status, desk.sees().text) == ("completed", "完整")


def test_a_drain_releases_what_does_not_finish(desk: Desk) -> None:
    """What is left goes over at once, with everything said so far, and the provider is not told to stop."""
    reasons: list[str] = []

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        yield Delta("一半")
        woken = threading.Event()
        with deadline.interrupting(woken.set):
            woken.wait(20.0)
        reasons.append(deadline.aborted)
        raise ProviderError(code="interrupted")

    desk.script = script
    desk.asks()
    wait_until(lambda: desk.sees().text == "一半")

    desk.manager.drain(0.2)

    left = desk.sees()
    assert (left.status, left.text, left.lapsed, reasons) == ("processing", "一半", True, ["released"])
    assert desk.store.takeover("s", "me").outcome == "taken", "the next reader need not wait for lease or suspicion"


def test_what_comes_while_a_replica_leaves_is_handed_over_too(desk: Desk) -> None:
    """It was opened before the drain and began when all others had been released."""
    desk.manager.reserve()
    desk.manager.drain(0.0)
    new = NewStream("s", "me", {"status": "processing", "question": QUESTION.to_json()})
    desk.store.open(new)

    desk.manager.produce(new, QUESTION)

    wait_until(lambda: desk.manager.running == 0)
    assert desk.sees().lapsed or desk.sees().status == "completed"


def test_an_owner_that_gives_up_leaves_the_run_to_others() -> None:
    """Redis away for longer than a producer waits: the provider is not told to stop, and the stream not ended."""
    clock, reasons = FakeClock(), []
    with RedisServer(aof=True) as server:
        desk = Desk(server.url(), clock=clock)
        begun, go_on = threading.Event(), threading.Event()

        def script(deadline: Deadline) -> Iterator[AnswerEvent]:
            try:
                yield Delta("一半")
                begun.set()
                go_on.wait(10.0)
                yield Delta("更多")
            finally:
                reasons.append(deadline.aborted)

        desk.script = script
        desk.asks()
        wait_until(lambda: desk.sees().text == "一半")
        begun.wait(10.0)
        server.kill()
        stream = desk.manager._flusher.owned("s")
        assert stream
        stream.set(waiting="1")
        wait_until(lambda: stream.stalled)
        clock.advance(25.0)
        go_on.set()
        wait_until(lambda: desk.manager.running == 0, 40.0)
        server.start()

        assert reasons == ["lost"]
        assert (desk.sees().status, desk.sees().text) == ("processing", "一半")
        desk.close()


def test_a_stream_redis_lost_is_written_anew(desk: Desk, redis_client: redis.Redis) -> None:
    """The owner keeps the whole text: a Redis that comes back empty gets it."""
    go_on = threading.Event()

    def script(deadline: Deadline) -> Iterator[AnswerEvent]:
        yield Delta("前半")
        go_on.wait(10.0)
        yield Delta("后半")

    desk.script = script
    desk.asks()
    wait_until(lambda: desk.sees().text == "前半")
    redis_client.flushdb()
    go_on.set()

    wait_until(lambda: desk.store.read("s") is not None)
    end = desk.sees_end()
    assert (end.status, end.text) == ("completed", "前半后半")
    assert redis_client.hget(stream_keys("s").hash, "content") == "年假?"


def test_an_answer_outlives_an_outage_of_redis(tmp_path: object) -> None:
    """Deltas wait while Redis is away and are appended when it is back, whole and once."""
    with RedisServer(aof=True) as server:
        desk = Desk(server.url())
        go_on = threading.Event()

        def script(deadline: Deadline) -> Iterator[AnswerEvent]:
            yield Delta("前")
            go_on.wait(20.0)
            for _ in range(50):
                yield Delta("中")
            yield Delta("后")

        desk.script = script
        desk.asks()
        wait_until(lambda: desk.sees().text == "前")
        server.stop()
        go_on.set()
        threading.Event().wait(0.5)
        server.restart()

        wait_until(lambda: desk.manager.running == 0, timeout=20.0)
        assert desk.sees_end().text == "前" + "中" * 50 + "后"
        desk.close()


@pytest.mark.parametrize(("log_content", "shown"), [(False, "***"), (True, "年假五天...")])
def test_the_documented_debug_lines(
    embedded_redis: Any, caplog: pytest.LogCaptureFixture, log_content: bool, shown: str
) -> None:
    """In the original's words; an answer's own words only where they are allowed."""
    desk = Desk(embedded_redis.url, log_content=log_content)
    desk.script = lambda _: iter([Delta("年假五天")])

    with caplog.at_level(logging.DEBUG, "services.streams.producer"):
        desk.asks()
        desk.sees_end()

    lines = [record.getMessage() for record in caplog.records]
    assert f"[调试] Dify返回内容块 (长度: 4): {shown}" in lines
    assert any(line.startswith("[调试] 累计内容长度: 4, 消息队列长度: ") for line in lines)
    questions = [vars(record)["content"] for record in caplog.records if record.getMessage() == "question"]
    assert questions == ([QUESTION.text] if log_content else [])
    desk.close()


def _failing(error: Exception) -> Iterator[AnswerEvent]:
    yield Delta("半")
    raise error


@pytest.mark.parametrize(
    ("error", "outcome", "level"),
    [
        (ProviderError("HTTP 500", code="provider_error"), "provider_error", logging.ERROR),
        (AuthError("no such user", code="unknown_user"), "unknown_user", logging.WARNING),
        (AuthError("away", code="auth_unavailable"), "auth_unavailable", logging.ERROR),
        (LookupError("nobody thought of it"), "answer_failed", logging.ERROR),
    ],
)
def test_an_answer_that_fails_is_one_line_at_error(
    desk: Desk, caplog: pytest.LogCaptureFixture, error: Exception, outcome: str, level: int
) -> None:
    """It has the cause, or the traceback of what nobody expected; who may not ask is nobody's failure."""
    desk.script = lambda _: _failing(error)
    with caplog.at_level(logging.INFO, "services.streams.producer"):
        desk.asks()
        wait_until(lambda: desk.manager.running == 0)

    (line,) = [record for record in caplog.records if record.getMessage() == "stream"]
    fields = vars(line)
    assert (line.levelno, fields["outcome"]) == (level, outcome)
    assert fields.get("cause", "") == ("" if outcome == "answer_failed" else str(error))
    assert bool(line.exc_info) is (outcome == "answer_failed")
    assert [record for record in caplog.records if record.levelno == logging.ERROR] == ([line] if level > 30 else [])


def test_one_line_per_stream_says_how_it_went(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Ids, outcome, who asked in what state, milliseconds and counts; no word of question or answer."""
    desk.script = lambda _: iter([Identity("cached"), Delta("答")])
    with caplog.at_level(logging.INFO, "services.streams.producer"):
        desk.asks()
        wait_until(lambda: desk.manager.running == 0)

    lines = [record for record in caplog.records if record.getMessage() == "stream"]
    told = [[vars(line)[name] for name in ("stream_id", "outcome", "auth_state", "bytes")] for line in lines]
    assert told == [["s", "completed", "cached", 3]]
    assert not any("年假" in str(vars(record)) for record in caplog.records)


@pytest.mark.parametrize(
    ("usage", "counts"), [(Usage(31), (0, 0, 31)), (Usage(31, 21, 10), (21, 10, 0)), (Usage(40, 21, 10), (21, 10, 9))]
)
def test_every_token_is_counted_once(desk: Desk, usage: Usage, counts: tuple[int, ...]) -> None:
    """What a provider tells of a total alone counts as such: the sum over all kinds is what was used."""
    desk.script = lambda _: iter([Asking(provider="parrot"), Delta("答"), usage])
    kinds = ("prompt", "completion", "total")
    before = [counted("wechatlaibao_tokens_total", kind=kind) for kind in kinds]

    desk.asks()
    wait_until(lambda: desk.manager.running == 0)

    after = [counted("wechatlaibao_tokens_total", kind=kind) for kind in kinds]
    assert tuple(now - then for now, then in zip(after, before, strict=True)) == counts


def test_what_an_answer_cost_reaches_whoever_asks(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """The stream's line, the metrics, and the whole answer, with what else the provider said of it."""
    usage = Usage(431, 310, 121, "0.00043", "USD", ({"title": "手册"},))
    desk.script = lambda _: iter(
        [Asking(provider="parrot"), Delta("答"), Told({"model": "m-1"}), Usage(sources=usage.sources), usage]
    )
    tokens = counted("wechatlaibao_tokens_total", kind="completion")
    price = counted("wechatlaibao_price_total", currency="USD")
    sources = counted("wechatlaibao_sources_total")

    with caplog.at_level(logging.INFO, "services.streams.producer"):
        desk.asks()
        wait_until(lambda: desk.manager.running == 0)

    (line,) = [record for record in caplog.records if record.getMessage() == "stream"]
    told = [vars(line)[name] for name in ("provider", "tokens", "prompt", "completion", "price", "currency", "sources")]
    assert told == ["parrot", 431, 310, 121, "0.00043", "USD", 1]
    assert counted("wechatlaibao_sources_total") - sources == 1
    assert counted("wechatlaibao_tokens_total", kind="completion") - tokens == 121
    assert counted("wechatlaibao_price_total", currency="USD") - price == pytest.approx(0.00043)
    whole = desk.store.whole("s")
    assert whole
    assert (whole.usage, whole.sources) == (replace(usage, sources=()), ({"title": "手册"},))
    assert whole.metadata == {"model": "m-1", "provider": "parrot"}


@pytest.mark.parametrize(("price", "currency"), [("free", "USD"), ("-1", "USD"), ("nan", "USD"), ("1", "$" * 300)])
def test_a_price_that_is_none_counts_as_none(desk: Desk, price: str, currency: str) -> None:
    """Nor does a provider's word for a currency become a label."""
    desk.script = lambda _: iter([Asking(provider="parrot"), Delta("答"), Usage(1, 1, 0, price, currency)])
    before = counted("wechatlaibao_price_total", currency="USD")

    desk.asks()
    wait_until(lambda: desk.manager.running == 0)

    assert counted("wechatlaibao_price_total", currency="USD") == before
    assert desk.sees().status == "completed"


def test_what_a_provider_says_of_its_answer_is_bounded(desk: Desk) -> None:
    """What is too much is left out; the answer is not."""
    desk.script = lambda _: iter([Delta("答"), Told({"log": "x" * 10_000})])

    desk.asks()

    assert desk.sees_end().text == "答"
    assert desk.store.whole("s").metadata == {}  # type: ignore[union-attr]


def test_half_a_character_costs_no_answer(desk: Desk) -> None:
    """JSON can spell what no store can keep: it becomes a question mark, or nothing."""
    usage = Usage(1, sources=({"title": "\ud800手册"},))
    desk.script = lambda _: iter([Delta("答"), Told({"model": "\udfff"}), usage])

    desk.asks()

    assert (desk.sees_end().status, desk.sees().text) == ("completed", "答")
    whole = desk.store.whole("s")
    assert whole
    assert (whole.sources, whole.metadata) == (({"title": "?手册"},), {"model": "?"})


def counted(name: str, **labels: str) -> float:
    """Return what a counter says of the provider of these tests, or of nobody yet."""
    return metrics.REGISTRY.get_sample_value(name, {"bot": "default", "provider": "parrot", **labels}) or 0.0
