"""The Dify client at work: asks in either mode, and shows what comes as it comes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from services.dify_service import DifyService
from services.dify_stream import ChatStream
from services.dify_urls import DifyUrls
from services.errors import ProviderError
from services.models import Delta, ProviderEvent, Replacement
from services.providers.dify_turn import DifyTurn
from services.providers.json_fields import count, mapping, mappings, text
from tools._dify_failures import Scene, may_be_the_app, required_inputs
from tools._dify_page import Page
from tools._dify_record import Record, bill
from utils.deadline import Deadline

#: Seconds an answer may take in all: Dify itself ends a run then.
LONGEST = 1200.0
#: Seconds a run that is over may take to say its last word, and what comes after a whole answer to come.
_GRACE, _AFTERWARDS = 4.0, 0.3


@dataclass
class Asked:
    """A question on its way: what has come of it so far."""

    record: Record
    turn: DifyTurn = field(default_factory=DifyTurn)
    answer: str = ""
    pings: int = 0
    #: Seconds from the question to the first word, and to the end.
    first_word: float | None = None
    seconds: float = 0.0


class Talk:
    """One user's talk with one app."""

    def __init__(
        self,
        base_url: str,
        page: Page,
        *,
        key: str,
        user: str,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing connects. `timeout` is the longest silence in seconds, and all the time in blocking mode.

        Raises:
            SettingsError: `base_url` is no address.
        """
        # A look at an app shows its first refusal: nothing is asked again.
        self._service = DifyService(
            base_url=base_url, timeout=timeout, retries=0, pool_size=2, on_refusal=self._hear, clock=clock
        )
        self._page = page
        self._authorization = f"Bearer {key}"
        self.user = user
        self._clock = clock
        self._began = clock()
        self._body: Mapping[str, Any] = {}
        #: The last question, also where its answer failed; an empty one after a look at the conversations.
        self.asked = Asked(Record())

    @property
    def urls(self) -> DifyUrls:
        return self._service.urls

    def _hear(self, refusal: bytes) -> None:
        with suppress(ValueError, RecursionError):
            self.asked.record.complaint = text(mapping(json.loads(refusal)).get("message"))

    def ask(self, body: Mapping[str, Any]) -> Asked:
        """Ask in the body's mode, show the answer and then the bill, and return what came.

        Raises:
            ProviderError: the answer failed, or is not whole.
        """
        self.asked, self._body = Asked(Record(self.urls.root)), body
        with self._timed():
            if body["response_mode"] == "blocking":
                self._ask_whole(body)
            else:
                self._ask_streaming(body)
            for said in self.asked.turn.close():
                self._show(said)
        return self.asked

    @contextmanager
    def _timed(self) -> Iterator[None]:
        self._began = self._clock()
        try:
            yield
        finally:
            self.asked.seconds = self._clock() - self._began
            self._account()

    def _ask_streaming(self, body: Mapping[str, Any]) -> None:
        deadline = Deadline(LONGEST, clock=self._clock)
        with self._service.chat_messages(body, authorization=self._authorization, deadline=deadline) as stream:
            try:
                self._follow(stream)
            finally:
                self.asked.pings = stream.pings

    def _follow(self, stream: ChatStream) -> None:
        for event in stream:
            self._take(event)
            if self.asked.turn.state == "done":
                break
            if self.asked.turn.state != "running":
                stream.end_within(_GRACE)
        stream.end_within(_AFTERWARDS)
        with suppress(ProviderError):
            for event in stream:
                self._note(event)

    def _ask_whole(self, body: Mapping[str, Any]) -> None:
        deadline = Deadline(self._service.timeout, clock=self._clock)
        reply = self._service.chat_whole(body, authorization=self._authorization, deadline=deadline)
        self._take({**reply, "event": text(reply.get("event")) or "message"})
        # A blocking reply has in one what a stream says last.
        for said in self.asked.turn.take({**reply, "event": "message_end"}):
            self._show(said)
        # It is the whole at once.
        self.asked.first_word = None

    def _take(self, event: Mapping[str, Any]) -> None:
        self._note(event)
        for said in self.asked.turn.take(event):
            self._show(said)

    def _note(self, event: Mapping[str, Any]) -> None:
        for line in self.asked.record.take(event, self.asked.answer):
            self._page.line(line)

    def _show(self, said: ProviderEvent) -> None:
        if isinstance(said, Replacement):
            self._page.line("[replaced] the answer is now:")
            self.asked.answer = ""
        if isinstance(said, (Delta, Replacement)):
            if self.asked.first_word is None:
                self.asked.first_word = self._clock() - self._began
            self.asked.answer += said.text
            self._page.words(said.text)

    def _account(self) -> None:
        """Show what the answer cost, also where it failed: its ids are how to find it in Dify."""
        asked = self.asked
        if not asked.record.counts:
            return
        if asked.answer:
            self._page.line()
        for name, value in (*bill(asked.turn.usage, asked.turn.ids), *asked.record.fields()):
            self._page.field(name, value)
        first = "" if asked.first_word is None else f", {asked.first_word:.2f} s to the first word"
        self._page.field("time", f"{asked.seconds:.2f} s{first}")

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
        self.asked, self._body = Asked(Record()), {}
        reply = self._service.conversations(self.user, authorization=self._authorization)
        rows = mappings(reply.get("data"))
        for row in rows:
            self._page.line(f"{text(row.get('id'))}  {_when(row)}  {text(row.get('name'))}")
        more = ", these are the latest" if reply.get("has_more") else ""
        self._page.line(f"{len(rows)} conversations of the user {self.user}{more}")
        return [text(row.get("id")) for row in rows]

    def scene(self, exc: ProviderError) -> Scene:
        """Return what there is to know about why the last question failed; may ask Dify how the app is."""
        scene = Scene(
            address=self.urls.root,
            user=self.user,
            timeout=self._service.timeout,
            events=self.asked.record.counts.total(),
            pings=self.asked.pings,
            words=self.asked.record.complaint,
            blocking=self._body.get("response_mode") == "blocking",
        )
        if self._body and may_be_the_app(exc):
            with suppress(ProviderError):
                scene = replace(scene, **self._app())
        return scene

    def _app(self) -> dict[str, Any]:
        mode = text(self._service.info(authorization=self._authorization).get("mode"))
        required = required_inputs(self._service.parameters(authorization=self._authorization))
        return {"mode": mode, "missing": tuple(name for name in required if name not in self._body["inputs"])}

    def close(self) -> None:
        """Give the connections back."""
        self._service.close()


def _when(row: Mapping[str, Any]) -> str:
    seconds = count(row.get("updated_at")) or count(row.get("created_at"))
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else "at a time unknown"
