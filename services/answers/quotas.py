"""Quotas of questions: taken with a stream's own round trip, corrected by its producer, settled at its end.

The gateway takes what the question alone decides, in the pipeline that opens the stream. The producer knows the person
and the departments, and takes the rest before the provider is asked. The stream's field `quotas` names all that is
taken, so whichever replica ends the stream settles it: its owner, a successor, or the sweep.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from config.texts import Texts
from services import metrics
from services.conversations.memory import through_outage
from services.errors import QuotaUsed
from services.redis.store import Call
from services.rules.quota_store import Place, QuotaStore, Used
from services.rules.quotas import Counter, Kind, QuotaRules, Thing, Unit, period
from services.rules.stored_rules import Rules
from services.rules.visitors import Visitor
from services.streams.answer_events import Reserved, read_usage

#: The reply of lua/quota_take.lua, first member.
REFUSED, TAKEN = 0, 1
#: The fields of a stream by which it is settled.
SETTLED_BY = ("quotas", "asks", "usage")


class Quota(NamedTuple):
    """One limit of a visitor, and what is used of it."""

    kind: Kind
    thing: Thing
    unit: Unit
    limit: int
    used: int
    #: When it begins anew, in seconds since 1970.
    new_at: float
    #: Running questions among those used.
    running: int = 0

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)


@dataclass(frozen=True, slots=True)
class OpeningQuotas:
    """The quotas that a stream takes while it is opened."""

    quotas: QuestionQuotas
    stream_id: str
    places: Sequence[Place] = ()

    @property
    def field(self) -> str:
        """The value of the stream's field `quotas`."""
        return " ".join(place.key for place in self.places)

    @property
    def calls(self) -> dict[str, Call]:
        """The calls that take them, by name."""
        return {place.key: self.quotas.store.take_call(place, self.stream_id) for place in self.places}

    def free_calls(self, taken: str = "") -> tuple[Call, ...]:
        """Return the calls that free them, except those that the stream has `taken` before."""
        keys = [place.key for place in self.places if place.key not in taken.split()]
        return tuple(self.quotas.store.settle_call(key, self.stream_id) for key in keys)

    def takes(self, replies: Mapping[str, Any]) -> bool:
        """Tell from the replies to `calls` whether one was taken just now."""
        return any(replies[place.key][0] == TAKEN for place in self.places)

    def refusal(self, replies: Mapping[str, Any]) -> QuotaUsed | None:
        """Return the error of a question that was refused."""
        return self.quotas.refusal([(place, replies[place.key]) for place in self.places])


