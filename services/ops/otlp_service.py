"""Sends spans to a collector by OTLP over HTTP, and ratings to Langfuse where that is the collector.

The messages are OTLP's own protobuf (opentelemetry-proto): OpenTelemetry's SDK with its batch processor is not used,
because its locks can stop every greenlet of a process (open-telemetry/opentelemetry-python #3886). Spans wait in a
bounded queue for one thread, which is started after the fork; a collector that is away or silent costs nothing but
spans, and those are counted.

https://opentelemetry.io/docs/specs/otlp/#otlphttp and https://langfuse.com/docs/opentelemetry describe both.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from services import metrics
from services.errors import ProviderError
from services.http.service import HTTPService
from services.rounds import Rounds
from utils.deadline import Deadline
from utils.tracing import Span

log = logging.getLogger(__name__)

#: Spans that wait at most, and those of one request.
MOST_WAITING, AT_ONCE = 2048, 512
#: Seconds between two requests; between attempts at a collector that is away; of one request.
PAUSE, LONGEST_PAUSE, REQUEST_SECONDS = 1.0, 30.0, 5.0
STOP_SECONDS = 3.0
#: Replies after which the same spans may be sent again, as OTLP names them; 0 is no reply.
MAY_PASS = (0, 429, 502, 503, 504)
#: OTLP's integers have 64 bits.
MOST_INTEGER = 2**63 - 1
#: The path of Langfuse's OTLP endpoint, and of its scores below the same root.
LANGFUSE, SCORES = "/api/public/otel", "/api/public/scores"

KINDS = {
    "internal": SpanMessage.SPAN_KIND_INTERNAL,
    "server": SpanMessage.SPAN_KIND_SERVER,
    "client": SpanMessage.SPAN_KIND_CLIENT,
}


class Score(NamedTuple):
    """A rating of an answer for Langfuse. Its id is the same for all ratings of the answer: the last one counts."""

    trace_id: str
    score_id: str
    #: 1 for a like, 0 for a dislike, None for one that was withdrawn.
    value: int | None


class SpanExporter:
    """A bounded queue of spans and scores, and the thread that sends them. Thread-safe."""

    def __init__(
        self,
        endpoint: str,
        headers: Mapping[str, str],
        resource: Mapping[str, str],
        schema_url: str,
        *,
        most: int = MOST_WAITING,
    ) -> None:
        """Take the base of the OTLP endpoint, the request's headers, and the attributes of this process."""
        self._url = f"{endpoint.rstrip('/')}/v1/traces"
        root, found, _ = endpoint.partition(LANGFUSE)
        self._scores_url = f"{root}{SCORES}" if found else ""
        self._headers = headers
        self._resource = Resource(attributes=_attributes(resource))
        self._schema_url = schema_url
        self._most = most
        self._waiting: deque[Span | Score] = deque()
        self._pause = PAUSE
        self._http = HTTPService(pool_size=1, connect_timeout=REQUEST_SECONDS)
        self._rounds = Rounds("otlp", self.work, pause=PAUSE)

    def start(self) -> None:
        self._rounds.start()

    def close(self) -> None:
        """End the thread, and try once more to send what waits, unless the thread waits for a reply."""
        self._rounds.stop()
        if self._rounds.join(STOP_SECONDS):
            self.work(seconds=STOP_SECONDS)
        if self._waiting:
            metrics.SPANS.labels("dropped").inc(len(self._waiting))
        self._http.close()

    def add(self, item: Span | Score) -> None:
        """Queue a span or a score; one that finds no room is counted and dropped."""
        if len(self._waiting) >= self._most:
            metrics.SPANS.labels("dropped").inc()
            return
        self._waiting.append(item)

    def score(self, trace_id: str, score_id: str, value: int | None) -> None:
        """Queue the last rating of an answer, where Langfuse takes it."""
        if self._scores_url:
            self.add(Score(trace_id, score_id, value))

    def work(self, seconds: float = REQUEST_SECONDS) -> float:
        """Send what waits; return the seconds until the next call."""
        deadline = Deadline(seconds)
        while batch := self._batch():
            status = self._send(batch, deadline)
            if status in MAY_PASS:
                self._note_away(status)
                return self._pause
            self._pause = PAUSE
            for _ in batch:
                self._waiting.popleft()
            outcome = "exported" if 200 <= status < 300 else "refused"
            metrics.SPANS.labels(outcome).inc(len(batch))
            if outcome == "refused":
                log.warning("spans refused", extra={"status": status, "count": len(batch)})
        return PAUSE

    def _batch(self) -> Sequence[Span] | Sequence[Score]:
        """Return the first spans that wait, or the first score."""
        spans: list[Span] = []
        # Other threads append meanwhile, and only this one removes.
        for place in range(min(len(self._waiting), AT_ONCE)):
            item = self._waiting[place]
            if isinstance(item, Score):
                return spans or [item]
            spans.append(item)
        return spans

    def _send(self, batch: Sequence[Span] | Sequence[Score], deadline: Deadline) -> int:
        """Send them in one request; return the reply's status, 0 for none."""
        first = batch[0]
        try:
            if isinstance(first, Score):
                return self._send_score(first, deadline)
            body = self._message([one for one in batch if isinstance(one, Span)]).SerializeToString()
            return self._asked("POST", self._url, deadline, body=("application/x-protobuf", body))
        except ProviderError as exc:
            log.debug("spans not sent", extra={"cause": str(exc)})
            return 0

    def _send_score(self, score: Score, deadline: Deadline) -> int:
        if score.value is None:
            status = self._asked("DELETE", f"{self._scores_url}/{score.score_id}", deadline)
            return 200 if status == 404 else status
        known = {"id": score.score_id, "traceId": score.trace_id, "name": "rating"}
        body = {**known, "value": score.value, "dataType": "BOOLEAN"}
        return self._asked("POST", self._scores_url, deadline, json=body)

    def _asked(self, method: str, url: str, deadline: Deadline, **body: Any) -> int:
        with self._http.exchange(
            method, url, deadline=deadline, timeout=REQUEST_SECONDS, headers=self._headers, **body
        ) as reply:
            return reply.status

    def _note_away(self, status: int) -> None:
        if self._pause == PAUSE:
            log.warning("spans wait for the collector", extra={"status": status})
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _message(self, spans: Sequence[Span]) -> ExportTraceServiceRequest:
        scope = InstrumentationScope(name="wechatlaibao")
        grouped = ScopeSpans(scope=scope, spans=map(_written, spans), schema_url=self._schema_url)
        every = ResourceSpans(resource=self._resource, scope_spans=[grouped], schema_url=self._schema_url)
        return ExportTraceServiceRequest(resource_spans=[every])


def _written(span: Span) -> SpanMessage:
    trace_id = bytes.fromhex(span.trace_id)
    return SpanMessage(
        trace_id=trace_id,
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        name=_sendable(span.name),
        kind=KINDS[span.kind],
        start_time_unix_nano=span.start,
        end_time_unix_nano=span.end,
        attributes=_attributes(span.attributes),
        links=[SpanMessage.Link(trace_id=trace_id, span_id=bytes.fromhex(span.linked))] if span.linked else [],
        events=[SpanMessage.Event(name=name, time_unix_nano=at) for name, at in span.events],
        status=Status(code=Status.STATUS_CODE_ERROR, message=span.error) if span.error else None,
    )


def _attributes(attributes: Mapping[str, str | int | float]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: str | int | float) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=_sendable(value))
    return AnyValue(int_value=min(value, MOST_INTEGER)) if isinstance(value, int) else AnyValue(double_value=value)


def _sendable(text: str) -> str:
    """Return a text that protobuf takes: clients and providers may send halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()
