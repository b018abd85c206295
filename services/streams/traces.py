"""The spans of an answer: one trace from the question to its end, over all replicas that work on it.

    question                the whole, recorded by the owner that ends the stream
    ├─ authenticate         until the person is known
    ├─ wait                 for earlier questions of the conversation
    ├─ chat PROVIDER        each request to the provider, the parent of the provider's own spans
    ├─ takeover             what another replica does for it, linked to the request that it goes on with
    ├─ late message
    └─ rating

Ids follow from the stream's id (`utils.tracing`), so a span may be exported without its neighbours: those of a killed
owner are lost with it. Spans have no text of questions and answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from services.models import Attempt, Delta, Identity, Metadata, Question, Replacement, Usage
from services.streams.access import person_of
from services.streams.answer_events import AnswerEvent, Asking, Resumed, Waiting
from services.streams.owned_stream import LEAVING, OwnedStream
from services.streams.records import Snapshot
from utils.tracing import QUESTION, Span, current_trace, enter_trace, span_id

Emit = Callable[[Span], None]
#: Outcomes that are no failure.
FINE = ("completed", "cancelled", *LEAVING)

# Names of OpenTelemetry's semantic conventions, all of this version; those of GenAI may change with another one.
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
OPERATION, PROVIDER = "gen_ai.operation.name", "gen_ai.provider.name"
REQUEST_MODEL, RESPONSE_MODEL, RESPONSE_ID = "gen_ai.request.model", "gen_ai.response.model", "gen_ai.response.id"
CONVERSATION = "gen_ai.conversation.id"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
USER, SESSION, ERROR = "user.id", "session.id", "error.type"
#: Langfuse's name of an observation's price, as JSON, in US dollars.
LANGFUSE_COST = "langfuse.observation.cost_details"


class AnswerTrace:
    """The spans of one owner's work on an answer."""

    def __init__(self, emit: Emit, stream: OwnedStream, question: Question, attempt: Attempt | None) -> None:
        """Take the stream and its question; `attempt` belongs to a stream that was taken over."""
        self._emit = emit
        self._stream = stream
        self._question = question
        self._attempt = attempt
        self._began = time.time_ns()
        self._waits = self._began if stream.field("waiting") else 0
        #: When the provider was asked by this owner, with the request's number; and when its text began.
        self._asked, self._asks, self._first = 0, 0, 0
        self._resumed = self._model = ""

    def saw(self, event: AnswerEvent) -> None:
        """Note an event before it is written."""
        match event:
            case Delta() | Replacement():
                self._first = self._first or time.time_ns()
            case Identity():
                self._span("authenticate", self._began, {"wechatlaibao.auth": event.state})
            case Waiting(waiting):
                self._note_waiting(waiting)
            case Asking():
                self._note_waiting(False)
                if self._asked:
                    self._end_asking(event.cause or "asked again", Usage())
                self._asked, self._asks, self._first = time.time_ns(), event.asks, 0
                enter_trace(current_trace()._replace(span=self._id(_chat(event.asks))))
            case Resumed():
                self._resumed = event.outcome
            case Metadata(fields) if isinstance(model := fields.get("model"), str):
                self._model = model

    def ended(self, outcome: str, usage: Usage) -> None:
        """Record the spans that end with this owner's work; the whole one, unless another replica goes on."""
        error = "" if outcome in FINE else outcome
        self._note_waiting(False)
        # The next owner gets the costs of an answer that goes on there.
        usage = Usage() if outcome in LEAVING else usage
        if self._asked:
            self._end_asking(error, usage)
            # Costs are on one span only.
            usage = Usage()
        if self._attempt:
            self._end_takeover(outcome, error, usage)
        if outcome in LEAVING:
            return
        field = self._stream.field
        about = {"bot": self._question.bot, "channel": self._question.channel, "app": field("app")}
        about |= {"stream_id": self._stream.stream_id, "outcome": outcome, "owner": self._stream.owner}
        attributes = {f"wechatlaibao.{name}": value for name, value in about.items()}
        people = {USER: person_of(field("access")), SESSION: field("conversation_id")}
        self._span(QUESTION, _opened(field("created_time")), {**attributes, **people}, kind="server", error=error)

    def delivered(self, outcome: str, began: int) -> None:
        """Record the late message, which was sent from `began` (in nanoseconds since 1970) on."""
        self._span("late message", began, {"wechatlaibao.outcome": outcome}, kind="client")

    def _note_waiting(self, waiting: bool) -> None:
        if waiting:
            self._waits = self._waits or time.time_ns()
        elif self._waits:
            self._span("wait", self._waits)
            self._waits = 0

    def _end_asking(self, error: str, usage: Usage) -> None:
        name = _chat(self._asks)
        first = {FIRST_CHUNK: (self._first - self._asked) / 1e9} if self._first else {}
        events = (("first text", self._first),) if self._first else ()
        shown = f"chat {self._question.model or self._stream.field('provider')}"
        attributes = {**self._of_provider(), **first, **_costs(usage)}
        self._span(name, self._asked, attributes, kind="client", error=error, events=events, shown=shown)
        self._asked = 0

    def _end_takeover(self, outcome: str, error: str, usage: Usage) -> None:
        assert self._attempt
        attributes = {**self._of_provider(), **_costs(usage)} if self._resumed else {}
        facts = {"former_owner": self._attempt.owner, "owner": self._stream.owner, "resumed": self._resumed}
        attributes |= {f"wechatlaibao.{name}": value for name, value in {**facts, "outcome": outcome}.items()}
        linked = self._id(_chat(self._attempt.asks)) if self._attempt.asks else self._id(QUESTION)
        name = f"takeover {self._stream.owner}"
        self._span(name, self._began, attributes, kind="client", error=error, linked=linked, shown="takeover")

    def _of_provider(self) -> Mapping[str, str]:
        field = self._stream.field
        return {
            OPERATION: "chat",
            PROVIDER: field("provider"),
            REQUEST_MODEL: self._question.model,
            RESPONSE_MODEL: self._model,
            RESPONSE_ID: field("message_id"),
            CONVERSATION: field("conversation_id"),
        }

    def _id(self, name: str) -> str:
        return span_id(self._stream.stream_id, name)

    def _span(
        self, name: str, start: int, attributes: Mapping[str, str | int | float] = {}, *, shown: str = "", **more: Any
    ) -> None:
        """Record a span that ends now; `shown` is its name where several have it. Empty attributes are left out."""
        own = self._id(name)
        parent = self._id(QUESTION)
        if own == parent:
            parent = _parent(self._question, self._stream.stream_id)
        known = {key: value for key, value in attributes.items() if value != ""}
        known |= {ERROR: more["error"]} if more.get("error") else {}
        trace_id, end = self._question.trace.trace_id, time.time_ns()
        self._emit(Span(shown or name, trace_id, own, parent, start, max(start, end), attributes=known, **more))


