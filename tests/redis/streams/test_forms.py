"""The claim on a form, step by step, on two replicas that share a Redis."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from services.answers.forms.conversation_forms import ConversationForms, FormQuestion
from services.answers.forms.form_store import MOST_FORMS, FormStore
from services.conversations.store import forms_key
from services.errors import AnswerError
from services.forms import FormAction, FormChoice, PendingForm
from services.models import Question
from services.redis.store import Call, ScriptRunner
from services.streams.access import Access
from tests.support.texts import KEYS

QUESTION = Question("1", "wecom", "default", "zhangsan")
KEY = "dify_conversation:app:a:b:c"


@pytest.fixture
def store(runner: ScriptRunner) -> FormStore:
    return FormStore(runner, Access({"default": b"k" * 32}), clock=time.time)


def form(token: str = "token", *, first: int = 1) -> PendingForm:
    return PendingForm(token, f"run-{token}", actions=(FormAction("yes", "好"),), content="好吗？", first=first)


def forms_for(store: FormStore, stream_id: str, text: str = "1", principal: str = "zhangsan") -> ConversationForms:
    asker = FormQuestion(replace(QUESTION, text=text, principal=principal), stream_id, KEY)
    return ConversationForms(store, asker, texts=KEYS)


def test_a_claim_is_made_once_and_known_to_the_next_owner(store: FormStore) -> None:
    """The owner that claimed it submits the choice; a later owner of the same stream never does."""
    forms_for(store, "asking").show("", [form()])

    first, second = forms_for(store, "s").claim(), forms_for(store, "s").claim()

    assert first
    assert second
    assert (first.choice, second.choice) == (FormChoice("yes", {}), None)
    assert second.form == replace(form(), content="")


def test_another_question_does_not_get_a_claimed_form(store: FormStore) -> None:
    """Not while the run goes on, and not at once after it."""
    forms_for(store, "asking").show("", [form()])
    claimed = forms_for(store, "s").claim()
    assert claimed

    for outcome in ("", "done"):
        if outcome:
            store.settle(KEY, store.look(KEY, QUESTION)[0].form_id, "s", "done")
        with pytest.raises(AnswerError) as caught:
            forms_for(store, "t").claim()
        assert caught.value.code == "form_answered"


def test_a_form_that_is_opened_again_by_a_takeover_stays_claimed(store: FormStore) -> None:
    """The pause is told twice, by two owners of its stream; the choice came in between."""
    forms_for(store, "asking").show("", [form()])
    forms_for(store, "s").claim()
    forms_for(store, "asking").show("", [form()])

    with pytest.raises(AnswerError):
        forms_for(store, "t").claim()


def test_only_the_person_who_asked_has_the_form(store: FormStore) -> None:
    """Also where a group shares the conversation."""
    forms_for(store, "asking").show("", [form()])

    assert forms_for(store, "s", principal="lisi").claim() is None
    assert forms_for(store, "s").claim()


def test_a_conversation_keeps_a_bounded_number_of_forms(store: FormStore, runner: ScriptRunner) -> None:
    """The oldest one is forgotten."""
    for number in range(MOST_FORMS + 2):
        later = FormStore(runner, Access({"default": b"k" * 32}), clock=time.time, now=str(time.time() + number))
        forms_for(later, "asking").show("", [form(f"t{number}")])

    kept = [each.form.token for each in later.look(KEY, QUESTION)]

    assert (len(kept), kept[0], "t1" in kept) == (MOST_FORMS, f"t{MOST_FORMS + 1}", False)


def test_the_forms_expire_with_the_last_of_them(store: FormStore, runner: ScriptRunner) -> None:
    """The key lives an hour longer than the form."""
    forms_for(store, "asking").show("", [replace(form(), expires=time.time() + 600)])

    (seconds,) = runner.run([Call(None, ("TTL", forms_key(KEY)))])

    assert 4100 < seconds <= 4200


def test_a_form_under_another_key_is_no_form(store: FormStore, runner: ScriptRunner) -> None:
    """A replica without the secret cannot read it, and asks the words as a question."""
    forms_for(store, "asking").show("", [form()])
    other = FormStore(runner, Access({"default": b"x" * 32}), clock=time.time)

    assert forms_for(other, "s").claim() is None
