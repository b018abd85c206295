"""Counts ended streams, in two threads of each replica: one works off the queue in Redis, one deletes what is old.

No answer waits for it. While SQL is away the streams stay in the queue; one that expires meanwhile is lost, counted and
logged. A replica that is killed leaves its entries claimed for `LEASE` seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from config.errors import LaibaoError
from services import metrics
from services.errors import StoreUnavailable
from services.models import Contact, Question
from services.redis.lock_store import LockStore
from services.rounds import Rounds
from services.rules.departments import Departments
from services.rules.rules_file import RulesFile
from services.sql.database import SqlFailed
from services.usage.ended_store import EndedStore, StoredStream
from services.usage.records import Entry, EntryMaker, ended_question
from services.usage.sql_store import SqlUsageStore

log = logging.getLogger(__name__)

#: Seconds between two looks at the queue, and streams of one transaction. A log with words reads fewer at once.
PAUSE = 1.0
AT_ONCE, AT_ONCE_WITH_WORDS = 200, 50
#: Seconds for which a stream that is missing in Redis, or whose end is not written there, is looked for again: its
#: node may be slower than that of the queue.
LATE_SECONDS, LATE_PAUSE = 15.0, 2.0
#: The longest pause in seconds between two attempts while SQL is away.
LONGEST_AWAY = 15.0
#: Seconds between two searches for what is old, and for which one replica alone does that.
CLEAN_SECONDS, LOCK_SECONDS = 600.0, 300.0
#: Seconds after the start until the first one.
FIRST_SECONDS = 60.0
LOCK = "usage_clean"
STOP_SECONDS = 3.0
#: Error numbers of a value that a column cannot have: MySQL's (too long, out of range, wrong) and SQLite's.
REJECTED = (1406, 1264, 1265, 1366, 18, 20)

#: Returns the contacts of those people whom a bot's directory has named before.
KnownContacts = Callable[[Sequence[str]], Mapping[str, Contact]]


@dataclass(slots=True)
class _Claim:
    """Claimed entries of the queue, by what becomes of them."""

    #: Streams that have ended, with the entry, the id, the time of the end, and the question.
    found: list[tuple[str, str, float, StoredStream, Question]] = field(default_factory=list)
    #: Entries to look at again.
    late: list[str] = field(default_factory=list)
    #: Entries whose stream has expired or cannot be read.
    lost: list[str] = field(default_factory=list)
    #: Entries of streams that still run: their end queues them again.
    running: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long the log is kept: days, days of its words, and the hour of the day at which these are over."""

    days: int
    words_days: int
    hour: int


