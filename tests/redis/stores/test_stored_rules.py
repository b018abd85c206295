"""Rules that are saved: which version a replica has in force, and what it does while the database is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import redis

from services import metrics
from services.errors import AnswerError, StoreUnavailable
from services.redis.store import ScriptRunner
from services.rules.copy_store import KEY, RulesCopyStore
from services.rules.stored_rules import LOOK_SECONDS, RulesVersions, StoredRules, Version
from tests.support.batches.shelf import at_once
from tests.support.servers.processes import FakeClock

AT = datetime(2026, 11, 25, 3, tzinfo=UTC)


def number(text: str) -> int:
    if not text.strip().isdigit():
        raise ValueError("a number")
    return int(text)


class Database:
    """The versions of a database, which may be away or without the table."""

    def __init__(self) -> None:
        self.saved: dict[str, list[str]] = {}
        self.at = AT
        self.is_away = self.has_no_table = False
        self.looks = 0

    def save(self, kind: str, text: str) -> None:
        self.saved.setdefault(kind, []).append(text)

    def newest(self) -> dict[str, Version] | None:
        self.looks += 1
        if self.is_away:
            raise StoreUnavailable("SQL failed: OperationalError 2003")
        found = {kind: Version(len(texts), self.at, "wang") for kind, texts in self.saved.items()}
        return None if self.has_no_table else found

    def text(self, kind: str, number: int) -> str | None:
        return self.saved[kind][number - 1]


class Replica:
    """A replica with the rules of two kinds, which are 0 where nobody has made any."""

    def __init__(self, database: Database, runner: ScriptRunner) -> None:
        self.clock = FakeClock()
        self.versions = RulesVersions(database, RulesCopyStore(runner), clock=self.clock)
        self.access: StoredRules[int] = self.versions.open("access", number, 0)
        self.quotas: StoredRules[int] = self.versions.open("quotas", number, 0)

    def refuses(self) -> bool:
        try:
            self.access.rules  # noqa: B018 - it raises
        except AnswerError as exc:
            return exc.code == "store_unavailable"
        return False


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def starts(database: Database, runner: ScriptRunner) -> Callable[[], Replica]:
    """Start another replica."""
    return partial(Replica, database, runner)


def test_a_version_is_in_force_with_the_next_look(database: Database, starts: Callable[[], Replica]) -> None:
    """On every replica; an emptied text ends the rules of its kind."""
    one, other = starts(), starts()
    assert (one.access.rules, one.quotas.rules) == (0, 0)
    database.save("access", "7")
    for replica in (one, other):
        replica.versions.look()
    assert [(each.access.rules, each.quotas.rules) for each in (one, other)] == [(7, 0), (7, 0)]

    database.save("access", " \n")
    one.versions.look()

    assert (one.access.rules, one.access.number, other.access.rules) == (0, 2, 7)


def test_a_version_that_this_replica_cannot_read_changes_nothing(
    database: Database, starts: Callable[[], Replica], caplog: pytest.LogCaptureFixture
) -> None:
    """The last good one stays in force, and the problem is in the metric until there is another."""
    replica = starts()
    database.save("access", "7")
    replica.versions.look()
    database.save("access", "seven")
    for _ in range(2):
        replica.versions.look()

    assert (replica.access.rules, replica.access.number, replica.access.problem) == (7, 1, "a number")
    assert caplog.messages.count("rules not read") == 1
    broken = partial(metrics.REGISTRY.get_sample_value, "wechatlaibao_rules_broken", {"setting": "ACCESS_FILE"})
    assert broken() == 1
    assert starts().refuses()
    database.save("access", "8")
    replica.versions.look()
    assert (replica.access.rules, broken()) == (8, 0)


def test_the_last_known_rules_stay_in_force_while_the_database_is_away(
    database: Database, starts: Callable[[], Replica], caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so once, and once that it is back."""
    caplog.set_level(logging.INFO)
    replica = starts()
    database.save("access", "7")
    replica.versions.look()
    database.is_away = True
    for _ in range(3):
        replica.versions.look()

    assert replica.access.rules == 7
    assert len([one for one in caplog.messages if one.startswith("rules are not looked up")]) == 1
    database.is_away = False
    database.save("access", "8")
    replica.versions.look()
    assert (replica.access.rules, caplog.messages.count("rules are looked up again")) == (8, 1)


