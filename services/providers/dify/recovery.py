"""Recovers the answer of a run at Dify whose stream or owner was lost.

Dify never repeats streamed events. For a chatflow the run is polled, and its event stream read while it works, to learn
when it has ended. The answer is then in the conversation's history, for every kind of app, and also in the run's
outputs. The history takes precedence: it holds the text after moderation, the outputs the text before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from services.errors import ProviderError, RunFailed, Unrecoverable
from services.forms import PendingForm
from services.http.retries import pause
from services.http.service import check_deadline
from services.models import ProviderIds, Usage
from services.providers.base import Recovered
from services.providers.client.json_fields import count, json_object, mapping, mappings, price, text
from services.providers.dify.answer import DifyAnswer
from services.providers.dify.errors import paused_error, stream_error
from services.providers.dify.form_events import after, rest_of
from services.providers.dify.service import DifyService
from services.providers.recovery import RECOVERY_TIMEOUTS, Poller, RecoveryTimeouts, may_pass
from utils.deadline import Deadline
from utils.running_time import running_time

#: Matches no nested brackets, so the search stays linear in the text, however many brackets open.
_IMAGE = re.compile(r"!\[[^\[\]\n]*\]\([^()\n]*\)")


@dataclass(frozen=True, slots=True)
class DifyRun:
    """A chatflow's run, read from its result or from `workflow_finished`.

    `answer` is "" until the run has ended, and may be "" after it. It is the workflow's own output: only the history
    has the text after Dify's moderation.
    """

    status: str = ""
    answer: str = ""
    usage: Usage = field(default_factory=Usage)

    @classmethod
    def read(cls, result: Mapping[str, Any]) -> DifyRun:
        answer = text(_outputs(result.get("outputs")).get("answer"))
        return cls(text(result.get("status")), answer, Usage(total_tokens=count(result.get("total_tokens"))))


def _outputs(value: Any) -> Mapping[str, Any]:
    """Return the outputs: an object in some Dify versions, a JSON string in others."""
    return (json_object(value) or {}) if isinstance(value, str) else mapping(value)


@dataclass(frozen=True, slots=True)
class DifyMessage:
    """A question's row in the history. Dify inserts it when the run begins and fills it when the run has ended."""

    status: str
    answer: str
    #: Whether Dify has filled the row; the answer may still be empty.
    filled: bool
    usage: Usage = field(default_factory=Usage)

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> DifyMessage:
        answer, filled = text(row.get("answer")), _filled(row)
        if not answer and filled:
            answer = _thoughts(row.get("agent_thoughts"))
        return cls(text(row.get("status")), answer, filled or bool(answer), _usage(row))

    def with_images(self, original: str) -> str:
        """Return `original`, the run's own answer, if it differs from the saved one only by images; else the saved one.

        Dify removes images from the saved answer when a run has created files.
        """
        return original if _IMAGE.sub("", original).strip() == self.answer else self.answer


def _filled(row: Mapping[str, Any]) -> bool:
    """Return whether the run has ended: only then does Dify write the latency and the token counts.

    Older versions show neither. There, a row without an answer does not say whether the run has ended.
    """
    latency = row.get("provider_response_latency")
    return count(row.get("answer_tokens")) > 0 or (isinstance(latency, (int, float)) and latency > 0)


def _thoughts(value: Any) -> str:
    """Join the texts of an agent's steps: some runs end with an empty answer and have their text in the thoughts."""
    thoughts = sorted(mappings(value), key=lambda each: count(each.get("position")))
    return "\n".join(thought for each in thoughts if (thought := text(each.get("thought"))))


def _usage(row: Mapping[str, Any]) -> Usage:
    prompt, completion = count(row.get("message_tokens")), count(row.get("answer_tokens"))
    return Usage(
        total_tokens=count(row.get("total_tokens")) or prompt + completion,
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_price=price(row.get("total_price")),
        currency=text(row.get("currency")),
        sources=tuple(mappings(row.get("retriever_resources"))),
    )


