"""`QUOTAS_FILE`: questions are taken with their stream, corrected by the producer, and settled at every kind of end."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from services.answers.quotas import Quota
from services.errors import QuotaUsed
from services.models import Question, Usage
from services.rules.quotas import period
from services.rules.visitors import Visitor
from services.usage.tables import DAILY
from tests.support.rules import reread
from tests.support.schema import migrated
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.streams.desk import CALLER, Desk, SlowProvider
from tests.support.usage import rows

PEOPLE = "userid,department\nzhangsan,研发部\n"
RULES = """
- {questions: 2/day}
- {department: 研发部, questions: 4/day, tokens: 100/day}
- {department: 外包, questions: 1/day}
- {person: wangwu, unlimited: true}
- {chat: any, questions: 3/day}
- {bot: hr, total: true, questions: 2/month}
- {key: any, questions: 1/day}
"""
SENTENCES = {"quota_spent_person": "您 {limit}", "quota_questions_day": "{most}/day"}


@pytest.fixture
def provider() -> SlowProvider:
    provider = SlowProvider()
    provider.go_on.set()
    return provider


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "quotas.yaml"
    path.write_text(RULES, "utf-8")
    return path


def still(desk: Desk) -> Desk:
    """Let the calendar of a replica stand still, so that no test runs over midnight."""
    now = time.time()
    desk.container.answerer.quotas._clock = lambda: now
    return desk


@pytest.fixture
def desks(redis_url: str, provider: SlowProvider, rules: Path, tmp_path: Path) -> Iterator[list[Desk]]:
    """Two replicas."""
    people, texts = tmp_path / "people.csv", tmp_path / "texts.json"
    people.write_text(PEOPLE, "utf-8")
    texts.write_text(json.dumps(SENTENCES), "utf-8")
    files = {"QUOTAS_FILE": str(rules), "DEPARTMENTS_FILE": str(people), "TEXTS_FILE": str(texts)}
    own: Any = {"max_streams": 2000, "slots": 2000, "variables": files}
    made = [still(Desk(redis_url, provider, **own)) for _ in range(2)]
    yield made
    for desk in made:
        desk.close()


@pytest.fixture
def desk(desks: list[Desk]) -> Desk:
    return desks[0]


def quotas(desk: Desk, visitor: Visitor) -> dict[tuple[str, str, str], tuple[int, int]]:
    """Return by kind, unit and what is counted how much is used, and how many questions run."""
    found: list[Quota] = desk.container.answerer.quotas.quotas(visitor, departments_known=True)
    return {(one.kind, one.unit, one.thing): (one.used, one.running) for one in found}


ZHANGSAN = Visitor("default", "wecom", "zhangsan", ["研发部"])


def asks(desk: Desk, msgid: str, **changes: str) -> str:
    """Ask, wait for the end, and return the error's code."""
    asked = desk.asks(msgid=msgid, **changes)
    seen = {name: changes[name] for name in ("principal", "bot", "chat") if name in changes}
    return desk.sees_end(asked.stream_id, **seen).error_code if asked.status == "processing" else asked.error_code


def held(desk: Desk) -> int:
    """Return how many reservations there are in Redis."""
    keys = desk.client.keys("{dify_quota:*}:held")
    return sum(desk.client.zcount(key, "(0", "+inf") for key in keys)


def settled(desk: Desk) -> None:
    wait_until(lambda: held(desk) == 0)


def test_a_person_has_the_limit_of_the_last_rule(desk: Desk, provider: SlowProvider) -> None:
    """The sentence says which limit is reached; a redelivery repeats it, and nothing more is counted."""
    codes = [asks(desk, f"m{number}") for number in range(6)]

    assert codes == ["", "", "", "", "quota_used", "quota_used"]
    refused = desk.asks(msgid="m4")
    assert (desk.container.frames.content("default", refused), refused.found) == ("您 4/day", True)
    assert len(provider.asked) == 4
    settled(desk)
    assert quotas(desk, ZHANGSAN)["person", "day", "questions"] == (4, 0)


def test_the_producer_decides_what_needs_a_department(desk: Desk, provider: SlowProvider) -> None:
    """The department of a person who is not in the file may be found in the directory: it is not known here."""
    assert [asks(desk, f"m{number}", principal="lisi") for number in range(4)] == ["", "", "quota_used", "quota_used"]
    settled(desk)
    assert quotas(desk, Visitor("default", "wecom", "lisi")) == {("person", "day", "questions"): (2, 0)}
    assert [asks(desk, f"n{number}", principal="wangwu") for number in range(4)] == [""] * 4
    assert len(provider.asked) == 6


