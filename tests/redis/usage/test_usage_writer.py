"""From the queue in Redis to SQL: every ended stream is counted once, and what is lost has its number."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from channels.registry import CHANNELS
from services import metrics
from services.channels import Channels
from services.models import Contact, Question
from services.redis.lock_store import LockStore
from services.redis.store import Call, ScriptRunner
from services.rules.departments import parse_departments
from services.rules.rules_file import RulesFile
from services.streams.records import NewStream, born_finished, final_chunk
from services.streams.store import StreamStore
from services.usage.ended_store import DROPPED, LEASE, QUEUE, EndedStore
from services.usage.records import EntryMaker
from services.usage.sql_store import SqlUsageStore
from services.usage.tables import DAILY
from services.usage.writer import LATE_SECONDS, PAUSE, Retention, UsageCleaner, UsageWriter, last_hour
from tests.support.schema import migrated
from tests.support.servers.processes import FakeClock
from tests.support.usage import rows, total

NOW = 1_700_000_000.0
SHANGHAI = ZoneInfo("Asia/Shanghai")
USAGE = {"total_tokens": 30, "prompt_tokens": 20, "completion_tokens": 10, "total_price": "0.001", "currency": "USD"}
ASKED = Question("年假有几天？", "wecom", "default", "zhangsan")


class Replica:
    """A writer over a Redis and an SQLite file, and streams that have ended."""

    def __init__(self, runner: ScriptRunner, url: str, **maker: Any) -> None:
        self.runner, self.url = runner, url
        self.clock = FakeClock()
        self.ended = EndedStore(runner, queues=True, now=str(NOW))
        self.sql = SqlUsageStore(url)
        self.people = {"zhangsan": Contact("zhangsan", "张三", "研发部, 平台组")}
        self.writer = UsageWriter(
            self.ended,
            self.sql,
            EntryMaker(**{"channels": Channels(CHANNELS, {}), "zone": SHANGHAI, "mode": "full", "limit": 12, **maker}),
            contacts={"default": lambda userids: {one: self.people[one] for one in userids if one in self.people}},
            clock=self.clock,
        )

    def ends(self, stream_id: str = "s1", *, queued: bool = True, question: Any = None, **fields: str) -> None:
        """Store a stream that has ended a moment ago, and queue it."""
        asked = question or ASKED
        made = datetime.fromtimestamp(NOW, UTC).isoformat(timespec="milliseconds")
        given = {
            **{"question": asked.to_json(), "created_time": made, "asks": "1", "provider": "dify"},
            **{"usage": json.dumps(USAGE), "sources": '[{"title": "手册"}, {}]', "conversation_id": "c1", **fields},
        }
        new = born_finished(stream_id, "host:7:0a1b", given, "五天。", error=bool(fields.get("error_code")))
        StreamStore(self.runner).open(new)
        if queued:
            self.queues(stream_id)

    def queues(self, stream_id: str) -> None:
        self.runner.run(self.ended.add_calls(stream_id))

    def waiting(self) -> int:
        return int(self.runner.run([Call(None, ("ZCARD", QUEUE))])[0])

    def at(self, seconds: float) -> None:
        """Let Redis's clock show a time after `NOW`."""
        self.ended.now = str(NOW + seconds)


@pytest.fixture
def replica(runner: ScriptRunner, tmp_path: Path) -> Iterator[Replica]:
    replica = Replica(runner, f"sqlite:///{tmp_path / 'log.db'}")
    migrated(replica.url)
    yield replica
    replica.sql.close()


def counted(outcome: str) -> float:
    return float(metrics.USAGE_STREAMS.labels(outcome)._value.get())


@pytest.mark.every_redis
def test_an_ended_stream_is_a_row(replica: Replica) -> None:
    """With name and main department, the provider's figures and ids, and the words, cut at a whole character."""
    replica.ends(reported='{"model": "qwen"}', run_id="r1")

    assert replica.writer.work() == PAUSE

    (row,) = rows(replica.url)
    about = {"person": "zhangsan", "name": "张三", "department": "研发部", "model": "qwen", "replica": "host:7"}
    figures = {"tokens": 30, "sources": 2, "bytes": 9, "conversation_id": "c1", "run_id": "r1", "outcome": "completed"}
    words = {"question": "年假有几", "answer": "五天。", "files": {}}
    assert {name: row[name] for name in (*about, *figures, *words)} == {**about, **figures, **words}
    assert replica.waiting() == 0


