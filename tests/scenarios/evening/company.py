"""The company: its people and programs, their departments and limits, and what they do in an evening."""

from __future__ import annotations

from collections.abc import Container, Mapping
from contextlib import suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import requests

from demo.mocks.dify.wire import USAGE
from services.models import UserInfo
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
from tests.scenarios.chaos.world import KEY, USERS, World
from tests.support.rules import noon_zone
from tests.support.sockets.event_reader import events
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
#: One of so many questions of WeCom fails at the provider.
FAILS = 9
#: The script of these, and the outcome.
FAILURE, OUTCOME = "error-after-text", "provider_error"
#: The outcome of a question beyond a limit, and a part of its sentence.
USED_UP, SPENT = "quota_used", "的额度已用完"
#: The name of the programs' key.
PROGRAM = "reports"
#: Most of them are out of reach; people of two departments, and the programs, come to theirs.
LIMITS = """
- {{questions: 100000/month, tokens: 100000000/month}}
- {{department: 测试部, questions: 2/month}}
- {{department: 法务部, tokens: 1000/month}}
- {{person: [{raters}], unlimited: true}}
- {{key: {key}, questions: {programs}/month}}
- {{total: true, questions: 1000000/month}}
- {{bot: late, total: true, questions: 1000000/month}}
"""


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
                        if event.name == "error":
                            return seen.ends(event.data["data"]["reason"])
                        if event.name != "start":
                            break
            if stream_id:
                reply = requests.delete(f"{url}/api/chat/{stream_id}", **options)
                if reply.ok:
                    return seen.ends(reply.json()["data"]["status"])
    return seen


def from_number(use: Use, first: int) -> Use:
    """Return a use by the people from this number on, in which a refusal for a limit has one name."""

    def used(here: World, number: int, turn: int) -> Seen | list[Seen]:
        found = use(here, first + number, turn)
        for seen in found if isinstance(found, list) else [found]:
            if seen.end == "insufficient_quota" or SPENT in seen.text:
                seen.ends(USED_UP, "")
        return found

    return used


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
#: People without a limit, so that there is an answer to rate.
RATERS = range(880, 920)
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
        channels[name] = Channel(from_number(use, 0 if name in OWN_USERS else first), count)
        if name in OWN_USERS:
            continue
        programs |= {number for number in range(first, first + count) if name in PROGRAMS and number % 2}
        first += count
    return channels, programs


# The settings.


def settings(folder: Path, log: str, people: int) -> dict[str, str]:
    """Return the replicas' settings; write the departments of half of the people, and the limits, into files."""
    filed = [f"user{number:03},{department_of(number)}" for number in range(USERS) if is_filed(number)]
    path = folder / "departments.csv"
    path.write_text("\n".join(["userid,department", *filed]), "utf-8")
    quotas = folder / "quotas.yaml"
    quotas.write_text(LIMITS.format(key=PROGRAM, programs=people // 3, raters=", ".join(map(userid, RATERS))), "utf-8")
    names = ", ".join(f"'{name}'" for name in DEPARTMENTS)
    department = f"ELT(1 + MOD(CAST(SUBSTRING(userid, 5) AS UNSIGNED), {len(DEPARTMENTS)}), {names}) AS department"
    columns = f"user_code, password, user_name, {department}"
    return {
        "API_KEYS": f"{PROGRAM}={KEY}",
        "AUTH_USER_QUERY": f"SELECT {columns} FROM demo_users WHERE userid = :userid",
        # Clients wait for a batch as long as for any answer, and some batches wait for SQL first.
        "BATCH_MAX_CONCURRENT": "60",
        "DEPARTMENTS_FILE": str(path),
        "QUESTION_LOG": log,
        "QUOTAS_FILE": str(quotas),
        "REPORT_TZ": noon_zone(),
        "WEBSOCKET_AUTH": "token",
    }


def give_tokens(here: World, programs: Container[int]) -> None:
    """Store people's tokens, as an auth service does; programs have the key."""
    here.tokens = {number: f"obviously-fake-token-{number}" for number in range(USERS) if number not in programs}
    with here.redis.client() as client:
        for number, token in here.tokens.items():
            user = UserInfo(f"E{number:04}", f"员工{number}", department=department_of(number))
            client.set(f"authorization:token:{token}", user.to_json(), ex=3600)
