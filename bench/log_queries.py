"""`python -m bench.log_queries --url URL`: how long the queries of `tools.log` and `tools.usage` take in a large log.

URL is that of an empty database, as SQLAlchemy writes it: `sqlite:////tmp/log.db`, `mysql+pymysql://root@127.0.0.1/log`.
It gets the product's tables with `--rows` questions of 90 days, words of the last 30, as many daily sums of a year, and
ratings of every twentieth answer. Prints the best and the worst of three runs of each query, with the database's plan
where `--plans` is given, and seconds and memory of an export. Exit status 1 if a query takes longer than a second.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.load.callbacks import AES_KEY, TOKEN
from bootstrap.container import Container  # noqa: F401 - declares the tables of all stores
from services.feedback.sql_store import FEEDBACK
from services.sql.migrator import Migrator
from services.usage.log_store import LogFilter, SqlLogStore
from services.usage.sums_store import SqlSumsStore
from services.usage.tables import DAILY, LOG

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ROWS = 1_000_000
#: Days of the log, of its words, and of the sums.
LOG_DAYS, WORDS_DAYS, SUMS_DAYS = 90, 30, 365
PEOPLE, DEPARTMENTS, BOTS = 1370, 20, 3
CHANNELS = ("wecom", "chat", "http", "openai", "batch")
OUTCOMES = (*(("completed",) * 95), "cancelled", "cancelled", "provider_error", "provider_timeout", "busy")
WORDS = "请问出差报销流程需要哪些材料年假病假怎么申请会议室如何预订打印机在哪里合同模板谁负责"
#: Seconds that a query may take; runs of each.
LIMIT, RUNS = 1.0, 3

Query = Callable[[], Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Fill the tables unless they have rows, run every query, print its seconds."""
    parser = argparse.ArgumentParser(prog="python -m bench.log_queries", description=__doc__)
    parser.add_argument("--url", required=True, help="an empty database, or one that this command has filled")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"rows of the log and of the sums (default {ROWS:,})")
    parser.add_argument("--plans", action="store_true", help="print the database's plan of each query")
    parser.add_argument("--only", default="", help="queries whose name contains this")
    options = parser.parse_args(argv)
    with closing(Migrator(options.url)) as migrator:
        migrator.run(60.0)
    engine = sa.create_engine(options.url)
    fill(engine, options.rows)
    slow = False
    for name, query in queries(options.url):
        if options.only in name:
            best, worst = measured(query)
            slow = slow or best > LIMIT
            print(f"{name:<56} {best:8.3f} {worst:8.3f} s", flush=True)
            for line in plan(engine, query) if options.plans else ():
                print("   ", *line)
    engine.dispose()
    for form in ("csv", "json", "xlsx"):
        if options.only in f"export: {form}":
            seconds, mebibytes = exported(options.url, form)
            print(f"export: {form:<48} {seconds:8.1f} s {mebibytes:8.0f} MiB at most")
    return int(slow)


def queries(url: str) -> Iterator[tuple[str, Query]]:
    """Yield every kind of query with its name."""
    with closing(SqlLogStore(url)) as log, closing(SqlSumsStore(url)) as sums:
        yield from log_queries(log)
        yield from usage_queries(sums)


def log_queries(log: SqlLogStore) -> Iterator[tuple[str, Query]]:
    """Yield what `tools.log` asks; a list shows 50 questions."""
    week: dict[str, Any] = {"since": NOW - timedelta(days=7), "until": NOW}
    kinds: dict[str, dict[str, Any]] = {
        "all": {},
        "a week": week,
        "a day long ago": {"since": NOW - timedelta(days=80), "until": NOW - timedelta(days=79)},
        "person": {"person": "person7"},
        "nobody": {"person": "nobody"},
        "department": {"department": "部门3"},
        "bot": {"bot": "bot1"},
        "channel": {"channel": "openai"},
        "outcome": {"outcome": "busy"},
        "no such outcome": {"outcome": "nothing"},
        "bot and outcome in a week": {"bot": "bot1", "outcome": "busy", **week},
        "bot and no such outcome": {"bot": "bot1", "outcome": "nothing"},
        "department and outcome": {"department": "部门3", "outcome": "busy"},
        "rated dislike": {"rating": "dislike"},
        "rated as nobody did": {"rating": "never"},
        "rated like by a person": {"rating": "like", "person": "person7"},
        "rated none": {"rating": "none"},
        "words in a week": {"words": "打印机在哪里合同", **week},
        "words in a week that nobody wrote": {"words": "从来没有人写过", **week},
        "words of a department in a week": {"words": "从来没有人写过", "department": "部门3", **week},
    }
    for name, chosen in kinds.items():
        for end, oldest_first in (("", False), (", oldest first", True)):
            yield f"log: {name}{end}", partial(listed, log, LogFilter(**chosen), oldest_first)
    day = NOW - timedelta(days=1), NOW
    yield "log: first texts of a day", lambda: log.first_texts(*day, 1_000)
    yield "log: one question", lambda: log.row("d080-stream-0000077")