class QuestionQuotas:
    """The quotas of `QUOTAS_FILE`, or those that are saved. Without any nothing is taken; streams of other replicas are
    settled.
    """

    def __init__(
        self,
        rules: Rules[QuotaRules] | None,
        store: QuotaStore,
        texts: Texts,
        zone: ZoneInfo,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.rules = rules
        self._texts = texts
        self._zone = zone
        self._clock = clock

    def opening(self, visitor: Visitor, stream_id: str, *, departments_known: bool) -> OpeningQuotas:
        """Return what a stream takes while it is opened: all that does not depend on unknown departments."""
        if not (rules := self._at_hand):
            # While they are not known, the producer takes all.
            return OpeningQuotas(self, stream_id)
        needed = rules.needed(visitor, departments_known=departments_known)
        return OpeningQuotas(self, stream_id, self._places(needed))

    def reserve(self, visitor: Visitor, stream_id: str, taken: str, *, confirm: bool) -> Iterator[Reserved]:
        """Take what a known visitor's question needs and free the rest; `taken` is the stream's field `quotas`.

        With `confirm` the stream may lack what its field names: the owner that opened it was lost. Yields the field's
        new value, to be stored before this continues. An outage of Redis is waited through.

        Raises:
            QuotaUsed: a limit is reached. The stream's end frees what it has taken.
            StoreUnavailable: Redis is away for too long.
            AnswerError: `store_unavailable`, the rules are not known.
        """
        if not self.rules:
            return
        needed = self.rules.rules.needed(visitor)
        places = through_outage(lambda: self._places(needed)) if needed else []
        # A stream that was opened in an earlier period stays in it.
        before = {_name(key): key for key in taken.split()}
        kept = [place._replace(key=before[_name(place.key)]) for place in places if _name(place.key) in before]
        missing = [place for place in places if _name(place.key) not in before]
        unneeded = set(before.values()) - {place.key for place in kept}
        takes = [*missing, *(kept if confirm else ())]
        if not takes and not unneeded:
            return
        if missing:
            yield Reserved(" ".join([*before.values(), *(place.key for place in missing)]))
        calls = [self.store.take_call(place, stream_id) for place in takes]
        calls += [self.store.settle_call(key, stream_id) for key in sorted(unneeded)]
        replies = through_outage(lambda: self.store.run(calls))
        if error := self.refusal(list(zip(takes, replies, strict=False))):
            raise error

    def settle_calls(self, stream_id: str, field: Callable[[str], str | None]) -> list[Call]:
        """Return the calls that settle what an ended stream has taken; `field` returns a field of its hash."""
        if not (taken := field("quotas")):
            return []
        usage = read_usage(field("usage"))
        tokens = max(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, 0)
        asked = field("asks") not in (None, "", "0")
        return [self.store.settle_call(key, stream_id, asked=asked, tokens=tokens) for key in taken.split()]

    def refusal(self, taken: Sequence[tuple[Place, Any]]) -> QuotaUsed | None:
        """Return the error where a place refused the question: that of the limit which is new at the latest."""
        full = [(_full(place, reply), place.period) for place, reply in taken if reply[0] == REFUSED]
        if not full:
            return None
        quota, lasting = max(full, key=lambda one: one[1].end)
        metrics.QUOTA_REFUSALS.labels(quota.kind, quota.thing).inc()
        window = f"{lasting.end - lasting.begin:.0f} {lasting.end:.0f}"
        return QuotaUsed(
            sentence=self._sentence("quota_spent", quota),
            retry_after=max(1.0, lasting.end - self._clock()),
            limit=f"{quota.thing}-{quota.unit} {quota.limit} {window}",
        )

    def quotas(self, visitor: Visitor, *, departments_known: bool) -> list[Quota]:
        """Return a visitor's limits and what is used of them, in one round trip.

        Those that depend on unknown departments are there once a question was asked in the period.

        Raises:
            StoreUnavailable: Redis is away.
        """
        if not (rules := self._at_hand):
            return []
        needed = rules.needed(visitor, departments_known=departments_known)
        possible = [] if departments_known else rules.possible(visitor)
        places = self._places([*needed, *{one.name: one for one in possible}.values()])
        counted = zip(places, self.store.used(places), range(len(places)), strict=True)
        return [
            quota
            for place, used, at in counted
            for quota in _quotas(place, used, None if at < len(needed) else (used.max_questions, used.max_tokens))
        ]

    def left_text(self, visitor: Visitor, *, departments_known: bool) -> str:
        """Return what is left to a person, as a Markdown list; raises `StoreUnavailable`."""
        found = self.quotas(visitor, departments_known=departments_known)
        lines = [f"- {self._sentence('quota_left', quota)}" for quota in found]
        rules = self._at_hand
        if rules and not departments_known and (possible := rules.possible(visitor)):
            shown = {quota.kind for quota in found}
            later = any(one.kind not in shown for one in possible)
            lines += [f"- {self._texts.get('quota_later')}"] if later else []
        return "\n".join(lines) or self._texts.get("quota_none")

    @property
    def _at_hand(self) -> QuotaRules | None:
        """The rules in force, without a wait; None where there are none, or none are known."""
        return self.rules.at_hand if self.rules else None

    def _places(self, counters: Sequence[Counter]) -> list[Place]:
        now = self._clock()
        return [self.store.place(counter, period(counter.unit, now, self._zone)) for counter in counters]

    def _sentence(self, key: str, quota: Quota) -> str:
        new = datetime.fromtimestamp(quota.new_at, self._zone).strftime("%m-%d %H:%M")
        limit = self._texts.get(f"quota_{quota.thing}_{quota.unit}", most=quota.limit)
        return self._texts.get(f"{key}_{quota.kind}", limit=limit, new=new, left=quota.left)


def _name(key: str) -> str:
    """Return the counter of a place's key."""
    return key.partition(":")[0]


def _full(place: Place, reply: Sequence[int]) -> Quota:
    """Return the limit that is reached at a place that refused."""
    used: dict[Thing, int] = {"questions": reply[1], "tokens": reply[2]}
    thing, limit = next((thing, limit) for thing, limit in place.counter.limits.items() if used[thing] >= limit)
    return Quota(place.counter.kind, thing, place.counter.unit, limit, used[thing], place.period.end)


def _quotas(place: Place, used: Used, limits: tuple[int | None, int | None] | None) -> Iterator[Quota]:
    """Yield the limits of a place; `limits` take the place of its own."""
    counter = place.counter
    counter = counter._replace(questions=limits[0], tokens=limits[1]) if limits else counter
    for thing, limit in counter.limits.items():
        amount = used.questions if thing == "questions" else used.tokens
        yield Quota(counter.kind, thing, counter.unit, limit, amount, place.period.end, used.held)
