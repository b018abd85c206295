"""Traces of answers, from real replicas to a collector: over a takeover, and with a collector that is silent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.mocks.dify.server import MockDify
from demo.wecom.feedback import rates
from services.streams.traces import SCHEMA_URL
from tests.scenarios.stage.people import TIMEOUT
from tests.support.collector import Collector
from tests.support.replicas import Replica, dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

QUESTION = "年假怎么申请？ [[chatflow]]"


@pytest.fixture
def dify() -> Iterator[MockDify]:
    with MockDify(after_disconnect="runs on", limit=120.0) as dify:
        yield dify


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def pair(redis_url: str, dify: MockDify, collector: Collector, tmp_path: Path) -> Iterator[tuple[Replica, Replica]]:
    settings = dify_settings(
        dify.base_url,
        STREAM_LEASE="4",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"{collector.address}/api/public/otel",
        OTEL_EXPORTER_OTLP_HEADERS="Authorization=Basic%20ZmFrZTpmYWtl",
        DATABASE_PATH=str(tmp_path / "laibao.db"),
    )
    with replicas(2, settings_for(redis_url, **settings), tmp_path) as (one, other):
        yield one, other


def test_one_trace_has_the_question_its_takeover_and_its_rating(
    pair: tuple[Replica, Replica], dify: MockDify, collector: Collector
) -> None:
    """Dify gets the trace; the other replica's span is linked to the killed one's request; tokens are on one span."""
    one, other = pair
    dify.holds_at = 10
    with wecom_user([one.url]) as user:
        bubble = user.says(QUESTION)
        wait_until(lambda: len(user.polls(bubble).content) > 10, TIMEOUT)
    assert not bubble.frames[-1].finish
    one.kill()
    dify.holds_at = None
    with wecom_user([other.url]) as user:
        user.sees_finish(bubble, TIMEOUT, 0.1)
        rates(user, bubble, "accurate")
        wait_until(lambda: collector.named("rating") and collector.scores, TIMEOUT)

    wait_until(lambda: collector.named("question"), TIMEOUT)

    (question,), (takeover,), (rating,) = (collector.named(name) for name in ("question", "takeover", "rating"))
    assert {span.trace_id for span in collector.spans} == {question.trace_id}
    assert (question.parent_id, question.kind, question.failed) == ("", "SPAN_KIND_SERVER", False)
    assert takeover.parent_id == rating.parent_id == question.span_id
    (asked,) = dify.asked(QUESTION)
    assert asked.headers["X-Trace-Id"] == question.trace_id
    version, trace_id, asking, flags = asked.headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", question.trace_id, "01")
    assert takeover.links == (asking,)
    assert takeover.attributes["gen_ai.provider.name"] == "dify"
    costs = [span for span in collector.spans if "gen_ai.usage.input_tokens" in span.attributes]
    assert [span.name for span in costs] == ["takeover"]
    assert question.attributes["wechatlaibao.outcome"] == "completed"
    assert "zhangsan" not in str(collector.spans)
    assert "年假" not in str(collector.spans)
    assert question.resource["service.name"] == "wechatlaibao"
    assert {span.schema_url for span in collector.spans} == {SCHEMA_URL}
    assert [score["value"] for score in collector.scores.values()] == [1]
    assert [score["traceId"] for score in collector.scores.values()] == [question.trace_id]
    assert {headers["Authorization"] for headers in collector.headers} == {"Basic ZmFrZTpmYWtl"}


def test_a_silent_collector_costs_only_spans(
    pair: tuple[Replica, Replica], dify: MockDify, collector: Collector
) -> None:
    """Answers come, callbacks are answered, the replica drains; when the collector answers, the spans follow."""
    one, _ = pair
    collector.silent = True
    with wecom_user([one.url]) as user:
        for number in range(5):
            assert user.sees_finish(user.says(f"{QUESTION} {number}"), TIMEOUT, 0.1)
            wait_until(lambda: collector.headers, TIMEOUT)
        assert not collector.spans
        collector.silent = False
        wait_until(lambda: len(collector.named("question")) == 5, 2 * TIMEOUT)
    assert one.stop() == 0
