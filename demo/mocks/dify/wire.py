"""The mock's implementation of Dify's wire format: a run with its ids, and its events as bytes."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from demo.mocks.dify.answers import is_chinese
from demo.mocks.dify.broadcast import Broadcast
from demo.mocks.dify.features.files import signed
from demo.mocks.dify.features.forms import Forms, MockForm, RunPause

#: Dify's keep-alive: a named event without data, not a comment.
PING = b"event: ping\n\n"

USAGE = {
    "prompt_tokens": 412,
    "prompt_unit_price": "0.001",
    "prompt_price_unit": "0.001",
    "prompt_price": "0.000412",
    "completion_tokens": 19,
    "completion_unit_price": "0.002",
    "completion_price_unit": "0.001",
    "completion_price": "0.000018",
    "total_tokens": 431,
    "total_price": "0.00043",
    "currency": "USD",
    "latency": 1.8,
}
SOURCE = {
    "position": 1,
    "dataset_name": "员工手册",
    "document_name": "handbook.md",
    "segment_id": "s1",
    "score": 0.91,
    "content": "工龄满 1 年 5 天，满 10 年 10 天，满 20 年 15 天；当年未休完的年假可顺延至次年 3 月 31 日。",
}
SOURCE_EN = SOURCE | {
    "dataset_name": "Employee handbook",
    "content": "5 days after 1 year of service, 10 after 10 years, 15 after 20; what is left until 31 March.",
}
METADATA = {"annotation_reply": None, "retriever_resources": [SOURCE], "usage": USAGE}
METADATA_EN = METADATA | {"retriever_resources": [SOURCE_EN]}
#: The titles of nodes in runs of English questions.
TITLES_EN = {
    "开始": "Start",
    "理解问题": "Understand the question",
    "查知识库": "Search the handbook",
    "撰写回答": "Write the answer",
}


@dataclass(frozen=True, slots=True)
class Delay:
    """Send nothing for this many seconds, or until the run's limit is reached."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Reset the connection, as a proxy or a killed process does."""


#: How a stream breaks: the connection is reset, the body ends, or nothing more is sent.
Loss = Literal["reset", "end", "silence"]


@dataclass(frozen=True, slots=True)
class Break:
    """Break the client's stream. The run continues as it does when a client disconnects."""

    how: Loss


HANG = Delay(float("inf"))
Step = bytes | Delay | Cut | Break | RunPause


@dataclass(frozen=True, slots=True)
class Feedback:
    """A user's rating of a message as Dify keeps it."""

    rating: Literal["like", "dislike"]
    content: str = ""


def _uuid() -> str:
    return str(uuid.uuid4())