@pytest.mark.parametrize(("app", "provider"), [("", "dify"), ("default", "dify"), ("hr-app", "dify:hr-app")])
def test_a_row_names_the_app_that_a_rule_chose(replica: Replica, app: str, provider: str) -> None:
    replica.ends(app=app)

    replica.writer.work()

    assert [row["provider"] for row in rows(replica.url)] == [provider]


def test_answers_with_the_same_ids_of_the_provider_are_rows_of_their_own(replica: Replica) -> None:
    """The key is the stream's id; some providers number their messages anew."""
    for stream_id in ("s1", "s2"):
        replica.ends(stream_id, conversation_id="c1", message_id="m1", task_id="t1", run_id="r1")

    replica.writer.work()

    assert [(row["stream_id"], row["message_id"]) for row in rows(replica.url)] == [("s1", "m1"), ("s2", "m1")]
    assert total(replica.url, "questions", "tokens") == (2, 60)


def test_files_have_their_names(replica: Replica) -> None:
    """Of those that a program named by the provider's ids there are only these."""
    replica.ends("s1", question=replace(ASKED, files=("document:1",), file_names=("报告.pdf",)))
    replica.ends("s2", question=replace(ASKED, files=("document:1",)))

    replica.writer.work()

    assert [row["files"] for row in rows(replica.url)] == [["报告.pdf"], ["document:1"]]


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the lines of the writer: threads of earlier tests may write others."""
    return [record for record in caplog.records if record.name == UsageWriter.__module__]


@pytest.mark.every_redis
def test_a_full_queue_drops_with_a_number(
    runner: ScriptRunner, replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer's end is not kept waiting, the number is logged and counted once, and the rest is written."""
    replica.ended = EndedStore(runner, queues=True, most_waiting=2, now=str(NOW))
    for n in range(5):
        replica.ends(f"s{n}")
    before = counted("dropped")

    replica.writer.work()
    replica.writer.work()

    assert counted("dropped") - before == 3
    (line,) = lines(caplog)
    assert line.levelno == logging.ERROR
    assert (line.message, vars(line)["count"]) == ("questions not logged: the queue was full", 3)
    assert len(rows(replica.url)) == 2
    assert runner.run([Call(None, ("EXISTS", DROPPED))]) == [0]


def test_without_a_database_nothing_is_queued(runner: ScriptRunner) -> None:
    """There is no call."""
    assert EndedStore(runner, queues=False).add_calls("s1") == ()


def test_a_stream_that_expired_is_lost_and_counted(replica: Replica) -> None:
    """It is looked for again first: the node that has it may be slower than that of the queue."""
    replica.queues("gone")
    before = counted("lost")

    replica.writer.work()
    assert (replica.waiting(), counted("lost") - before) == (1, 0)
    replica.at(LATE_SECONDS + 1)
    replica.writer.work()

    assert (replica.waiting(), counted("lost") - before) == (0, 1)


def test_a_stream_that_runs_waits_for_its_end(runner: ScriptRunner, replica: Replica) -> None:
    """An end may be queued before its write has arrived; one that never arrives is queued again by the next owner."""
    running = {"status": "processing", "question": Question("a", "http", "default", "key:1").to_json()}
    StreamStore(runner).open(NewStream("s1", "o", running))
    replica.queues("s1")

    replica.writer.work()
    assert replica.waiting() == 1
    replica.at(LATE_SECONDS + 1)
    replica.writer.work()

    assert (replica.waiting(), rows(replica.url)) == (0, [])


def test_an_entry_that_cannot_be_read_keeps_no_other_back(replica: Replica) -> None:
    """It is lost, with its number."""
    replica.ends("s1", created_time="yesterday")
    replica.ends("s2", usage="{")
    replica.ends("s3")
    before = counted("lost")

    replica.writer.work()

    assert [row["stream_id"] for row in rows(replica.url)] == ["s3"]
    assert (replica.waiting(), counted("lost") - before) == (0, 2)


