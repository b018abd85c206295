"""Dify's service API in Dify's terms: its event streams as dicts, its refusals as our errors."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from services.errors import ProviderError
from services.http.service import Exchange, HTTPService, aborted_error
from services.providers.client.retries import attempts
from services.providers.dify.errors import http_error
from services.providers.dify.stream import ChatStream
from services.providers.dify.urls import DifyUrls
from utils.clocks import seconds_ahead
from utils.deadline import Deadline
from utils.slots import Slots

log = logging.getLogger(__name__)

#: Bound of every call but the event streams, in seconds.
SHORT_CALL = 5.0
#: Conversations of a user that are listed: the most Dify gives at once.
CONVERSATION_ROWS = 100
#: Rows of a conversation's history that are looked at: its turns come one by one, so the wanted one is among the last.
HISTORY_ROWS = 5
#: Of an error's or a small reply's body at most this is read.
_MAX_BODY = 1024 * 1024
#: A run's result and a few rows of history hold whole answers, which older versions escape to twice their size.
_MAX_HISTORY = 16 * 1024 * 1024


class DifyService:
    """One Dify app's API over one pooled session; safe to use from many threads."""

    def __init__(
        self,
        *,
        base_url: str,
        chat_endpoint: str = "/v1/chat-messages",
        timeout: float = 60.0,
        connect_timeout: float = 5.0,
        max_concurrent: int = 0,
        pool_size: int = 100,
        retries: int = 2,
        backoff: float = 0.5,
        on_refusal: Callable[[bytes], None] = lambda body: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the app's address and bounds.

        `timeout` is the longest silence without an event that carries data, the first included. `max_concurrent` bounds
        the chats in flight, 0 does not. `backoff`, in seconds, grows with each of the `retries` and has jitter.
        `on_refusal` is shown the body of each refusal: Dify's own words stay out of our errors, and so out of the logs.
        """
        self.urls = DifyUrls.build(base_url, chat_endpoint)
        self.timeout = timeout
        self._retries = retries
        self._backoff = backoff
        self._on_refusal = on_refusal
        self._clock = clock
        #: Seconds by which Dify's clock was ahead of this machine's at the last short call; None: it did not say.
        self.clock_skew: float | None = None
        self._slots = Slots(max_concurrent)
        self._http = HTTPService(pool_size=pool_size, connect_timeout=connect_timeout)

    @contextmanager
    def chat_messages(self, body: Mapping[str, Any], *, authorization: str, deadline: Deadline) -> Iterator[ChatStream]:
        """Ask, and give the stream of events to the block; the response is closed after it.

        Asked again, a few times, only where no event was seen: 429 too_many_requests, 5xx, no connection.

        Raises:
            ConversationGone: Dify does not know the conversation, or has closed it.
            ProviderError: any other refusal or failure.
        """
        with self._slots.held(deadline) as taken, ExitStack() as stack:
            if not taken:
                raise _no_slot(deadline)
            for attempt in attempts(deadline, retries=self._retries, backoff=self._backoff):
                with attempt:
                    stream = stack.enter_context(self._asked(body, authorization, deadline))
            yield stream

    @contextmanager
    def _asked(self, body: Mapping[str, Any], authorization: str, deadline: Deadline) -> Iterator[ChatStream]:
        started = self._clock()
        headers = {"Accept": "text/event-stream"} | _headers(authorization)
        with self._http.exchange(
            "POST", self.urls.chat, deadline=deadline, timeout=self.timeout, headers=headers, json=body
        ) as exchange:
            self._refuse_failure(exchange)
            yield ChatStream(exchange, timeout=self.timeout, started=started, clock=self._clock)

    def _refuse_failure(self, exchange: Exchange) -> None:
        if exchange.status != 200:
            body = exchange.read_all(limit=_MAX_BODY, timeout=SHORT_CALL)
            self._on_refusal(body)
            raise http_error(exchange.status, body, exchange.retry_after)

    def chat_whole(self, body: Mapping[str, Any], *, authorization: str, deadline: Deadline) -> Mapping[str, Any]:
        """Ask in blocking mode, once, and return the reply when the answer is whole; agent apps refuse this mode.

        Raises:
            ConversationGone: Dify does not know the conversation, or has closed it.
            ProviderError: any other refusal or failure.
        """
        with self._slots.held(deadline) as taken:
            if not taken:
                raise _no_slot(deadline)
            asked = {**body, "response_mode": "blocking"}
            bounds: dict[str, Any] = {"deadline": deadline, "patience": self.timeout, "max_bytes": _MAX_HISTORY}
            return self._call("POST", self.urls.chat, authorization, json=asked, **bounds)

    def stop(self, task_id: str, user: str, *, authorization: str) -> None:
        """Ask Dify to end a run; it answers success even for a run it does not know."""
        self._call("POST", self.urls.stop(task_id), authorization, json={"user": user})

    def info(self, *, authorization: str) -> Mapping[str, Any]:
        """Return the app's name and mode: proves network, key and app, costs no tokens."""
        return self._call("GET", f"{self.urls.root}/info", authorization)

    def check_chat(self, *, authorization: str) -> None:
        """See that the chat address takes questions: Dify refuses one without a word with 400, which costs no tokens.

        Raises:
            ProviderError: anything else answered.
        """
        until = Deadline(SHORT_CALL, clock=self._clock)
        with self._http.exchange(
            "POST", self.urls.chat, deadline=until, timeout=SHORT_CALL, headers=_headers(authorization), json={}
        ) as exchange:
            body = exchange.read_all(limit=_MAX_BODY, timeout=SHORT_CALL)
        if exchange.status < 400:
            raise ProviderError(f"HTTP {exchange.status} to a question without a word", http_status=exchange.status)
        if exchange.status not in (400, 422) or not body.lstrip().startswith(b"{"):
            raise http_error(exchange.status, body)

    def parameters(self, *, authorization: str) -> Mapping[str, Any]:
        """Return the app's input form and features: proves that it is published, costs no tokens."""
        return self._call("GET", f"{self.urls.root}/parameters", authorization)

    def messages(
        self, conversation_id: str, user: str, *, authorization: str, deadline: Deadline, limit: int = HISTORY_ROWS
    ) -> list[Mapping[str, Any]]:
        """Return the latest rows of a conversation's history; a message's row is there from its start.

        Raises:
            ConversationGone: Dify does not know the conversation, or not as this user's.
            ProviderError: any other refusal or failure.
        """
        query = {"conversation_id": conversation_id, "user": user, "limit": limit}
        rows = self._look_up(self.urls.messages, authorization, deadline, params=query).get("data")
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def conversations(self, user: str, *, authorization: str, limit: int = CONVERSATION_ROWS) -> Mapping[str, Any]:
        """Return a user's conversations in `data`, the latest first, and in `has_more` whether these are not all."""
        query = {"user": user, "limit": limit}
        return self._call("GET", self.urls.conversations, authorization, params=query, patience=self.timeout)

    def workflow_run(self, run_id: str, *, authorization: str, deadline: Deadline) -> Mapping[str, Any]:
        """Return a chatflow run's result: its `status`, and its `outputs` once it has ended."""
        return self._look_up(self.urls.run(run_id), authorization, deadline)

    @contextmanager
    def workflow_events(
        self, run_id: str, user: str, *, authorization: str, deadline: Deadline, silence: float
    ) -> Iterator[ChatStream]:
        """Give what a run says from now on to the block; of a run that has ended, its last event.

        What was said before does not come again. `silence` is the longest one, in seconds, the wait for a place
        included: who listens takes one of the `max_concurrent`, as Dify has as few connections for it as for chats.

        Raises:
            ProviderError: `provider_busy` when there is no place, `provider_not_found` before Dify 1.13.
        """
        with self._place(silence, deadline) as taken:
            if not taken:
                raise _no_slot(deadline)
            with self._http.exchange(
                "GET",
                self.urls.events(run_id),
                deadline=deadline,
                timeout=silence,
                headers={"Accept": "text/event-stream"} | _headers(authorization),
                params={"user": user},
            ) as exchange:
                self._refuse_failure(exchange)
                yield ChatStream(exchange, timeout=silence, started=self._clock(), clock=self._clock)

    @contextmanager
    def _place(self, seconds: float, deadline: Deadline) -> Iterator[bool]:
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
        patience: float = SHORT_CALL,
        max_bytes: int = _MAX_BODY,
        **options: Any,
    ) -> Mapping[str, Any]:
        until = deadline or Deadline(patience, clock=self._clock)
        with self._http.exchange(
            method, url, deadline=until, timeout=patience, headers=_headers(authorization), **options
        ) as exchange:
            self.clock_skew = seconds_ahead(exchange.headers.get("Date", ""))
            self._refuse_failure(exchange)
            body = exchange.read_all(limit=max_bytes, timeout=patience)
        try:
            reply = json.loads(body)
        except (ValueError, RecursionError):
            if until.aborted:
                raise aborted_error(until) from None
            raise ProviderError("the reply is not JSON", code="provider_error", http_status=exchange.status) from None
        return reply if isinstance(reply, dict) else {}

    def close(self) -> None:
        """Give the pooled connections back."""
        self._http.close()


def _no_slot(deadline: Deadline) -> ProviderError:
    if deadline.aborted:
        return aborted_error(deadline)
    return ProviderError("too many questions in flight", code="provider_busy")


def _headers(authorization: str) -> dict[str, str]:
    if not (authorization.isascii() and authorization.isprintable()):
        raise ProviderError("the credential cannot be sent in a header", code="provider_unauthorized")
    # A proxy that compresses holds pieces back until a block is full.
    return {"Authorization": authorization, "Accept-Encoding": "identity"}