@dataclass(eq=False)
class Run:
    """One run: the data a script needs to play it, and its state so far."""

    answer: str
    user: str
    conversation_id: str
    query: str = ""
    #: The answer in the history at the end; "" for a script that fails.
    final: str = ""
    #: Whether the history has the answer as an agent's thoughts, beside an empty answer.
    in_thoughts: bool = False
    #: Whether the message can be saved.
    saves: bool = True
    #: The tokens and the price that the run reports.
    usage: Mapping[str, Any] = field(default_factory=lambda: USAGE)
    #: Seconds between two pieces of an answer, between pings, and between the pieces of a slow one.
    delay: float = 0.0
    ping_every: float = 10.0
    slow: float = 1.0
    #: Pieces sent so far, and the number at which the run waits; None: it does not wait.
    sent: int = 0
    holds_at: Callable[[], int | None] = lambda: None
    message_id: str = field(default_factory=_uuid)
    task_id: str = field(default_factory=_uuid)
    run_id: str = field(default_factory=_uuid)
    created_at: int = field(default_factory=lambda: int(time.time()))
    stopped: bool = False
    status: str = "running"
    outputs: dict[str, Any] = field(default_factory=dict)
    message_status: str = "normal"
    saved: str = ""
    is_saved: bool = False
    #: What its user says of the answer.
    feedback: Feedback | None = None
    live: Broadcast = field(default_factory=Broadcast)
    #: The mock's forms, those that this run waits for, and the steps after their submission.
    known_forms: Forms = field(default_factory=Forms)
    forms: list[MockForm] = field(default_factory=list)
    rest: Iterator[Step] = field(default_factory=lambda: iter(()))

    @property
    def held(self) -> bool:
        """Whether the run waits although its pause is over."""
        most = self.holds_at()
        return most is not None and self.sent >= most

    def save(self) -> None:
        """Fill the history's row. The text of a stopped run is lost, as it often is with Dify."""
        if self.saves and not self.is_saved:
            self.saved, self.is_saved = "" if self.stopped else self.final, True

    def end(self) -> None:
        """Finish the run as Dify does after the last event. A run that neither answered nor failed stays `running`."""
        if self.final:
            self.save()
            if self.status == "running":
                self.status, self.outputs = "succeeded", {"answer": self.answer}
        if self.status != "running":
            self.live.say(None)

    def abort(self) -> None:
        """Abort the run as Dify 1.16.0 does when its client is gone: stopped, and nothing saved."""
        if self.status == "running" and not self.is_saved:
            self.stopped = True
            self.live.say(self.workflow_finished("stopped"))
            self.live.say(None)

    def pause(self, forms: list[MockForm], rest: Iterator[Step]) -> None:
        """Wait for these forms; `rest` is played when all of them were submitted."""
        self.forms, self.rest = forms, rest
        self.known_forms.add(self, forms)

    def go_on(self) -> None:
        self.status, self.message_status = "running", "normal"

    def event(self, name: str, **fields: Any) -> bytes:
        """Return an event with the fields that every event of a chat app has."""
        if name == "error":
            self.message_status = "error"
        common = {
            "event": name,
            "conversation_id": self.conversation_id,
            "message_id": self.message_id,
            "created_at": self.created_at,
            "task_id": self.task_id,
        }
        return frame(common | fields)

    def workflow(self, name: str, **data: Any) -> bytes:
        """Return a workflow event: its payload is nested in `data`."""
        if name == "workflow_paused":
            self.status = self.message_status = "paused"
        return self.event(name, workflow_run_id=self.run_id, data=data)

    def piece(self, text: str, *, event: str = "message", **fields: Any) -> bytes:
        self.sent += 1
        return self.event(event, id=self.message_id, answer=text, **fields)

    def say(self, *, event: str = "message", delay: float | None = None, **fields: Any) -> Iterator[Step]:
        """Yield the answer in pieces."""
        for text in pieces(self.answer):
            yield self.piece(text, event=event, **fields)
            yield Delay(self.delay if delay is None else delay)

    def message_end(self, metadata: Any = METADATA) -> bytes:
        """Save the message and return the event. Dify saves the message before it sends the event, too."""
        self.save()
        if metadata is METADATA:
            metadata = {**(METADATA if is_chinese(self.query) else METADATA_EN), "usage": self.usage}
        return self.event("message_end", id=self.message_id, metadata=metadata, files=None)

    def file(self, name: str) -> bytes:
        """Return the event of a picture that a tool made; its address is relative, as without `FILES_URL`."""
        return self.event("message_file", id="f1", type="image", belongs_to="assistant", url=signed(name))

    def workflow_started(self) -> bytes:
        inputs = {"sys.user_id": self.user}
        return self.workflow("workflow_started", id=self.run_id, workflow_id="w1", inputs=inputs, reason="initial")

    def node(self, name: str, *, title: str = "查知识库", **data: Any) -> bytes:
        title = title if is_chinese(self.query) else TITLES_EN.get(title, title)
        node = {"id": "ne1", "node_id": "kr", "node_type": "knowledge-retrieval", "title": title, "index": 2}
        return self.workflow(name, **node | data)

    def workflow_finished(self, status: str = "succeeded", error: str | None = None, **outputs: Any) -> bytes:
        """Set the run's status and outputs, and return the event."""
        self.status, self.outputs = status, outputs
        outcome = {"status": status, "outputs": outputs, "error": error, "elapsed_time": 12.3}
        rest: dict[str, Any] = {"total_tokens": self.usage["total_tokens"], "total_steps": 4, "files": []}
        return self.workflow("workflow_finished", id=self.run_id, workflow_id="w1", **outcome, **rest)


def frame(payload: Any, *, ascii_only: bool = False) -> bytes:
    """Return one event: one JSON object on one line. Dify before 1.8 escaped all characters outside ASCII."""
    text = json.dumps(payload, ensure_ascii=ascii_only, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def pieces(text: str, count: int = 30) -> list[str]:
    """Split a text into at most `count` pieces of equal length, like a model's stream."""
    size = max(1, -(-len(text) // count))
    return [text[start : start + size] for start in range(0, len(text), size)]
