"""Human input in the mock Dify: forms of paused runs, their submissions, and what the runs do then."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from demo.mocks.dify.error_replies import INVALID_USER, MockErrorReply

if TYPE_CHECKING:
    from demo.mocks.dify.wire import Run

UNKNOWN_FORM = MockErrorReply.api(404, "human_input_form_not_found", "Form not found")
SUBMITTED_FORM = MockErrorReply.api(412, "human_input_form_submitted", "This form has already been submitted")
EXPIRED_FORM = MockErrorReply.api(412, "human_input_form_expired", "This form has expired")


@dataclass(eq=False)
class MockForm:
    """A form, as a Human Input node defines it."""

    content: str
    #: Ids and titles.
    actions: tuple[tuple[str, str], ...]
    #: Inputs in Dify's own form.
    inputs: tuple[Mapping[str, Any], ...] = ()
    #: Seconds until it expires.
    seconds: float = 3 * 86400.0
    #: "" for a form that is sent by e-mail: it has no token.
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    form_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    node_id: str = "hi"
    node_title: str = "人工审核"
    #: The action and the inputs that were submitted; None before.
    submitted: tuple[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        self.expires = time.time() + self.seconds

    @property
    def expired(self) -> bool:
        return self.submitted is None and time.time() >= self.expires

    def payload(self) -> dict[str, Any]:
        """Return the `data` of `human_input_required`."""
        return {
            "form_id": self.form_id,
            "node_id": self.node_id,
            "node_title": self.node_title,
            "form_content": self.content,
            "inputs": list(self.inputs),
            "actions": [{"id": name, "title": title, "button_style": "default"} for name, title in self.actions],
            "display_in_ui": True,
            "form_token": self.token or None,
            "resolved_default_values": self.defaults(),
            "expiration_time": int(self.expires),
        }

    def definition(self) -> dict[str, Any]:
        """Return the reply to a request for the form."""
        known = self.payload()
        names = ("form_content", "inputs", "resolved_default_values", "expiration_time")
        return {**{name: known[name] for name in names}, "user_actions": known["actions"]}

    def filled(self) -> dict[str, Any]:
        """Return the `data` of `human_input_form_filled`."""
        assert self.submitted
        action, inputs = self.submitted
        text = {"action_id": action, "action_text": dict(self.actions)[action], "submitted_data": dict(inputs)}
        return {"node_id": self.node_id, "node_title": self.node_title, "rendered_content": self.content, **text}

    def defaults(self) -> dict[str, str]:
        return {each["output_variable_name"]: "" for each in self.inputs}

    def problem(self, body: Any) -> MockErrorReply | None:
        """Return the error reply to a submission, None for one that is taken."""
        if not isinstance(body, dict) or not body.get("user"):
            return INVALID_USER
        if self.submitted:
            return SUBMITTED_FORM
        if self.expired:
            return EXPIRED_FORM
        given = body.get("inputs")
        if body.get("action") not in dict(self.actions) or not isinstance(given, dict):
            return MockErrorReply.api(400, "invalid_form_data", "Invalid action")
        missing = [each for each in self.inputs if not given.get(each["output_variable_name"])]
        return MockErrorReply.api(400, "invalid_form_data", "Missing required input") if missing else None


@dataclass(eq=False)
class RunPause:
    """A step: the run pauses until every form of it was submitted. The steps after it are its answer."""

    forms: list[MockForm]


class Forms:
    """All forms of the mock, by token. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[MockForm, Run]] = {}
        #: Token, action and inputs of each submission that was taken, and the number of those that were refused.
        self.submissions: list[tuple[str, str, Mapping[str, Any]]] = []
        self.refused = 0

    def add(self, run: Run, forms: list[MockForm]) -> None:
        with self._lock:
            self._known |= {form.token: (form, run) for form in forms if form.token}

    def find(self, token: str) -> MockErrorReply | dict[str, Any]:
        """Return the reply to a request for a form."""
        form, _ = self._known.get(token, (None, None))
        if form is None:
            return UNKNOWN_FORM
        if form.submitted:
            return SUBMITTED_FORM
        return EXPIRED_FORM if form.expired else form.definition()

    def submit(self, token: str, body: Any) -> MockErrorReply | tuple[MockForm, Run]:
        """Take a submission, and return the form with the run that goes on."""
        with self._lock:
            form, run = self._known.get(token, (None, None))
            problem = UNKNOWN_FORM if form is None else form.problem(body)
            if problem or form is None or run is None:
                self.refused += 1
                return problem or UNKNOWN_FORM
            form.submitted = (body["action"], body["inputs"])
            self.submissions.append((token, *form.submitted))
            return form, run


def paused_events(run: Run) -> Iterator[bytes]:
    """Yield the events of a run's pause."""
    forms = [form for form in run.forms if not form.submitted]
    for form in forms:
        yield run.workflow("human_input_required", **form.payload())
    reasons = [{"TYPE": "human_input_required", **form.payload()} for form in forms]
    nodes = [form.node_id for form in forms]
    yield run.workflow(
        "workflow_paused", workflow_run_id=run.run_id, paused_nodes=nodes, reasons=reasons, status="paused"
    )


def resumed_events(run: Run, form: MockForm) -> Iterator[bytes]:
    """Yield the first events of a run that goes on."""
    yield run.workflow("workflow_started", id=run.run_id, workflow_id="w1", inputs={}, reason="resumption")
    yield run.workflow("human_input_form_filled", **form.filled())
