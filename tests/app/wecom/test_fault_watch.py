"""The faults that the gateway posts to the operators' group by itself: when they begin and end, and who posts them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from config.texts import EN, Texts
from services import metrics
from services.errors import ProviderError
from services.redis.lock_store import LockStore
from services.redis.store import ScriptRunner, connect
from services.wecom.alert_store import AlertStore, FaultStore
from services.wecom.alerts import GroupAlerts
from services.wecom.fault_watch import ALERTS, LEAST_ENDED, RETRY_SECONDS, ROUND_SECONDS, FaultWatch
from tests.support.servers.processes import RedisServer
from tests.support.servers.relay import Relay

ROOT = Path(__file__).parents[3]

Ended = Callable[[], tuple[int, int]]


def none_ended() -> tuple[int, int]:
    return 0, 0


class World:
    """Replicas that watch one deployment, with a clock of the test's and a Redis behind a relay."""

    def __init__(self, relay: Relay, client: redis.Redis) -> None:
        self.relay = relay
        self._redis = client
        self._connected = connect(f"redis://127.0.0.1:{relay.port}/1", pool_size=4, timeout=5.0)
        self._runner = ScriptRunner(self._connected)
        self._store = FaultStore(self._runner)
        self.clock = 1_000_000.0
        self.dependencies = {"redis": "ok", "sql": "ok", "rules": "ok", "long_connection:hr": "ok"}
        self.rag = True
        self.refuses = False
        self._posted: list[str] = []

    def close(self) -> None:
        self._connected.close()

    def replica(self, ended: Ended = none_ended) -> FaultWatch:
        return FaultWatch(
            GroupAlerts(AlertStore(self._runner, per_hour=20), self._post, Texts("en")),
            self._store,
            LockStore(self._runner),
            report=lambda: {"services": {"rag": self.rag}, "dependencies": self.dependencies},
            ended=ended,
            texts=Texts("en"),
            replica="replica",
            clock=lambda: self.clock,
            now=lambda: self.clock,
        )

    def _post(self, message: str) -> None:
        if self.refuses:
            raise ProviderError("errcode 45009")
        self._posted.append(message)

    def rounds(self, count: int, *replicas: FaultWatch) -> list[str]:
        """Let the replicas do rounds, the first one first; return what was posted meanwhile."""
        before = len(self._posted)
        for _ in range(count):
            self._store.now = str(self.clock)
            for each in replicas:
                assert each.work() == ROUND_SECONDS
            self.clock += ROUND_SECONDS
        return self._posted[before:]

    def loses_its_leader(self) -> None:
        """End the lock, as Redis does after a killed leader."""
        self._redis.delete("dify_lock:alert_watch")


@pytest.fixture
def world(redis_server: RedisServer, redis_url: str) -> Iterator[World]:
    with Relay(redis_server.port) as relay, redis_server.client() as client:
        made = World(relay, client)
        yield made
        made.close()


def firing(kind: str, bot: str = "", **parts: object) -> str:
    """Return the message of a fault."""
    name, key = ALERTS[kind]
    lines = (EN[key].format(bot=bot, **parts), f"docs/runbook.md#{name.lower()}")
    words = "\n".join(f"> {line}" for line in lines)
    return EN["alert_firing"].format(name=f"{name} ({bot})" if bot else name, words=words, severity="critical")


def over(kind: str, bot: str = "") -> str:
    name = ALERTS[kind][0]
    return EN["alert_resolved"].format(name=f"{name} ({bot})" if bot else name, words="")


def breaks_sql(world: World) -> None:
    world.dependencies["sql"] = "unavailable"


def breaks_the_provider(world: World) -> None:
    world.rag = False


def evicts_the_bot(world: World) -> None:
    world.dependencies["long_connection:hr"] = "another program runs this bot; then: python -m tools.wecom resume hr"


def unsubscribes_the_bot(world: World) -> None:
    world.dependencies["long_connection:hr"] = "not subscribed: connect_failed"


