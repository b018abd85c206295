"""Recovers the answer to a question that another replica asked Dify.

Dify never repeats streamed events. For a chatflow the run is polled, and its event stream read while it works, to learn
when it has ended. The answer is then in the conversation's history, for every kind of app, and also in the run's
outputs. The history takes precedence: it holds the text after moderation, the outputs the text before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from services.errors import ProviderError, RunFailed, Unrecoverable
from services.forms import PendingForm
from services.models import ProviderIds
from services.providers.base import Recovered
from services.providers.client.json_fields import mapping, text
from services.providers.client.retries import pause
from services.providers.dify.errors import may_pass, paused_error, stream_error
from services.providers.dify.features.form_events import after
from services.providers.dify.polling import RECOVERY_TIMEOUTS, Poller, RecoveryTimeouts
from services.providers.dify.records import DifyMessage, DifyRun
from services.providers.dify.search import SentQuestion, search
from services.providers.dify.service import DifyService
from services.providers.dify.turn import DifyTurn
from utils.deadline import Deadline

_SUCCESS = ("succeeded", "partial-succeeded")
#: Dify returns no such run: it never began, or this version returns runs of workflow apps only.
_NO_RUN = DifyRun("unknown")


class DifyRecovery:
    """Recovers one answer. An instance is used once."""

    def __init__(
        self,
        service: DifyService,
        asked: SentQuestion,
        deadline: Deadline,
        *,
        timeouts: RecoveryTimeouts = RECOVERY_TIMEOUTS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float, Deadline], None] = pause,
    ) -> None:
        """Set the question to recover. `sleep` gets the seconds, and the deadline whose abort wakes it."""
        self._service = service
        self._asked = asked
        self._deadline = deadline
        self._timeouts = timeouts
        self._clock = clock
        self._poller = Poller(deadline, timeouts, clock, sleep)
        self._began = self._alive = clock()
        self._has_events = True

    def answer(self) -> Recovered:
        """Return the answer. Waits as long as the run or the history shows that it will come.

        Of a run that has paused for a person it is the answer so far, with the forms.

        Raises:
            Unrecoverable: there will be no answer, or nothing shows within the timeouts that there will be one.
            ProviderError: `provider_paused` if the run waits for a person by other means, because a new run would pause
                again; `interrupted` or `answer_timeout`, by the deadline.
        """
        try:
            return self._whole()
        except ProviderError as exc:
            if exc.code != "provider_paused" or not self._asked.ids.run_id:
                raise
            return self._paused(exc)

    def _whole(self) -> Recovered:
        found = ProviderIds()
        if not self._asked.ids.findable:
            found = self._found()
            self._asked = replace(self._asked, ids=found)
        run = self._ended_run() if self._asked.ids.run_id else _NO_RUN
        if run.answer:
            self._poller.shorten(self._timeouts.saving)
        try:
            message = self._saved_message()
        except Unrecoverable:
            if not run.answer:
                raise
            return Recovered(run.answer, run.usage)
        return Recovered(message.with_images(run.answer), message.usage, found)

    def _paused(self, paused: ProviderError) -> Recovered:
        """Return the answer of a paused run so far, and its forms: only a snapshot of the run's events has these."""
        asked, turn, forms = self._asked, DifyTurn(), list[PendingForm]()
        limits: dict[str, Any] = {"deadline": self._deadline, "silence": self._timeouts.listening, "snapshot": True}
        try:
            with self._service.workflow_events(
                asked.ids.run_id, asked.user, authorization=asked.authorization, **limits
            ) as stream:
                for event in stream:
                    forms += [each for each in turn.take(event) if isinstance(each, PendingForm)]
                    if turn.state != "running":
                        break
        except ProviderError as exc:
            self._poller.check_deadline()
            raise paused from exc
        if not forms and turn.state != "running":
            # A person has answered meanwhile, elsewhere or through another question.
            return self._whole()
        if not forms:
            raise paused
        said = self._said_before_pause() or turn.text
        return Recovered(said, forms=tuple(after(said, each) for each in forms))

    def _said_before_pause(self) -> str:
        try:
            message = self._fetch_message() if self._asked.in_history else None
        except ProviderError:
            self._poller.check_deadline()
            return ""
        return message.answer if message and message.status == "paused" else ""

    def _found(self) -> ProviderIds:
        """Find the ids of a message by its text. Searches up to twice: Dify may be about to insert the row."""
        asked = self._asked
        for seconds in (self._timeouts.pause, 2 * self._timeouts.pause) if asked.searchable else ():
            ids = self._poller.poll(lambda: search(self._service, asked, self._deadline))
            if ids.findable:
                return ids
            self._poller.wait(seconds)
        raise Unrecoverable("its message is not known")

    def _ended_run(self) -> DifyRun:
        """Wait for the run's end and return its result."""
        pauses = self._timeouts.pauses()
        while True:
            began = self._clock()
            run = self._poller.poll(self._fetch_run)
            if run is _NO_RUN or _has_succeeded(run):
                return run
            # Checked after the poll: a run without events may have ended, and its last event may have been lost.
            silence = self._silence_over()
            last = None if silence else self._listen()
            if last is not None and _has_succeeded(last):
                return last
            # A run that died after its last event has its answer saved, but reports `running` for ever.
            if (silence or self._has_events) and self._is_saved():
                return _NO_RUN
            if silence:
                raise Unrecoverable(silence)
            self._poller.wait(next(pauses) - (self._clock() - began))

    def _fetch_run(self) -> DifyRun:
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
        """Return the reason to give up on the run; "" if there is none yet."""
        since, limit = self._alive, self._service.timeout
        if not self._has_events:
            since, limit = self._began, self._timeouts.running
        over = self._clock() - since >= limit
        return f"the run says `running` and nothing else for {limit:g} s" if over else ""

    def _is_saved(self) -> bool:
        """Return whether the history has a result; False if the history cannot be read."""
        try:
            return self._asked.in_history and self._fetch_message() is not None
        except ProviderError:
            self._poller.check_deadline()
            return False

    def _listen(self) -> DifyRun | None:
        """Return the result that the run's events report; None if they report none, or there is no event stream."""
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
        """Yield the run's events from now on. Each event sets `_alive`."""
        left = self._alive + self._service.timeout - self._clock()
        asked = self._asked
        try:
            with self._service.workflow_events(
                asked.ids.run_id,
                asked.user,
                authorization=asked.authorization,
                deadline=self._deadline,
                silence=min(left, self._timeouts.listening),
            ) as stream:
                for event in stream:
                    self._alive = self._clock()
                    if event.get("event") == "message_end":
                        # The message is saved. Some Dify versions never send the workflow's own last event.
                        stream.end_within(self._timeouts.saving)
                    yield event
        except ProviderError as exc:
            self._poller.check_deadline()
            if exc.code == "provider_busy" and not exc.http_status:
                # All slots of this replica were taken, so the missing events say nothing about the run.
                self._alive = self._clock()
            elif not may_pass(exc):
                self._has_events = False

    def _saved_message(self) -> DifyMessage:
        """Wait until the history has the answer."""
        if not self._asked.in_history:
            raise Unrecoverable("its message is not known")
        message = self._poller.poll(self._fetch_message)
        if message.status == "paused":
            raise paused_error()
        if message.status == "error":
            raise RunFailed("the message has status error")
        if not message.answer:
            raise Unrecoverable(f"the message has status {message.status or '-'} and no answer")
        return message

    def _fetch_message(self) -> DifyMessage | None:
        """Return the question's row; None while it shows no result."""
        ids = self._asked.ids
        rows = self._service.messages(
            ids.conversation_id, self._asked.user, authorization=self._asked.authorization, deadline=self._deadline
        )
        row = next((row for row in rows if text(row.get("id")) == ids.message_id), None)
        message = DifyMessage.read(row) if row is not None else None
        return message if message and (message.filled or message.status in ("error", "paused")) else None


def _has_succeeded(run: DifyRun) -> bool:
    """Return whether a run has ended with an answer; False while it is in progress.

    Raises:
        Unrecoverable: it has ended without one.
        ProviderError: `provider_paused`: it waits for a person.
    """
    if run.status == "failed":
        raise RunFailed("the run failed")
    if run.status == "stopped":
        raise Unrecoverable("the run stopped")
    if run.status == "paused":
        raise paused_error()
    return run.status in _SUCCESS
