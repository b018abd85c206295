"""Reads the forms of a paused run from Dify's events, and cuts the answer at the pause."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from services.forms import FormAction, FormInput, PendingForm
from services.models import ProviderIds
from services.providers.client.json_fields import count, mapping, mappings, text

#: Forms of one pause, actions and inputs of one form, and characters of an action's title, that are shown. A run with
#: more forms, or with a larger one, waits for a person by other means.
MAX_FORMS, MAX_ACTIONS, MAX_INPUTS, MAX_TITLE = 5, 20, 10, 200
#: Inputs that a person can give in words. A file has to be chosen elsewhere.
_WORDS = ("paragraph", "text_input", "text-input", "select")
#: Where Dify's own page shows an input within the form's text.
_PLACE = re.compile(r"\{\{#\$output\.([^#{}]+)#\}\}")


def forms_of(events: Iterable[Mapping[str, Any]], ids: ProviderIds, answer: str) -> tuple[PendingForm, ...]:
    """Return the forms of a pause; () unless each of them can be answered in words.

    `events` are the payloads (`data`) of `human_input_required`, or the reasons of `workflow_paused`, which repeat
    them; `answer` is the run's text so far.
    """
    by_token: dict[str, PendingForm] = {}
    first = 1
    for data in events:
        form = _form(data, ids)
        if form is None:
            return ()
        if form.token not in by_token:
            by_token[form.token] = after(answer, replace(form, first=first))
            first += len(form.actions)
    return tuple(by_token.values()) if len(by_token) <= MAX_FORMS else ()


def is_form(reason: Mapping[str, Any]) -> bool:
    """Return whether a reason of a pause is a form."""
    return text(reason.get("TYPE") or reason.get("type")) == "human_input_required"


def after(answer: str, form: PendingForm) -> PendingForm:
    """Return the form of a run that had given this answer before it paused."""
    lead = answer.strip()
    return replace(form, shown=len(lead), shown_digest=digest(lead))


def _form(data: Mapping[str, Any], ids: ProviderIds) -> PendingForm | None:
    token, actions = text(data.get("form_token")), _actions(data)
    inputs, run_id = _inputs(data), ids.run_id
    if not (token and run_id and actions) or inputs is None:
        return None
    return PendingForm(
        token,
        run_id,
        ids.conversation_id,
        ids.message_id,
        ids.task_id,
        actions,
        inputs,
        _PLACE.sub(r"［\1］", text(data.get("form_content"))).strip(),
        float(count(data.get("expiration_time"))),
    )


def _actions(data: Mapping[str, Any]) -> tuple[FormAction, ...]:
    listed = mappings(data.get("actions")) or mappings(data.get("user_actions"))
    named = ((text(each.get("id")), " ".join(text(each.get("title")).split())) for each in listed)
    actions = tuple(FormAction(action, (title or action)[:MAX_TITLE]) for action, title in named if action)
    return actions if len(actions) <= MAX_ACTIONS else ()


def _inputs(data: Mapping[str, Any]) -> tuple[FormInput, ...] | None:
    """Return the form's inputs; None if one of them cannot be given in words."""
    listed, defaults = mappings(data.get("inputs")), mapping(data.get("resolved_default_values"))
    inputs = tuple(_input(each, defaults) for each in listed)
    if any(text(each.get("type")) not in _WORDS for each in listed) or len(inputs) > MAX_INPUTS:
        return None
    return inputs if all(each.name for each in inputs) else None


def _input(data: Mapping[str, Any], defaults: Mapping[str, Any]) -> FormInput:
    name = text(data.get("output_variable_name"))
    value = mapping(data.get("option_source")).get("value")
    options = tuple(text(each) for each in value) if isinstance(value, list) else ()
    constant = mapping(data.get("default")).get("value")
    return FormInput(name, text(defaults.get(name)) or text(constant), tuple(filter(None, options)))


def digest(answer: str) -> str:
    return hashlib.sha256(answer.encode()).hexdigest()[:32]


def rest_of(form: PendingForm, complete: str) -> str:
    """Return a complete answer without its part before the form's pause; all of it if it does not begin with that part.

    Dify continues the message of a paused run: its answer and the run's output begin with the text before the pause.
    """
    answer = complete.lstrip()
    begins = len(answer) >= form.shown and form.shown_digest in ("", digest(answer[: form.shown].strip()))
    return (answer[form.shown :] if begins else answer).lstrip()
