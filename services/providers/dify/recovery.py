"""How the answer to a question that another replica asked Dify is had after all.

Dify never repeats what it streamed. A chatflow's run is looked up, and listened to while it works, to know when it has
ended; the answer is then in the conversation's history, for every kind of app, and in the run's outputs besides. The
history has the first word: it holds what people were to see, the outputs what the model said before moderation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from services.errors import ProviderError, RunFailed, Unrecoverable
from services.models import ProviderIds, Recovered
from services.providers.client.json_fields import mapping, text
from services.providers.client.retries import pause
from services.providers.dify.errors import may_pass, paused_error, stream_error
from services.providers.dify.records import DifyMessage, DifyRun
from services.providers.dify.search import Asked, search
from services.providers.dify.service import DifyService
from services.providers.dify.watch import PATIENCE, Patience, Watch
from utils.deadline import Deadline

_SUCCESS = ("succeeded", "partial-succeeded")
#: Dify shows no such run: it never began, or this version shows those of workflow apps only.
_NO_RUN = DifyRun("unknown")


class DifyRecovery:
    """The way back to one answer; used once."""

    def __init__(
        self,
        service: DifyService,
        asked: Asked,
        deadline: Deadline,
        *,
        patience: Patience = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float, Deadline], None] = pause,
    ) -> None:
        """Take what to look for; `sleep` takes seconds and the deadline that wakes it."""
        self._service = service
        self._asked = asked
        self._deadline = deadline
        self._patience = patience
        self._clock = clock
        self._watch = Watch(deadline, patience, clock, sleep)
        self._began = self._alive = clock()
        self._has_events = True

    def answer(self) -> Recovered:
        """Return the answer, waiting for it while there is a sign that it will come.

        Raises:
            Unrecoverable: there is none and there will be none, or nothing tells whether there will be.
            ProviderError: `provider_paused` when the run waits for a person, who would be asked again in vain;
                `interrupted` and `answer_timeout` by the deadline.
        """
        found = ProviderIds()
        if not self._asked.ids.findable:
            found = self._found()
            self._asked = replace(self._asked, ids=found)
        run = self._ended_run() if self._asked.ids.run_id else _NO_RUN
        if run.answer:
            self._watch.hurry(self._patience.saving)
        try:
            message = self._saved_message()
        except Unrecoverable:
            if not run.answer:
                raise
            return Recovered(run.answer, run.usage)
        return Recovered(message.with_images(run.answer), message.usage, found)

    def _found(self) -> ProviderIds:
        """Return the ids of a message that is known by its words only; Dify may just be writing its row."""
        asked = self._asked
        for seconds in (self._patience.pause, 2 * self._patience.pause) if asked.searchable else ():
            ids = self._watch.poll(lambda: search(self._service, asked, self._deadline))
            if ids.findable:
                return ids
            self._watch.rest(seconds)
        raise Unrecoverable("its message is not known")

    def _ended_run(self) -> DifyRun:
        """Wait for the run's end, and return its outcome."""
        pauses = self._patience.pauses()
        while True:
            looked = self._clock()
            run = self._watch.poll(self._look_at_run)
            if run is _NO_RUN or _has_succeeded(run):
                return run
            # After the look: a run that has gone silent may have ended unheard.
            silence = self._silence_over()
            last = None if silence else self._listen()
            if last is not None and _has_succeeded(last):
                return last
            # Of a run that died after its last word Dify keeps the answer, and says `running` for ever.
            if (silence or self._has_events) and self._is_saved():
                return _NO_RUN
            if silence:
                raise Unrecoverable(silence)
            self._watch.rest(next(pauses) - (self._clock() - looked))

    def _look_at_run(self) -> DifyRun:
        try:
            reply = self._service.workflow_run(
                self._asked.ids.run_id, authorization=self._asked.authorization, deadline=self._deadline
            )
        except ProviderError as exc:
            if exc.http_status in (400, 404):
                return _NO_RUN
            raise
        return DifyRun.read(reply)

    def _silence_over(self) -> str:
        """Return why the run is given up, "" while it is not."""
        since, limit = self._alive, self._service.timeout
        if not self._has_events:
            since, limit = self._began, self._patience.running
        over = self._clock() - since >= limit
        return f"the run says `running` and nothing else for {limit:g} s" if over else ""

    def _is_saved(self) -> bool:
        """Tell whether the history has an outcome already; where it cannot be read, it has none."""
        try:
            return self._asked.in_history and self._look_at_message() is not None
        except ProviderError:
            self._watch.end_if_over()
            return False

    def _listen(self) -> DifyRun | None:
        """Return the outcome the run tells of; None when it fell silent, or cannot be listened to."""
        if not self._has_events:
            return None
        with closing(self._heard()) as events:
            for event in events:
                match event.get("event"):
                    case "workflow_finished":
                        return DifyRun.read(mapping(event.get("data")))
                    case "workflow_paused":
                        raise paused_error()
                    case "error":
                        raise RunFailed(str(stream_error(event)))
        return None

    def _heard(self) -> Generator[Mapping[str, Any]]:
        """Yield the run's events from now on; each is a sign of life."""
        left = self._alive + self._service.timeout - self._clock()
        asked = self._asked
        try:
            with self._service.workflow_events(
                asked.ids.run_id,
                asked.user,
                authorization=asked.authorization,
                deadline=self._deadline,
                silence=min(left, self._patience.listening),
            ) as stream:
                for event in stream:
                    self._alive = self._clock()
                    if event.get("event") == "message_end":
                        # The message is saved. Some versions forget the workflow's own last event.
                        stream.end_within(self._patience.saving)
                    yield event
        except ProviderError as exc:
            self._watch.end_if_over()
            if exc.code == "provider_busy" and not exc.http_status:
                # No place to listen from: the silence is ours.
                self._alive = self._clock()
            elif not may_pass(exc):
                self._has_events = False

    def _saved_message(self) -> DifyMessage:
        """Wait until the history has the answer."""
        if not self._asked.in_history:
            raise Unrecoverable("its message is not known")
        message = self._watch.poll(self._look_at_message)
        if message.status == "paused":
            raise paused_error()
        if message.status == "error":
            raise RunFailed("the message has status error")
        if not message.answer:
            raise Unrecoverable(f"the message has status {message.status or '-'} and no answer")
        return message

    def _look_at_message(self) -> DifyMessage | None:
        """Return the question's row once it tells something."""
        ids = self._asked.ids
        rows = self._service.messages(
            ids.conversation_id, self._asked.user, authorization=self._asked.authorization, deadline=self._deadline
        )
        row = next((row for row in rows if text(row.get("id")) == ids.message_id), None)
        message = DifyMessage.read(row) if row is not None else None
        return message if message and (message.filled or message.status in ("error", "paused")) else None


def _has_succeeded(run: DifyRun) -> bool:
    """Tell whether a run has ended with an answer; False while it works.

    Raises:
        Unrecoverable: it has ended without one.
        ProviderError: `provider_paused`.
    """
    if run.status == "failed":
        raise RunFailed("the run failed")
    if run.status == "stopped":
        raise Unrecoverable("the run stopped")
    if run.status == "paused":
        raise paused_error()
    return run.status in _SUCCESS
