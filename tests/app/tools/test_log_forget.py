"""`python -m tools.log forget`: what the gateway has of one person goes, of nobody else, and the sums stay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from config.settings import Settings
from services.conversations.history_store import history_key
from services.conversations.session_store import Talk
from services.feedback.records import RatedAnswer, Rating
from services.feedback.sql_store import FEEDBACK, SqlFeedbackStore
from services.models import Question, UserInfo
from services.redis.store import Call
from services.streams.access import Access
from services.usage.sql_store import SqlUsageStore
from services.usage.tables import DAILY, MONTHS
from tests.support.batches.shelf import Shelf
from tests.support.schema import migrated
from tests.support.servers.processes import wait_until
from tests.support.streams.desk import Desk, SlowProvider
from tests.support.usage import entry, rows, total
from tools import log

ANSWER = RatedAnswer(True, "completed", "tag", "default", "wecom", "x", "x", "dify", "m1", "c1")


@pytest.fixture
def provider() -> SlowProvider:
    return SlowProvider()


@pytest.fixture
def desk(redis_url: str, tmp_path: Path, provider: SlowProvider) -> Iterator[Desk]:
    desk = Desk(redis_url, provider, variables={"DATABASE_PATH": str(tmp_path / "log.db"), "WECHAT_BOTS": ""})
    provider.go_on.set()
    migrated(url_of(desk))
    yield desk
    desk.close()


def url_of(desk: Desk) -> str:
    assert desk.container.settings.sql_url
    return desk.container.settings.sql_url.get_secret_value()


def asks(desk: Desk, person: str) -> str:
    """Let a person ask, authenticate and get a name, a history and a rating; return the stream."""
    container = desk.container
    stream_id = desk.asks(msgid=f"m-{person}", principal=person).stream_id
    desk.sees_end(stream_id, principal=person)
    question = Question("a", "wecom", "default", person)
    container.names.note(question, f"Name {person}")
    key = container.answerer.conversation(question)
    container.runner.run([Call(None, ("RPUSH", history_key(key)), ("1 {}",))])
    container.runner.run([Call(None, ("SET", f"{{dify_stream:{stream_id}}}:file:p0"), ("x",))])
    container.runner.run([Call(None, ("HSET", f"{{dify_long_connection:default}}:answer:{stream_id}"), ("finish", ""))])
    for name in (f"authorization:wechatid:{person}", f"authorization.wechatid.{person}"):
        container.runner.run([Call(None, ("SET", name), (f"token of {person}",))])
    container.runner.run([Call(None, ("SET", f"authorization:token:token of {person}"), (UserInfo(person).to_json(),))])
    container.sessions.keep(Talk("default", f"user:{person}", (("user", "a"),)), "session")
    container.sessions.claim(f"user:{person}", "k1", "digest", talk=None, new="session")
    fingerprint = Access(desk.keys).person(question)
    with closing(SqlFeedbackStore(url_of(desk))) as ratings:
        ratings.save(stream_id, ANSWER, [(fingerprint, 1, Rating("like", "gut", at=5))])
    return stream_id


def names(client: redis.Redis) -> list[str]:
    """Return all keys without those that any start makes."""
    keys = map(str, client.scan_iter("*"))
    own = ("{dify_batch}", "dify_secret", "dify_rules", "{dify_log}", "{dify_replicas}")
    return sorted(key for key in keys if not key.startswith(own))


def test_a_person_is_forgotten(desk: Desk, capsys: pytest.CaptureFixture[str], stored: redis.Redis) -> None:
    """Rows, streams, files, conversations, histories, ratings, names and tokens.

    What Redis has afterwards is what it had before the person came, when another one had asked.
    """
    settings: Settings = desk.container.settings
    url = url_of(desk)
    other = asks(desk, "zhangsan2")
    wait_until(lambda: desk.manager.running == 0, timeout=30.0)
    without = names(stored)
    stream_id = asks(desk, "zhangsan")
    desk.container.usage.start()  # type: ignore[union-attr]
    wait_until(lambda: len(rows(url)) == 2 and desk.manager.running == 0, timeout=30.0)
    before = names(stored)

    assert log.main(["forget", "zhangsan", "--json"], load=lambda: settings) == 0
    counted = json.loads(capsys.readouterr().out)
    assert names(stored) == before
    assert log.main(["forget", "zhangsan", "--yes", "--json"], load=lambda: settings) == 0
    deleted = json.loads(capsys.readouterr().out)

    kinds = {"rows": 1, "usage": 1, "ratings": 1, "streams": 1, "files": 1, "conversations": 1, "histories": 1}
    assert {name: deleted[name] for name in kinds} == {name: counted[name] for name in kinds} == kinds
    assert (deleted["tokens"], deleted["names"], deleted["deleted"]) == (2, 1, True)
    assert names(stored) == without
    assert stream_id not in str(without)
    assert [row["person"] for row in rows(url)] == ["zhangsan2"]
    assert [row["stream_id"] for row in rows(url, FEEDBACK)] == [other]
    assert total(url, "questions", "likes") == (2, 2)
    assert log.main(["forget", "zhangsan", "--yes", "--json"], load=lambda: settings) == 0
    again = json.loads(capsys.readouterr().out)
    assert [again[name] for name in kinds] == [0] * len(kinds)


def test_a_persons_batches_are_removed(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """One that has ended and one whose item is being asked; those of a program and of another person stay."""
    settings: Settings = desk.container.settings
    settings = settings.model_copy(update={"batch_storage_path": "/srv/batches"})
    with Shelf(url_of(desk)) as shelf:
        owners = ("user:lisi", "user:lisi", "user:lisi2", "key:0a1b/lisi")
        tasks = [shelf.submits(1, owner=owner) for owner in owners]
        shelf.store.complete(shelf.claims(0), content="答")
        running = shelf.claims(1)

        assert log.main(["forget", "lisi", "--json"], load=lambda: settings) == 0
        counted = json.loads(capsys.readouterr().out)
        assert shelf.finds(tasks[1].task_id)
        assert log.main(["forget", "lisi", "--yes", "--json"], load=lambda: settings) == 0
        deleted = json.loads(capsys.readouterr().out)

        assert counted["batches"] == deleted["batches"] == 2
        assert [bool(shelf.finds(task.task_id)) for task in tasks] == [False, False, True, True]
        assert [shelf.store.rows(task.task_id) for task in tasks[:2]] == [[], []]
        assert not shelf.store.complete(running, content="答")
    (line,) = [what for what in deleted["not_reached"] if "BATCH_STORAGE_PATH" in what]
    assert all(f"{task.task_id}.jsonl" in line for task in tasks[:2])


def test_a_running_answer_is_ended_first(
    desk: Desk, provider: SlowProvider, capsys: pytest.CaptureFixture[str], stored: redis.Redis
) -> None:
    """Else its row would be written after the others were deleted."""
    settings: Settings = desk.container.settings
    url = url_of(desk)
    provider.go_on.clear()
    desk.container.usage.start()  # type: ignore[union-attr]
    stream_id = desk.asks(principal="lisi").stream_id
    wait_until(lambda: bool(provider.asked), timeout=30.0)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(log.main, ["forget", "lisi", "--yes"], load=lambda: settings)
        wait_until(lambda: stored.hget(f"dify_stream:{stream_id}", "status") == "cancelled", timeout=30.0)
        provider.go_on.set()
        assert done.result() == 0
    wait_until(lambda: desk.manager.running == 0, timeout=30.0)

    assert "not reached: the provider's own log" in capsys.readouterr().out
    assert not stored.exists(f"dify_stream:{stream_id}")
    assert [row["person"] for row in rows(url)] == []


def test_the_sums_of_a_person_become_nobodys(sql_url: str) -> None:
    """They are added to those that are there; a later rating of the person's answer is still counted."""
    now = datetime.now(UTC)
    migrated(sql_url)
    with closing(SqlFeedbackStore(sql_url)) as ratings, closing(SqlUsageStore(sql_url)) as store:
        store.save(
            [entry("s1"), entry("s2", person=""), entry("s3", day=now.date()), entry("s4", person="x")], log=True
        )

        assert store.forget_usage("zhangsan", delete=False) == 2
        assert store.forget_usage("zhangsan", delete=True) == 2

        ratings.save("s1", ANSWER, [("p1", 1, Rating("like", at=5))])
        assert store.forget_usage("zhangsan", delete=True) == 0
    assert total(sql_url, "questions", "tokens", "likes") == (4, 120, 1)
    assert {row["person"] for table in (DAILY, MONTHS) for row in rows(sql_url, table)} == {"", "x"}
