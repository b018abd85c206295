"""What people, the question log, usage, quotas and the provider say of an evening, and where they disagree."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from bootstrap.factories import make_quotas
from config.settings import load_settings
from config.texts import Texts
from demo.mocks.dify.wire import Run
from services.answers.quotas import Quota
from services.identity.keys import Keys
from services.identity.secret_store import SecretStore
from services.redis.store import ScriptRunner, connect
from services.rules.rules_file import RulesFiles
from services.rules.visitors import Visitor
from services.usage.log_store import Row, SqlLogStore
from services.usage.sums_store import SqlSumsStore, Total
from services.usage.tables import STREAMS
from tests.scenarios.chaos.channels import ITEMS, Seen, userid
from tests.scenarios.chaos.report import MOST_CALLS, Report, name_of, table
from tests.scenarios.chaos.world import LATE, World
from tests.scenarios.evening.company import (
    FAILURE,
    LOGGED_AS,
    OUTCOME,
    OWN_USERS,
    PROGRAM,
    USED_UP,
    WECOM,
    department_of,
    is_filed,
)
from tests.support.usage import rows

#: Outcomes of questions that may have opened no stream: there is nothing of them to count.
UNOPENED = ("store_unavailable", "service_unavailable", "replica_full", "dropped")
DATABASE = "chaos"


def streams_of(here: World, name: str) -> dict[str, str]:
    """Return a field of every stream in Redis, by the stream's id."""
    with here.redis.client() as client:
        keys = [str(key) for key in client.scan_iter("dify_stream:*", 1000, _type="hash")]
        return {key.partition(":")[2]: str(client.hget(key, name)) for key in keys}


class Line(NamedTuple):
    """What is known of a question, by whom it is told."""

    bot: str
    channel: str
    department: str
    person: str
    outcome: str


def line_of(here: World, channel: str, seen: Seen) -> Line:
    """Return what the log is to say of a question."""
    number = OWN_USERS.get(channel, 0) + int(name_of(seen.question).split("-")[-2])
    bot = LATE if channel == "late" else "default"
    told = bot, LOGGED_AS.get(channel, channel)
    if channel not in WECOM:
        known = number in here.tokens
        return Line(*told, department_of(number) if known else "", f"E{number:04}" if known else "", seen.end)
    # The user table was away.
    unknown = seen.end.startswith("auth_") and not is_filed(number)
    return Line(*told, "" if unknown else department_of(number), userid(number), seen.end)


