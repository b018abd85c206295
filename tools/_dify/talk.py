"""The Dify client at work: asks in either mode, and shows what comes as it comes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from services.errors import ProviderError
from services.models import Delta, ProviderEvent, Replacement
from services.providers.client.json_fields import count, mapping, mappings, text
from services.providers.dify.service import DifyService
from services.providers.dify.stream import ChatStream
from tools._dify.record import Record
from tools._page import Page
from utils.deadline import Deadline

#: Seconds an answer may take in all: Dify itself ends a run then.
LONGEST = 1200.0
#: Seconds a run that is over may take to say its last word, and what comes after a whole answer to come.
_GRACE, _AFTERWARDS = 4.0, 0.3


class Talk:
    """One user's talk with one app."""

    def __init__(self, base_url: str, page: Page, *, key: str, user: str, timeout: float) -> None:
        """Nothing connects. `timeout` is the longest silence in seconds, and all the time in blocking mode."""
        # A look at an app shows its first refusal: nothing is asked again.
        self._service = DifyService(
            base_url=base_url, timeout=timeout, retries=0, pool_size=2, on_error_reply=self._note_refusal
        )
        self.urls = self._service.urls
        self.user = user
        self.timeout = timeout
        self._page = page
        self._authorization = f"Bearer {key}"
        self._body: Mapping[str, Any] = {}
        self._began = 0.0
        #: The last question, also where its answer failed; an empty one after a look at the conversations.
        self.asked = Record()

    def _note_refusal(self, body: bytes) -> None:
        with suppress(ValueError, RecursionError):
            self.asked.complaint = text(mapping(json.loads(body)).get("message"))

    def ask(self, body: Mapping[str, Any]) -> Record:
        """Ask in the body's mode, show the answer and then what it cost, and return what came.

        Raises:
            ProviderError: the answer failed, or is not whole.
        """
        self.asked, self._body, self._began = Record(self.urls.root), body, time.monotonic()
        ask = self._ask_blocking if body["response_mode"] == "blocking" else self._ask_streaming
        try:
            ask(body)
            self._show(self.asked.turn.close())
        finally:
            self.asked.seconds = time.monotonic() - self._began
            # Also of an answer that failed: its ids are how to find it in Dify.
            self._report()
        return self.asked

    def _ask_streaming(self, body: Mapping[str, Any]) -> None:
        deadline = Deadline(LONGEST)
        with self._service.chat_messages(body, authorization=self._authorization, deadline=deadline) as stream:
            try:
                self._follow(stream)
            finally:
                self.asked.pings = stream.pings

    def _follow(self, stream: ChatStream) -> None:
        turn = self.asked.turn
        for event in stream:
            self._note(event)
            self._show(turn.take(event))
            if turn.state == "done":
                break
            if turn.state != "running":
                stream.end_within(_GRACE)
        stream.end_within(_AFTERWARDS)
        with suppress(ProviderError):
            for event in stream:
                self._note(event)

    def _ask_blocking(self, body: Mapping[str, Any]) -> None:
        deadline = Deadline(self.timeout)
        reply = self._service.chat_whole(body, authorization=self._authorization, deadline=deadline)
        event = {**reply, "event": text(reply.get("event")) or "message"}
        self._note(event)
        # The reply has the answer of a stream's messages and the figures of its last event.
        for each in (event, {**reply, "event": "message_end"}):
            self._show(self.asked.turn.take(each))
        self.asked.first_word = None

    def _note(self, event: Mapping[str, Any]) -> None:
        for line in self.asked.notes(event):
            self._page.line(line)

    def _show(self, events: Iterable[ProviderEvent]) -> None:
        asked = self.asked
        for event in events:
            if isinstance(event, Replacement):
                self._page.line("[replaced] the answer is now:")
                asked.answer = ""
            if isinstance(event, (Delta, Replacement)):
                if asked.first_word is None:
                    asked.first_word = time.monotonic() - self._began
                asked.answer += event.text
                self._page.words(event.text)

    def _report(self) -> None:
        if self.asked.counts:
            if self.asked.answer:
                self._page.line()
            for name, value in self.asked.report():
                self._page.field(name, value)

    def stop(self) -> str:
        """Tell Dify to stop the last question's run, and return in words whether that could be done."""
        task = self.asked.turn.ids.task_id
        if not task:
            return "Dify named no task that could be stopped; what it has begun, it goes on with"
        try:
            self._service.stop(task, self.user, authorization=self._authorization)
        except ProviderError as exc:
            return f"Dify could not be told to stop ({exc})"
        return f"Dify was told to stop task {task}"

    def conversations(self) -> list[str]:
        """Show the user's conversations, the latest first, and return their ids.

        Raises:
            ProviderError: Dify does not tell.
        """
        self.asked, self._body = Record(), {}
        reply = self._service.conversations(self.user, authorization=self._authorization)
        rows = mappings(reply.get("data"))
        for row in rows:
            self._page.line(f"{text(row.get('id'))}  {_when(row)}  {text(row.get('name'))}")
        more = ", these are the latest" if reply.get("has_more") else ""
        self._page.line(f"{len(rows)} conversations of the user {self.user}{more}")
        return [text(row.get("id")) for row in rows]

    @property
    def blocking(self) -> bool:
        return self._body.get("response_mode") == "blocking"

    def app(self) -> tuple[str, list[str]]:
        """Return the app's mode, and the inputs it requires and was not given, as far as Dify tells."""
        if not self._body:
            return "", []
        mode, missing = "", []
        with suppress(ProviderError):
            mode = text(self._service.info(authorization=self._authorization).get("mode"))
            form = mappings(self._service.parameters(authorization=self._authorization).get("user_input_form"))
            fields = [mapping(field) for item in form for field in item.values()]
            required = [text(field.get("variable")) for field in fields if field.get("required")]
            missing = [name for name in required if name not in self._body["inputs"]]
        return mode, missing

    def close(self) -> None:
        """Give the connections back."""
        self._service.close()


def _when(row: Mapping[str, Any]) -> str:
    seconds = count(row.get("updated_at")) or count(row.get("created_at"))
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else "at a time unknown"
