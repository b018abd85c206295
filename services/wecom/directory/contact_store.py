"""The contacts of the people of one directory, in Redis.

    dify_contact:<source>:<userid>         string, sealed JSON {userid, name, department}; a week from the look-up
    dify_contact:<source>:<userid>:asked   string; the person was looked up within the hour, with any result
    dify_contact_away:<source>             string, "late" or "failed"; a question's wait timed out, or a look-up
                                           failed: no question waits until a look-up succeeds
    dify_contact_rest:<source>             string; a look-up failed in the last 30 seconds: none begins
    dify_contact_department:<source>:<id>  string, the department's name; an hour

`<source>` is a fingerprint of the directory (`access_token_store.py`). The lock `contact:<source>:<userid>` is
held during a look-up. The keys are in different slots of a Cluster, so each step is a pipeline of plain
commands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from services.models import Contact
from services.redis.store import Call, ScriptRunner
from utils.keyring import Keyring, keys_of
from utils.sealed import seal, unseal_any

#: Seconds between two look-ups of a person, and seconds for which a contact is kept.
ASKED_SECONDS, KEPT_SECONDS = 3600, 604_800
#: Seconds without look-ups after a failure, and seconds without waits unless a look-up succeeds earlier.
REST_SECONDS, AWAY_SECONDS = 30, 86_400


@dataclass(frozen=True, slots=True)
class Known:
    """A person's contact in Redis, and the state of the look-up and of the directory."""

    #: None for a person who was not found yet.
    contact: Contact | None
    asked: bool
    #: Whether a replica looks the person up now.
    running: bool
    #: Whether questions do not wait, because the directory failed or was slow and has not answered since.
    away: bool
    #: Whether no look-up begins, because one failed in the last `REST_SECONDS`.
    rests: bool

    @property
    def due(self) -> bool:
        """Whether the person may be looked up now."""
        return not (self.asked or self.running or self.rests)


class ContactStore:
    """Owns the keys above. Every method is one round trip and may raise `StoreUnavailable`."""

    def __init__(self, runner: ScriptRunner, *, source: str, keys: Keyring) -> None:
        self._runner = runner
        self._source = source
        self._keys = keys
        self._away, self._rest = f"dify_contact_away:{source}", f"dify_contact_rest:{source}"

    def lock(self, userid: str) -> str:
        """Return the name of the lock of a person's look-up."""
        return f"contact:{self._source}:{userid}"

    def load(self, userid: str) -> Known:
        """Return a person's contact, and the state of the look-up and of the directory."""
        key = self._key(userid)
        flags = (f"{key}:asked", f"dify_lock:{self.lock(userid)}", self._away, self._rest)
        commands = [("GET", key), *(("EXISTS", flag) for flag in flags)]
        sealed, *set_flags = self._runner.run([Call(None, command) for command in commands])
        return Known(self._opened(sealed or ""), *(bool(flag) for flag in set_flags))

    def contacts(self, userids: Sequence[str]) -> dict[str, Contact]:
        """Return the contacts of those people who have one."""
        sealed = self._runner.run([Call(None, ("GET", self._key(userid))) for userid in userids])
        opened = {userid: self._opened(one or "") for userid, one in zip(userids, sealed, strict=True)}
        return {userid: contact for userid, contact in opened.items() if contact}

    def claim(self, userid: str) -> bool:
        """Take the person's one look-up of this hour; False if it was taken already."""
        call = Call(None, ("SET", f"{self._key(userid)}:asked"), ("1", "NX", "EX", ASKED_SECONDS))
        # One attempt: after a lost reply a second one would find its own claim, and return False.
        return bool(self._runner.run([call], attempts=1)[0])

    def save(self, userid: str, contact: Contact) -> None:
        """Store a person's contact."""
        sealed = seal(keys_of(self._keys)[0], json.dumps(asdict(contact), ensure_ascii=False))
        self._runner.run([Call(None, ("SET", self._key(userid)), (sealed, "EX", KEPT_SECONDS))])

    def note_late(self) -> None:
        """Store that a question's wait timed out: until `note_answer` no question waits."""
        self._runner.run([Call(None, ("SET", self._away), ("late", "NX", "EX", AWAY_SECONDS))])

    def note_failure(self) -> bool:
        """Store that a look-up failed; return whether this is the first failure since the last success."""
        rest = Call(None, ("SET", self._rest), ("1", "EX", REST_SECONDS))
        away = Call(None, ("SET", self._away), ("failed", "EX", AWAY_SECONDS))
        return bool(self._runner.run([Call(None, ("GET", self._away)), rest, away])[0] != "failed")

    def note_answer(self) -> bool:
        """Store that a look-up succeeded; return whether the directory was away before."""
        return bool(self._runner.run([Call(None, ("DEL", key)) for key in (self._away, self._rest)])[0])

    def departments(self, numbers: Sequence[int]) -> dict[int, str]:
        """Return the names of those departments that were looked up within the hour."""
        names = self._runner.run([Call(None, ("GET", self._department(number))) for number in numbers])
        return {number: name for number, name in zip(numbers, names, strict=True) if name is not None}

    def save_departments(self, names: Mapping[int, str]) -> None:
        """Store the names of departments for an hour."""
        self._runner.run(
            [
                Call(None, ("SET", self._department(number)), (name, "EX", ASKED_SECONDS))
                for number, name in names.items()
            ]
        )

    def _opened(self, sealed: str) -> Contact | None:
        """Return a stored contact; None without one, or if these keys do not open it."""
        try:
            written = json.loads(unseal_any(keys_of(self._keys), sealed))
        except ValueError:
            return None
        return Contact(**{one.name: str(written.get(one.name, "")) for one in fields(Contact)})

    def _key(self, userid: str) -> str:
        return f"dify_contact:{self._source}:{userid}"

    def _department(self, number: int) -> str:
        return f"dify_contact_department:{self._source}:{number}"
