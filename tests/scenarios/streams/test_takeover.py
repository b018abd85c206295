"""A replica is killed while it answers: another one continues, and the user sees a pause and then the whole answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from demo.mocks.auth import DEMO_USER_QUERY, MockAuth, create_demo_users
from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.chaos_fleet import Fleet, fleet
from tests.scenarios.stage.chaos_talk import LEASE, Talk, begin, report
from tests.scenarios.stage.people import TIMEOUT, at_once, people, stored
from tests.support.replicas import AES_KEY, TOKEN, dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

#: Longest stall in seconds: lease, suspicion, a poll, and an allowance for a busy machine.
MAX_STALL = LEASE + (LEASE / 3 + 1) + 1 + 14


#: DIFY_TIMEOUT in seconds, after which a silent run is given up.
DIFY_TIMEOUT = "10"


class Case(NamedTuple):
    """A user's question; `bot` names the Dify that answers."""

    bot: str
    userid: str
    question: str


#: Cases by what the owner was doing when it was killed.
RUNNING = {
    "Dify's run goes on, its events can be read": Case("events", "user000", "请假流程 [[chatflow]]"),
    "Dify's run goes on, it has its history only": Case("history", "user001", "报销流程 [[chatflow]]"),
    "a chat app, it has its history only": Case("history", "user002", "年假 [[chat]]"),
    "Dify's run dies with its reader": Case("mortal", "user003", "入职流程 [[chatflow]]"),
    "a chat app, its run dies with its reader": Case("mortal", "user004", "调岗流程 [[chat]]"),
    "Dify's run goes on, nobody polls": Case("events", "user005", "离职流程 [[chatflow]]"),
}
UNPOLLED = "Dify's run goes on, nobody polls"
QUEUED, UNKNOWN = "the question waits for its turn", "its person is being authenticated"
UNASKED = {QUEUED: Case("events", "user000", "然后呢？"), UNKNOWN: Case("events", "user006", "有人吗？")}
#: The usercode of the user in `UNKNOWN`.
UNKNOWN_CODE = "E0006"


@contextmanager
def difys() -> Iterator[dict[str, MockDify]]:
    """Run a Dify of each kind; the keys are the bots' names."""
    with (
        MockDify(delay=0.35, after_disconnect="runs on") as events,
        MockDify(delay=0.15, after_disconnect="runs on", events=False) as history,
        MockDify(delay=0.2, after_disconnect="dies") as mortal,
    ):
        yield {"events": events, "history": history, "mortal": mortal}


def company_settings(redis_url: str, by_bot: Mapping[str, MockDify], auth: MockAuth, database: Path) -> dict[str, str]:
    """Return the settings with a bot for each Dify, users to authenticate, and a short lease."""
    create_demo_users(f"sqlite:///{database}", auth.users.values())
    own = {"WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": AES_KEY}
    bots = {bot: {**own, **dify_settings(dify.base_url, DIFY_TIMEOUT=DIFY_TIMEOUT)} for bot, dify in by_bot.items()}
    return settings_for(
        redis_url,
        AUTH_MODE="external",
        AUTH_SERVICE_URL=auth.url,
        AUTH_USER_QUERY=DEMO_USER_QUERY,
        DATABASE_PATH=str(database),
        WECHAT_BOTS=json.dumps(bots),
        STREAM_LEASE=f"{LEASE:g}",
    )


def ask(replicas: Fleet, by_bot: Mapping[str, MockDify], case: Case) -> Talk:
    return begin(replicas, by_bot[case.bot], *case)


def wait_completed(redis: RedisServer, talk: Talk) -> None:
    """Wait until the answer is whole in Redis, and only then poll once."""
    wait_until(lambda: stored(redis, talk.bubble.stream_id).fields["status"] == "completed", TIMEOUT)
    talk.person.polls(talk.bubble)


def test_an_answer_outlives_its_owner(
    redis_server: RedisServer, redis_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Wherever a killed owner was, its answer arrives whole and once, with one call of the provider where possible.

    A run that ended with its owner's connection is started a second time; the text never goes backwards.
    """
    with MockAuth(people(7)) as auth, difys() as by_bot:
        env = company_settings(redis_url, by_bot, auth, tmp_path / "people.db")
        with fleet(3, env, tmp_path) as replicas:
            running = at_once(partial(ask, replicas, by_bot, case) for case in RUNNING.values())
            talks = dict(zip(RUNNING, running, strict=True))
            at_once(talk.wait_text for talk in talks.values())
            auth.behaviour = "hang"
            talks |= {name: ask(replicas, by_bot, case) for name, case in UNASKED.items()}
            wait_until(lambda: auth.calls[UNKNOWN_CODE])
            replicas.members[0].kill()
            auth.behaviour = "normal"
            waits = [talk.wait_end for name, talk in talks.items() if name != UNPOLLED]
            at_once([*waits, lambda: wait_completed(redis_server, talks[UNPOLLED])])
            records = {name: talk.record(redis_server, replicas) for name, talk in talks.items()}

    report(records, record_property)
    assert {name: (r.right, r.calls, r.replaced, list(r.takeovers)) for name, r in records.items()} == {
        name: (True, 2 if "dies" in name else 1, False, ["takeover"]) for name in talks
    }
    assert records["Dify's run goes on, it has its history only"].stall < MAX_STALL
    assert {dify.stops == [] for bot, dify in by_bot.items() if bot != "mortal"} == {True}


def test_an_answer_outlives_two_owners_in_a_row(
    redis_server: RedisServer, redis_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """If the second owner is killed too, the third continues, and the provider is called once in all."""
    with MockDify(delay=0.5, after_disconnect="runs on") as dify:
        env = settings_for(redis_url, **dify_settings(dify.base_url), STREAM_LEASE=f"{LEASE:g}")
        with fleet(3, env, tmp_path) as replicas:
            talk = begin(replicas, dify, "", "zhangsan", "出差流程")
            talk.wait_text()
            replicas.members[0].kill()
            talk.poll_until(lambda: replicas.logged("stream taken over"))
            (taken,) = replicas.logged("stream taken over")
            replicas.members[taken["by"]].kill()
            talk.wait_end()
            record = talk.record(redis_server, replicas)

        report({"two owners in a row": record}, record_property)
        fields = stored(redis_server, talk.bubble.stream_id).fields
        assert (record.right, record.calls, record.replaced) == (True, 1, False)
        assert list(record.takeovers) == ["takeover", "takeover"]
        assert (fields["epoch"], fields["takeovers"], fields["asks"]) == ("3", "2", "1")
        assert [line["former_owner"] for line in replicas.logged("stream taken over")][1:] == [taken["owner"]]


def test_an_answer_outlives_the_only_replica(
    redis_server: RedisServer, redis_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """After SIGKILL of the only replica and a new start, the bubble pauses and then shows its whole answer."""
    with MockDify(delay=0.05, limit=120.0, after_disconnect="runs on") as dify:
        env = settings_for(redis_url, **dify_settings(dify.base_url), STREAM_LEASE=f"{LEASE:g}")
        dify.holds_at = 8
        with fleet(1, env, tmp_path) as alone:
            talk = begin(alone, dify, "", "zhangsan", "怎么领电脑？")
            talk.wait_text()
            (killed,) = alone.members
            killed.kill()
            dify.holds_at = None
            alone.replace(killed)
            talk.wait_end()
            record = talk.record(redis_server, alone)

    report({"killed and restarted": record}, record_property)
    assert (record.right, record.calls, list(record.takeovers)) == (True, 1, ["takeover"])