def test_a_question_needs_room_in_each_kind(desk: Desk, provider: SlowProvider) -> None:
    """What one refuses is counted by none."""
    everybody = ("wangwu", "zhangsan", "lisi", "zhaoliu")
    assert [asks(desk, f"m{one}", principal=one, chat="wr1") for one in everybody] == ["", "", "", "quota_used"]
    settled(desk)
    assert quotas(desk, Visitor("default", "wecom", "zhaoliu", chat="wr1")) == {
        ("person", "day", "questions"): (0, 0),
        ("chat", "day", "questions"): (3, 0),
    }
    assert [asks(desk, f"n{number}", bot="hr") for number in range(3)] == ["", "", "quota_used"]


def test_a_program_has_the_quota_of_its_key(desk: Desk, provider: SlowProvider) -> None:
    """Also for all of its users together; a client may ask again under the same id once the quota is new."""
    asked = [{"channel": "http", "principal": f"{CALLER.principal}/{one}"} for one in ("a", "b")]

    assert [asks(desk, f"m{at}", **one) for at, one in enumerate(asked)] == ["", "quota_used"]
    refused = desk.asks(msgid="m1", **asked[1])
    full = desk.streams.full_answer(refused.stream_id)
    assert full
    assert (full.text, full.limit.split()[:3]) == ("", ["questions-day", "1", "86400"])
    assert 0 < full.retry_after <= 86_400


def test_a_refused_stream_expires_with_the_quota(desk: Desk, rules: Path) -> None:
    """Then its client may ask again under the same id. Other people's refusals are repeated while streams live."""
    rules.write_text("- {total: true, questions: 0/minute}", "utf-8")
    reread(desk.container.rules)
    client = {"channel": "http", "principal": CALLER.principal}

    refused, repeated = desk.asks(**client), desk.asks()
    lives = [desk.client.pttl(f"dify_stream:{one.stream_id}") for one in (refused, repeated)]
    assert 0 < lives[0] <= 60_000 < lives[1]


def test_tokens_are_counted_at_the_end(desk: Desk, provider: SlowProvider) -> None:
    """A limit of tokens is exceeded by what was in flight at most."""
    provider.usage = Usage(total_tokens=60, prompt_tokens=50, completion_tokens=10)
    provider.go_on.clear()
    running = [desk.asks(msgid=f"m{number}") for number in range(3)]
    provider.go_on.set()
    for one in running:
        desk.sees_end(one.stream_id)
    settled(desk)

    assert quotas(desk, ZHANGSAN)["person", "day", "tokens"] == (180, 0)
    assert asks(desk, "m3") == "quota_used"


def test_questions_that_are_refused_for_another_reason_are_not_counted(
    redis_url: str, provider: SlowProvider, rules: Path
) -> None:
    """Neither where the slots are full, nor where the producer refuses."""
    rules.write_text("- {questions: 100/day}", "utf-8")
    access = rules.parent / "access.yaml"
    access.write_text("- {allow: true}\n- {person: lisi, allow: false}", "utf-8")
    provider.go_on.clear()
    files = {"QUOTAS_FILE": str(rules), "ACCESS_FILE": str(access)}
    desk = still(Desk(redis_url, provider, slots=1, variables=files))
    try:
        first, second = desk.asks(msgid="m1"), desk.asks(msgid="m2")
        assert (first.status, second.error_code, held(desk)) == ("processing", "user_full", 1)
        assert asks(desk, "m3", principal="lisi") == "not_allowed"
        provider.go_on.set()
        desk.sees_end(first.stream_id)
        settled(desk)
        counts = [quotas(desk, Visitor("default", "wecom", one)) for one in ("zhangsan", "lisi")]
        assert [one["person", "day", "questions"] for one in counts] == [(1, 0), (0, 0)]
    finally:
        desk.close()


def test_a_cancelled_question_is_counted_once_it_was_asked(desk: Desk, provider: SlowProvider) -> None:
    provider.go_on.clear()
    asked = desk.asks()
    wait_until(lambda: provider.asked)
    desk.gateway.cancel(asked.stream_id, bot="default", principal="zhangsan")
    provider.go_on.set()
    settled(desk)

    assert quotas(desk, ZHANGSAN)["person", "day", "questions"] == (1, 0)


def test_a_hundred_at_once_on_two_replicas_are_not_one_too_many(
    desks: list[Desk], provider: SlowProvider, rules: Path
) -> None:
    rules.write_text("- {total: true, questions: 30/day}\n- {department: x, questions: 1/day}", "utf-8")
    for desk in desks:
        reread(desk.container.rules)

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda at: asks(desks[at % 2], f"m{at}", principal=f"p{at}"), range(100)))

    assert sorted(codes) == [""] * 30 + ["quota_used"] * 70
    assert len(provider.asked) == 30
    settled(desks[0])


