"""Client of Dify's service API, in Dify's terms: event streams as dicts, error replies as `ProviderError`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from urllib3 import encode_multipart_formdata

from config.errors import SettingsError
from services.attachments import MediaFile
from services.errors import AnswerError, ProviderError
from services.http.retries import attempts
from services.http.service import HTTPReply, HTTPService, aborted_error, seconds_ahead
from services.providers.client.json_fields import json_object, text
from services.providers.client.limits import LIMITS, ClientLimits
from services.providers.dify.errors import http_error, no_slot
from services.providers.dify.stream import ChatStream
from utils.deadline import Deadline
from utils.running_time import running_time
from utils.slots import Slots
from utils.tracing import current_trace, onward_headers

log = logging.getLogger(__name__)

#: Timeout of every call except event streams, in seconds.
SHORT_CALL = 5.0
#: Number of a user's conversations in one list: Dify's maximum.
CONVERSATION_ROWS = 100
#: Number of history rows requested. A conversation has one question at a time, so the wanted row is among the last.
HISTORY_ROWS = 5
#: The header by which Dify names the trace in its own log and at its tracing provider.
TRACE_ID = "X-Trace-Id"
#: At most this many bytes of an error reply or a small reply are read.
_MAX_BODY = 1024 * 1024
#: The same for a run's result and history rows: they hold full answers, which older versions escape to twice the size.
_MAX_HISTORY = 16 * 1024 * 1024
#: Error codes by the status of a reply to an upload. A proxy answers 413 without Dify's body.
_UPLOAD_ERRORS = {413: "media_too_large", 415: "media_wrong_type"}


@dataclass(frozen=True, slots=True)
class DifyUrls:
    """The URLs of one app. `root` ends in the API's version, without a slash."""

    chat: str
    root: str

    @classmethod
    def build(cls, base_url: str, chat_endpoint: str = "/v1/chat-messages") -> DifyUrls:
        """Join the two settings. Either may contain `/v1`; another path before chat-messages is kept.

        Raises:
            SettingsError: the base is not an http(s) URL.
        """
        base = base_url.strip().rstrip("/").removesuffix("/chat-messages")
        if not base.startswith(("http://", "https://")) or len(base.split("/")) < 3 or not base.split("/")[2]:
            raise SettingsError("DIFY_BASE_URL: expected an address such as https://api.dify.ai/v1")
        path, _, leaf = chat_endpoint.strip().strip("/").rpartition("/")
        path = path or "v1"
        root = f"{base.removesuffix('/v1') if path.endswith('v1') else base}/{path}"
        return cls(chat=f"{root}/{leaf or 'chat-messages'}", root=root)

    def stop(self, task_id: str) -> str:
        return f"{self.root}/chat-messages/{quote(task_id, safe='')}/stop"

    @property
    def messages(self) -> str:
        return f"{self.root}/messages"

    def feedbacks(self, message_id: str) -> str:
        return f"{self.root}/messages/{quote(message_id, safe='')}/feedbacks"

    @property
    def uploads(self) -> str:
        return f"{self.root}/files/upload"

    @property
    def conversations(self) -> str:
        return f"{self.root}/conversations"

    def suggested(self, message_id: str) -> str:
        return f"{self.messages}/{quote(message_id, safe='')}/suggested"

    def run(self, run_id: str) -> str:
        return f"{self.root}/workflows/run/{quote(run_id, safe='')}"

    def events(self, run_id: str) -> str:
        # Dify's API has "workflow" in this URL and "workflows" in the one of `run`.
        return f"{self.root}/workflow/{quote(run_id, safe='')}/events"

    def form(self, token: str) -> str:
        return f"{self.root}/form/human_input/{quote(token, safe='')}"


def app_headers(authorization: str) -> dict[str, str]:
    """Return the headers of each request.

    Raises:
        ProviderError: the credential cannot be sent in a header.
    """
    if not (authorization.isascii() and authorization.isprintable()):
        raise ProviderError("the credential cannot be sent in a header", code="provider_unauthorized")
    # A proxy that compresses holds pieces back until a compression block is full.
    trace_id = current_trace().trace_id
    traced = {TRACE_ID: trace_id, **onward_headers()} if trace_id else {}
    return {"Authorization": authorization, "Accept-Encoding": "identity", **traced}