def listed(log: SqlLogStore, chosen: LogFilter, oldest_first: bool) -> list[Any]:
    return list(islice(log.rows(chosen, oldest_first=oldest_first), 50))


def usage_queries(sums: SqlSumsStore) -> Iterator[tuple[str, Query]]:
    """Yield what `tools.usage` asks."""
    today = NOW.date()
    yield "usage: people of a day", lambda: sums.people(today)
    for days in (30, 90, 365):
        totals = partial(sums.totals, today - timedelta(days=days - 1), today)
        for by in ("", "day", "department", "day,department", "month,bot", "provider,model", "outcome", "person"):
            yield f"usage: {days} days by {by or 'nothing'}", partial(totals, by=by.split(",") if by else [])
        yield f"usage: {days} days of a person by day", partial(totals, by=["day"], chosen={"person": "person7"})
        department = {"department": "部门3"}
        yield f"usage: {days} days of a department by person", partial(totals, by=["person"], chosen=department)


def measured(query: Query) -> tuple[float, float]:
    """Return the shortest and the longest time of `RUNS` runs in seconds."""
    times = []
    for _ in range(RUNS):
        begin = time.monotonic()
        query()
        times.append(time.monotonic() - begin)
    return min(times), max(times)


def plan(engine: sa.Engine, query: Query) -> list[Sequence[Any]]:
    """Return the lines of the database's plan of each SELECT that a query sends."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        sent.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    query()
    sa.event.remove(sa.Engine, "before_cursor_execute", note)
    word = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    explained = [(f"{word} {statement}", given) for statement, given in sent if statement.startswith("SELECT")]
    with engine.connect() as connection:
        return [tuple(row) for statement, given in explained for row in connection.exec_driver_sql(statement, given)]


def exported(url: str, form: str) -> tuple[float, float]:
    """Return the seconds of an export of all questions, and the most MiB that its process had."""
    address = sa.make_url(url)
    mysql = {"HOST": address.host, "PORT": address.port, "USER": address.username, "PASSWORD": address.password}
    parts = {f"MYSQL_{name}": str(value) for name, value in mysql.items() if value}
    is_sqlite = address.get_backend_name() == "sqlite"
    place = {"DATABASE_PATH": address.database} if is_sqlite else {**parts, "MYSQL_DATABASE": address.database}
    needed = {"REDIS_URL": "redis://127.0.0.1:1", "AUTH_MODE": "none", "RAG_PROVIDER": "mock", "WECHAT_TOKEN": TOKEN}
    env = {**os.environ, **needed, "WECHAT_ENCODING_AES_KEY": AES_KEY, **{k: str(v) for k, v in place.items()}}
    command = [sys.executable, "-m", "tools.log", "export", f"--{form}", "--output", os.devnull]
    begin, most = time.monotonic(), 0
    with subprocess.Popen(command, env=env) as process:
        while process.poll() is None:
            # Not getrusage: its maximum has what this process had when it forked.
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            most = max(most, int(found[1]) if found else 0)
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"the export failed: {process.returncode}")
    return time.monotonic() - begin, most / 1024


def fill(engine: sa.Engine, rows: int) -> None:
    """Write the rows of the log, its ratings and the sums, unless there are any: one day of each, then its copies."""
    with engine.connect() as connection:
        if connection.scalar(sa.select(sa.func.count()).select_from(LOG)):
            return
    drawn = random.Random(7)
    with engine.begin() as connection:
        for table, made in (
            (LOG, log_rows(rows // LOG_DAYS, drawn)),
            (FEEDBACK, ratings(rows // LOG_DAYS, drawn)),
            (DAILY, sums_rows(rows // SUMS_DAYS)),
        ):
            connection.execute(table.insert(), made)
    for table, days in ((LOG, LOG_DAYS), (FEEDBACK, LOG_DAYS), (DAILY, SUMS_DAYS)):
        for behind in range(1, days):
            with engine.begin() as connection:
                connection.execute(copied(table, behind, engine.dialect.name))
        print(f"filled {table.name}", file=sys.stderr)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in (LOG, FEEDBACK, DAILY):
            connection.exec_driver_sql(f"ANALYZE {'' if engine.dialect.name == 'sqlite' else 'TABLE '}{table.name}")


def copied(table: sa.Table, behind: int, dialect: str) -> sa.Insert:
    """Return the statement that copies the newest day to the one that is so many days earlier."""
    is_sqlite = dialect == "sqlite"
    earlier = (
        f"strftime('%Y-%m-%d %H:%M:%f000', time, '-{behind} days')" if is_sqlite else f"time - INTERVAL {behind} DAY"
    )
    named = f"'d{behind:03}-' || stream_id" if is_sqlite else f"CONCAT('d{behind:03}-', stream_id)"
    changed: dict[str, Any] = {"stream_id": sa.literal_column(named)}
    if table is LOG:
        changed["time"] = sa.literal_column(earlier)
        if behind >= WORDS_DAYS:
            changed |= {"question": sa.null(), "answer": sa.null(), "has_words": sa.literal_column("0")}
    if table is DAILY:
        changed = {"day": sa.literal(NOW.date() - timedelta(days=behind), sa.Date())}
    columns = [changed.get(column.name, column) for column in table.columns]
    newest = table.c.day == NOW.date() if table is DAILY else table.c.stream_id.startswith("stream-")
    return table.insert().from_select(table.columns.keys(), sa.select(*columns).where(newest))


def log_rows(rows: int, drawn: random.Random) -> list[dict[str, Any]]:
    """Return the questions of the last 24 hours."""
    names = ("caller", "currency", "message_id", "conversation_id", "task_id", "run_id", "clicked", "replica")
    made = []
    for number in range(rows):
        person = drawn.randrange(PEOPLE)
        made.append(
            {
                **{name: f"{name}-{number:08}"[:40] for name in names},
                **{"stream_id": f"stream-{number:07}", "time": NOW - number * timedelta(days=1) / rows},
                **{"bot": f"bot{person % BOTS}", "person": f"person{person}", "name": f"某某{person}"},
                **{"department": f"部门{person % DEPARTMENTS}", "chat_kind": "single", "takeovers": 0, "sources": 2},
                **{"outcome": drawn.choice(OUTCOMES), "seconds": 3.5, "first_text_seconds": 0.9, "bytes": 900},
                **{"tokens": 900, "prompt_tokens": 700, "completion_tokens": 200, "price": Decimal("0.0123")},
                **{"provider": "dify", "model": "qwen-max", "files": None, "has_words": 1, "asks": 1},
                **{"question": words(drawn, 40), "answer": words(drawn, 300), "channel": CHANNELS[number % 5]},
            }
        )
    return made


def words(drawn: random.Random, letters: int) -> str:
    begin = drawn.randrange(len(WORDS))
    return (WORDS[begin:] + WORDS * (letters // len(WORDS) + 1))[:letters]


def ratings(rows: int, drawn: random.Random) -> list[dict[str, Any]]:
    """Return a rating of every twentieth answer, of which one in ten is a dislike."""
    names = ("bot", "channel", "provider", "message_id", "conversation_id")
    return [
        {
            **dict.fromkeys(names, "x"),
            **{"stream_id": f"stream-{number:07}", "person": "fingerprint", "rated_at": NOW, "version": 1},
            **{"rating": "dislike" if drawn.random() < 0.1 else "like", "content": None, "reasons": None},
        }
        for number in range(0, rows, 20)
    ]


def sums_rows(rows: int) -> list[dict[str, Any]]:
    """Return the sums of today: every person asked in two ways."""
    return [
        {
            **{"day": NOW.date(), "bot": f"bot{person % BOTS}", "provider": "dify", "model": "qwen-max"},
            **{"channel": CHANNELS[number % 2], "currency": "CNY", "department": f"部门{person % DEPARTMENTS}"},
            **{"person": f"person{person}", "outcome": OUTCOMES[number % 100], "questions": 3, "likes": 1},
            **{"dislikes": 0, "tokens": 900, "prompt_tokens": 700, "completion_tokens": 200, "unknown_tokens": 0},
            **{"price": Decimal("0.0123"), "unknown_prices": 0, "seconds": 9.5},
        }
        for number in range(rows)
        for person in [number // 2]
    ]


if __name__ == "__main__":
    sys.exit(main())
