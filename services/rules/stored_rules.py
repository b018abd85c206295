"""Rules that administrators edit: versions in the database, of which the newest one of a kind is in force.

Each replica looks for newer ones every `LOOK_SECONDS`, in a thread of its own. While the database is away the last
known rules stay in force; a replica that starts then takes the copy in Redis. Until it has either, it refuses the
questions that the rules are about: they could be ones that nobody may ask.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar, cast

from services import metrics
from services.errors import AnswerError, StoreUnavailable
from services.rounds import Rounds
from services.rules.copy_store import RulesCopyStore

log = logging.getLogger(__name__)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Kind = Literal["access", "quotas", "words"]
#: The setting of each kind. Where it names a file, that file rules, and no version does.
SETTINGS: Mapping[Kind, str] = {"access": "ACCESS_FILE", "quotas": "QUOTAS_FILE", "words": "WORDS_FILE"}

#: Seconds between two looks, for which one that found nothing also answers those who ask.
LOOK_SECONDS = 5.0
#: Seconds for which a start waits for the first look: a replica that gets questions knows what rules there are, unless
#: the database is away.
FIRST_LOOK_SECONDS = 2.0
STOP_SECONDS = 1.0


class Rules(Protocol[T_co]):
    """The rules of one kind, from wherever: read them anew for each question."""

    @property
    def setting(self) -> str: ...

    @property
    def rules(self) -> T_co:
        """Return those in force. May look for them first; not for callbacks.

        Raises:
            AnswerError: `store_unavailable`, they are not known.
        """

    @property
    def at_hand(self) -> T_co | None:
        """Return those in force, without a wait; None while they are not known."""


class Version(NamedTuple):
    """A version without its text; number 0 is none at all."""

    number: int = 0
    saved_at: datetime | None = None
    saved_by: str = ""
    note: str | None = None
    #: The number of the version whose text it has again.
    restores: int | None = None

    @property
    def mark(self) -> str:
        """What tells it from others, also from one of the same number before a dump was restored."""
        return f"{self.number} {self.saved_at.isoformat() if self.saved_at else ''}"


class Versions(Protocol):
    """The versions in the database, as `RulesStore` has them."""

    def newest(self) -> Mapping[str, Version] | None:
        """Return the newest version of each kind that has one; None where their table is not there (yet)."""

    def text(self, kind: str, number: int) -> str | None: ...


def parsed(text: str, parse: Callable[[str], T], without: T) -> T:
    """Return the rules of a version; `without` for an emptied text, which ends the rules.

    Raises:
        ValueError: the text is broken; the message says what was expected.
    """
    try:
        return parse(text) if text.strip() else without
    except RecursionError as exc:
        raise ValueError("a text that is nested less deeply") from exc


class StoredRules(Generic[T]):
    """The rules of one kind, as the newest version has them."""

    def __init__(self, kind: Kind, parse: Callable[[str], T], without: T, settle: Callable[[], None]) -> None:
        self.kind: Kind = kind
        self.setting = SETTINGS[kind]
        self._parse = parse
        self._without = without
        self._settle = settle
        #: Those in force; None until they are known.
        self.at_hand: T | None = None
        #: The newest version that was found, and its text, which may be broken: then `problem` says why.
        self.mark, self.text, self.problem = "", "", ""
        #: The version in force.
        self.number: int | None = None

    @property
    def rules(self) -> T:
        """Return those in force, as `Rules` has it."""
        if self.at_hand is None:
            self._settle()
        if self.at_hand is None:
            raise AnswerError(f"the rules of {self.setting} are not known", code="store_unavailable")
        return self.at_hand

    def take(self, mark: str, text: str) -> None:
        """Put a version in force. A broken one, such as with an app that this replica lacks, changes nothing."""
        self.mark, self.text = mark, text
        try:
            self.at_hand = parsed(text, self._parse, self._without)
        except ValueError as exc:
            self.problem = str(exc)
            log.error("rules not read", extra={"setting": self.setting, "cause": self.problem})
        else:
            self.problem = ""
            self.number = int(mark.partition(" ")[0])
            if self.number:
                log.info("rules read", extra={"setting": self.setting, "version": self.number})
        metrics.RULES_BROKEN.labels(self.setting).set(bool(self.problem))


class RulesVersions:
    """The kinds of rules that one replica has from the database."""

    def __init__(
        self, database: Versions, copy: RulesCopyStore, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._copy = copy
        self._clock = clock
        self.kinds: dict[Kind, StoredRules[object]] = {}
        self._looking = threading.Lock()
        self._looked = threading.Event()
        #: When a look last failed, and whether the log has it.
        self._failed: float | None = None
        self._away = False
        self._rounds = Rounds("rules-versions", self.look, pause=LOOK_SECONDS)

    def open(self, kind: Kind, parse: Callable[[str], T], without: T) -> StoredRules[T]:
        """Return the rules of a kind, the same object each time."""
        known = self.kinds.get(kind) or StoredRules(kind, parse, without, self._settle)
        self.kinds[kind] = known
        return cast(StoredRules[T], known)

    def start(self) -> None:
        """Start the thread, and wait for its first look."""
        if self.kinds:
            self._rounds.start()
            self._looked.wait(FIRST_LOOK_SECONDS)

    def close(self) -> None:
        self._rounds.stop()
        self._rounds.join(STOP_SECONDS)

    def look(self) -> float:
        """Take what is newer than the rules in force; return the seconds until the next look."""
        try:
            with self._looking:
                self._look()
        finally:
            self._looked.set()
        return LOOK_SECONDS

    def _settle(self) -> None:
        """Look now, for somebody who needs rules that are not known, unless a look has just failed."""
        with self._looking:
            recently = self._failed is not None and self._clock() - self._failed < LOOK_SECONDS
            if not recently and any(self._unknown()):
                self._look()

    def _look(self) -> None:
        try:
            newest = self._database.newest()
            if newest is not None:
                self._take(newest)
        except StoreUnavailable as exc:
            self._note_away(str(exc))
            self._take_copies()
            return
        if newest is None:
            # A fresh database, which is being migrated, or one that does not grant the table.
            self._note_away("the table is not there", logging.INFO)
            self._take_copies()
            # Nothing was ever saved, unless the copy knows better.
            for rules in self._unknown():
                rules.take(Version().mark, "")
            return
        if self._away:
            log.info("rules are looked up again")
        self._away, self._failed = False, None
        with suppress(StoreUnavailable):
            self._copy_out()

    def _take(self, newest: Mapping[str, Version]) -> None:
        for rules in self.kinds.values():
            version = newest.get(rules.kind, Version())
            if rules.mark == version.mark:
                continue
            text = self._database.text(rules.kind, version.number) if version.number else ""
            if text is not None:
                rules.take(version.mark, text)

    def _copy_out(self) -> None:
        """Write the copies that are missing, or of another version."""
        copied = self._copy.marks(list(self.kinds))
        for kind, rules in self.kinds.items():
            if rules.mark and copied[kind] != rules.mark:
                self._copy.write(kind, rules.mark, rules.text)

    def _take_copies(self) -> None:
        """Take the copy of each kind that is not known."""
        with suppress(StoreUnavailable):
            for rules in self._unknown():
                if found := self._copy.read(rules.kind):
                    rules.take(*found)

    def _unknown(self) -> Iterator[StoredRules[object]]:
        return (rules for rules in self.kinds.values() if rules.at_hand is None)

    def _note_away(self, cause: str, level: int = logging.WARNING) -> None:
        self._failed = self._clock()
        if not self._away:
            log.log(level, "rules are not looked up: the last known ones stay in force", extra={"cause": cause})
        self._away = True
