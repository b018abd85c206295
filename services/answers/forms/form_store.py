"""Open forms of a conversation, and which question answers each.

    {dify_conversation:…}:forms   hash of form id → "<opened> <expires> <person> <stream> <claim> <done> <sealed form>"

A form's id is a digest of its token, `person` a keyed hash of who may answer it, `stream` the stream id of the question
that answered it, `claim` a random name of the attempt, `done` when it was answered; "-" for none. Times are seconds
since 1970 by Redis's clock. The hash expires with its last form. A form under a former secret's name is not found.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from services.conversations.store import forms_key
from services.errors import StoreUnavailable
from services.forms import PendingForm
from services.models import Question
from services.redis.store import Call, ScriptRunner, script
from services.streams.access import Access

#: The longest time that a form can be answered, and the time if the provider names none, in seconds.
LONGEST = 7 * 86400.0
#: Seconds for which an expired form is kept, so that an answer to it gets a sentence and is not taken as a question.
KEPT_AFTER = 3600.0
#: Seconds for which an answered form is kept, so that an answer typed twice is not taken as a question.
KNOWN_AFTER = 60.0
#: Maximal forms in one conversation. One more removes the oldest; a later answer to it is taken as a question.
MOST_FORMS = 16

State = Literal["open", "claimed", "done", "expired"]
Claim = Literal["claimed", "before", "taken", "expired", "gone"]


class KeptForm(NamedTuple):
    """A form as it is stored."""

    form_id: str
    opened: float
    state: State
    #: The stream of the question that answers it, "" for none.
    stream_id: str
    form: PendingForm


class FormStore:
    """Owns the key above. Every method is one round trip, and raises `StoreUnavailable` when Redis is away."""

    def __init__(self, runner: ScriptRunner, access: Access, *, clock: Callable[[], float], now: str = "") -> None:
        """Forms are sealed with the keys of `access`.

        `clock` returns seconds since 1970 as the provider counts them; `now` replaces Redis's clock in tests.
        """
        self._runner = runner
        self._access = access
        self._clock = clock
        self._now = now

    def open(self, key: str, question: Question, form: PendingForm) -> bool:
        """Keep a form that the conversation `key` waits for; return whether it is new."""
        left = form.expires - self._clock() if form.expires else LONGEST
        seconds = max(0.0, min(left, LONGEST))
        args = (self._now, form_id(form), self._person(question), self.sealed(question, form))
        return bool(self._run("form_open", key, *args, seconds, KEPT_AFTER, MOST_FORMS))

    def look(self, key: str, question: Question) -> list[KeptForm]:
        """Return the person's forms in the conversation, the newest first; those that can be decrypted.

        A click names its form, so that one is known as long as it is stored.
        """
        known = LONGEST if question.choice else KNOWN_AFTER
        rows = self._run("form_look", key, self._now, self._person(question), known)
        found = []
        for name, opened, state, stream_id, sealed in rows:
            if form := self.unsealed(question, sealed):
                found.append(KeptForm(name, float(opened), state, stream_id, form))
        return sorted(found, key=lambda kept: (kept.opened, kept.form.first), reverse=True)

    def claim(self, key: str, name: str, stream_id: str, attempt: str) -> Claim:
        """Claim a form for a question's stream; an `attempt` that is repeated gets the same reply."""
        claim: Claim = self._run("form_claim", key, self._now, name, stream_id, attempt)
        return claim

    def settle(self, key: str, name: str, stream_id: str, outcome: Literal["done", "open"]) -> bool:
        """End a question's claim: the form was answered, or it is open again; return whether there was one."""
        return bool(self._run("form_settle", key, self._now, name, stream_id, outcome))

    def sealed(self, question: Question, form: PendingForm) -> str:
        return self._access.sealed(question, form.to_json())

    def unsealed(self, question: Question, sealed: str) -> PendingForm | None:
        """Return the form of a sealed text; None where it cannot be read."""
        try:
            return PendingForm.from_json(self._access.unsealed(question, sealed))
        except (ValueError, KeyError, TypeError, StoreUnavailable):
            return None

    def _person(self, question: Question) -> str:
        return self._access.person(question)

    def _run(self, name: str, key: str, *args: str | float) -> Any:
        return self._runner.run([Call(script(name), (forms_key(key),), args)])[0]


def form_id(form: PendingForm) -> str:
    """Return the id of a form, which does not reveal its token."""
    return hashlib.sha256(form.token.encode()).hexdigest()[:24]


def new_attempt() -> str:
    return secrets.token_hex(8)