#: Seconds by which a row's time may be before or after `asked_at`: Dify's clock may differ, and the question may have
#: been queued. With wider limits the same question sent a moment earlier would match.
EARLY, LATE = 2.0, 15.0
#: The number of new conversations whose history is searched.
MAX_CANDIDATES = 5


@dataclass(frozen=True, slots=True)
class SentQuestion:
    """A question as it was sent to Dify: the ids of its run, the user, and the credential.

    `asked_at` is the time just before it was sent, in seconds since 1970; 0 if unknown. Without a message id,
    `ids.conversation_id` is the conversation it was asked in; "" for a new one.
    """

    ids: ProviderIds
    user: str
    authorization: str
    question: str = ""
    asked_at: float = 0.0
    #: The form after which the run went on: until its end the message has the answer before that pause.
    resumed: PendingForm | None = None

    @property
    def is_named(self) -> bool:
        """Whether Dify has named the run, so that its answer can be requested by ids."""
        return bool(self.ids.run_id) or self.in_history

    @property
    def in_history(self) -> bool:
        """Whether the message can be found by its id."""
        return bool(self.ids.message_id and self.ids.conversation_id)

    @property
    def can_be_looked_up(self) -> bool:
        """Whether the message can be found by its text."""
        return bool(self.question.strip() and self.asked_at)

    def is_row(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row of the history may be this question's message."""
        return text(row.get("query")).strip() == self.question.strip() and self.is_time(row)

    def is_time(self, row: Mapping[str, Any]) -> bool:
        return -EARLY <= count(row.get("created_at")) - self.asked_at <= LATE


def look_up_ids(service: DifyService, sent: SentQuestion, deadline: Deadline) -> ProviderIds:
    """Return the ids of the question's message; empty ids if no row matches, or more than one.

    Raises:
        ProviderError: Dify replied with an error or could not be reached.
    """
    found = list(_rows(service, sent, deadline))
    if len(found) != 1:
        return ProviderIds()
    (row,) = found
    return ProviderIds(text(row.get("conversation_id")), text(row.get("id")))


def _rows(service: DifyService, sent: SentQuestion, deadline: Deadline) -> Iterator[Mapping[str, Any]]:
    if named := sent.ids.conversation_id:
        # A conversation has one question at a time, so the question is in the last row.
        rows = service.messages(named, sent.user, authorization=sent.authorization, deadline=deadline)
        yield from (row for row in rows[-1:] if sent.is_row(row))
        return
    listed = service.conversations(sent.user, authorization=sent.authorization).get("data")
    talks = [talk for talk in listed if isinstance(talk, dict)] if isinstance(listed, list) else []
    new = [text(talk.get("id")) for talk in talks if sent.is_time(talk)]
    for conversation_id in new[:MAX_CANDIDATES]:
        rows = service.messages(conversation_id, sent.user, authorization=sent.authorization, deadline=deadline)
        yield from (row for row in rows if len(rows) == 1 and sent.is_row(row))


_SUCCESS = ("succeeded", "partial-succeeded")
#: Dify returns no such run: it never began, or this version returns runs of workflow apps only.
_NO_RUN = DifyRun("unknown")


class DifyRecovery:
    """Recovers one answer. An instance is used once."""

    def __init__(
        self,
        service: DifyService,
        sent: SentQuestion,
        deadline: Deadline,
        *,
        timeouts: RecoveryTimeouts = RECOVERY_TIMEOUTS,
        clock: Callable[[], float] = running_time,
        sleep: Callable[[float, Deadline], None] = pause,
    ) -> None:
        """Set the question to recover. `sleep` gets the seconds, and the deadline whose abort wakes it."""
        self._service = service
        self._sent = sent
        self._deadline = deadline
        self._timeouts = timeouts
        self._clock = clock
        self._poller = Poller(deadline, timeouts, clock=clock, sleep=sleep)
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
            return self._complete()
        except ProviderError as exc:
            if exc.code != "provider_paused" or not self._sent.ids.run_id:
                raise
            return self._paused(exc)

    def _complete(self) -> Recovered:
        found = ProviderIds()
        if not self._sent.is_named:
            found = self._looked_up_ids()
            self._sent = replace(self._sent, ids=found)
        run = self._ended_run() if self._sent.ids.run_id else _NO_RUN
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
        sent, answer, forms = self._sent, DifyAnswer(), list[PendingForm]()
        limits: dict[str, Any] = {"deadline": self._deadline, "silence": self._timeouts.listening, "snapshot": True}
        try:
            with self._service.workflow_events(
                sent.ids.run_id, sent.user, authorization=sent.authorization, **limits
            ) as stream:
                for event in stream:
                    forms += [each for each in answer.take(event) if isinstance(each, PendingForm)]
                    if answer.state != "running":
                        break
        except ProviderError as exc:
            check_deadline(self._deadline)
            raise paused from exc
        if not forms and answer.state != "running":
            # A person has answered meanwhile, elsewhere or through another question.
            return self._complete()
        if not forms:
            raise paused
        before = self._text_before_pause() or answer.text
        return Recovered(before, forms=tuple(after(before, each) for each in forms))

    def _text_before_pause(self) -> str:
        try:
            message = self._fetch_message() if self._sent.in_history else None
        except ProviderError:
            check_deadline(self._deadline)
            return ""
        return message.answer if message and message.status == "paused" else ""

    def _looked_up_ids(self) -> ProviderIds:
        """Find the ids of a message by its text. Looks up to two times: Dify may be about to insert the row."""
        sent = self._sent
        for seconds in (self._timeouts.pause, 2 * self._timeouts.pause) if sent.can_be_looked_up else ():
            ids = self._poller.poll(lambda: look_up_ids(self._service, sent, self._deadline))
            if ids.message_id:
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
                self._sent.ids.run_id, authorization=self._sent.authorization, deadline=self._deadline
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
        return f"the run reports only `running` for {limit:g} s" if over else ""

    def _is_saved(self) -> bool:
        """Return whether the history has a result; False if the history cannot be read."""
        try:
            return self._sent.in_history and self._fetch_message() is not None
        except ProviderError:
            check_deadline(self._deadline)
            return False

    def _listen(self) -> DifyRun | None:
        """Return the result that the run's events report; None if they report none, or there is no event stream."""
        if not self._has_events:
            return None
        with closing(self._events()) as events:
            for event in events:
                match event.get("event"):
                    case "workflow_finished":
                        return DifyRun.read(mapping(event.get("data")))
                    case "workflow_paused":
                        raise paused_error()
                    case "error":
                        raise RunFailed(str(stream_error(event)))
        return None

    def _events(self) -> Generator[Mapping[str, Any]]:
        """Yield the run's events from now on. Each event sets `_alive`."""
        left = self._alive + self._service.timeout - self._clock()
        sent = self._sent
        try:
            with self._service.workflow_events(
                sent.ids.run_id,
                sent.user,
                authorization=sent.authorization,
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
            check_deadline(self._deadline)
            if exc.code == "provider_busy" and not exc.http_status:
                # All slots of this replica were taken, so the missing events say nothing about the run.
                self._alive = self._clock()
            elif not may_pass(exc):
                self._has_events = False

    def _saved_message(self) -> DifyMessage:
        """Wait until the history has the answer."""
        if not self._sent.in_history:
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
        ids = self._sent.ids
        rows = self._service.messages(
            ids.conversation_id, self._sent.user, authorization=self._sent.authorization, deadline=self._deadline
        )
        row = next((row for row in rows if text(row.get("id")) == ids.message_id), None)
        message = DifyMessage.read(row) if row is not None else None
        if message is None or message.status in ("error", "paused"):
            return message
        return message if message.filled and not self._is_before_pause(message) else None

    def _is_before_pause(self, message: DifyMessage) -> bool:
        form = self._sent.resumed
        return form is not None and bool(message.answer) and not rest_of(form, message.answer)


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
