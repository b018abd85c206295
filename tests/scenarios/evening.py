"""One evening of a company, and its books: `make evening`, or `python -m tests.scenarios.evening`.

People of twelve departments ask three replicas, in WeCom, on the chat page, by `/v1`, REST and in batches. One replica
after the other is killed, and SQL is away in between: first it does not answer, then it refuses connections. When all
has settled, what people saw, the question log, the sums of usage and the provider's own count must agree to the
question. Exits with status 1 if they do not, or if an answer was lost or doubled.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args
from zlib import crc32

import requests

from demo.mocks.dify.runs import AfterDisconnect, Runs
from demo.mocks.dify.wire import USAGE, Run
from services.feedback import rating_store
from services.models import UserInfo
from services.usage import ended_store
from services.usage.log_store import Row, SqlLogStore
from services.usage.sums_store import SqlSumsStore, Total
from services.usage.tables import STREAMS
from tests.scenarios.chaos.__main__ import Crowd, say
from tests.scenarios.chaos.channels import (
    SILENCE,
    Channel,
    Seen,
    Use,
    batch,
    chat_socket,
    late,
    openai,
    person_of,
    polled,
    question_of,
    rating,
    userid,
)
from tests.scenarios.chaos.report import MOST_CALLS, Report, name_of, table
from tests.scenarios.chaos.world import LATE, USERS, World, world
from tests.scenarios.stage.killer import Killer
from tests.support.sockets.event_reader import events
from tests.support.usage import rows
from utils.stream_utils import render_frame

DEPARTMENTS = (
    "研发部",
    "产品部",
    "设计部",
    "测试部",
    "市场部",
    "销售部",
    "客服部",
    "财务部",
    "法务部",
    "行政部",
    "采购部",
    "人力资源部",
)
#: Most seconds until every stream has ended and is counted: a killed replica's claims are due again after 45 s.
SETTLED = 150.0
#: Outcomes of questions that may have opened no stream: there is nothing of them to count.
UNOPENED = ("store_unavailable", "service_unavailable", "replica_full", "dropped")
#: One of so many questions of WeCom fails at the provider.
FAILS = 9
#: The script of these, and the outcome.
FAILURE, OUTCOME = "error-after-text", "provider_error"
DATABASE = "chaos"


def department_of(number: int) -> str:
    return DEPARTMENTS[number % len(DEPARTMENTS)]


def is_filed(number: int) -> bool:
    """Return whether DEPARTMENTS_FILE has a person; the others' departments are in the user table alone."""
    return number % 2 == 0


def cost_of(question: str) -> Mapping[str, Any]:
    """Return what the provider reports for a question: another number of tokens for each."""
    prompt, completion = 100 + crc32(question.encode()) % 900, 1 + len(question)
    tokens = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**USAGE, **tokens, "total_price": str(Decimal(prompt + completion) / 1_000_000)}


# What people do, beside what `make chaos` has. Each of them has a number, and is the user with this number.


def wecom(here: World, number: int, turn: int) -> Seen:
    """A text, and polls; the provider fails at some."""
    fails = (number + turn) % FAILS == FAILS - 1
    question = question_of("wecom", number, turn, FAILURE if fails else "")
    seen = Seen(question, render_frame(here.dify.expected_answer(question), growing=False))
    with person_of(here, number) as person:
        return polled(here, person, seen)[0]


def stopped(here: World, number: int, turn: int) -> Seen:
    """A client of POST /api/chat that cancels its answer after the first piece."""
    question, stream_id = question_of("stopped", number, turn), ""
    seen = Seen(question, here.dify.expected_answer(question))
    body = {"query": question, "id": f"{number}-{turn}", "stream": True}
    options: dict[str, Any] = {"headers": here.headers(number), "timeout": SILENCE}
    for url in here.tries():
        with suppress(requests.RequestException, OSError):
            if not stream_id:
                with requests.post(f"{url}/api/chat", json=body, stream=True, **options) as reply:
                    for event in events(line.decode() for line in reply.iter_lines()) if reply.ok else ():
                        stream_id = event.data.get("stream_id", stream_id)
                        if event.name != "start":
                            break
            if stream_id:
                reply = requests.delete(f"{url}/api/chat/{stream_id}", **options)
                if reply.ok:
                    return seen.ends(reply.json()["data"]["status"])
    return seen


def from_number(use: Use, first: int) -> Use:
    return lambda here, number, turn: use(here, first + number, turn)


