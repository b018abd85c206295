"""The spans of an answer, and their exporter, without processes; tests/scenarios/streams/test_traces.py has these."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services import metrics
from services.models import Attempt, Complete, Delta, Identity, Metadata, ProviderIds, Question, Usage
from services.ops.otlp_service import AT_ONCE, LONGEST_PAUSE, PAUSE, SpanExporter
from services.streams.answer_events import Asking, Resumed, Waiting
from services.streams.owned_stream import OwnedStream
from services.streams.records import NewStream
from services.streams.traces import SCHEMA_URL, AnswerTrace
from tests.support.collector import Collector
from utils.deadline import Deadline
from utils.tracing import Span, Trace, begun_trace, onward_headers, span_id, tracing

ROOT = Path(__file__).parents[3]
GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FIELDS = {
    "status": "processing",
    "created_time": "2026-11-24T08:00:00.000+00:00",
    "access": "f00d beef",
    "provider": "dify",
    "conversation_id": "c1",
}


def stream(**fields: str) -> OwnedStream:
    new = NewStream("s1", "replica:1", {**FIELDS, **fields})
    return OwnedStream(new, deadline=Deadline(60.0), changed=lambda _: None, max_bytes=1000)


def question(traceparent: str = "") -> Question:
    return Question("问", "wecom", "default", "zhangsan", traceparent=traceparent or begun_trace("s1"))


class Recorded:
    """One owner's spans by name."""

    def __init__(self, asked: Question | None = None, attempt: Attempt | None = None, **fields: str) -> None:
        self.spans: list[Span] = []
        self.trace = AnswerTrace(self.spans.append, stream(**fields), asked or question(), attempt)

    def named(self, name: str) -> Span:
        (span,) = [span for span in self.spans if span.name == name]
        return span


def test_a_question_has_a_span_for_each_step() -> None:
    """They are below the first one; costs are on the request's alone; the person is a fingerprint."""
    recorded = Recorded()
    usage = Usage(30, 10, 20, "0.5", "USD")

    for event in (Identity("none"), Waiting(True), Waiting(False), Asking(1, "", "dify"), Delta("答"), Delta("案")):
        recorded.trace.saw(event)
    recorded.trace.saw(Metadata({"model": "m1"}))
    recorded.trace.ended("completed", usage)

    assert [span.name for span in recorded.spans] == ["authenticate", "wait", "chat dify", "question"]
    whole, asked = recorded.named("question"), recorded.named("chat dify")
    assert {span.trace_id for span in recorded.spans} == {begun_trace("s1")[3:35]}
    assert (whole.parent_id, {span.parent_id for span in recorded.spans[:-1]}) == ("", {whole.span_id})
    assert whole.start == 1_795_507_200_000_000_000
    assert (whole.attributes["user.id"], whole.attributes["session.id"]) == ("f00d", "c1")
    assert [span.name for span in recorded.spans if "gen_ai.usage.input_tokens" in span.attributes] == ["chat dify"]
    assert asked.attributes["langfuse.observation.cost_details"] == '{"total": 0.5}'
    assert (asked.attributes["gen_ai.response.model"], asked.attributes["gen_ai.operation.name"]) == ("m1", "chat")
    assert [name for name, _ in asked.events] == ["first text"]


def test_a_price_in_another_currency_is_no_dollars() -> None:
    recorded = Recorded()
    recorded.trace.saw(Asking(1, "", "dify"))
    recorded.trace.ended("completed", Usage(3, 1, 2, "0.5", "RMB"))

    attributes = recorded.named("chat dify").attributes
    assert (attributes["wechatlaibao.price"], attributes["wechatlaibao.currency"]) == (0.5, "RMB")
    assert "langfuse.observation.cost_details" not in attributes


def test_the_trace_of_a_client_goes_on() -> None:
    """Its span is the parent of the question's; one that is not sampled has none."""
    recorded = Recorded(question(GIVEN))
    recorded.trace.ended("completed", Usage())

    whole = recorded.named("question")
    assert (whole.trace_id, whole.parent_id) == (GIVEN[3:35], GIVEN[36:52])
    assert [Trace("", given).is_sampled for given in (GIVEN, GIVEN[:-1] + "0", "")] == [True, False, False]


def test_a_provider_is_asked_in_the_name_of_its_span() -> None:
    """The parent of the provider's spans is the request that is recorded, and each request has one of its own."""
    recorded = Recorded()
    with tracing(question().trace):
        recorded.trace.saw(Asking(1, "", "dify"))
        first = onward_headers()["traceparent"]
        recorded.trace.saw(Asking(2, "the run is gone", "dify"))
        second = onward_headers()["traceparent"]
    recorded.trace.ended("provider_failed", Usage())

    lost, failed = (span for span in recorded.spans if span.name == "chat dify")
    assert [first[36:52], second[36:52]] == [lost.span_id, failed.span_id]
    assert (lost.error, failed.error, recorded.named("question").error) == (
        *("the run is gone", "provider_failed"),
        "provider_failed",
    )


def test_a_takeover_is_linked_to_the_request_it_goes_on_with() -> None:
    """Only the owner that ends the stream records the question and its costs."""
    first = Recorded()
    first.trace.saw(Asking(1, "", "dify"))
    first.trace.ended("released", Usage(3, 1, 2))
    other = Recorded(attempt=Attempt(1, ProviderIds("c1"), "", owner="replica:1"))
    for event in (Identity("none"), Resumed("extended"), Complete()):
        other.trace.saw(event)
    other.trace.ended("completed", Usage(3, 1, 2))

    assert [span.name for span in first.spans] == ["chat dify"]
    assert "gen_ai.usage.input_tokens" not in first.spans[0].attributes
    takeover = other.named("takeover")
    assert (takeover.linked, takeover.parent_id) == (first.spans[0].span_id, span_id("s1", "question"))
    assert takeover.attributes["gen_ai.usage.input_tokens"] == 1
    assert takeover.attributes["wechatlaibao.former_owner"] == "replica:1"


