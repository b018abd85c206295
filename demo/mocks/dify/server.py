"""A mock of Dify: its service API over real HTTP, with answers scripted by the question.

    with MockDify() as dify:
        requests.post(f"{dify.base_url}/v1/chat-messages", …)

or `python -m demo.mock_dify --port 5001`. The scripts are in `demo/mocks/dify/scripts.py`.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, get_args

from demo.mocks.command import answering_arguments, serve_until_interrupted
from demo.mocks.dify.answers import marker, with_inputs
from demo.mocks.dify.error_replies import MockErrorReply
from demo.mocks.dify.features.files import FOLDER
from demo.mocks.dify.features.forms import Forms, MockForm, paused_events, resumed_events
from demo.mocks.dify.features.uploads import MockUpload, files_of, seen
from demo.mocks.dify.http import DifyHandler, ReceivedRequest
from demo.mocks.dify.look_ups import LookUp, Outputs
from demo.mocks.dify.player import Player
from demo.mocks.dify.runs import AfterDisconnect, Runs
from demo.mocks.dify.scripts import CHOICES, SCRIPTS, DifyScript
from demo.mocks.dify.wire import USAGE, Run, Step
from demo.mocks.http import HttpMock

__all__ = ["CHOICES", "SCRIPTS", "MockDify", "ReceivedRequest", "expected_answer"]


def expected_answer(question: str, default: str = "normal") -> str:
    """Return the complete answer a client must receive; "" if the script ends without one."""
    return SCRIPTS[marker(question) or default].answer(question)


@dataclass
class MockDify(HttpMock):
    """The mock and the requests it received. Every script ends within `limit` seconds, whatever the client does."""

    host: str = "127.0.0.1"
    port: int = 0
    #: The script for questions that name none.
    default: str = "normal"
    #: Seconds between two pieces of an answer, between pings, between the pieces of a slow answer, and at most in all.
    delay: float = 0.0
    ping_every: float = 10.0
    slow: float = 0.5
    limit: float = 30.0
    #: The number of pieces after which each answer waits until it is raised, or None again.
    holds_at: int | None = None
    #: The replies of /info and /parameters; `mode` also applies to blocking replies.
    mode: str = "advanced-chat"
    user_input_form: list[dict[str, Any]] = field(default_factory=list)
    #: What the app says before the first question, and the questions it suggests to begin with.
    opening: str = ""
    begins_with: tuple[str, ...] = ()
    #: Seconds by which the header `Date` is ahead.
    clock_ahead: float = 0.0
    #: The only accepted key; "" accepts any.
    api_key: str = ""
    after_disconnect: AfterDisconnect = "runs on"
    #: Whether runs have event streams, as since Dify 1.13.
    events: bool = True
    outputs: Outputs = "object"
    #: Returns the tokens and the price that a question's run reports.
    costs: Callable[[str], Mapping[str, Any]] = lambda question: USAGE
    #: If False, messages are never saved, as when Dify's event bus fails during a run.
    saves: bool = True
    #: The questions suggested after every answer, None for an app without that feature, and the seconds they take.
    suggested: tuple[str, ...] | None = None
    suggested_after: float = 0.0
    #: Those after an answer to an English question; () for the same.
    suggested_in_english: tuple[str, ...] = ()
    #: The reply to every look-up and rating while it is set.
    outage: MockErrorReply | None = None
    #: Seconds for which signed addresses of files are valid after a run began.
    file_seconds: float = 300.0
    #: Names of files whose requests wait until the name is removed.
    held: set[str] = field(default_factory=set)
    requests: list[ReceivedRequest] = field(default_factory=list)
    #: Number of calls by method and path: "GET /v1/info".
    calls: Counter[str] = field(default_factory=Counter)
    #: Requests about earlier questions, in order.
    look_ups: list[LookUp] = field(default_factory=list)
    #: (task id, user) of each stop call.
    stops: list[tuple[str, str]] = field(default_factory=list)
    #: (message id, rating, content) of each accepted rating, in order.
    ratings: list[tuple[str, str | None, str]] = field(default_factory=list)
    #: The owner of each conversation, by conversation id.
    conversations: dict[str, str] = field(default_factory=dict)
    #: Uploaded files, in order.
    uploads: list[MockUpload] = field(default_factory=list)
    #: The reply to every upload while it is set.
    refuses_uploads: MockErrorReply | None = None
    #: Called with each file that is stored, before the reply; a test may block or kill here.
    before_upload_reply: Callable[[MockUpload], None] = lambda upload: None
    open_listeners: int = 0
    #: Seconds from a submission to the run's first event.
    resume_after: float = 0.2
    #: The reply to every submission while it is set.
    refuses_forms: MockErrorReply | None = None
    #: Called before a submission is taken, and before its reply. `ClientGone` drops the request, or its reply.
    before_submit: Callable[[], None] = lambda: None
    after_submit: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.forms = Forms()
        #: Runs go on after a submission while it is set.
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.runs = Runs()
        self._signed_at = time.monotonic()
        self._errors_sent: Counter[tuple[str, str]] = Counter()
        self.listen(self.host, self.port, DifyHandler)

    @property
    def base_url(self) -> str:
        """The URL without /v1."""
        return self.address

    @property
    def files_alive(self) -> bool:
        """Whether the signed addresses of the last run are valid."""
        return time.monotonic() < self._signed_at + self.file_seconds

    def gives(self, name: str) -> bool:
        """Wait while a file is held; return whether it may be sent."""
        end = time.monotonic() + self.limit
        while name in self.held and time.monotonic() < end:
            if self.closing.wait(0.02):
                return False
        return name not in self.held

    def fetched(self, name: str) -> int:
        """Return how often a file was sent or refused."""
        return sum(count for call, count in self.calls.copy().items() if f"{FOLDER}{name}?" in call)

    def hurry(self) -> None:
        """Let the running answers go on without pauses between their pieces."""
        for conversation in self.conversations.copy():
            for run in self.runs.turns(conversation):
                run.delay = 0.0

    def expected_answer(self, question: str) -> str:
        """Return the complete answer a client must receive, by the question's script or the current default."""
        return expected_answer(question, self.default)

    def asked(self, text: str) -> list[ReceivedRequest]:
        """Return the requests with this query."""
        return [request for request in list(self.requests) if request.body.get("query") == text]

    def looked_up(self) -> Counter[str]:
        """Return how often each kind of look-up was called."""
        return Counter(look_up.kind for look_up in list(self.look_ups))

    def forget_conversations(self) -> None:
        """Delete all conversations, so that their ids are unknown."""
        with self._lock:
            self.conversations.clear()

    def record(self, request: ReceivedRequest) -> None:
        with self._lock:
            self.requests.append(request)

    def store(self, upload: MockUpload) -> None:
        with self._lock:
            self.uploads.append(upload)
        self.before_upload_reply(upload)

    def files_of(self, body: Mapping[str, Any]) -> list[MockUpload] | MockErrorReply:
        """Return the files of a question, or Dify's error."""
        with self._lock:
            return files_of(body, self.uploads)

    def record_look_up(self, look_up: LookUp) -> None:
        with self._lock:
            self.look_ups.append(look_up)

    def record_rating(self, message_id: str, body: Mapping[str, Any], authorization: str) -> None:
        with self._lock:
            self.ratings.append((message_id, body["rating"], body.get("content") or ""))

    def sends_error(self, script: DifyScript, body: Mapping[str, Any]) -> bool:
        """Return whether this request gets the script's error reply, and count it."""
        if script.error_reply is None:
            return False
        with self._lock:
            self._errors_sent[body["user"], body["query"]] += 1
            return script.error_times is None or self._errors_sent[body["user"], body["query"]] <= script.error_times

    def begin(self, script: DifyScript, body: Mapping[str, Any], *, answers: bool = True) -> Run:
        """Start a run in the request's conversation, or in a new one. `answers` is whether it will save an answer."""
        conversation_id = body.get("conversation_id") or str(uuid.uuid4())
        files = self.files_of(body)
        about = seen(files) if isinstance(files, list) else ""
        run = Run(
            about + with_inputs(script.text(body["query"]), body["inputs"]),
            user=body["user"],
            conversation_id=conversation_id,
            query=body["query"],
            final=about + with_inputs(script.answer(body["query"]), body["inputs"]) if answers else "",
            in_thoughts=script.in_thoughts,
            saves=self.saves,
            usage=self.costs(body["query"]),
            delay=self.delay,
            ping_every=self.ping_every,
            slow=self.slow,
            holds_at=lambda: self.holds_at,
            known_forms=self.forms,
        )
        with self._lock:
            self.conversations.setdefault(conversation_id, body["user"])
            self._signed_at = time.monotonic()
        self.runs.add(run)
        return run

    def left_alone(self, run: Run, player: Player, steps: Iterator[Step]) -> None:
        """Continue, abort or drop a run whose client is gone, by `after_disconnect`."""
        if self.closing.is_set() or self.after_disconnect == "dies":
            return
        if self.after_disconnect == "aborts":
            run.abort()
        else:
            threading.Thread(target=player.play_on, args=(steps,), name="mock-dify-run", daemon=True).start()

    def submit(self, token: str, body: Any) -> MockErrorReply | None:
        """Take the submission of a form; return the error reply, None for a form that was submitted."""
        self.before_submit()
        if self.refuses_forms:
            self.forms.refused += 1
            return self.refuses_forms
        taken = self.forms.submit(token, body)
        if isinstance(taken, MockErrorReply):
            return taken
        threading.Thread(target=self._go_on, args=taken, name="mock-dify-run", daemon=True).start()
        self.after_submit()
        return None

    def _go_on(self, form: MockForm, run: Run) -> None:
        """Play a run that was resumed, for its listeners."""
        self.closing.wait(self.resume_after)
        self.goes_on.wait(self.limit)
        run.go_on()
        for event in resumed_events(run, form):
            run.live.say(event)
        if all(each.submitted for each in run.forms):
            Player(run, None, limit=self.limit, closing=self.closing).play(run.rest)
            return
        for event in paused_events(run):
            run.live.say(event)
        run.live.pause()

    def stop(self, task_id: str, user: str) -> None:
        """Stop a run. Like Dify, ignore an unknown run and another user's run."""
        with self._lock:
            self.stops.append((task_id, user))
        run = self.runs.find(task_id, user)
        if run is not None:
            run.stopped = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Count a listener of a run while the block runs."""
        with self._lock:
            self.open_listeners += 1
        try:
            yield
        finally:
            with self._lock:
                self.open_listeners -= 1


def main() -> None:
    """Serve until interrupted."""
    description = "A mock of Dify's service API."
    parser = answering_arguments("python -m demo.mock_dify", description, port=5001, scripts=SCRIPTS)
    parser.add_argument(
        "--after-disconnect", choices=get_args(AfterDisconnect), default="runs on", help="a run whose client is gone"
    )
    parser.add_argument("--no-events", action="store_true", help="runs cannot be listened to, as before Dify 1.13")
    parser.add_argument("--outputs", choices=get_args(Outputs), default="object", help="how a run shows its outputs")
    options = vars(parser.parse_args())
    events = not options.pop("no_events")
    with MockDify(**options, events=events, limit=600.0) as dify:
        serve_until_interrupted(f"mock Dify on {dify.base_url}/v1, any key", SCRIPTS)
