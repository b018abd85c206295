"""The forms of one question's conversation: shows those that its run asks, and finds the one that it answers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from config.texts import Texts
from services import metrics
from services.answers.forms import words
from services.answers.forms.form_run import ClaimedForm, FormQuestion, FormRun
from services.answers.forms.form_store import FormStore, form_id, new_attempt
from services.conversations.memory import through_outage
from services.errors import AnswerError
from services.forms import PendingForm
from services.models import Past, Query, Question
from services.providers.base import BaseRAGProvider
from services.streams.answer_events import AnswerEvent
from utils.deadline import Deadline

log = logging.getLogger(__name__)


class AnswerForms:
    """The forms of all questions."""

    def __init__(self, store: FormStore, texts: Texts) -> None:
        self._store = store
        self._texts = texts

    def of(self, question: Question, stream_id: str, key: str) -> ConversationForms:
        """Return the forms for one question of the conversation `key`, "" for none."""
        return ConversationForms(self._store, FormQuestion(question, stream_id, key), texts=self._texts)


class ConversationForms:
    """Forms for one question. Without a conversation (`key` is "") forms are shown, and none is kept."""

    def __init__(self, store: FormStore, asker: FormQuestion, *, texts: Texts) -> None:
        self._store = store
        self._asker = asker
        self._texts = texts

    def show(self, said: str, forms: Sequence[PendingForm]) -> str:
        """Keep the forms of a run, and return the text that goes after the answer so far.

        They are kept before anybody reads them, so that an answer finds them.

        Raises:
            StoreUnavailable: Redis is away.
        """
        asker = self._asker
        for form in forms if asker.key else ():
            if through_outage(lambda: self._store.open(asker.key, asker.question, form)):  # noqa: B023 - called here
                metrics.FORMS.labels("asked").inc()
                log.info("form asked", extra={"stream_id": asker.stream_id, "form": form_id(form)})
        text = words.shown(forms, self._texts, answerable=bool(asker.key))
        return f"\n\n{text}" if said.strip() else text

    def continued(
        self, provider: BaseRAGProvider, query: Query, deadline: Deadline, past: Past | None, *, any_open: bool
    ) -> Iterator[AnswerEvent] | None:
        """Return the events of the run that the question continues; None for a question that answers no form.

        `past` is what earlier owners of the stream did, `any_open` whether the conversation has forms.

        Raises:
            AnswerError: as `claim` and `claimed_before` do.
        """
        if provider.forms is None:
            if self._asker.question.choice:
                raise AnswerError("the provider has no forms", code="form_gone")
            return None
        if past and past.asks:
            form = self.claimed_before(past.form) if past.form else None
        else:
            form = self.claim() if any_open or self._asker.question.choice else None
        if form is None:
            return None
        return FormRun(self._store, provider, form, self._asker, query, deadline).answer(past, self.show)

    def claim(self) -> ClaimedForm | None:
        """Claim the form that the question answers; None for a question that answers none.

        Raises:
            AnswerError: `form_answered` or `form_expired`: the words are a choice, but it is too late. `form_gone`: a
                click, which is no question, on a form that is not known.
            StoreUnavailable: Redis is away.
        """
        store, asker = self._store, self._asker
        kept = through_outage(lambda: store.look(asker.key, asker.question))
        mine = next((each for each in kept if each.stream_id == asker.stream_id), None)
        if mine:
            return ClaimedForm(mine.form, None, store.sealed(asker.question, mine.form))
        clicked = asker.question.choice
        found = words.clicked(clicked, kept) if clicked else words.chosen(asker.question.text, kept)
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
