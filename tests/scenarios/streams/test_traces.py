"""Traces of answers, from real replicas to a collector: over a takeover, and with a collector that is silent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from demo.mocks.dify.server import MockDify
from demo.wecom.feedback import rates
from demo.wecom.simulator import ResponseServer
from services.streams.traces import SCHEMA_URL
from tests.scenarios.stage.people import TIMEOUT
from tests.support.collector import Collector
from tests.support.replicas import (
    AES_KEY,
    TOKEN,
    AppServer,
    Replica,
    dify_settings,
    replicas,
    settings_for,
    wecom_user,
)
from tests.support.servers.processes import wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

QUESTION = "年假怎么申请？ [[chatflow]]"
#: A bot whose frames end long before its answers.
LATE = "late"
KEY = "obviously-fake-api-key"
GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def dify() -> Iterator[MockDify]:
    with MockDify(after_disconnect="runs on", limit=120.0) as dify:
        yield dify


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def responses() -> Iterator[ResponseServer]:
    with ResponseServer() as responses:
        yield responses


@pytest.fixture
def pair(redis_url: str, dify: MockDify, collector: Collector, tmp_path: Path) -> Iterator[tuple[Replica, Replica]]:
    keys = {"WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": AES_KEY}
    settings = dify_settings(
        dify.base_url,
        STREAM_LEASE="4",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"{collector.address}/api/public/otel",
        OTEL_EXPORTER_OTLP_HEADERS="Authorization=Basic%20ZmFrZTpmYWtl",
        DATABASE_PATH=str(tmp_path / "laibao.db"),
        WECHAT_BOTS=json.dumps({LATE: {**keys, "WECHAT_ANSWER_SECONDS": "2"}}),
        WECHAT_RESPONSE_HOSTS="127.0.0.1",
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


def test_the_late_message_of_a_stream_that_the_sweep_ends_is_a_span(
    pair: tuple[Replica, Replica], dify: MockDify, collector: Collector, responses: ResponseServer
) -> None:
    """Nobody polls any more after the frame has ended; the owner is killed, and the other replica sends the rest."""
    one, _ = pair
    dify.holds_at = 10
    with wecom_user([one.url], bot=LATE, responses=responses) as user:
        bubble = user.says(QUESTION)
        user.sees_finish(bubble, TIMEOUT, 0.1)
    one.kill()
    dify.holds_at = None

    wait_until(lambda: collector.named("late message"), TIMEOUT)

    (late,), (takeover,), (question,) = (collector.named(name) for name in ("late message", "takeover", "question"))
    assert late.trace_id == takeover.trace_id == question.trace_id
    assert late.parent_id == takeover.parent_id == question.span_id
    assert (late.kind, late.attributes["wechatlaibao.outcome"]) == ("SPAN_KIND_CLIENT", "sent")
    assert len(responses.of(bubble.msgid)) == 1


def test_a_question_that_is_refused_before_it_has_an_owner_is_a_span(redis_url: str, collector: Collector) -> None:
    """It has the code of its sentence, the client's span as its parent, and no words; a redelivery is no other one."""
    endpoint = f"{collector.address}/api/public/otel"
    with AppServer(redis_url, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, QUESTION_MAX_BYTES="1000", API_KEYS=KEY) as server:
        with server.user() as user:
            first, again = (user.says("年假" * 1000, msgid="m1") for _ in range(2))
        body, headers = {"query": "年假" * 1000, "user": "ann"}, {"X-API-Key": KEY, "traceparent": GIVEN}
        refused = requests.post(f"{server.url}/api/chat", json=body, headers=headers, timeout=TIMEOUT)
        wait_until(lambda: GIVEN[3:35] in [span.trace_id for span in collector.named("question")], TIMEOUT)

    spans = {span.attributes["wechatlaibao.channel"]: span for span in collector.spans}
    assert (sorted(spans), len(collector.spans)) == (["http", "wecom"], 2)
    assert all(span.failed for span in collector.spans)
    assert first.content == again.content
    assert refused.status_code == 413
    assert {span.attributes["wechatlaibao.outcome"] for span in spans.values()} == {"question_too_large"}
    assert (spans["wecom"].parent_id, spans["wecom"].attributes["user.id"] != "") == ("", True)
    assert (spans["http"].trace_id, spans["http"].parent_id) == (GIVEN[3:35], GIVEN[36:52])
    assert "年假" not in str(collector.spans)