def test_a_start_without_the_database_takes_the_copy(
    database: Database, starts: Callable[[], Replica], redis_client: redis.Redis
) -> None:
    """Also that there are no rules of a kind. A copy that is missing or of another version is written by a look."""
    database.save("access", "7")
    running = starts()
    running.versions.look()
    database.is_away = True
    assert (starts().access.rules, starts().quotas.rules) == (7, 0)

    database.is_away = False
    redis_client.delete(KEY)
    running.versions.look()
    database.save("access", "8")
    running.versions.look()
    database.is_away = True
    assert starts().access.rules == 8
    assert redis_client.ttl(KEY) == -1


def test_a_restored_dump_counts_though_its_numbers_are_lower(database: Database, starts: Callable[[], Replica]) -> None:
    """A version that was saved at another time is another one."""
    database.save("access", "7")
    database.save("access", "8")
    replica = starts()
    replica.versions.look()
    database.saved, database.at = {"access": ["1", "2"]}, AT + timedelta(seconds=1)
    replica.versions.look()

    database.is_away = True
    assert (replica.access.rules, starts().access.rules) == (2, 2)


def test_without_database_and_copy_questions_are_refused(database: Database, starts: Callable[[], Replica]) -> None:
    """They could be ones that nobody may ask. Nobody waits for a look that has just failed."""
    database.is_away = True
    replica = starts()
    assert replica.access.at_hand is None
    assert (database.looks, replica.refuses(), replica.refuses(), database.looks) == (0, True, True, 1)

    database.is_away = False
    replica.clock.advance(LOOK_SECONDS)

    assert (replica.refuses(), replica.access.rules, replica.quotas.at_hand) == (False, 0, 0)


@pytest.mark.parametrize(("hangs", "known"), [(0.3, True), (60.0, False)], ids=["slow", "hanging"])
def test_a_start_waits_for_the_first_look_for_a_while(
    database: Database, starts: Callable[[], Replica], monkeypatch: pytest.MonkeyPatch, hangs: float, known: bool
) -> None:
    """What begins with it, such as traffic, finds the rules known, unless the database hangs."""
    monkeypatch.setattr("services.rules.stored_rules.FIRST_LOOK_SECONDS", 0.1 if hangs > 10.0 else 30.0)
    go_on, newest = threading.Event(), database.newest
    monkeypatch.setattr(database, "newest", lambda: (go_on.wait(hangs), newest())[1])
    replica = starts()

    replica.versions.start()

    assert (replica.access.at_hand == 0) == known
    go_on.set()
    replica.versions.close()


def test_many_who_ask_at_once_cost_one_look(database: Database, starts: Callable[[], Replica]) -> None:
    """At the start, before the thread's first one."""
    database.save("access", "7")
    replica = starts()

    assert at_once([lambda: replica.access.rules] * 8) == [7] * 8
    assert database.looks == 1


def test_before_the_migration_there_are_no_rules_but_those_of_the_copy(
    database: Database, starts: Callable[[], Replica]
) -> None:
    """A database without the table never had a version, unless the copy knows better."""
    database.has_no_table = True
    assert starts().access.rules == 0

    database.has_no_table = False
    database.save("access", "7")
    starts().versions.look()
    database.has_no_table = True
    assert starts().access.rules == 7


def test_an_outage_of_redis_keeps_nobody_from_the_rules(database: Database) -> None:
    """The copy is written once it is back."""

    class Away(ScriptRunner):
        def __init__(self) -> None:
            pass

        def run(self, *_: object, **__: object) -> list[object]:
            raise StoreUnavailable("redis")

    database.save("access", "7")
    replica = Replica(database, Away())
    assert replica.access.rules == 7