#: Of a company, the shares that use each channel; `late` and `ratings` have their own users, from these numbers on.
USES: Mapping[str, tuple[Use, float]] = {
    "wecom": (wecom, 0.68),
    "late": (late, 0.02),
    "ratings": (rating, 0.04),
    "chat": (chat_socket, 0.12),
    "v1": (openai, 0.08),
    "stopped": (stopped, 0.04),
    # A second attempt would be a stream of its own.
    "batch": (partial(batch, max_attempts=1), 0.02),
}
OWN_USERS = {"late": 800, "ratings": 880}
#: The log's names of those that it calls otherwise.
LOGGED_AS = {"late": "wecom", "ratings": "wecom", "v1": "openai", "stopped": "http"}
WECOM = ("wecom", "late", "ratings")
#: Every other user of these is a program with an API key.
PROGRAMS = ("v1", "stopped", "batch")


def company(people: int) -> tuple[dict[str, Channel], set[int]]:
    """Return what so many people do, and the numbers of programs.

    The numbers of a channel's people follow those of the channel before.
    """
    channels, programs, first = dict[str, Channel](), set[int](), 0
    for name, (use, share) in USES.items():
        count = max(1, round(people * share))
        if name in OWN_USERS:
            channels[name] = Channel(use, count)
            continue
        channels[name] = Channel(from_number(use, first), count)
        programs |= {number for number in range(first, first + count) if name in PROGRAMS and number % 2}
        first += count
    return channels, programs


# The settings, and the evening.


def settings(folder: Path, log: str) -> dict[str, str]:
    """Return the replicas' settings; write the departments of half of the people into a file."""
    filed = [f"user{number:03},{department_of(number)}" for number in range(USERS) if is_filed(number)]
    path = folder / "departments.csv"
    path.write_text("\n".join(["userid,department", *filed]), "utf-8")
    names = ", ".join(f"'{name}'" for name in DEPARTMENTS)
    department = f"ELT(1 + MOD(CAST(SUBSTRING(userid, 5) AS UNSIGNED), {len(DEPARTMENTS)}), {names}) AS department"
    columns = f"user_code, password, user_name, {department}"
    return {
        "AUTH_USER_QUERY": f"SELECT {columns} FROM demo_users WHERE userid = :userid",
        # Clients wait for a batch as long as for any answer, and some batches wait for SQL first.
        "BATCH_MAX_CONCURRENT": "60",
        "DEPARTMENTS_FILE": str(path),
        "QUESTION_LOG": log,
        "WEBSOCKET_AUTH": "token",
    }


def give_tokens(here: World, programs: Container[int]) -> None:
    """Store people's tokens, as an auth service does; programs have the key."""
    here.tokens = {number: f"obviously-fake-token-{number}" for number in range(USERS) if number not in programs}
    with here.redis.client() as client:
        for number, token in here.tokens.items():
            user = UserInfo(f"E{number:04}", f"员工{number}", department=department_of(number))
            client.set(f"authorization:token:{token}", user.to_json(), ex=3600)


def take_sql_away(here: World, options: argparse.Namespace) -> None:
    """Let people ask for a while, take SQL away in the middle, and wait until they stop asking."""
    around = (options.seconds - options.outage) / 2
    time.sleep(around)
    here.maria.pause()
    say(f"{around:5.0f} s  SQL does not answer")
    time.sleep(options.outage / 2)
    here.maria.stop()
    say(f"{around + options.outage / 2:5.0f} s  SQL refuses connections")
    time.sleep(options.outage / 2)
    here.maria.start()
    say(f"{around + options.outage:5.0f} s  SQL is back")
    time.sleep(around)


def streams_of(here: World, name: str) -> dict[str, str]:
    """Return a field of every stream in Redis, by the stream's id."""
    with here.redis.client() as client:
        keys = [str(key) for key in client.scan_iter("dify_stream:*", 1000, _type="hash")]
        return {key.partition(":")[2]: str(client.hget(key, name)) for key in keys}


def settle(here: World) -> bool:
    """Wait until every stream has ended, and no stream or rating waits to be counted; return whether that came true."""
    end = time.monotonic() + SETTLED
    while time.monotonic() < end:
        with here.redis.client() as client:
            waiting = client.zcard(ended_store.QUEUE) + client.zcard(rating_store.QUEUE)
        if not waiting and "processing" not in streams_of(here, "status").values():
            return True
        time.sleep(1.0)
    return False