class UsageWriter:
    """Works off the queue of ended streams, together with all other replicas."""

    def __init__(
        self,
        ended: EndedStore,
        sql: SqlUsageStore,
        maker: EntryMaker,
        *,
        contacts: Mapping[str, KnownContacts],
        departments: RulesFile[Departments] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the look-up of each bot that has a directory; `departments` are those of a file of the company."""
        self._ended = ended
        self._sql = sql
        self._maker = maker
        self._contacts = contacts
        self._departments = departments
        self._clock = clock
        self._at_once = AT_ONCE_WITH_WORDS if maker.text_bytes else AT_ONCE
        #: While SQL is away: when it is tried again, and the pause after that.
        self._away_until, self._pause = 0.0, 0.0
        self._rounds = Rounds("usage", self.work, pause=PAUSE)

    def start(self) -> None:
        self._rounds.start()

    def close(self) -> None:
        """End the thread; another replica later counts the streams that it has claimed."""
        self._rounds.stop()
        self._rounds.join(STOP_SECONDS)

    def work(self) -> float:
        """Count the streams that are due; return the seconds until the next call.

        Raises:
            StoreUnavailable: Redis is away.
        """
        if (wait := self._away_until - self._clock()) > 0:
            return wait
        claimed = self._ended.claim(self._at_once)
        metrics.USAGE_WAITING.set(claimed.waiting)
        if claimed.dropped:
            metrics.USAGE_STREAMS.labels("dropped").inc(claimed.dropped)
            log.error("questions not logged: the queue was full", extra={"count": claimed.dropped})
        if not claimed.entries:
            return PAUSE
        claim = self._read(claimed.entries, claimed.now)
        if self._saved(claim):
            done = [entry for entry, *_ in claim.found]
            self._ended.settle([*done, *claim.lost, *claim.running], claim.late, delay=LATE_PAUSE)
        else:
            self._ended.settle([], claimed.entries)
        return 0.0 if len(claimed.entries) == self._at_once else PAUSE

    def _read(self, entries: Sequence[str], now: float) -> _Claim:
        split = [(entry, *entry.split(" ", 1)) for entry in entries]
        streams = self._ended.read([stream_id for _, stream_id, _ in split], text_bytes=self._maker.text_bytes)
        claim = _Claim()
        for (entry, stream_id, ended), stream in zip(split, streams, strict=True):
            is_missing = stream is None or (isinstance(stream, StoredStream) and stream.status == "processing")
            if isinstance(stream, StoreUnavailable) or (is_missing and now - float(ended) < LATE_SECONDS):
                claim.late.append(entry)
            elif stream is None:
                claim.lost.append(entry)
            elif is_missing:
                claim.running.append(entry)
            elif question := _question(stream_id, stream):
                claim.found.append((entry, stream_id, float(ended), stream, question))
            else:
                claim.lost.append(entry)
        return claim

    def _saved(self, claim: _Claim) -> bool:
        """Store the streams that were found, and count those that are lost; False while SQL is away."""
        entries = self._entries(claim)
        try:
            if entries:
                self._save(entries)
        except StoreUnavailable as exc:
            self._note_away(exc)
            return False
        if self._pause:
            log.info("questions are logged again")
            self._pause = 0.0
        _lose(len(claim.lost), "their streams have expired, or cannot be read")
        return True

    def _save(self, entries: Sequence[Entry]) -> None:
        """Store entries together; where SQL rejects a value, one by one, so that no entry keeps others back."""
        keeps_log = self._maker.mode != "off"
        try:
            written = self._sql.save(entries, log=keeps_log)
        except SqlFailed as exc:
            if exc.number not in REJECTED:
                raise
            if len(entries) == 1:
                _lose(1, f"{entries[0].stream_id}: {exc}")
                return
            for entry in entries:
                self._save([entry])
            return
        metrics.USAGE_STREAMS.labels("written").inc(written)

    def _entries(self, claim: _Claim) -> list[Entry]:
        contacts = self._known_contacts([question for *_, question in claim.found])
        entries = []
        for _, stream_id, ended, stream, question in claim.found:
            contact = self._filed(question, contacts.get((question.bot, question.principal), Contact()))
            try:
                entries.append(self._maker.entry(stream_id, ended, stream, question, contact))
            except (ValueError, KeyError, TypeError):
                log.exception("question not logged: its stream cannot be read", extra={"stream_id": stream_id})
                metrics.USAGE_STREAMS.labels("lost").inc()
        return entries

    def _filed(self, question: Question, contact: Contact) -> Contact:
        """Return a contact with the departments that the company's file has, if it has the person."""
        if not self._departments or not self._maker.is_of_directory(question):
            return contact
        known = self._departments.rules
        filed = known.get(contact.userid) or known.get(question.principal)
        return replace(contact, department=", ".join(filed)) if filed else contact

    def _known_contacts(self, questions: Sequence[Question]) -> dict[tuple[str, str], Contact]:
        """Return by bot and userid the people whom the directories have named: the questions had them looked up."""
        known: dict[tuple[str, str], Contact] = {}
        asked = [one for one in questions if self._maker.is_of_directory(one)]
        for bot, look in self._contacts.items():
            userids = sorted({one.principal for one in asked if one.bot == bot})
            found = look(userids) if userids else {}
            known |= {(bot, userid): contact for userid, contact in found.items()}
        return known

    def _note_away(self, error: LaibaoError) -> None:
        if not self._pause:
            log.warning("questions wait to be logged", extra={"cause": f"{error.code}: {error}"})
        self._pause = min(2 * self._pause or PAUSE, LONGEST_AWAY)
        self._away_until = self._clock() + self._pause


class UsageCleaner:
    """Deletes what is older than it is to be kept, in bounded transactions, on one replica at a time.

    `also` are other tables' deletions, each with its days: it deletes some rows before a time, and returns how many.
    """

    def __init__(
        self,
        sql: SqlUsageStore,
        locks: LockStore,
        *,
        kept: Retention,
        zone: ZoneInfo,
        also: Sequence[tuple[Callable[[datetime], int], int]] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sql = sql
        self._locks = locks
        self._kept = kept
        self._zone = zone
        self._also = also
        self._clock = clock
        self._begun = self._closing = False
        self._rounds = Rounds("usage-clean", self.work, pause=CLEAN_SECONDS)

    def start(self) -> None:
        self._rounds.start()

    def close(self) -> None:
        """End the thread after the present transaction."""
        self._closing = True
        self._rounds.stop()
        self._rounds.join(STOP_SECONDS)

    def work(self) -> float:
        """Delete what is old; return the seconds until the next call. The first call only waits for the start's end."""
        if not self._begun:
            self._begun = True
            return FIRST_SECONDS
        self.clean()
        return CLEAN_SECONDS

    def clean(self) -> None:
        """Delete what is old, unless another replica does.

        The time that counts is the last one at which the hour of QUESTION_LOG_HOUR began. So a day's rows go at that
        hour, or as soon as a replica runs.

        Raises:
            StoreUnavailable: Redis or the database is away.
        """
        token = self._locks.acquire(LOCK, LOCK_SECONDS)
        if token is None:
            return
        try:
            last = last_hour(datetime.fromtimestamp(self._clock(), self._zone), self._kept.hour)
            works: Sequence[Callable[[], int]] = (
                partial(self._sql.forget_words, last - timedelta(days=self._kept.words_days)),
                partial(self._sql.delete_log, last - timedelta(days=self._kept.days)),
                self._sql.delete_streams,
                *(partial(delete, last - timedelta(days=days)) for delete, days in self._also),
            )
            for work in works:
                self._repeat(work, token)
        finally:
            with suppress(StoreUnavailable):
                self._locks.release(LOCK, token)

    def _repeat(self, work: Callable[[], int], token: str) -> None:
        """Work in transactions until nothing is left, while this replica has the lock."""
        rows = 0
        while done := work():
            rows += done
            if self._closing or not self._locks.acquire(LOCK, LOCK_SECONDS, token):
                break
        if rows:
            log.info("question log cleaned", extra={"rows": rows})


def last_hour(now: datetime, hour: int) -> datetime:
    """Return the last time, at or before `now`, at which this hour of a day began in the zone of `now`."""
    today = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    return today if today <= now else today - timedelta(days=1)


def _question(stream_id: str, stream: StoredStream) -> Question | None:
    try:
        return ended_question(stream)
    except (ValueError, KeyError, TypeError):
        log.error("question not logged: it cannot be read", extra={"stream_id": stream_id})
        return None


def _lose(count: int, cause: str) -> None:
    if count:
        metrics.USAGE_STREAMS.labels("lost").inc(count)
        log.error("questions lost for the log", extra={"count": count, "cause": cause})
