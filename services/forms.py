"""Forms: the question of a paused run to a person, and the person's choice, in words or by a click."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import NamedTuple

#: The form of what `clicked_choice` writes.
CLICKED_CHOICE = r"[0-9a-f]{24} \d{1,2}"


@dataclass(frozen=True, slots=True)
class FormAction:
    """One choice of a form."""

    id: str
    title: str


@dataclass(frozen=True, slots=True)
class FormInput:
    """A text that a person enters in a form beside the choice."""

    name: str
    default: str = ""
    #: The values that may be given; () for any text.
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PendingForm:
    """A form of a run that has paused: the run goes on when a person chooses one of the actions."""

    #: A credential: with it alone the form can be submitted.
    token: str = field(repr=False)
    #: The provider's ids of the run, as in `ProviderIds`.
    run_id: str
    conversation_id: str = ""
    message_id: str = ""
    task_id: str = ""
    actions: tuple[FormAction, ...] = field(default=(), repr=False)
    inputs: tuple[FormInput, ...] = field(default=(), repr=False)
    #: The text that the person reads, Markdown.
    content: str = field(default="", repr=False)
    #: When the provider stops accepting it, in seconds since 1970; 0.0 if unknown.
    expires: float = 0.0
    #: The run's answer before the pause: its characters, and a digest of them, "" if it is not known.
    shown: int = 0
    shown_digest: str = ""
    #: The number that the first action is shown with.
    first: int = 1

    def to_json(self) -> str:
        """Return the form as it is stored, to be submitted later; its text is left out."""
        return json.dumps({**asdict(self), "content": ""}, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> PendingForm:
        """Return the form that a replica of any version wrote. Unknown fields are ignored.

        Raises:
            ValueError, KeyError, TypeError: the text is not a form.
        """
        written = json.loads(text)
        known = {field.name: written[field.name] for field in fields(cls) if field.name in written}
        known["actions"] = tuple(FormAction(each["id"], each["title"]) for each in written["actions"])
        inputs = written.get("inputs", ())
        known["inputs"] = tuple(FormInput(each["name"], each["default"], tuple(each["options"])) for each in inputs)
        return cls(**known)


@dataclass(frozen=True, slots=True)
class FormChoice:
    """A person's answer to a form: an action, and a text for each input."""

    action: str
    inputs: Mapping[str, str] = field(default_factory=dict, repr=False)


class OfferedChoices(NamedTuple):
    """A form that one click can submit, for a card or a page: its choices, and the texts that it asks for."""

    #: The form's id, from which its token cannot be derived.
    form_id: str
    titles: tuple[str, ...]
    #: Without their defaults. A card has no fields for them.
    inputs: tuple[FormInput, ...] = ()

    def to_json(self) -> str:
        inputs = [[each.name, *each.options] for each in self.inputs]
        written = (
            [self.form_id, *self.titles] if not inputs else {"form": [self.form_id, *self.titles], "inputs": inputs}
        )
        return json.dumps(written, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> OfferedChoices:
        written = json.loads(text)
        form, inputs = (written["form"], written["inputs"]) if isinstance(written, dict) else (written, [])
        form_id, *titles = form
        return cls(form_id, tuple(titles), tuple(FormInput(name, options=tuple(options)) for name, *options in inputs))


def clicked_choice(form_id: str, place: int) -> str:
    """Return the text that names the action at this place of a form, from 0 on."""
    return f"{form_id} {place}"