def run(options: argparse.Namespace, folder: Path) -> Books:
    """Run the evening, and return its books."""
    report, dice = Report(), random.Random(options.seed)
    changes = settings(folder, options.log)
    fate = options.after_disconnect
    with world(3, folder, dice, fate=fate, token_seconds=None, settings=changes) as here:
        here.dify.runs, here.dify.costs = Runs(max_age=86_400, max_runs=10**6), cost_of
        channels, programs = company(options.people)
        give_tokens(here, programs)
        crowd = Crowd(here, report, channels, 1.0, pause=options.pause)
        crowd.begin(options.seconds)
        with Killer(here.replicas, every=options.every) as killer:
            take_sql_away(here, options)
        crowd.wait_end()
        settled = settle(here)
        report.count(here.dify, here.replicas, here.redis)
        books = Books.of(here, report, killer.kills, options.log == "full")
        if not settled:
            books.faults.append(f"not settled within {SETTLED:g} s")
    return books


# The books.


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
        counted, opened = {row["stream_id"] for row in rows(url, STREAMS) if row["day"]}, set(streams.values())
        people = {
            name_of(seen.question): line_of(here, channel, seen)
            for channel, each in report.seen.items()
            for seen in each
            if name_of(seen.question) in opened or seen.end not in UNOPENED
        }
        # The cost of an answer that is cancelled is not received.
        cancelled = {name for name, line in people.items() if line.outcome == "cancelled"}
        for each in here.dify.runs.all():
            if each.is_saved and not each.stopped and (name := name_of(each.query)) not in cancelled:
                reports[name].append(each)
        likes = sum(kind == "like" for _, kind, _ in here.dify.ratings)
        books = cls(people, log, usage, report.calls, reports, streams, counted, likes, kills, report=report)
        whole = {name: [seen for seen in each if not books.may_end(name, seen)] for name, each in report.seen.items()}
        books.faults += [*replace(report, seen=whole).breaches, *report.broken, *books.disagreements(logged)]
        return books

    def may_end(self, channel: str, seen: Seen) -> bool:
        """Return whether a question may end so although its answer is not whole."""
        lost_twice = seen.end == "interrupted" and self.calls.get(name_of(seen.question)) == MOST_CALLS
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
        yield from self._rows() if logged else ()
        wanted = self._wanted()
        for key in sorted(wanted.keys() | self.usage.keys()):
            one, other = (figures(sums.get(key, Total())) for sums in (wanted, self.usage))
            if one != other:
                yield f"usage of {key} is {other}, not {one}"

    def _rows(self) -> Iterator[str]:
        for name in sorted(self.people.keys() | self.log.keys()):
            found, calls = self.log.get(name, ()), self.calls.get(name, 0)
            if len(found) != 1 or name not in self.people:
                yield f"{name}: {len(found)} rows, {[row['outcome'] for row in found]}, not {self.people.get(name)}"
                continue
            (row,), wanted = found, self.people[name]
            if (said := Line(*(row[part] for part in Line._fields))) != wanted:
                yield f"{name}: the log has {tuple(said)}, not {tuple(wanted)}"
            if not calls <= row["asks"] <= MOST_CALLS:
                yield f"{name}: asked {row['asks']} times by the log, {calls} times by the provider"
            if (row["tokens"], row["price"]) != self._cost(name):
                yield f"{name}: {row['tokens']} tokens, {row['price']}, not {self._cost(name)}"

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


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments, those of the command line by default."""
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.evening", description=about)
    parser.add_argument("--people", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=300.0, help="for how long people ask")
    parser.add_argument("--every", type=float, default=20.0, metavar="SECONDS", help="between two kills")
    parser.add_argument("--outage", type=float, default=120.0, metavar="SECONDS", help="of SQL, in the middle")
    parser.add_argument(
        "--pause", type=float, default=40.0, metavar="SECONDS", help="between two questions, in the mean"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", choices=("full", "off"), default="full", help="QUESTION_LOG")
    fates = get_args(AfterDisconnect)
    parser.add_argument("--after-disconnect", choices=fates, default="runs on", help="a run whose owner was killed")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the replicas' logs there")
    return parser.parse_args(given)


def main() -> int:
    """Return 0 if the books agree."""
    options = arguments()
    say(f"{options.people} people, {options.seconds:g} s, seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="laibao-evening-") as folder:
        books = run(options, options.logs or Path(folder))
    say(f"\n{books}")
    return 1 if books.faults else 0


if __name__ == "__main__":
    sys.exit(main())