def refusal_span(question: Question, snapshot: Snapshot) -> Span:
    """Return the span of a question that is refused now, before it has an owner.

    Its id is its own: the same message may be refused again, or come while its answer is written.
    """
    now = time.time_ns()
    facts = {"bot": question.bot, "channel": question.channel, "stream_id": snapshot.stream_id}
    attributes = {f"wechatlaibao.{name}": value for name, value in facts.items()}
    attributes |= {"wechatlaibao.outcome": snapshot.error_code, ERROR: snapshot.error_code}
    attributes |= {USER: person_of(snapshot.access)} if snapshot.access else {}
    own = span_id(snapshot.stream_id, f"refusal {now}")
    parent = _parent(question, snapshot.stream_id)
    trace_id = question.trace.trace_id
    return Span(QUESTION, trace_id, own, parent, now, now, "server", attributes, error=snapshot.error_code)


def rating_span(stream_id: str, trace_id: str, rating: str) -> Span:
    """Return the span of a rating that is delivered now; `rating` is its name."""
    now = time.time_ns()
    own, parent = span_id(stream_id, f"rating {now}"), span_id(stream_id, QUESTION)
    return Span("rating", trace_id, own, parent, now, now, attributes={"wechatlaibao.rating": rating})


def _parent(question: Question, stream_id: str) -> str:
    """Return the id of the client's span that the question belongs to; "" where the question began the trace."""
    given = question.traceparent[36:52]
    return given if given != span_id(stream_id, QUESTION) else ""


def _chat(asks: int) -> str:
    return f"chat {asks}"


def _opened(created_time: str) -> int:
    return int(datetime.fromisoformat(created_time).timestamp() * 1000) * 1_000_000


def _costs(usage: Usage) -> Mapping[str, str | int | float]:
    """Return the tokens and the price that the provider reported."""
    tokens = {INPUT_TOKENS: usage.prompt_tokens, OUTPUT_TOKENS: usage.completion_tokens}
    costs: dict[str, str | int | float] = {name: count for name, count in tokens.items() if count}
    if usage.price:
        costs |= {"wechatlaibao.price": float(usage.price), "wechatlaibao.currency": usage.currency}
        if usage.currency.upper() == "USD":
            costs[LANGFUSE_COST] = f'{{"total": {usage.price}}}'
    return costs
