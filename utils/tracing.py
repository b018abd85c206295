"""The trace of a request: its `X-Request-Id`, its W3C `traceparent`, and the spans of OpenTelemetry.

    with tracing(trace):
        …          # lines that this thread (under gevent: this greenlet) logs here have the ids

https://www.w3.org/TR/trace-context/ describes `traceparent`. A question that comes without one begins a trace whose ids
follow from its stream's id, and so do the ids of all its spans: every replica that works on the answer knows them.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

#: The header, and as much as is accepted of it.
REQUEST_ID, TRACEPARENT = "X-Request-Id", "traceparent"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
#: The name in `span_id` of a question's first span.
QUESTION = "question"
#: Version, trace id, parent id, flags; a later version may have more after a hyphen.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.{0,200})?")


class Trace(NamedTuple):
    """The ids of one request, each "" where there is none."""

    request_id: str = ""
    #: In the form of version 00.
    traceparent: str = ""
    #: The id of the span that sends requests to others now; "" for one that nobody records.
    span: str = ""

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]

    @property
    def is_sampled(self) -> bool:
        """Whether its spans are recorded, as the one who began it decided."""
        return bool(self.traceparent) and int(self.traceparent[-2:], 16) & 1 == 1

    @property
    def log_fields(self) -> dict[str, str]:
        """The ids as log fields: `request_id`, and the `trace_id` of the traceparent."""
        ids = {"request_id": self.request_id, "trace_id": self.trace_id}
        return {name: value for name, value in ids.items() if value}

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers that repeat the ids in the reply."""
        ids = ((REQUEST_ID, self.request_id), (TRACEPARENT, self.traceparent))
        return [(name, value) for name, value in ids if value]


@dataclass(frozen=True, slots=True)
class Span:
    """A finished part of the work for a question, as OpenTelemetry's data model has it."""

    name: str
    trace_id: str
    span_id: str
    #: "" for the trace's first span.
    parent_id: str
    #: In nanoseconds since 1970.
    start: int
    end: int
    kind: str = "internal"
    attributes: Mapping[str, str | int | float] = field(default_factory=dict)
    #: The id of a span of the same trace that this one continues; "" for none.
    linked: str = ""
    #: Moments within it: names with nanoseconds since 1970.
    events: tuple[tuple[str, int], ...] = ()
    #: Why it failed; "" where it did not.
    error: str = ""


_NONE = Trace()
_current: ContextVar[Trace] = ContextVar("trace", default=_NONE)


def read_trace(request_id: str, traceparent: str) -> Trace:
    """Return the trace of a request with these headers, "" where it has none.

    A request without a well-formed id gets a new one; a malformed traceparent is dropped.
    """
    own = request_id if _REQUEST_ID.fullmatch(request_id) else secrets.token_hex(16)
    return Trace(own, _traceparent(traceparent))


def current_trace() -> Trace:
    """Return the trace that the current thread works for; an empty one where there is none."""
    return _current.get()


def enter_trace(trace: Trace) -> Trace:
    """Let the current thread work for a trace; return the former one, to be entered again at the end."""
    former = _current.get()
    _current.set(trace)
    return former


@contextmanager
def tracing(trace: Trace) -> Iterator[None]:
    """Let the current thread work for a trace inside the block."""
    former = enter_trace(trace)
    try:
        yield
    finally:
        enter_trace(former)


def span_id(stream_id: str, name: str) -> str:
    """Return the id of the span `name` of a stream: 16 hexadecimal digits."""
    return sha256(f"{name}:{stream_id}".encode()).hexdigest()[:16]


def begun_trace(stream_id: str) -> str:
    """Return the traceparent of the trace that a stream's question begins."""
    return f"00-{sha256(f'trace:{stream_id}'.encode()).hexdigest()[:32]}-{span_id(stream_id, QUESTION)}-01"


def onward_headers() -> dict[str, str]:
    """Return the header of a request that the current thread sends: the same trace, and this gateway as the parent."""
    given, span = _current.get()[1:]
    if not given:
        return {}
    return {TRACEPARENT: f"{given[:36]}{span or secrets.token_hex(8)}{given[52:]}"}


def _traceparent(value: str) -> str:
    """Return a traceparent in the form of version 00, "" if it is malformed."""
    found = _TRACEPARENT.fullmatch(value.strip())
    if not found:
        return ""
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not (trace_id.strip("0") and parent_id.strip("0")):
        return ""
    # Of a later version's flags only the first is known: whether the trace is sampled.
    return f"00-{trace_id}-{parent_id}-{flags if version == '00' else f'{int(flags, 16) & 1:02x}'}"
