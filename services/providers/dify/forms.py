"""Submits a person's answer to a form of Dify (chatflow, 1.13 and later), and reads how the run goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any

from services.errors import FormRefused, ProviderError, Unrecoverable
from services.forms import FormChoice, PendingForm
from services.http.retries import attempts, is_unsent, pause
from services.models import Complete, Delta, ProviderEvent, ProviderIds, Query, Replacement
from services.providers.base import BaseForms, Recovered
from services.providers.client.json_fields import mapping
from services.providers.dify.answer import DifyAnswer
from services.providers.dify.form_events import after, rest_of
from services.providers.dify.recovery import DifyRecovery, DifyRun, SentQuestion
from services.providers.dify.service import DifyService
from services.providers.dify.stream import ChatStream
from services.providers.recovery import Poller, RecoveryTimeouts
from utils.deadline import Deadline
from utils.running_time import running_time

log = logging.getLogger(__name__)

#: Retries of a submission that was not sent, and the pause before the first in seconds.
RETRIES, BACKOFF = 3, 0.5
#: Seconds for the first event of a resumed run: after them its status is requested.
FIRST_EVENT = 5.0
#: Seconds for which a run may still report the pause that was answered: its worker has not begun.
BEGIN_SECONDS = 60.0


class DifyForms(BaseForms):
    """The forms of one app."""

    def __init__(
        self,
        service: DifyService,
        *,
        authorization: Callable[[str], str],
        user: str,
        timeouts: RecoveryTimeouts,
        clock: Callable[[], float] = running_time,
    ) -> None:
        """`authorization` returns the credential for a user's token; `user` is sent for a query without a person."""
        self._service = service
        self._authorization = authorization
        self._user = user
        self._timeouts = timeouts
        self._clock = clock

    def submit(self, form: PendingForm, choice: FormChoice, query: Query, deadline: Deadline) -> None:
        body = {"inputs": dict(choice.inputs), "action": choice.action, "user": query.user or self._user}
        for attempt in attempts(deadline, retries=RETRIES, backoff=BACKOFF, may_retry=is_unsent):
            with attempt:
                self._submit(form, body, query, deadline)

    def _submit(self, form: PendingForm, body: Mapping[str, Any], query: Query, deadline: Deadline) -> None:
        authorization = self._authorization(query.identity.token)
        try:
            self._service.submit_form(form.token, body, authorization=authorization, deadline=deadline)
        except FormRefused:
            raise
        except ProviderError as exc:
            if (refused := _refused(exc)) is None:
                raise
            raise refused from exc

    def is_open(self, form: PendingForm, query: Query, deadline: Deadline) -> bool:
        poller = Poller(deadline, self._timeouts, clock=self._clock)
        return poller.poll(lambda: self._waits(form, query, deadline))

    def _waits(self, form: PendingForm, query: Query, deadline: Deadline) -> bool:
        authorization = self._authorization(query.identity.token)
        try:
            self._service.form(form.token, authorization=authorization, deadline=deadline)
        except ProviderError as exc:
            if exc.http_status in (404, 412):
                return False
            raise
        return True

    def resume(self, form: PendingForm, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Yield the rest of the answer: while it is written, if its first event was seen; else when it is complete."""
        run = _Resumption(self, form, query, deadline)
        yield from run.live()
        yield from run.settled()
        yield Complete()

    @property
    def timeout(self) -> float:
        """The longest wait for an event, in seconds."""
        return self._service.timeout

    def listen(
        self, form: PendingForm, query: Query, deadline: Deadline, *, silence: float
    ) -> AbstractContextManager[ChatStream]:
        """Return the events of the form's run from now on; the first one may take `silence` seconds."""
        return self._service.workflow_events(
            form.run_id,
            query.user or self._user,
            authorization=self._authorization(query.identity.token),
            deadline=deadline,
            silence=min(silence, self.timeout),
        )

    def status(self, form: PendingForm, query: Query, deadline: Deadline) -> str:
        """Return the status of the form's run; "" if it is not known."""
        authorization = self._authorization(query.identity.token)
        try:
            return DifyRun.read(
                self._service.workflow_run(form.run_id, authorization=authorization, deadline=deadline)
            ).status
        except ProviderError:
            return ""

    def complete(self, form: PendingForm, query: Query, deadline: Deadline) -> Recovered:
        """Return the run's answer; raises what `DifyRecovery.answer` does."""
        ids = ProviderIds(form.conversation_id, form.message_id, form.task_id, form.run_id)
        authorization = self._authorization(query.identity.token)
        sent = SentQuestion(ids, query.user or self._user, authorization, resumed=form)
        return DifyRecovery(self._service, sent, deadline, timeouts=self._timeouts).answer()

    def wait_begun(self, form: PendingForm, query: Query, deadline: Deadline) -> Recovered:
        """Return what `complete` does, of a run that has left the pause of this form."""
        ends, pauses = self._clock() + BEGIN_SECONDS, self._timeouts.pauses()
        while True:
            with suppress(_StillPaused):
                return self._left_pause(form, query, deadline)
            if self._clock() > ends:
                raise ProviderError("the run does not go on", code="provider_timeout")
            pause(min(next(pauses), deadline.remaining()), deadline)

    def _left_pause(self, form: PendingForm, query: Query, deadline: Deadline) -> Recovered:
        try:
            found = self.complete(form, query, deadline)
        except ProviderError as exc:
            if exc.code == "provider_paused":
                raise _StillPaused from exc
            raise
        if form.token in [each.token for each in found.forms]:
            raise _StillPaused
        return found


class _StillPaused(Exception):
    """The run reports the pause that was answered, or one that cannot be distinguished from it."""


class _Resumption:
    """The reading of one resumed run."""

    def __init__(self, forms: DifyForms, form: PendingForm, query: Query, deadline: Deadline) -> None:
        self._forms, self._form, self._query, self._deadline = forms, form, query, deadline
        #: The text that was yielded.
        self._text = ""
        #: Whether the stream has shown the beginning of the resumed run, so that no text of it is missing.
        self._from_start = False
        #: Whether the stream has sent an event, has sent the answer's end, and was read to its end; its last error.
        self._began = self._ended = self._listened = False
        self._broke: ProviderError | None = None
        #: The forms of another pause.
        self._next: list[PendingForm] = []

    def live(self) -> Iterator[ProviderEvent]:
        """Yield the events of the run's stream. A stream that breaks off is no error: `settled` finds the answer."""
        answer, first = DifyAnswer(), FIRST_EVENT
        while not self._listened:
            try:
                with self._forms.listen(self._form, self._query, self._deadline, silence=first) as stream:
                    yield from self._events(stream, answer)
                self._listened, self._ended = True, answer.state != "running"
            except ProviderError as exc:
                if self._deadline.over or exc.code == "provider_paused":
                    raise
                # A run that has paused again before this began to listen sends no events.
                self._listened = self._began or first > FIRST_EVENT or not self._is_running(exc)
                first = self._forms.timeout

    def _is_running(self, exc: ProviderError) -> bool:
        """Return whether the run is running although it sent no event; keep the error if its state is unknown."""
        if exc.code == "provider_timeout" and self._forms.status(self._form, self._query, self._deadline) == "running":
            return True
        log.warning("no events of the resumed run: %s: %s", exc.code, exc)
        self._broke = exc
        return False

    def _events(self, stream: ChatStream, answer: DifyAnswer) -> Iterator[ProviderEvent]:
        for event in stream:
            stream.wait_up_to(self._forms.timeout)
            self._began = True
            self._from_start = self._from_start or _begins(event)
            for each in answer.take(event):
                yield from self._shown(each)
            if answer.state != "running":
                return

    def _shown(self, event: ProviderEvent) -> Iterator[ProviderEvent]:
        match event:
            case Delta(text):
                # The text before the pause ended with a form: leading line breaks belong to neither.
                text = text if self._text else text.lstrip()
                if self._from_start and text:
                    self._text += text
                    yield Delta(text)
            case Replacement(text):
                self._text = rest_of(self._form, text)
                yield Replacement(self._text)
            case PendingForm():
                self._next.append(event)
            case _:
                yield event

    def settled(self) -> Iterator[ProviderEvent]:
        """Yield the rest of the complete answer that the stream lacked, and the forms of another pause.

        Dify repeats no event, so text may be missing, or the stream may have ended before the answer did.
        """
        found = self._found()
        rest = rest_of(self._form, found.text)
        if rest.strip() and rest.strip() != self._text.strip():
            begins = rest.startswith(self._text)
            yield Delta(rest[len(self._text) :]) if begins else Replacement(rest)
            self._text = rest
        if not (self._text or found.forms):
            raise ProviderError("the answer has no text", code="provider_empty")
        yield found.usage
        yield from found.forms

    def _found(self) -> Recovered:
        try:
            found = self._forms.wait_begun(self._form, self._query, self._deadline)
        except Unrecoverable as exc:
            if not (self._ended and (self._text or self._next)):
                code = "provider_truncated" if self._text else "provider_error"
                raise self._broke or ProviderError(str(exc), code=code) from exc
            found = Recovered("")
        if self._next and not found.forms:
            # The run's snapshot cannot be read here; its events have reported the pause.
            found = replace(found, forms=tuple(self._continued(each) for each in self._next))
        return found

    def _continued(self, form: PendingForm) -> PendingForm:
        """Return the form of a later pause: the answer so far is longer than the text of this stream."""
        if not self._form.shown:
            return after(self._text, form)
        return replace(form, shown=self._form.shown + len(self._text), shown_digest="")


def _begins(event: Mapping[str, Any]) -> bool:
    """Return whether an event is among the first ones after a pause."""
    name = event.get("event")
    resumed = name == "workflow_started" and mapping(event.get("data")).get("reason") == "resumption"
    return resumed or name == "human_input_form_filled"


def _refused(exc: ProviderError) -> FormRefused | None:
    """Return the refusal that Dify's reply to a submission means; None if Dify may have taken it."""
    codes = {400: ("form_rejected", True), 404: ("form_gone", False), 412: ("form_answered", False)}
    codes |= {401: ("provider_unauthorized", True), 403: ("provider_unauthorized", True), 422: ("form_rejected", True)}
    codes |= {429: ("provider_busy", True)}
    known = codes.get(exc.http_status)
    return FormRefused(str(exc), code=known[0], http_status=exc.http_status, still_open=known[1]) if known else None