def mends(world: World) -> None:
    world.rag = True
    world.dependencies = dict.fromkeys(world.dependencies, "ok")


FAULTS: dict[str, tuple[Callable[[World], None], str, str]] = {
    "sql": (breaks_sql, firing("sql"), over("sql")),
    "provider": (breaks_the_provider, firing("provider"), over("provider")),
    "evicted": (evicts_the_bot, firing("evicted", "hr"), over("evicted", "hr")),
    "unsubscribed": (unsubscribes_the_bot, firing("unsubscribed", "hr"), over("unsubscribed", "hr")),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_posted_once_over_all_replicas_and_once_more_when_it_is_over(world: World, kind: str) -> None:
    """The leader finds it in a second round in a row; a third is silent."""
    breaks, began, ended = FAULTS[kind]
    replicas = world.replica(), world.replica()
    assert world.rounds(3, *replicas) == []

    breaks(world)
    assert world.rounds(1, *replicas) == []
    assert world.rounds(1, *replicas) == [began]
    assert world.rounds(9, *replicas) == []

    mends(world)
    assert world.rounds(1, *replicas) == []
    assert world.rounds(1, *replicas) == [ended]
    assert world.rounds(9, *replicas) == []


@pytest.mark.parametrize("kind", FAULTS)
def test_one_slow_check_is_no_fault(world: World, kind: str) -> None:
    """A fault of every second round is none, and one good round in between does not end one."""
    breaks, began, _ = FAULTS[kind]
    replica = world.replica()

    for _ in range(3):
        breaks(world)
        assert world.rounds(1, replica) == []
        mends(world)
        assert world.rounds(1, replica) == []
    breaks(world)
    assert world.rounds(2, replica) == [began]
    mends(world)
    assert world.rounds(1, replica) == []
    breaks(world)
    assert world.rounds(3, replica) == []


def test_other_dependencies_are_not_posted(world: World) -> None:
    world.dependencies["rules"] = "QUOTAS_FILE: expected a number"

    assert world.rounds(3, world.replica()) == []


def test_faults_that_begin_together_are_one_message(world: World) -> None:
    breaks_sql(world)
    breaks_the_provider(world)

    (message,) = world.rounds(2, world.replica())

    assert sorted(message.split("\n\n")) == sorted([firing("sql"), firing("provider")])


def test_redis_away_is_posted_by_the_last_leader_alone(world: World) -> None:
    """Without Redis nobody can lead; the other replica is silent, also about the end of the outage."""
    leader, other = world.replica(), world.replica()
    world.rounds(1, leader, other)

    with world.relay.refusing():
        assert world.rounds(1, other, leader) == []
        assert world.rounds(1, other, leader) == [firing("redis")]
        assert world.rounds(9, other, leader) == []
    # A Redis that comes back empty gives the lead to the first replica.
    world.loses_its_leader()
    assert world.rounds(1, other, leader) == []
    assert world.rounds(1, other, leader) == [over("redis")]
    assert world.rounds(3, other, leader) == []


def test_an_outage_of_redis_for_one_round_is_not_posted(world: World) -> None:
    leader = world.replica()
    world.rounds(1, leader)

    for _ in range(3):
        with world.relay.refusing():
            assert world.rounds(1, leader) == []
        assert world.rounds(3, leader) == []


def test_a_leader_that_was_paused_for_longer_than_its_lock_does_not_post_redis_away(world: World) -> None:
    """Another replica may have led meanwhile."""
    leader = world.replica()
    world.rounds(1, leader)
    world.clock += 3600

    with world.relay.refusing():
        assert world.rounds(3, leader) == []


def test_the_next_leader_repeats_nothing_and_ends_what_the_last_one_began(world: World) -> None:
    """The fault and the start of its occurrence are in Redis; the next occurrence is another one."""
    killed, other = world.replica(), world.replica()
    breaks_sql(world)
    assert world.rounds(2, killed, other) == [firing("sql")]
    world.loses_its_leader()

    assert world.rounds(3, other) == []
    mends(world)
    assert world.rounds(2, other) == [over("sql")]
    breaks_sql(world)
    assert world.rounds(2, other) == [firing("sql")]


def test_a_replica_that_leaves_lets_another_lead(world: World) -> None:
    leader, other = world.replica(), world.replica()
    world.rounds(1, leader, other)
    breaks_sql(world)

    leader.leave()

    assert world.rounds(2, other) == [firing("sql")]


def test_a_fault_that_the_robot_did_not_take_is_posted_later(world: World) -> None:
    """The next attempt is a minute later; the same for the end of the fault, also for that of Redis."""
    replica = world.replica()
    pause = int(RETRY_SECONDS / ROUND_SECONDS)
    world.refuses = True
    breaks_sql(world)
    assert world.rounds(2, replica) == []
    world.refuses = False
    assert world.rounds(pause - 1, replica) == []
    assert world.rounds(1, replica) == [firing("sql")]

    world.refuses = True
    mends(world)
    assert world.rounds(2, replica) == []
    world.refuses = False
    assert world.rounds(pause, replica) == [over("sql")]


def test_the_end_of_an_outage_of_redis_is_posted_later_too(world: World) -> None:
    replica = world.replica()
    pause = int(RETRY_SECONDS / ROUND_SECONDS)
    world.rounds(1, replica)
    with world.relay.refusing():
        assert world.rounds(2, replica) == [firing("redis")]
    world.refuses = True
    assert world.rounds(2, replica) == []
    world.refuses = False

    assert world.rounds(pause, replica) == [over("redis")]


class Answers:
    """The answers that have ended in one process."""

    def __init__(self, ended: int = 0, failed: int = 0) -> None:
        self.counts = ended, failed

    def __call__(self) -> tuple[int, int]:
        return self.counts

    def end(self, ended: int, failed: int) -> None:
        self.counts = self.counts[0] + ended, self.counts[1] + failed


def test_failed_answers_are_counted_over_all_replicas(world: World) -> None:
    """More than a fifth of 20 in five minutes; those from before a process's watch began do not count."""
    answers = Answers(1000, 1000), Answers()
    replicas = [world.replica(each) for each in answers]
    assert world.rounds(3, *replicas) == []

    answers[0].end(10, 0)
    answers[1].end(10, 5)
    # The second replica's answers are counted after the leader has looked.
    assert world.rounds(2, *replicas) == []
    assert world.rounds(1, *replicas) == [firing("answers", ended=20, failed=5)]
    assert world.rounds(3, *replicas) == []
    # Their minute is over after five.
    assert world.rounds(20, *replicas) == [over("answers")]


@pytest.mark.parametrize(("ended", "failed"), [(LEAST_ENDED, 4), (LEAST_ENDED - 1, LEAST_ENDED - 1), (1000, 200)])
def test_a_fifth_of_the_answers_or_few_answers_may_fail(world: World, ended: int, failed: int) -> None:
    answers = Answers()
    replica = world.replica(answers)

    answers.end(ended, failed)

    assert world.rounds(5, replica) == []


def test_the_answers_of_a_process_are_those_of_its_metric() -> None:
    """An answer that a person stopped, or that a rule did not allow, has not failed."""
    before = metrics.ended_answers()
    for outcome in ("completed", "cancelled", "forbidden_words", "media_too_large", "provider_error"):
        metrics.STREAMS.labels("wecom", outcome).inc()

    after = metrics.ended_answers()

    assert (after[0] - before[0], after[1] - before[1]) == (5, 1)


def test_the_rules_of_prometheus_count_the_same_answers_as_failed() -> None:
    rules = (ROOT / "deploy" / "prometheus-rules.yaml").read_text("utf-8")

    assert set(re.findall(r'outcome!~"([^"]+)"', rules)) == {metrics.NOT_FAILED.pattern}
