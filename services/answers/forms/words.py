"""The text of a form as a person reads it, and the choice that a person's reply means.

    Do you agree?                     the form's text

    1. Agree                          its choices, numbered
    2. Refuse

    (Reply with a number or ...)      how to answer

An answer is a choice's number or its words. A form that asks for texts takes them after the choice: one text in the
rest of the message, several in one line each.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from config.texts import Texts
from services.answers.forms.form_store import KeptForm, form_id
from services.forms import FormChoice, FormInput, OfferedChoices, PendingForm, clicked_choice

#: Characters of the longest text given to an input; the rest is left out.
MAX_VALUE = 10_000
#: After a choice's number or words a text begins: a space or a mark, or a line break.
_MARKS = " \t\n\u3000、.．。:：,，"
_NUMBER = re.compile(r"(\d{1,3})(?!\d)")


class Chosen(NamedTuple):
    """A form and a person's answer to it."""

    kept: KeptForm
    choice: FormChoice


def shown(forms: Sequence[PendingForm], texts: Texts, *, answerable: bool) -> str:
    """Return the text of a run's forms as Markdown, with a sentence unless they are `answerable` here."""
    asks = any(form.inputs for form in forms)
    key = ("form_inputs" if asks else "form_choose") if answerable else "form_elsewhere"
    return "\n\n".join([*(_form(form, texts) for form in forms), texts.get(key)])


def _form(form: PendingForm, texts: Texts) -> str:
    asked = _asked([action.title for action in form.actions], form.inputs, texts, form.first)
    return "\n\n".join(filter(None, (form.content, asked)))


def _asked(titles: Sequence[str], inputs: Sequence[FormInput], texts: Texts, first: int = 1) -> str:
    """Return a form's numbered choices and the names of the texts that it asks for."""
    choices = "\n".join(f"{number}. {title}" for number, title in enumerate(titles, first))
    wanted = "\n".join(f"- {_input(each)}" for each in inputs)
    return "\n\n".join(filter(None, (choices, f"{texts.get('form_wanted')}\n\n{wanted}" if wanted else "")))


def without_choices(slices: Iterable[str], asks: OfferedChoices, texts: Texts) -> Iterator[str]:
    """Yield the slices of an answer without the numbered choices at its end, which a reader has as buttons."""
    sentence = texts.get("form_inputs" if asks.inputs else "form_choose")
    ending, held = f"{_asked(asks.titles, asks.inputs, texts)}\n\n{sentence}", ""
    for each in slices:
        held += each
        yield held[: -len(ending)]
        held = held[-len(ending) :]
    if held != ending:
        yield held


def _input(wanted: FormInput) -> str:
    return f"{wanted.name}（{' / '.join(wanted.options)}）" if wanted.options else wanted.name


def offered(forms: Sequence[PendingForm]) -> str:
    """Return the choices of a run's only form as JSON, "" for several forms: one click cannot answer them."""
    if len(forms) != 1:
        return ""
    titles = tuple(action.title for action in forms[0].actions)
    return OfferedChoices(form_id(forms[0]), titles, forms[0].inputs).to_json()


def clicked(choice: str, given: Mapping[str, Any], kept: Sequence[KeptForm]) -> Chosen | None:
    """Return the form and the action that `clicked_choice` names, with the texts that were `given` by name.

    A text that was not given is the form's default. None where the person has no such form.
    """
    for each in kept:
        for place, action in enumerate(each.form.actions):
            if choice == clicked_choice(each.form_id, place):
                texts = {one.name: str(given.get(one.name) or one.default)[:MAX_VALUE] for one in each.form.inputs}
                return Chosen(each, FormChoice(action.id, texts))
    return None


def chosen(text: str, kept: Sequence[KeptForm]) -> Chosen | None:
    """Return the form that a text answers, and how; None for a text that is no answer.

    `kept` has the person's forms, the newest first. A number means the forms of the newest run, words the newest form
    that has them. An expired form is meant only where no other is.
    """
    for group in ([each for each in kept if each.state != "expired"], kept):
        if found := _by_number(text, group) or _by_words(text, group):
            return found
    return None


def _by_number(text: str, kept: Sequence[KeptForm]) -> Chosen | None:
    # Full-width digits are digits too; the words after them stay as they are.
    plain = text.strip()
    found = _NUMBER.match(plain)
    if not kept or found is None:
        return None
    number, rest = int(found[1]), plain[found.end() :]
    for each in kept:
        place = number - each.form.first
        if each.form.run_id == kept[0].form.run_id and 0 <= place < len(each.form.actions):
            return _answer(each, place, rest)
    return None


def _by_words(text: str, kept: Iterable[KeptForm]) -> Chosen | None:
    words = text.strip()
    for each in kept:
        # The longest title first: one may be the beginning of another.
        titles = sorted(enumerate(each.form.actions), key=lambda one: -len(one[1].title))
        for place, action in titles:
            if _folded(words) == _folded(action.title):
                return _answer(each, place, "")
            head, rest = words[: len(action.title)], words[len(action.title) :]
            if _folded(head) == _folded(action.title) and (found := _answer(each, place, rest)):
                return found
    return None


def _answer(kept: KeptForm, place: int, rest: str) -> Chosen | None:
    """Return the choice with the texts of `rest`; None if the form asks for none, or they do not fit."""
    if rest and (not kept.form.inputs or rest[0] not in _MARKS):
        return None
    values = _values(kept.form.inputs, rest.lstrip(_MARKS).rstrip())
    return None if values is None else Chosen(kept, FormChoice(kept.form.actions[place].id, values))


def _values(inputs: Sequence[FormInput], rest: str) -> dict[str, str] | None:
    """Return a value for each input, its default where none is given; None for a value that is not offered."""
    lines = [rest] if len(inputs) == 1 else [line.strip() for line in rest.splitlines() if line.strip()]
    if len(lines) > len(inputs) and rest:
        return None
    values = {}
    for place, wanted in enumerate(inputs):
        given = lines[place] if place < len(lines) else ""
        value = _offered(wanted, given) if given else wanted.default
        if value is None:
            return None
        values[wanted.name] = value[:MAX_VALUE]
    return values


def _offered(wanted: FormInput, given: str) -> str | None:
    if not wanted.options:
        return given
    return next((option for option in wanted.options if _folded(option) == _folded(given)), None)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().casefold()
