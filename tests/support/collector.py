"""A collector of OTLP over HTTP, as its specification has it, that also takes Langfuse's scores.

https://opentelemetry.io/docs/specs/otlp/#otlphttp and https://api.reference.langfuse.com (scores) describe both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from demo.mocks.http import Handler, HttpMock

#: Langfuse's path, which the endpoint may have or not.
LANGFUSE = "/api/public/otel"


class ReceivedSpan(NamedTuple):
    """A span with its ids in hexadecimal digits."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    attributes: Mapping[str, Any]
    links: tuple[str, ...]
    events: tuple[str, ...]
    failed: bool
    seconds: float
    resource: Mapping[str, Any]
    schema_url: str


class Collector(HttpMock):
    """Takes spans and scores; `status` is what it answers, `silent` lets it take requests and answer none."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        #: The scores by id; a withdrawn one is gone.
        self.scores: dict[str, Mapping[str, Any]] = {}
        self.headers: list[Mapping[str, str]] = []
        self.status, self.silent = 200, False
        self.listen("127.0.0.1", 0, _Routes)

    def named(self, name: str) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.name == name]


class _Routes(Handler):
    mock: Collector

    def get(self) -> None:
        self.send_error(405)

    def post(self) -> None:
        mock = self.mock
        body = self.rfile.read(int(self.headers["Content-Length"]))
        mock.headers.append(dict(self.headers))
        if mock.silent:
            mock.closing.wait()
            return
        if mock.status != 200:
            self.send(mock.status, b"")
            return
        if self.path == "/api/public/scores":
            score = json.loads(body)
            mock.scores[score["id"]] = score
            self.reply({"id": score["id"]})
            return
        assert self.path.removeprefix(LANGFUSE) == "/v1/traces", self.path
        assert self.headers["Content-Type"] == "application/x-protobuf"
        for each in ExportTraceServiceRequest.FromString(body).resource_spans:
            mock.spans += _read(each)
        self.send(200, ExportTraceServiceResponse().SerializeToString(), "application/x-protobuf")

    def do_DELETE(self) -> None:  # noqa: N802 - the base class's name
        found = self.mock.scores.pop(self.path.removeprefix("/api/public/scores/"), None)
        self.send(200 if found else 404, b"")


def _read(each: ResourceSpans) -> list[ReceivedSpan]:
    resource = _values(each.resource.attributes)
    return [_span(span, resource, scope.schema_url) for scope in each.scope_spans for span in scope.spans]


def _span(span: SpanMessage, resource: Mapping[str, Any], schema_url: str) -> ReceivedSpan:
    assert (len(span.trace_id), len(span.span_id)) == (16, 8)
    assert len(span.parent_span_id) in (0, 8)
    assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
    return ReceivedSpan(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        SpanMessage.SpanKind.Name(span.kind),
        _values(span.attributes),
        tuple(link.span_id.hex() for link in span.links),
        tuple(event.name for event in span.events),
        span.status.code == Status.STATUS_CODE_ERROR,
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        resource,
        schema_url,
    )


def _values(attributes: Any) -> dict[str, Any]:
    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, pair.value.WhichOneof("value") or "string_value")

    found = [(pair.key, value(pair)) for pair in attributes]
    assert len(dict(found)) == len(found), "a key twice"
    return dict(found)