class DifyService:
    """A client of one Dify app's API with its own connection pool. Thread-safe."""

    def __init__(
        self,
        urls: DifyUrls,
        *,
        limits: ClientLimits = LIMITS,
        max_concurrent: int = 0,
        on_error_reply: Callable[[bytes], None] = lambda body: None,
        clock: Callable[[], float] = running_time,
    ) -> None:
        """Set the app's URLs and limits.

        `max_concurrent` limits the chats in flight; 0 means no limit. `on_error_reply` is called with the body of each
        error reply: errors and logs never contain Dify's message.
        """
        self.urls = urls
        self.timeout = limits.timeout
        self._limits = limits
        self._on_error_reply = on_error_reply
        self._clock = clock
        #: Seconds by which Dify's clock was ahead of this machine's at the last short call; None if unknown.
        self.clock_skew: float | None = None
        self._slots = Slots(max_concurrent)
        self._http = HTTPService(pool_size=limits.pool_size, connect_timeout=limits.connect_timeout)
        # For submissions: when a kept connection breaks, it is unknown whether the request was sent.
        self._unshared = HTTPService(pool_size=1, connect_timeout=limits.connect_timeout, keeps_connections=False)

    @contextmanager
    def chat_messages(self, body: Mapping[str, Any], *, authorization: str, deadline: Deadline) -> Iterator[ChatStream]:
        """Ask in streaming mode and yield the stream of events; the response is closed when the block ends.

        Retries only while no event has arrived: after 429 too_many_requests, 5xx and connection failures.

        Raises:
            ConversationGone: Dify does not know the conversation, or has closed it.
            ProviderError: any other error reply or failure.
        """
        with self._slots.held(deadline) as taken, ExitStack() as stack:
            if not taken:
                raise no_slot(deadline)
            for attempt in self._attempts(deadline):
                with attempt:
                    stream = stack.enter_context(self._chat(body, authorization, deadline))
            yield stream

    def _attempts(self, deadline: Deadline) -> Iterator[AbstractContextManager[object]]:
        return attempts(deadline, retries=self._limits.retries, backoff=self._limits.backoff)

    @contextmanager
    def _chat(self, body: Mapping[str, Any], authorization: str, deadline: Deadline) -> Iterator[ChatStream]:
        started = self._clock()
        headers = {"Accept": "text/event-stream"} | app_headers(authorization)
        with self._http.exchange(
            "POST", self.urls.chat, deadline=deadline, timeout=self.timeout, headers=headers, json=body
        ) as exchange:
            self._raise_for_status(exchange)
            yield ChatStream(exchange, timeout=self.timeout, started=started, clock=self._clock)

    def _raise_for_status(self, exchange: HTTPReply) -> None:
        if exchange.status != 200:
            body = exchange.read_all(limit=_MAX_BODY, timeout=SHORT_CALL)
            self._on_error_reply(body)
            raise http_error(exchange.status, body, exchange.retry_after)

    def chat_blocking(self, body: Mapping[str, Any], *, authorization: str, deadline: Deadline) -> Mapping[str, Any]:
        """Ask in blocking mode, without retries, and return the complete reply. Agent apps reject this mode.

        Raises:
            ConversationGone: Dify does not know the conversation, or has closed it.
            ProviderError: any other error reply or failure.
        """
        with self._slots.held(deadline) as taken:
            if not taken:
                raise no_slot(deadline)
            sent = {**body, "response_mode": "blocking"}
            bounds: dict[str, Any] = {"deadline": deadline, "timeout": self.timeout, "max_bytes": _MAX_HISTORY}
            return self._call("POST", self.urls.chat, authorization, json=sent, **bounds)

    def upload(self, file: MediaFile, user: str, *, authorization: str, deadline: Deadline) -> str:
        """Upload a file as this user and return its id. Retried like a question.

        Raises:
            AnswerError: `media_too_large`, `media_wrong_type`, or a `ProviderError`.
        """
        # Dify answers 415 to a part without a media type.
        content, kind = encode_multipart_formdata({"file": (file.name, file.content, file.mime), "user": user})
        options: dict[str, Any] = {"timeout": self.timeout, "headers": app_headers(authorization)}
        for attempt in self._attempts(deadline):
            with (
                attempt,
                self._http.exchange(
                    "POST", self.urls.uploads, deadline=deadline, body=(kind, content), **options
                ) as exchange,
            ):
                file_id = _file_id(exchange)
        return file_id

    def stop(self, task_id: str, user: str, *, authorization: str) -> None:
        """Tell Dify to stop a run. Dify replies with success even for an unknown run."""
        self._call("POST", self.urls.stop(task_id), authorization, json={"user": user})

    def rate(self, message_id: str, user: str, rating: str, content: str, *, authorization: str) -> None:
        """Set the user's rating of a message: "like", "dislike", or "" to withdraw it, which may find none.

        Raises:
            ProviderError: an error reply or failure; 404: the message is unknown, or belongs to another user.
        """
        body = {"user": user, "rating": rating or None, "content": content}
        try:
            self._call("POST", self.urls.feedbacks(message_id), authorization, json=body)
        except ProviderError as exc:
            # Dify answers 400 where there is nothing to withdraw.
            if rating or exc.http_status != 400:
                raise

    def info(self, *, authorization: str) -> Mapping[str, Any]:
        """Return the app's name and mode. Checks network, key and app without spending tokens."""
        return self._call("GET", f"{self.urls.root}/info", authorization)

    def check_chat(self, *, authorization: str) -> None:
        """Check the chat URL with an empty question, which Dify rejects with 400 or 422 and without spending tokens.

        Raises:
            ProviderError: the reply is any other.
        """
        until = Deadline(SHORT_CALL, clock=self._clock)
        with self._http.exchange(
            "POST", self.urls.chat, deadline=until, timeout=SHORT_CALL, headers=app_headers(authorization), json={}
        ) as exchange:
            body = exchange.read_all(limit=_MAX_BODY, timeout=SHORT_CALL)
        if exchange.status < 400:
            raise ProviderError(f"HTTP {exchange.status} to an empty question", http_status=exchange.status)
        if exchange.status not in (400, 422) or not body.lstrip().startswith(b"{"):
            raise http_error(exchange.status, body)

    def parameters(self, *, authorization: str) -> Mapping[str, Any]:
        """Return the app's input form and features. Checks that the app is published without spending tokens."""
        return self._call("GET", f"{self.urls.root}/parameters", authorization)

    def messages(
        self, conversation_id: str, user: str, *, authorization: str, deadline: Deadline
    ) -> list[Mapping[str, Any]]:
        """Return the latest rows of a conversation's history. A message's row exists from the start of its run.

        Raises:
            ConversationGone: the conversation is unknown, or belongs to another user.
            ProviderError: any other error reply or failure.
        """
        query = {"conversation_id": conversation_id, "user": user, "limit": HISTORY_ROWS}
        rows = self._look_up(self.urls.messages, authorization, deadline, params=query).get("data")
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def suggested(self, message_id: str, user: str, *, authorization: str, deadline: Deadline) -> list[Any]:
        """Return the questions that the app suggests after an answer. Dify has a model write them.

        Raises:
            ProviderError: 400 or 403 if the app suggests none; any other error reply or failure.
        """
        url = self.urls.suggested(message_id)
        found = self._call("GET", url, authorization, deadline=deadline, params={"user": user}).get("data")
        return found if isinstance(found, list) else []

    def conversations(self, user: str, *, authorization: str) -> Mapping[str, Any]:
        """Return a user's conversations in `data`, latest first; `has_more` is whether there are more."""
        query = {"user": user, "limit": CONVERSATION_ROWS}
        return self._call("GET", self.urls.conversations, authorization, params=query, timeout=self.timeout)

    def workflow_run(self, run_id: str, *, authorization: str, deadline: Deadline) -> Mapping[str, Any]:
        """Return a chatflow run's result: its `status`, and `outputs` once it has ended."""
        return self._look_up(self.urls.run(run_id), authorization, deadline)

    @contextmanager
    def workflow_events(
        self,
        run_id: str,
        user: str,
        *,
        authorization: str,
        deadline: Deadline,
        silence: float,
        snapshot: bool = False,
    ) -> Iterator[ChatStream]:
        """Yield the stream of a run's events from now on; of a run that has ended, its last event.

        Dify does not repeat earlier events. A `snapshot` before them has the state of the run's nodes and, of a run
        that has paused, its forms and its pause; never text. `silence` is the longest wait for an event, in seconds,
        including the wait for a slot: a listener takes one of the `max_concurrent`, because Dify limits its connections
        like chats.

        Raises:
            ProviderError: `provider_busy` if no slot is free, `provider_not_found` before Dify 1.13.
        """
        with self._slot(silence, deadline) as taken:
            if not taken:
                raise no_slot(deadline)
            with self._http.exchange(
                "GET",
                self.urls.events(run_id),
                deadline=deadline,
                timeout=silence,
                headers={"Accept": "text/event-stream"} | app_headers(authorization),
                params={"user": user} | ({"include_state_snapshot": "true"} if snapshot else {}),
            ) as exchange:
                self._raise_for_status(exchange)
                yield ChatStream(exchange, timeout=silence, started=self._clock(), clock=self._clock)

    def form(self, token: str, *, authorization: str, deadline: Deadline) -> Mapping[str, Any]:
        """Return the definition of a form that waits for an answer; 412 for one that was submitted or has expired."""
        return self._look_up(self.urls.form(token), authorization, deadline)

    def submit_form(self, token: str, body: Mapping[str, Any], *, authorization: str, deadline: Deadline) -> None:
        """Submit a form, without retries.

        Raises:
            ProviderError: 412 for a form that was submitted before or has expired, 404 for an unknown one, 400 for an
                answer that Dify does not take. `unsent` is true if no byte of it can have left.
        """
        url = self.urls.form(token)
        self._call("POST", url, authorization, deadline=deadline, http=self._unshared, json=body)

    @contextmanager
    def _slot(self, seconds: float, deadline: Deadline) -> Iterator[bool]:
        waiting = Deadline(min(seconds, deadline.remaining()), clock=self._clock)
        with ExitStack() as stack:
            with deadline.interrupting(lambda: waiting.abort(deadline.aborted)):
                taken = stack.enter_context(self._slots.held(waiting))
            yield taken

    def _look_up(self, url: str, authorization: str, deadline: Deadline, **options: Any) -> Mapping[str, Any]:
        return self._call("GET", url, authorization, deadline=deadline, max_bytes=_MAX_HISTORY, **options)

    def _call(
        self,
        method: str,
        url: str,
        authorization: str,
        *,
        deadline: Deadline | None = None,
        timeout: float = SHORT_CALL,
        max_bytes: int = _MAX_BODY,
        http: HTTPService | None = None,
        **options: Any,
    ) -> Mapping[str, Any]:
        until = deadline or Deadline(timeout, clock=self._clock)
        with (http or self._http).exchange(
            method, url, deadline=until, timeout=timeout, headers=app_headers(authorization), **options
        ) as exchange:
            self.clock_skew = seconds_ahead(exchange.headers.get("Date", ""))
            self._raise_for_status(exchange)
            body = exchange.read_all(limit=max_bytes, timeout=timeout)
        try:
            reply = json.loads(body)
        except (ValueError, RecursionError):
            if until.aborted:
                raise aborted_error(until) from None
            raise ProviderError("the reply is not JSON", code="provider_error", http_status=exchange.status) from None
        return reply if isinstance(reply, dict) else {}

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()
        self._unshared.close()


def _file_id(exchange: HTTPReply) -> str:
    body = exchange.read_all(limit=_MAX_BODY, timeout=SHORT_CALL)
    if exchange.status in _UPLOAD_ERRORS:
        raise AnswerError(f"HTTP {exchange.status} to an upload", code=_UPLOAD_ERRORS[exchange.status])
    if exchange.status not in (200, 201):
        raise http_error(exchange.status, body, exchange.retry_after)
    file_id = text((json_object(body) or {}).get("id"))
    if not file_id:
        raise ProviderError("an upload without an id", code="provider_error", http_status=exchange.status)
    return file_id
