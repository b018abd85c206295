"""The overview: the figures of today and a week ago, replicas, dependencies, and what is wrong now with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from flask import Flask

from channels.admin.overview import OverviewParts, overview_blueprint
from channels.web.errors import register_rest_errors
from channels.web.guarded import Administrators
from config.texts import Texts
from services.admin.tokens import AdminTokens, GivenToken
from services.errors import StoreUnavailable
from services.identity.guesses import Guesses
from services.ops.health import Health, Probe
from services.ops.remedies import CHINESE, CLOCK, DOCTOR, EVICTED, REDIS, SQL, remedy_of
from services.ops.replica_store import RunningReplica
from services.usage.log_store import SqlLogStore
from services.usage.sql_store import SqlUsageStore
from services.usage.sums_store import SqlSumsStore
from services.wecom.long_connection.lease_store import LeaseState
from tests.support.schema import migrated
from tests.support.usage import entry

SHANGHAI = ZoneInfo("Asia/Shanghai")
#: A time at which UTC still has the day before.
NOW = datetime(2026, 11, 24, 7, 30, tzinfo=SHANGHAI)


class Now:
    """The overview of a product in a state that a test sets."""

    def __init__(self, folder: Path, closes: ExitStack) -> None:
        url = migrated(f"sqlite:///{folder}/overview.db")
        self.usage, self.log, self.sums = SqlUsageStore(url), SqlLogStore(url), SqlSumsStore(url)
        for each in (self.usage, self.log, self.sums):
            closes.callback(each.close)
        self.away: StoreUnavailable | None = None
        self.running = 0
        self.others: list[RunningReplica] = []
        self.probes: dict[str, Probe] = {"redis": lambda: True, "sql": lambda: True}
        self.lease = LeaseState(now=100.0)

    def this(self) -> RunningReplica:
        return RunningReplica("pod-1:7", "1.2.3", NOW.timestamp(), draining=False, answers=1, capacity=500)

    def all(self) -> list[RunningReplica]:
        """Return the replicas, as `ReplicaStore` does."""
        return [self.this(), *self.others]

    def count(self) -> int:
        """Return the number of answers in progress, as `RunningStreams` does."""
        if self.away:
            raise self.away
        return self.running

    def look(self, bot: str) -> LeaseState:
        if self.away:
            raise self.away
        return self.lease

    def gets(self, *, sql: bool = True, token: str = "fake-token") -> tuple[int, Any]:
        """Return the status and the data of the overview."""
        health = Health(rag=("dify", lambda: True), dependencies=self.probes, wait_seconds=60.0)
        parts = OverviewParts(
            self.log if sql else None,
            self.sums if sql else None,
            SHANGHAI,
            running=self.count,
            replicas=self,
            look=health.look,
            bots=["default"],
            lease=self.look,
        )
        tokens = AdminTokens([GivenToken("ann", "viewer", "fake-token")])
        app = Flask("overview")
        app.register_blueprint(overview_blueprint(Administrators(tokens, Guesses(), None), parts, clock=lambda: NOW))
        register_rest_errors(app, Texts(), {})
        reply = app.test_client().get("/api/admin/overview", headers={"Authorization": f"Bearer {token}"})
        return reply.status_code, reply.get_json()["data"]


@pytest.fixture
def now(tmp_path: Path) -> Iterator[Now]:
    with ExitStack() as closes:
        yield Now(tmp_path, closes)


def raises(error: Exception) -> Probe:
    def probe() -> bool:
        raise error

    return probe


def of_sql(*words: Any) -> StoreUnavailable:
    """Return the error of a database, as `SqlDatabase` raises it."""
    error = StoreUnavailable(f"SQL failed: OperationalError {words[0]}")
    error.__cause__ = sa.exc.OperationalError("SELECT 1", {}, Exception(*words))
    return error


def test_figures_are_those_of_today_and_of_the_weekday_before(now: Now) -> None:
    """Days are those of REPORT_TZ; a person counts once, and a failure by its code."""
    times = [NOW - timedelta(minutes=minutes) for minutes in (1, 2, 3)]
    seconds = (0.5, 1.0, 9.0)
    asked = [
        entry(f"t{n}", day=NOW.date(), time=times[n], person=("wang", "li", "wang")[n], first_text_seconds=seconds[n])
        for n in range(3)
    ]
    failed = entry("f", day=NOW.date(), time=NOW, person="", outcome="provider_timeout", price=None, tokens=None)
    before = NOW - timedelta(days=7)
    late = entry("w", day=before.date(), time=before.replace(hour=23), first_text_seconds=2.0)
    other_day = entry("o", day=NOW.date() - timedelta(days=1), time=NOW - timedelta(hours=8), first_text_seconds=99.0)
    now.usage.save([*asked, failed, late, other_day], log=True)

    status, data = now.gets()

    assert (status, data["figures_missing"], data["zone"]) == (200, None, "Asia/Shanghai")
    assert data["today"] == {
        "day": "2026-11-24",
        "questions": 4,
        "people": 2,
        "failures": {"provider_timeout": 1},
        "prices": {"USD": 0.003},
        "dislikes": 0,
        "first_text_median": 1.0,
        "first_text_p95": 9.0,
        "measured": 3,
    }
    week = data["last_week"]
    assert (week["day"], week["questions"], week["first_text_median"]) == ("2026-11-17", 1, 2.0)


def test_a_day_without_questions_has_zeros_and_no_seconds(now: Now) -> None:
    """Nothing was measured, which is not 0 seconds."""
    today = now.gets()[1]["today"]

    assert (today["questions"], today["people"], today["failures"], today["prices"]) == (0, 0, {}, {})
    assert (today["first_text_median"], today["first_text_p95"], today["measured"]) == (None, None, 0)


def test_figures_are_null_without_a_database_and_while_it_is_away(now: Now) -> None:
    """The rest is there, and the reason beside the figures."""
    assert now.gets(sql=False)[1]["figures_missing"] == "no_database"

    now.probes["sql"] = raises(of_sql(2003, "Can't connect to MySQL server on 'db'"))
    status, data = now.gets()

    assert (status, data["today"], data["last_week"]) == (200, None, None)
    assert (data["figures_missing"], data["status"], data["in_progress"]) == ("store_unavailable", "degraded", 0)
    (problem,) = data["problems"]
    assert (problem["name"], "Can't connect" in problem["cause"]) == ("sql", True)
    assert problem["remedy"] == "start MySQL, or correct MYSQL_HOST (MYSQL_READ_HOST) and MYSQL_PORT"


def test_replicas_have_their_load_version_and_drain(now: Now) -> None:
    """Those of the registry; an answer that nobody writes counts among those in progress."""
    now.running = 4
    now.others = [RunningReplica("pod-2:9", "1.2.4", NOW.timestamp() - 60, draining=True, answers=2, capacity=300)]

    data = now.gets()[1]

    assert data["in_progress"] == 4
    shown = [tuple(each.values()) for each in data["replicas"]]
    assert shown == [
        ("pod-1:7", "1.2.3", "2026-11-24T07:30:00+08:00", False, 1, 500),
        ("pod-2:9", "1.2.4", "2026-11-24T07:29:00+08:00", True, 2, 300),
    ]
    assert list(data["replicas"][0]) == ["name", "version", "since", "draining", "answers", "capacity"]


def test_a_long_connection_has_its_holder(now: Now) -> None:
    """A lease that ended has none."""
    now.lease = LeaseState(now=100.0, holder="pod-2:9:aa", expires=105.0, subscribed=True, looked=99.0)
    held = {"bot": "default", "holder": "pod-2:9", "subscribed": True, "stands_by": True}
    assert now.gets()[1]["long_connections"] == [held]

    now.lease = LeaseState(now=106.0, holder="pod-2:9:aa", expires=105.0, subscribed=True, looked=99.0)
    lost = {"bot": "default", "holder": None, "subscribed": False, "stands_by": False}
    assert now.gets()[1]["long_connections"] == [lost]


def test_without_redis_the_overview_says_so(now: Now) -> None:
    """The figures of the database stay, and the replica that answers."""
    error = StoreUnavailable("Redis failed: ConnectionError: connection refused")
    now.away, now.others = error, [now.this()]
    now.probes["redis"] = raises(error)

    status, data = now.gets()

    assert (status, data["status"], data["in_progress"], data["long_connections"]) == (200, "unhealthy", None, [])
    assert (data["today"]["questions"], [each["name"] for each in data["replicas"]]) == (0, ["pod-1:7"])
    assert [problem["remedy"].startswith("start Redis") for problem in data["problems"]] == [True]


@pytest.mark.parametrize(
    ("name", "probe", "cause", "remedy"),
    [
        ("auth", lambda: False, "unavailable", DOCTOR),
        ("rules", lambda: "QUOTAS_FILE: line 3", "QUOTAS_FILE: line 3", DOCTOR),
        (
            "long_connection:sales",
            lambda: "another program runs this bot; then: …",
            "another program runs this bot; then: …",
            EVICTED.format(bot="sales"),
        ),
    ],
)
def test_each_problem_has_a_remedy(now: Now, name: str, probe: Probe, cause: str, remedy: str) -> None:
    """The doctor's remedy of this fault, or the doctor."""
    now.probes[name] = probe

    chinese = CHINESE.get(remedy) or CHINESE[EVICTED].format(bot="sales")
    assert now.gets()[1]["problems"] == [{"name": name, "cause": cause, "remedy": remedy, "remedy_zh": chinese}]


def test_every_remedy_is_there_in_chinese() -> None:
    """Also those of the stores that no other test here makes fail."""
    english = {remedy_of(f"{kind} {key}") for kind, pairs in (("SQL", SQL), ("Redis", REDIS)) for key, _ in pairs}

    assert {*english, remedy_of("SQL 1146"), CLOCK, EVICTED, DOCTOR} == set(CHINESE)
    assert [words for words in CHINESE.values() if words.isascii()] == []


def test_the_overview_is_for_administrators(now: Now) -> None:
    """Without a valid token there is none."""
    assert now.gets(token="fake-other")[0] == 401