def test_a_stream_of_an_earlier_period_is_settled_there(desk: Desk, provider: SlowProvider) -> None:
    """A redelivery after midnight takes nothing of the new day."""
    quota = desk.container.answerer.quotas
    # Of the coming day: the counts of a day that is long over would be gone already.
    midnight = period("day", time.time(), quota._zone).end
    quota._clock = lambda: midnight - 1
    provider.go_on.clear()
    asked = desk.asks()
    quota._clock = lambda: midnight + 1
    again = desk.asks()

    assert (again.found, again.stream_id, held(desk)) == (True, asked.stream_id, 1)
    provider.go_on.set()
    desk.sees_end(asked.stream_id)
    settled(desk)
    assert quotas(desk, ZHANGSAN)["person", "day", "questions"] == (0, 0)
    quota._clock = lambda: midnight - 1
    assert quotas(desk, ZHANGSAN)["person", "day", "questions"] == (1, 0)


def test_a_new_owner_takes_what_its_stream_may_lack(desk: Desk, rules: Path) -> None:
    """The first one was lost before it knew whether there was room."""
    rules.write_text("- {total: true, questions: 1/day}", "utf-8")
    reread(desk.container.rules)
    quota, lisi = desk.container.answerer.quotas, Visitor("default", "wecom", "lisi")
    taken = quota.opening(lisi, "s1", departments_known=True).field

    assert list(quota.reserve(lisi, "s1", taken, confirm=True)) == []
    assert list(quota.reserve(lisi, "s2", taken, confirm=False)) == []
    with pytest.raises(QuotaUsed):
        list(quota.reserve(lisi, "s2", taken, confirm=True))


def test_what_is_not_needed_any_more_is_freed(desk: Desk) -> None:
    """The directory knows the person of an encrypted userid: the rules about the real one count."""
    quota, known = desk.container.answerer.quotas, Visitor("default", "wecom", "zhangsan", ["研发部"])
    opening = quota.opening(Visitor("default", "wecom", "woEncrypted"), "s1", departments_known=True)
    desk.runner.run(list(opening.calls.values()))

    (reserved,) = quota.reserve(known, "s1", opening.field, confirm=False)

    assert reserved.quotas.startswith(f"{opening.field} ")
    assert quotas(desk, known)["person", "day", "questions"] == (1, 1)
    assert quotas(desk, Visitor("default", "wecom", "woEncrypted"))["person", "day", "questions"] == (0, 0)


def test_an_outage_of_redis_counts_nothing(provider: SlowProvider, rules: Path) -> None:
    """The question gets the sentence that it gets without quotas; Redis may open its stream when it is back."""
    rules.write_text("- {questions: 9/day}", "utf-8")
    with RedisServer() as redis:
        desk = still(Desk(redis.url(), provider, variables={"QUOTAS_FILE": str(rules)}))
        try:
            assert asks(desk, "m1") == ""
            # A desk has no sweep, which would settle an answer that ends during the outage.
            settled(desk)
            redis.pause()
            assert asks(desk, "m2") == "store_unavailable"
            redis.resume()
            wait_until(
                lambda: desk.streams.standing(desk.gateway._access.stream_id(_question("m2")))[0] in ("", "error")
            )
            assert asks(desk, "m3") == ""
            settled(desk)
            assert quotas(desk, Visitor("default", "wecom", "zhangsan"))["person", "day", "questions"] == (2, 0)
        finally:
            desk.close()


def _question(msgid: str) -> Question:
    return Question("年假?", "wecom", "default", "zhangsan", msgid=msgid)


