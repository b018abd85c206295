"""Asks a Dify app in streaming or blocking mode, prints the answer as it arrives, and notes all else apart from it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from services.errors import ProviderError
from services.forms import PendingForm
from services.models import Delta, ProviderEvent, Replacement
from services.providers.client.json_fields import count, mapping, mappings, text
from services.providers.client.limits import ClientLimits
from services.providers.dify.service import DifyService, DifyUrls
from services.providers.dify.stream import ChatStream
from tools._dify.record import AnswerRecord
from tools._page import Printer
from utils.deadline import Deadline

#: Seconds an answer may take in all, Dify's own limit of a run.
LONGEST = 1200.0
#: Seconds to wait for the last event after a run has ended, and for events after a complete answer.
_GRACE, _AFTERWARDS = 4.0, 0.3


class DifyTalk:
    """The questions of one user to one app."""

    def __init__(self, base_url: str, page: Printer, notes: Printer, *, key: str, user: str, timeout: float) -> None:
        """Connects at the first call. `timeout` is in seconds, between two events or for a whole blocking reply.

        `page` gets the answers and lists, `notes` the steps, the figures and what replaces a part of an answer.
        """
        # No retries: this tool shows the first error.
        limits = ClientLimits(timeout, retries=0, pool_size=2)
        self._service = DifyService(DifyUrls.build(base_url), limits=limits, on_error_reply=self._note_error)
        self.urls = self._service.urls
        self.user = user
        self.timeout = timeout
        self._page = page
        self._notes = notes
        self._authorization = f"Bearer {key}"
        self._body: Mapping[str, Any] = {}
        self._began = 0.0
        #: The record of the last question, also of a failed one; empty after `conversations`.
        self.asked = AnswerRecord()

    def _note_error(self, body: bytes) -> None:
        with suppress(ValueError, RecursionError):
            self.asked.complaint = text(mapping(json.loads(body)).get("message"))

    def ask(self, body: Mapping[str, Any]) -> AnswerRecord:
        """Ask in the body's mode, print the answer and its report, and return the record.

        Raises:
            ProviderError: the answer failed or is incomplete.
        """
        self.asked, self._body, self._began = AnswerRecord(self.urls.root), body, time.monotonic()
        ask = self._ask_blocking if body["response_mode"] == "blocking" else self._ask_streaming
        try:
            ask(body)
            self._show(self.asked.turn.close())
        finally:
            self.asked.seconds = time.monotonic() - self._began
            # For failed answers too: the ids are needed to find the run in Dify.
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
        reply = self._service.chat_blocking(body, authorization=self._authorization, deadline=deadline)
        event = {**reply, "event": text(reply.get("event")) or "message"}
        self._note(event)
        # A blocking reply has the answer of a stream's messages and the figures of its last event.
        for each in (event, {**reply, "event": "message_end"}):
            self._show(self.asked.turn.take(each))
        self.asked.first_word = None

    def _note(self, event: Mapping[str, Any]) -> None:
        for line in self.asked.notes(event):
            self._aside(line)

    def _aside(self, line: str) -> None:
        """Print a line that is no part of the answer; at a terminal both are on one screen."""
        self._page.end_line()
        self._notes.line(line)

    def _show(self, events: Iterable[ProviderEvent]) -> None:
        asked = self.asked
        for event in events:
            if isinstance(event, Replacement):
                self._aside("[replaced] the answer is now:")
                asked.answer = ""
            if isinstance(event, PendingForm):
                choices = " / ".join(action.title for action in event.actions)
                self._aside(f"[form] the run waits for a choice: {choices}")
            if isinstance(event, (Delta, Replacement)):
                if asked.first_word is None:
                    asked.first_word = time.monotonic() - self._began
                asked.answer += event.text
                self._page.words(event.text)

    def _report(self) -> None:
        if self.asked.counts:
            self._page.end_line()
            for name, value in self.asked.report():
                self._notes.field(name, value)

    def stop(self) -> str:
        """Ask Dify to stop the last question's run. Return the result in words."""
        task = self.asked.turn.ids.task_id
        if not task:
            return "Dify named no task that could be stopped; what it has begun, it goes on with"
        try:
            self._service.stop(task, self.user, authorization=self._authorization)
        except ProviderError as exc:
            return f"Dify could not be told to stop ({exc})"
        return f"Dify was told to stop task {task}"

    def conversations(self) -> list[dict[str, Any]]:
        """Print the user's conversations, latest first, and return them as `{id, name, updated_at}`.

        Raises:
            ProviderError: the list could not be read.
        """
        self.asked, self._body = AnswerRecord(), {}
        reply = self._service.conversations(self.user, authorization=self._authorization)
        rows = mappings(reply.get("data"))
        for row in rows:
            self._page.line(f"{text(row.get('id'))}  {_when(row)}  {text(row.get('name'))}")
        more = ", these are the latest" if reply.get("has_more") else ""
        self._notes.line(f"{len(rows)} conversations of the user {self.user}{more}")
        return [{"id": text(row.get("id")), "name": text(row.get("name")), "updated_at": _seconds(row)} for row in rows]

    @property
    def blocking(self) -> bool:
        return self._body.get("response_mode") == "blocking"

    def app(self) -> tuple[str, list[str]]:
        """Return the app's mode and the required inputs that were not given; empty if Dify does not answer."""
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
        """Close the connections."""
        self._service.close()


def _seconds(row: Mapping[str, Any]) -> int:
    """Return when a conversation was last changed, in seconds since 1970; 0 if Dify did not tell."""
    return count(row.get("updated_at")) or count(row.get("created_at"))


def _when(row: Mapping[str, Any]) -> str:
    seconds = _seconds(row)
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else "at a time unknown"