@dataclass
class Books:
    """What each party says of the evening, and where they disagree."""

    #: What people saw, by the question's name.
    people: Mapping[str, Line]
    #: The rows of the log, by the question's name; none without a log.
    log: Mapping[str, Sequence[Row]]
    #: The sums of usage, by bot, channel, department and person.
    usage: Mapping[tuple[str, ...], Total]
    #: The provider's calls, and its reports of tokens and prices, by the question's name.
    calls: Mapping[str, int]
    reports: Mapping[str, Sequence[Run]]
    #: The questions' names by their streams in Redis, and the streams that are counted in SQL.
    streams: Mapping[str, str]
    counted: set[str]
    #: How often each question was asked, by its stream in Redis.
    asks: Mapping[str, int]
    #: What `tools.quota` shows of everybody who asked.
    quotas: Mapping[Visitor, Sequence[Quota]]
    likes: int
    kills: int
    faults: list[str] = field(default_factory=list)
    report: Report = field(default_factory=Report)

    @classmethod
    def of(cls, here: World, report: Report, kills: int, logged: bool) -> Books:
        """Read everybody's books, and compare them."""
        url = here.maria.url(DATABASE)
        log, reports = defaultdict[str, list[Row]](list), defaultdict[str, list[Run]](list)
        with closing(SqlLogStore(url)) as store:
            for row, _ in store.rows() if logged else ():
                log[name_of(row["question"])].append(row)
        today = datetime.now(UTC).date()
        with closing(SqlSumsStore(url)) as sums:
            days = today - timedelta(days=1), today + timedelta(days=1)
            usage = dict(sums.totals(*days, by=("bot", "channel", "department", "person")))
        streams = {stream_id: name_of(content) for stream_id, content in streams_of(here, "content").items()}
        asks = {streams[stream_id]: int(asks) for stream_id, asks in streams_of(here, "asks").items()}
        counted, opened = {row["stream_id"] for row in rows(url, STREAMS) if row["day"]}, set(streams.values())
        people = {
            name_of(seen.question): line_of(here, channel, seen)
            for channel, each in report.seen.items()
            for seen in each
            if name_of(seen.question) in opened or seen.end not in UNOPENED
        }
        # Nobody had looked up who asks.
        users = {streams[stream_id]: user for stream_id, user in streams_of(here, "user_info").items()}
        for name, line in people.items():
            if line.outcome == "cancelled" and not asks.get(name) and not users.get(name):
                people[name] = line._replace(department="")
        # The cost of an answer that is cancelled is not received.
        cancelled = {name for name, line in people.items() if line.outcome == "cancelled"}
        for each in here.dify.runs.all():
            if each.is_saved and not each.stopped and (name := name_of(each.query)) not in cancelled:
                reports[name].append(each)
        likes = sum(kind == "like" for _, kind, _ in here.dify.ratings)
        quotas = quotas_of(here, {visitor_of(line) for line in people.values()})
        told = (people, log, usage, report.calls, reports, streams, counted, asks, quotas, likes)
        books = cls(*told, kills, report=report)
        whole = {name: [seen for seen in each if not books.may_end(name, seen)] for name, each in report.seen.items()}
        books.faults += [*replace(report, seen=whole).breaches, *report.broken, *books.disagreements(logged)]
        return books

    def may_end(self, channel: str, seen: Seen) -> bool:
        """Return whether a question may end so although its answer is not whole."""
        lost_twice = seen.end == "interrupted" and self.asks.get(name_of(seen.question)) == MOST_CALLS
        failed = FAILURE in seen.question and seen.end == OUTCOME
        return failed or lost_twice or (channel == "stopped" and bool(seen.end))

    def disagreements(self, logged: bool) -> Iterator[str]:
        """Yield every question of which two parties do not say the same, and every sum."""
        names = Counter(self.streams.values())
        yield from (f"{name}: {count} streams" for name, count in names.items() if count > 1 or name not in self.people)
        yield from (f"{name}: no stream, {line}" for name, line in self.people.items() if name not in names)
        yield from (f"{name}: not counted" for each, name in self.streams.items() if each not in self.counted)
        yield from (f"counted, and not in Redis: {stream_id}" for stream_id in self.counted - self.streams.keys())
        if (likes := sum(total.likes for total in self.usage.values())) != self.likes:
            yield f"usage has {likes} likes, the provider {self.likes}"
        for name, asks in self.asks.items():
            if not self.calls.get(name, 0) <= asks <= MOST_CALLS:
                yield f"{name}: asked {asks} times by the stream, {self.calls.get(name, 0)} times by the provider"
        yield from self._quotas()
        yield from self._rows() if logged else ()
        wanted = self._wanted()
        for key in sorted(wanted.keys() | self.usage.keys()):
            one, other = (figures(sums.get(key, Total())) for sums in (wanted, self.usage))
            if one != other:
                yield f"usage of {key} is {other}, not {one}"

    def _rows(self) -> Iterator[str]:
        for name in sorted(self.people.keys() | self.log.keys()):
            found = self.log.get(name, ())
            if len(found) != 1 or name not in self.people:
                yield f"{name}: {len(found)} rows, {[row['outcome'] for row in found]}, not {self.people.get(name)}"
                continue
            (row,), wanted = found, self.people[name]
            if (said := Line(*(row[part] for part in Line._fields))) != wanted:
                yield f"{name}: the log has {tuple(said)}, not {tuple(wanted)}"
            if row["asks"] != self.asks.get(name):
                yield f"{name}: asked {row['asks']} times by the log, {self.asks.get(name)} times by its stream"
            if (row["tokens"], row["price"]) != self._cost(name):
                yield f"{name}: {row['tokens']} tokens, {row['price']}, not {self._cost(name)}"

    def _quotas(self) -> Iterator[str]:
        """Yield the counters that are not what was asked and reported, hold something, or are beyond their limit."""
        wanted, largest = defaultdict[tuple[str, str, str], int](int), defaultdict[str, int](int)
        for name, line in self.people.items():
            tokens, visitor = self._cost(name)[0] or 0, visitor_of(line)
            largest[visitor.person] = max(largest[visitor.person], tokens)
            for kind in ("person", "key", "total") if self.asks.get(name) else ():
                subject = _subject(kind, visitor)
                wanted[kind, subject, "questions"] += 1
                wanted[kind, subject, "tokens"] += tokens
        for visitor, quotas in self.quotas.items():
            for one in quotas:
                # What is in flight may go beyond a limit of tokens: one answer, or the items of a batch.
                in_flight = ITEMS if visitor.channel == "batch" else 1
                most = one.limit + (in_flight * largest[visitor.person] - 1 if one.thing == "tokens" else 0)
                should = wanted[one.kind, _subject(one.kind, visitor), one.thing]
                if one.used != should or one.used > most or one.running:
                    yield f"{one} of {visitor}, not {should} and none running"
        for name, line in self.people.items():
            if line.outcome == USED_UP and all(one.left for one in self.quotas[visitor_of(line)]):
                yield f"{name}: refused, though {self.quotas[visitor_of(line)]}"

    def _cost(self, name: str) -> tuple[int | None, Decimal | None]:
        """Return a question's tokens and price by the provider; None for what it has not reported."""
        if not self.calls.get(name):
            return 0, Decimal(0)
        if not (runs := self.reports.get(name)):
            return None, None
        return runs[-1].usage["total_tokens"], Decimal(runs[-1].usage["total_price"])

    def _wanted(self) -> dict[tuple[str, ...], Total]:
        """Return the sums that usage has to have by what people saw and the provider has reported."""
        wanted = defaultdict[tuple[str, ...], Total](Total)
        for name, line in self.people.items():
            tokens, price = self._cost(name)
            row: dict[str, Any] = dict.fromkeys((each.name for each in fields(Total)), 0)
            row |= {"questions": 1, "outcome": line.outcome, "tokens": tokens or 0, "price": price or Decimal(0)}
            row |= {"unknown_tokens": tokens is None, "unknown_prices": price is None, "currency": "USD"}
            wanted[line[:4]].add(row)
        return wanted

    def __str__(self) -> str:
        wanted, used = (added(sums.values()) for sums in (self._wanted(), self.usage))
        rows = [row for each in self.log.values() for row in each]
        outcomes = Counter(row["outcome"] for row in rows)
        costs = [run.usage for each in self.reports.values() for run in each]
        ended = outcomes["completed"], outcomes["cancelled"]
        logged: list[Any] = [len(rows), *ended, len(rows) - sum(ended), sum(row["tokens"] or 0 for row in rows)]
        logged += [sum((row["price"] or Decimal(0) for row in rows), Decimal(0)).normalize()]
        provider: list[Any] = [sum(map(bool, self.calls.values())), len(self.reports), "", ""]
        provider += [sum(cost["total_tokens"] for cost in costs)]
        provider += [sum((Decimal(cost["total_price"]) for cost in costs), Decimal(0)).normalize()]
        names = ("questions", "answers", "cancelled", "failures", "tokens", "price")
        parts = zip(names, shown(wanted), logged if rows else [""] * 6, shown(used), provider, strict=True)
        again = sum(calls > 1 for calls in self.calls.values())
        unasked = Counter(line.outcome for name, line in self.people.items() if name not in self.calls)
        return "\n".join(
            [
                table(("", "people", "log", "usage", "provider"), [[str(cell) for cell in part] for part in parts]),
                f"{self.kills} replicas killed; asked twice at the provider: {again}, not asked: {dict(unasked)}",
                self.report.logged,
                *(self.faults[:60] or ["the books agree"]),
            ]
        )


