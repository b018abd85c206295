"""Finds a person's name and departments within a bounded wait: in Redis, else by one look-up in WeCom's directory."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from services import metrics
from services.errors import ProviderError, StoreUnavailable
from services.models import Contact
from services.redis.lock_store import LockStore
from services.wecom.directory.access_token_store import TokenAccess
from services.wecom.directory.api_service import BAD_PERSON, BAD_TOKEN, ContactsApi, ContactsRefused, Person
from services.wecom.directory.contact_store import ContactStore
from utils.deadline import Deadline, ended_in_time

log = logging.getLogger(__name__)

#: The most departments whose names are looked up for one person.
MOST_DEPARTMENTS = 5
#: Characters of the joined names.
MOST_TEXT = 200
#: The most look-ups at once in one process. A question waits `DirectoryTimeouts.wait` at most for one of them.
MOST_LOOKUPS = 20


@dataclass(frozen=True, slots=True)
class DirectoryTimeouts:
    """Timeouts in seconds."""

    #: A question's wait for a person who is not known yet.
    wait: float = 1.5
    #: One look-up with all its calls.
    lookup: float = 8.0
    #: The pause between two reads of a result that another thread or replica stores.
    poll: float = 0.05

    @property
    def lock(self) -> float:
        """The expiry of a look-up's lock. After a crash the next question may begin another look-up then."""
        return self.lookup + 2.0


class DirectoryParts(NamedTuple):
    """The API and the stores of one directory."""

    api: ContactsApi
    access: TokenAccess
    store: ContactStore
    locks: LockStore


class Directory:
    """The directory of one company. Thread-safe."""

    def __init__(
        self,
        parts: DirectoryParts,
        *,
        timeouts: DirectoryTimeouts = DirectoryTimeouts(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._access, self._store, self._locks = parts
        self._timeouts = timeouts
        self._clock = clock
        self._slots = threading.BoundedSemaphore(MOST_LOOKUPS)
        #: Whether the last userid that was found was encrypted: then the next one probably is, too.
        self._encrypted = False

    def find(self, userid: str) -> Contact:
        """Return a person's contact, and begin a look-up if one is due. Never raises.

        A stored contact is returned at once; its look-up serves the next question. Without one this waits for the
        look-up, unless an earlier wait timed out or a look-up failed, and none has succeeded since.
        """
        try:
            return self._find(userid) if userid else Contact()
        except StoreUnavailable:
            return Contact()

    def known(self, userids: Sequence[str]) -> dict[str, Contact]:
        """Return the stored contacts of those people who have one, in one round trip. Begins no look-up.

        Raises:
            StoreUnavailable: Redis is away.
        """
        return self._store.contacts(userids)

    def close(self) -> None:
        """Close the pooled connections."""
        self._api.close()

    def _find(self, userid: str) -> Contact:
        end = self._clock() + self._timeouts.wait
        known = self._store.load(userid)
        begun = known.due and self._begin(userid, wait=0.0 if known.contact or known.away else self._timeouts.wait)
        if known.contact or known.away or not (begun or known.running):
            return known.contact or Contact()
        while self._clock() < end:
            time.sleep(self._timeouts.poll)
            known = self._store.load(userid)
            if known.contact or not known.running:
                return known.contact or Contact()
        self._store.note_late()
        metrics.CONTACT_LOOKUPS.labels("late").inc()
        return Contact()

    def _begin(self, userid: str, *, wait: float) -> bool:
        """Start a look-up in a thread, unless a thread or replica runs one already; return whether one runs."""
        if not self._slots.acquire(timeout=wait):
            metrics.CONTACT_LOOKUPS.labels("full").inc()
            return False
        try:
            held = self._locks.acquire(self._store.lock(userid), self._timeouts.lock)
        except StoreUnavailable:
            self._slots.release()
            raise
        if held is None:
            self._slots.release()
            return True
        threading.Thread(target=self._run, args=(userid, held), name="contact", daemon=True).start()
        return True

    def _run(self, userid: str, held: str) -> None:
        """Look a person up and store the result, then release the lock, so that waiting questions read the result."""
        try:
            metrics.CONTACT_LOOKUPS.labels(self._outcome(userid)).inc()
        except Exception:
            log.exception("directory look-up broke off")
        finally:
            self._slots.release()
            with suppress(StoreUnavailable):
                self._locks.release(self._store.lock(userid), held)

    def _outcome(self, userid: str) -> str:
        try:
            with ended_in_time(self._timeouts.lookup) as deadline:
                found = self._look_up(userid, deadline)
            if found is not None and self._store.note_answer():
                log.info("directory answers again")
        except StoreUnavailable:
            return "failed"
        except ProviderError as exc:
            return self._failed(exc)
        return "found" if found else "skipped" if found is None else "unknown"

    def _look_up(self, userid: str, deadline: Deadline) -> bool | None:
        """Return whether the person was found; None if this hour's look-up was taken already."""
        # The token first: a replica that is killed or refused while it renews the token must not use up the claim.
        self._access.token(deadline)
        if not self._store.claim(userid):
            return None
        try:
            person = self._access.use(lambda token: self._person(token, userid, deadline), deadline)
        except ContactsRefused as exc:
            if exc.errcode in BAD_PERSON:
                return False
            raise
        department = ", ".join(filter(None, self._departments(person, deadline)))[:MOST_TEXT]
        self._store.save(userid, Contact(person.userid, person.name, department))
        return True

    def _person(self, token: str, userid: str, deadline: Deadline) -> Person:
        """Return a person by a plain or an encrypted userid. The form of the last person's id is tried first."""
        if self._encrypted and (plain := self._plain(token, userid, deadline)):
            return self._api.person(token, plain, deadline)
        try:
            person = self._api.person(token, userid, deadline)
        except ContactsRefused as exc:
            plain = self._plain(token, userid, deadline) if exc.errcode in BAD_PERSON else ""
            if not plain:
                raise
            self._encrypted = True
            return self._api.person(token, plain, deadline)
        self._encrypted = False
        return person

    def _plain(self, token: str, userid: str, deadline: Deadline) -> str:
        """Return the plain form of an encrypted userid; "" if WeCom does not convert it."""
        try:
            return self._api.plain_userid(token, userid, deadline)
        except ContactsRefused as exc:
            if exc.errcode in BAD_TOKEN:
                raise
            return ""

    def _departments(self, person: Person, deadline: Deadline) -> list[str]:
        """Return the names of a person's departments. A name that WeCom refuses is "" for an hour."""
        numbers = person.departments[:MOST_DEPARTMENTS]
        names = self._store.departments(numbers) if numbers else {}
        found: dict[int, str] = {}
        for number in (one for one in numbers if one not in names):
            try:
                found[number] = self._access.use(self._department(number, deadline), deadline)
            except ContactsRefused:
                found[number] = ""
            except ProviderError:
                break
        if found:
            self._store.save_departments(found)
        return [(names | found).get(number, "") for number in numbers]

    def _department(self, number: int, deadline: Deadline) -> Callable[[str], str]:
        return lambda token: self._api.department(token, number, deadline)

    def _failed(self, exc: ProviderError) -> str:
        """Store a failed look-up, so that none begins for a while; log the first failure."""
        with suppress(StoreUnavailable):
            if self._store.note_failure():
                log.warning("directory look-up failed", extra={"cause": str(exc)})
        return "failed"
