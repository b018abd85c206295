"""The forms of a question's conversation: shown where its run asks them, claimed by an answer, submitted, continued."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from config.texts import Texts
from services import metrics
from services.answers.forms import words
from services.answers.forms.form_store import FormStore, form_id, new_attempt
from services.answers.provider_run import ShowForms, with_forms
from services.conversations.memory import through_outage
from services.errors import AnswerError, FormRefused, ProviderError, StoreUnavailable
from services.forms import FormChoice, PendingForm
from services.models import Attempt, Delta, ProviderIds, Query, Question
from services.providers.base import BaseRAGProvider, closing_events
from services.streams.answer_events import AnswerEvent, AskedBack, Asking, anew
from services.streams.owned_stream import LEAVING
from utils.deadline import Deadline

log = logging.getLogger(__name__)

#: Seconds for which the end of an answer waits until it is stored that its form is answered.
SETTLE_SECONDS = 5.0


class AnswerForms:
    """The forms of all questions."""

    def __init__(self, store: FormStore, texts: Texts) -> None:
        self._store = store
        self._texts = texts

    def of(self, question: Question, stream_id: str, key: str) -> ConversationForms:
        """Return the forms for one question of the conversation `key`, "" for none."""
        return ConversationForms(self._store, FormQuestion(question, stream_id, key), texts=self._texts)

    def has(self, question: Question, key: str) -> bool:
        """Tell whether the conversation `key` has the form that was clicked.

        Raises:
            StoreUnavailable: Redis is away.
        """
        kept = through_outage(lambda: self._store.look(key, question))
        return words.clicked(question.choice, question.inputs, kept) is not None


class ConversationForms:
    """The forms for one question. Without a conversation (`key` is "") forms are shown but not stored."""

    def __init__(self, store: FormStore, asker: FormQuestion, *, texts: Texts) -> None:
        self._store = store
        self._asker = asker
        self._texts = texts

    def show(self, before: str, forms: Sequence[PendingForm]) -> tuple[AskedBack, Delta]:
        """Store the forms of a run, and return their choices and the text that goes after the answer so far.

        They are stored before a reader sees them, so that an answer finds them.

        Raises:
            StoreUnavailable: Redis is away.
        """
        asker = self._asker
        for form in forms if asker.key else ():
            if through_outage(lambda: self._store.open(asker.key, asker.question, form)):  # noqa: B023 - called here
                metrics.FORMS.labels("asked").inc()
                log.info("form asked", extra={"stream_id": asker.stream_id, "form": form_id(form)})
        text = words.shown(forms, self._texts, answerable=bool(asker.key))
        choices = words.offered(forms) if asker.key else ""
        return AskedBack(choices), Delta(f"\n\n{text}" if before.strip() else text)

    def continued(
        self,
        provider: BaseRAGProvider,
        query: Query,
        deadline: Deadline,
        attempt: Attempt | None,
        *,
        any_open: bool,
    ) -> Iterator[AnswerEvent] | None:
        """Return the events of the run that the question continues; None for a question that answers no form.

        `attempt` is the work of earlier owners, `any_open` whether the conversation has forms.

        Raises:
            AnswerError: as `claim` and `claimed_before` do.
        """
        if provider.forms is None:
            if self._asker.question.choice:
                raise AnswerError("the provider has no forms", code="form_gone")
            return None
        if attempt and attempt.asks:
            form = self.claimed_before(attempt.form) if attempt.form else None
        else:
            form = self.claim() if any_open or self._asker.question.choice else None
        if form is None:
            return None
        return FormRun(self._store, provider, form, self._asker, query, deadline).answer(attempt, self.show)

    def claim(self) -> ClaimedForm | None:
        """Claim the form that the question answers; None for a question that answers none.

        Raises:
            AnswerError: `form_answered` or `form_expired`: the text is a choice, but it came too late. `form_gone`: a
                click on a form that is not known; a click is no question.
            StoreUnavailable: Redis is away.
        """
        store, asker = self._store, self._asker
        kept = through_outage(lambda: store.look(asker.key, asker.question))
        mine = next((each for each in kept if each.stream_id == asker.stream_id), None)
        if mine:
            return ClaimedForm(mine.form, None, store.sealed(asker.question, mine.form))
        clicked = asker.question.choice
        given = asker.question.inputs
        found = words.clicked(clicked, given, kept) if clicked else words.chosen(asker.question.text, kept)
        if found is None:
            if clicked:
                raise AnswerError("a click on a form that is not known", code="form_gone")
            return None
        name, attempt = found.kept.form_id, new_attempt()
        match through_outage(lambda: store.claim(asker.key, name, asker.stream_id, attempt)):
            case "claimed":
                return ClaimedForm(found.kept.form, found.choice, store.sealed(asker.question, found.kept.form))
            case "before":
                return ClaimedForm(found.kept.form, None, store.sealed(asker.question, found.kept.form))
            case "taken":
                raise AnswerError("another question answers it", code="form_answered")
        raise AnswerError("its time is over", code="form_expired")

    def claimed_before(self, sealed: str) -> ClaimedForm:
        """Return the form in a stream's field `form`, which an earlier owner claimed.

        Raises:
            AnswerError: it cannot be decrypted.
        """
        form = self._store.unsealed(self._asker.question, sealed)
        if form is None:
            raise AnswerError("the form cannot be read", code="interrupted")
        return ClaimedForm(form, None, sealed)


@dataclass(frozen=True, slots=True)
class ClaimedForm:
    """A form that a question answers."""

    form: PendingForm
    #: The answer, to be submitted; None if an earlier owner may have submitted it.
    choice: FormChoice | None
    #: The form as it is stored with the question's stream.
    sealed: str


@dataclass(frozen=True, slots=True)
class FormQuestion:
    """The question whose text is the answer, its stream and its conversation."""

    question: Question
    stream_id: str
    key: str


class FormRun:
    """The rest of a run whose form was answered. Used once; the events are those of an answer."""

    def __init__(
        self,
        store: FormStore,
        provider: BaseRAGProvider,
        claimed: ClaimedForm,
        asker: FormQuestion,
        query: Query,
        deadline: Deadline,
    ) -> None:
        assert provider.forms
        self._store = store
        self._provider = provider
        self._forms = provider.forms
        self._claimed, self._form = claimed, claimed.form
        self._asker = asker
        self._query = query
        self._deadline = deadline
        self._ids = ids_of(claimed.form)

    def answer(self, attempt: Attempt | None, show: ShowForms) -> Iterator[AnswerEvent]:
        """Yield the events of the question's answer; `attempt` has the text that earlier owners have shown.

        Raises:
            AnswerError: as `events` does.
        """
        shown = attempt.text if attempt else ""
        if not (attempt and attempt.asks):
            yield self._asking()
        yield from anew(with_forms(self.events(shown=shown), show), shown)

    def _asking(self) -> Asking:
        """Return the event that stores which form is answered, before the answer leaves."""
        form = self._form
        return Asking(
            provider=self._provider.name,
            conversation_id=form.conversation_id,
            ids=self._ids,
            form=self._claimed.sealed,
        )

    def events(self, *, shown: str = "") -> Iterator[AnswerEvent]:
        """Yield the rest of the answer; `shown` is the text that an earlier owner has shown.

        Raises:
            AnswerError: the form was rejected, or the run failed.
        """
        if not shown:
            self._hand_in()
        ended = False
        try:
            with closing_events(self._forms.resume(self._form, self._query, self._deadline)) as events:
                for event in events:
                    if isinstance(event, ProviderIds):
                        self._ids = event
                    yield event
            ended = True
        except AnswerError:
            ended = not self._deadline.over
            raise
        finally:
            self._leave(ended)

    def _hand_in(self) -> None:
        """Submit the answer, or check whether an earlier owner did.

        Raises:
            FormRefused: the provider rejected it.
            AnswerError: `form_unsent`: the provider still waits, and the form is open again.
        """
        if self._claimed.choice is not None and self._submitted(self._claimed.choice):
            return
        if self._is_open():
            self._settle_open("unsent")
            raise AnswerError("the provider may still wait for an answer", code="form_unsent")

    def _submitted(self, choice: FormChoice) -> bool:
        """Submit the answer; return False if the provider may or may not have received it."""
        try:
            self._forms.submit(self._form, choice, self._query, self._deadline)
        except FormRefused as exc:
            if exc.still_open:
                self._settle_open(exc.code)
            else:
                self._settle_done(exc.code)
            raise
        except ProviderError as exc:
            if exc.unsent:
                self._settle_open("unsent")
                raise AnswerError(str(exc), code="form_unsent") from exc
            if self._deadline.over:
                raise
            log.warning("form may not be submitted", extra={"cause": str(exc), "stream_id": self._asker.stream_id})
            return False
        metrics.FORMS.labels("submitted").inc()
        log.info("form submitted", extra={"stream_id": self._asker.stream_id, "form": form_id(self._form)})
        return True

    def _is_open(self) -> bool:
        """Return whether the provider still waits for an answer; True if it cannot be asked, as it takes one only."""
        try:
            return self._forms.is_open(self._form, self._query, self._deadline)
        except ProviderError as exc:
            if self._deadline.over:
                raise
            log.warning("form not found out about", extra={"cause": str(exc), "stream_id": self._asker.stream_id})
            return True

    def _leave(self, ended: bool) -> None:
        if self._deadline.aborted in LEAVING:
            return
        if not ended:
            self._provider.cancel(self._ids, self._query.user)
        self._settle_done("")

    def _settle_open(self, outcome: str) -> None:
        metrics.FORMS.labels(outcome).inc()
        self._settle("open")

    def _settle_done(self, outcome: str) -> None:
        if outcome:
            metrics.FORMS.labels(outcome).inc()
        self._settle("done")

    def _settle(self, outcome: str) -> None:
        asker = self._asker
        with suppress(StoreUnavailable):
            through_outage(
                lambda: self._store.settle(asker.key, form_id(self._form), asker.stream_id, outcome),  # type: ignore[arg-type]
                SETTLE_SECONDS,
            )


def ids_of(form: PendingForm) -> ProviderIds:
    return ProviderIds(form.conversation_id, form.message_id, form.task_id, form.run_id)