def visitor_of(line: Line) -> Visitor:
    """Return who asked a question, for the rules of quotas."""
    number = re.sub(r"[^0-9]", "", line.person)
    departments = (department_of(int(number)),) if number else ()
    return Visitor(line.bot, line.channel, line.person, departments, key="" if number else PROGRAM)


def _subject(kind: str, visitor: Visitor) -> str:
    return {"person": visitor.person, "key": visitor.key}.get(kind, visitor.bot)


def quotas_of(here: World, visitors: Iterable[Visitor]) -> dict[Visitor, list[Quota]]:
    """Return the limits of visitors, and what is used of them."""
    settings = load_settings(here.replicas.env, None)
    with closing(connect(here.redis.url(), pool_size=2, timeout=30.0)) as client:
        runner = ScriptRunner(client)
        quotas = make_quotas(settings, runner, Keys(settings, SecretStore(runner)), RulesFiles(), Texts("zh"))
        return {each: quotas.quotas(each, departments_known=True) for each in visitors}


def figures(total: Total) -> dict[str, Any]:
    """Return the sums that are compared: neither seconds nor the parts of tokens."""
    apart = ("seconds", "prompt_tokens", "completion_tokens", "likes", "dislikes")
    return {each.name: getattr(total, each.name) for each in fields(Total) if each.name not in apart}


def added(totals: Any) -> Total:
    whole = Total()
    for total in totals:
        for name in ("questions", "answers", "cancelled", "tokens"):
            setattr(whole, name, getattr(whole, name) + getattr(total, name))
        for code, count in total.failures.items():
            whole.failures[code] += count
        for currency, price in total.prices.items():
            whole.prices[currency] += price
    return whole


def shown(total: Total) -> list[Any]:
    ends = total.questions, total.answers, total.cancelled, sum(total.failures.values())
    return [*ends, total.tokens, sum(total.prices.values(), Decimal(0)).normalize()]