def test_costs_are_on_one_span_although_the_next_owner_asks_again() -> None:
    """The new request has them, and not the takeover around it."""
    other = Recorded(attempt=Attempt(1, ProviderIds("c1"), "", owner="replica:1"))
    for event in (Identity("none"), Resumed("lost", "gone"), Asking(2, "gone", "dify"), Delta("答"), Complete()):
        other.trace.saw(event)
    other.trace.ended("completed", Usage(3, 1, 2))

    assert [span.name for span in other.spans if "gen_ai.usage.input_tokens" in span.attributes] == ["chat dify"]


def test_a_late_message_is_a_span() -> None:
    recorded = Recorded()
    recorded.trace.delivered("sent", 1)

    assert recorded.named("late message").attributes == {"wechatlaibao.outcome": "sent"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


def exporter(collector: Collector, most: int = 2048) -> SpanExporter:
    return SpanExporter(f"{collector.address}/api/public/otel", {}, {"service.name": "w"}, SCHEMA_URL, most=most)


def spans(count: int) -> list[Span]:
    return [Span("s", "0" * 31 + "1", f"{number:016x}", "", 1, 2) for number in range(1, count + 1)]


def counted(outcome: str) -> float:
    return float(metrics.SPANS.labels(outcome)._value.get())


def test_many_spans_go_in_several_requests(collector: Collector) -> None:
    exports, before = exporter(collector), counted("exported")
    for span in spans(AT_ONCE + 1):
        exports.add(span)

    assert exports.work() == PAUSE

    assert (len(collector.spans), len(collector.headers)) == (AT_ONCE + 1, 2)
    assert counted("exported") - before == AT_ONCE + 1


def test_a_span_that_protobuf_does_not_take_as_it_is_stops_no_other(collector: Collector) -> None:
    """Half a surrogate pair in a model's name, and a count beyond 64 bits: both come from outside."""
    exports = exporter(collector)
    odd: dict[str, str | int | float] = {"gen_ai.request.model": "m\ud800", "gen_ai.usage.input_tokens": 2**70}
    exports.add(Span("chat m\ud800", "0" * 31 + "1", "1" * 16, "", 1, 2, attributes=odd))
    exports.add(spans(1)[0])

    exports.work()

    assert [span.name for span in collector.spans] == ["chat m?", "s"]
    assert collector.spans[0].attributes["gen_ai.usage.input_tokens"] == 2**63 - 1


def test_a_full_queue_drops_and_counts(collector: Collector) -> None:
    exports, before = exporter(collector, most=2), counted("dropped")
    for span in spans(5):
        exports.add(span)

    assert counted("dropped") - before == 3


@pytest.mark.parametrize(("status", "kept"), [(503, True), (429, True), (400, False), (401, False)])
def test_what_may_pass_is_sent_again(collector: Collector, status: int, kept: bool) -> None:
    """Pauses grow; a refusal that is final loses the spans, and is counted."""
    exports, before = exporter(collector), counted("refused")
    collector.status = status
    exports.add(spans(1)[0])
    pauses = [exports.work() for _ in range(8)]
    collector.status = 200
    exports.work()

    assert len(collector.spans) == kept
    assert counted("refused") - before == (not kept)
    assert pauses == ([2.0, 4.0, 8.0, 16.0, *[LONGEST_PAUSE] * 4] if kept else [PAUSE] * 8)


def test_a_collector_that_is_away_keeps_nobody(collector: Collector) -> None:
    """Without a connection the spans wait; `close` ends although nothing can be sent, and counts them."""
    exports, before = exporter(collector), counted("dropped")
    collector.close()
    for span in spans(3):
        exports.add(span)
    exports.work()
    exports.close()

    assert counted("dropped") - before == 3


def test_the_last_rating_is_langfuses_score(collector: Collector) -> None:
    """A withdrawn one is deleted; a collector that is not Langfuse gets none."""
    exports = exporter(collector)
    exports.score("t", "rating-t", 0)
    exports.score("t", "rating-t", 1)
    exports.work()
    assert collector.scores == {
        "rating-t": {"id": "rating-t", "traceId": "t", "name": "rating", "value": 1, "dataType": "BOOLEAN"}
    }
    exports.score("t", "rating-t", None)
    exports.score("t", "rating-t", None)
    exports.work()
    assert collector.scores == {}

    other = SpanExporter(collector.address, {}, {}, SCHEMA_URL)
    other.score("t", "rating-t", 1)
    assert not other._waiting


def test_nothing_is_imported_without_a_collector() -> None:
    """A process without the setting has neither opentelemetry nor protobuf in it."""
    code = (
        "import sys; from app import create_app; from config.settings import load_settings; "
        "create_app(load_settings({'REDIS_URL': 'redis://127.0.0.1:1/0', 'AUTH_MODE': 'none', 'RAG_PROVIDER': 'mock', "
        "'WECHAT_TOKEN': 'TESTTOKEN0123456789', "
        "'WECHAT_ENCODING_AES_KEY': 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8'}, None)); "
        "print([name for name in sys.modules if name.startswith(('opentelemetry.', 'google.protobuf'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert result.stdout.splitlines()[-1] == "[]", result.stderr