def test_while_sql_is_away_streams_wait(runner: ScriptRunner, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """For ten minutes: attempts get rarer, answers end all the time, and one line says so.

    Rows follow when it is back, and none is lost or counted twice.
    """
    away = Replica(runner, f"sqlite:///{tmp_path / 'missing' / 'log.db'}")
    before, began = counted("lost"), away.clock.now

    pauses, ended = [], 0
    while away.clock.now - began < 600:
        away.at(away.clock.now - began)
        away.ends(f"s{ended:03}")
        ended += 1
        away.writer.work()
        pauses.append(away.writer.work())
        away.clock.advance(pauses[-1] + 0.001)
    assert (pauses[0], pauses[-1], away.waiting()) == (1.0, 15.0, ended)
    assert [line.message for line in lines(caplog)] == ["questions wait to be logged"]

    (tmp_path / "missing").mkdir()
    migrated(away.url)
    away.at(away.clock.now - began)
    away.writer.work()

    assert [row["stream_id"] for row in rows(away.url)] == [f"s{n:03}" for n in range(ended)]
    assert (away.waiting(), counted("lost") - before, total(away.url, "questions")) == (0, 0, (ended,))
    away.sql.close()


def test_a_killed_replicas_claim_lapses(replica: Replica) -> None:
    """Its entries are due again after the lease, for any replica, within 15 s."""
    assert LEASE + PAUSE < 15
    replica.ends()
    assert len(replica.ended.claim(10).entries) == 1

    replica.writer.work()
    assert rows(replica.url) == []
    replica.at(LEASE + 1)
    replica.writer.work()

    assert len(rows(replica.url)) == 1


@pytest.mark.parametrize(
    ("question", "person", "caller"),
    [
        (Question("a", "wecom", "default", "zhangsan"), "zhangsan", ""),
        (Question("a", "chat", "default", "user:1001"), "1001", ""),
        (Question("a", "http", "default", "key:0a1b/zhangsan"), "", "key:0a1b/zhangsan"),
        (Question("a", "openai", "default", "anonymous/zhangsan"), "", "anonymous/zhangsan"),
        (Question("a", "batch", "default", "key:0a1b"), "", "key:0a1b"),
        (Question("a", "of a newer version", "default", "zhangsan"), "", "zhangsan"),
    ],
)
def test_only_a_checked_name_is_a_person(replica: Replica, question: Question, person: str, caller: str) -> None:
    """A program may name any user of its own: that name is not a person's."""
    replica.ends(question=question)

    replica.writer.work()

    assert [(row["person"], row["caller"]) for row in rows(replica.url)] == [(person, caller)]


@pytest.mark.parametrize(
    ("asked", "day"),
    [
        ("2026-01-31T15:59:59.000+00:00", "2026-01-31"),
        ("2026-01-31T16:00:01.000+00:00", "2026-02-01"),
        ("2028-02-28T16:30:00.000+00:00", "2028-02-29"),
        ("2026-12-31T16:00:00.000+00:00", "2027-01-01"),
    ],
)
def test_a_day_is_that_of_the_zone(replica: Replica, asked: str, day: str) -> None:
    """It begins at midnight in Shanghai, not at eight in the morning."""
    replica.ends(created_time=asked)

    replica.writer.work()

    assert [str(row["day"]) for row in rows(replica.url, DAILY)] == [day]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"usage": ""}, (None, None, "")),
        ({"usage": json.dumps({"total_tokens": 0, "total_price": ""})}, (None, None, "")),
        ({"usage": json.dumps({"total_tokens": 7, "total_price": "0", "currency": "cny"})}, (7, 0, "CNY")),
        ({"usage": json.dumps({"prompt_tokens": 3, "completion_tokens": 2})}, (5, None, "")),
        ({"usage": json.dumps({"total_tokens": 7, "total_price": "NaN", "currency": "CNY"})}, (7, None, "")),
        ({"usage": "", "asks": "0", "provider": "", "error_code": "user_full"}, (0, 0, "")),
    ],
)
def test_what_is_not_reported_is_unknown(replica: Replica, fields: dict[str, Any], expected: Any) -> None:
    """A question that reached no provider cost nothing."""
    replica.ends(**fields)

    replica.writer.work()

    (row,) = rows(replica.url)
    assert (row["tokens"], row["price"], row["currency"]) == expected


@pytest.mark.parametrize(
    ("filed", "user_info", "expected"),
    [
        ("zhangsan", '{"user_code": "E1", "user_name": "三", "department": "财务部", "later": 1}', ("张三", "法务部")),
        ("", '{"user_code": "E1", "user_name": "三", "department": "财务部"}', ("张三", "研发部")),
        ("lisi", '{"user_code": "E1", "user_name": "三", "department": "财务部"}', ("三", "财务部")),
        ("lisi", "", ("", "")),
    ],
)
def test_names_and_departments(
    replica: Replica, tmp_path: Path, filed: str, user_info: str, expected: tuple[str, str]
) -> None:
    """The company's file comes before the directory, and that before the user record, as for the access rules."""
    if filed == "lisi":
        replica.people.clear()
    path = tmp_path / "departments.csv"
    path.write_text(f"userid,department\n{filed or 'nobody'},法务部\n", "utf-8")
    replica.writer._departments = RulesFile("DEPARTMENTS_FILE", str(path), parse_departments)
    replica.ends(user_info=user_info)

    replica.writer.work()

    (row,) = rows(replica.url)
    assert (row["name"], row["department"]) == expected