@pytest.mark.parametrize("mode", ["off", "full"])
def test_the_log_changes_nothing_in_quotas_and_they_nothing_in_usage(
    mode: str, redis_url: str, provider: SlowProvider, rules: Path, tmp_path: Path
) -> None:
    """Also where all of its tables are emptied. Refused questions are in usage as others are."""
    provider.usage = Usage(total_tokens=60, prompt_tokens=50, completion_tokens=10)
    url = f"sqlite:///{tmp_path / 'log.db'}"
    rules.write_text("- {questions: 2/day, tokens: 1000/day}", "utf-8")
    own = {"QUOTAS_FILE": str(rules), "DATABASE_PATH": str(tmp_path / "log.db"), "QUESTION_LOG": mode}
    desk = still(Desk(redis_url, provider, variables=own))
    try:
        migrated(url)
        assert desk.container.usage
        assert [asks(desk, f"m{number}") for number in range(2)] == ["", ""]
        # What has ended is counted by the last call of its pipeline, after the quotas.
        wait_until(lambda: desk.manager.running == 0)
        desk.container.usage.work()
        connection = sqlite3.connect(tmp_path / "log.db")
        with closing(connection), connection:
            for table in ("laibao_question_log", "laibao_usage_daily", "laibao_usage_streams"):
                connection.execute(f"DELETE FROM {table}")
        assert asks(desk, "m3") == "quota_used"
        used = quotas(desk, Visitor("default", "wecom", "zhangsan"))
        assert (used["person", "day", "questions"], used["person", "day", "tokens"]) == ((2, 0), (120, 0))
        wait_until(lambda: desk.container.usage and desk.container.usage.work() and rows(url, DAILY))
        assert [(row["outcome"], row["questions"]) for row in rows(url, DAILY)] == [("quota_used", 1)]
    finally:
        desk.close()


@pytest.mark.every_redis
def test_a_limit_holds_on_every_redis(any_redis_url: str, provider: SlowProvider, rules: Path) -> None:
    """On a Cluster the counters of a question and its stream are on several nodes."""
    rules.write_text(
        "- {questions: 2/day}\n- {chat: any, questions: 5/day}\n- {total: true, questions: 9/month}", "utf-8"
    )
    desk = still(Desk(any_redis_url, provider, variables={"QUOTAS_FILE": str(rules)}))
    try:
        people = ("lisi", "lisi", "wangwu", "wangwu", "zhaoliu", "qianqi")
        codes = [asks(desk, f"m{at}", principal=one, chat="wr1") for at, one in enumerate(people)]
        assert codes == ["", "", "", "", "", "quota_used"]
        assert asks(desk, "n1", principal="lisi") == "quota_used"
        lisi = Visitor("default", "wecom", "lisi", chat="wr1")
        wait_until(lambda: not any(running for _, running in quotas(desk, lisi).values()))
        assert quotas(desk, lisi) == {
            ("person", "day", "questions"): (2, 0),
            ("chat", "day", "questions"): (5, 0),
            ("total", "month", "questions"): (5, 0),
        }
    finally:
        desk.close()


@pytest.mark.full
def test_a_thousand_streams_leave_nothing_reserved(redis_url: str, provider: SlowProvider, rules: Path) -> None:
    """Some end, some are cancelled, some lose their owner and are taken over; each that was asked is counted once."""
    rules.write_text(
        "- {total: true, questions: 100000/month, tokens: 1000000/month}\n"
        "- {chat: any, questions: 100000/month}\n- {department: x, questions: 1/day}",
        "utf-8",
    )
    provider.usage, dice = Usage(total_tokens=1, prompt_tokens=1), random.Random(7)
    files = {"QUOTAS_FILE": str(rules)}
    desks = [still(Desk(redis_url, provider, max_streams=2000, lease=2.0, variables=files)) for _ in range(5)]
    survivor, asked = desks[0], list[str]()
    try:
        for number, lost in enumerate(desks[1:]):
            provider.go_on.clear()
            wave = [(dice.choice((survivor, lost)), f"p{number}-{at}") for at in range(250)]
            streams = [(desk.asks(principal=one, chat="wr1").stream_id, one) for desk, one in wave]
            for stream_id, one in dice.sample(streams, 60):
                dice.choice((survivor, lost)).gateway.cancel(stream_id, bot="default", principal=one)
            lost.dies()
            provider.go_on.set()
            asked += [stream_id for stream_id, _ in streams]
            wait_until(lambda: _swept(survivor), 120.0, every=0.2)

        fields = [survivor.streams.fields(one, "asks", "usage") for one in asked]
        asked_once = sum(one["asks"] != "0" for one in fields)
        used = quotas(survivor, Visitor("default", "wecom", "p0", chat="wr1"))
        assert len(asked) == 1000
        assert used["chat", "month", "questions"] == used["total", "month", "questions"] == (asked_once, 0)
        # A cancelled stream takes no more fields, but its owner knows the usage.
        tokens, _ = used["total", "month", "tokens"]
        assert sum(one["usage"] != "" for one in fields) <= tokens <= asked_once
    finally:
        for desk in desks:
            desk.close()


def _swept(desk: Desk) -> bool:
    """Take lapsed streams over; return whether nothing runs and nothing is reserved."""
    desk.container.takeovers.sweep()
    return held(desk) == 0 and desk.manager.running == 0