def test_outcome_and_times(runner: ScriptRunner, replica: Replica) -> None:
    """The end is the time of the last chunk; a cancelled answer has none, and ended when it was queued."""
    store = StreamStore(runner)
    replica.ends("s1", error_code="provider_error", queued=False)
    for sid, wait in (("s2", 5), ("s3", 0)):
        made = datetime.fromtimestamp(NOW - wait, UTC).isoformat(timespec="milliseconds")
        asked = Question("a", "wecom", "default", "x").to_json()
        chunks = (final_chunk("b", error=False)._replace(is_final=False),) if sid == "s3" else ()
        fields = {"status": "processing", "question": asked, "created_time": made, "asks": "1"}
        store.open(NewStream(sid, "o", fields, chunks))
        store.cancel(sid)
    for stream_id in ("s1", "s2", "s3"):
        replica.queues(stream_id)

    replica.writer.work()

    found = {row["stream_id"]: row for row in rows(replica.url)}
    assert [found[sid]["outcome"] for sid in ("s1", "s2", "s3")] == ["provider_error", "cancelled", "cancelled"]
    assert (found["s2"]["seconds"], found["s2"]["first_text_seconds"]) == (5.0, None)
    assert found["s3"]["first_text_seconds"] > 0
    assert found["s1"]["first_text_seconds"] is None


def test_a_long_question_and_answer_are_read_to_their_limit_only(replica: Replica) -> None:
    """Meta keeps no words at all."""
    meta = Replica(replica.runner, replica.url, mode="meta")
    meta.ends()

    meta.writer.work()

    (row,) = rows(meta.url)
    assert (row["question"], row["answer"], row["files"], row["has_words"]) == (None, None, {}, 0)
    meta.sql.close()


def test_usage_is_counted_without_a_log(replica: Replica) -> None:
    """QUESTION_LOG=off ends the log alone."""
    off = Replica(replica.runner, replica.url, mode="off")
    off.ends()

    off.writer.work()

    assert rows(off.url) == []
    assert total(off.url, "questions", "tokens") == (1, 30)
    off.sql.close()


@pytest.mark.parametrize(
    ("now", "expected"),
    [("2026-11-24T02:59:59", "2026-11-23T03:00:00"), ("2026-11-24T03:00:00", "2026-11-24T03:00:00")],
)
def test_days_are_over_at_the_hour(now: str, expected: str) -> None:
    """Before it, that of the day before counts."""
    found = last_hour(datetime.fromisoformat(now).replace(tzinfo=SHANGHAI), 3)

    assert found == datetime.fromisoformat(expected).replace(tzinfo=SHANGHAI)


def test_the_log_is_cleaned_by_one_replica(replica: Replica) -> None:
    """Words and rows go after their days, at the hour, and the sums stay."""
    clock = FakeClock()
    replica.ends()
    replica.writer.work()
    # Asked on 15 November 2023 at 06:13 in Shanghai.
    cleaner = UsageCleaner(
        replica.sql, LockStore(replica.runner), kept=Retention(2, 1, 3), zone=SHANGHAI, clock=lambda: clock.now
    )
    seen = []
    for moment in ("2023-11-17T02:59", "2023-11-17T03:01", "2023-11-18T02:59", "2023-11-18T03:01"):
        clock.now = datetime.fromisoformat(moment).replace(tzinfo=SHANGHAI).timestamp()
        cleaner.clean()
        seen.append([row["question"] is not None for row in rows(replica.url)])

    assert seen == [[True], [False], [False], []]
    assert total(replica.url, "questions") == (1,)


def test_another_replica_cleans(replica: Replica) -> None:
    """While it holds the lock this one does nothing."""
    locks = LockStore(replica.runner)
    replica.ends()
    replica.writer.work()
    cleaner = UsageCleaner(replica.sql, locks, kept=Retention(1, 1, 3), zone=SHANGHAI, clock=lambda: NOW + 9e6)
    held = locks.acquire("usage_clean", 60.0)
    assert held

    cleaner.clean()
    assert len(rows(replica.url)) == 1
    locks.release("usage_clean", held)
    cleaner.clean()

    assert rows(replica.url) == []
