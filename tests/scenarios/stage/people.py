"""Common steps of the scenarios: users who ask at the same moment, a company's users, and a stream's keys in Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from demo.mocks.auth import DEMO_USER_QUERY, DemoUser, MockAuth, create_demo_users
from demo.wecom.simulator import Bubble, CallbackFailed, WeComUser
from services.streams.store import running_keys, stream_keys
from tests.support.replicas import wecom_user
from tests.support.servers.processes import MariaServer, RedisServer, wait_until

T = TypeVar("T")

#: Timeout in seconds of steps that take a moment on an idle machine.
TIMEOUT = 80.0


def at_once(actions: Iterable[Callable[[], T]]) -> list[T]:
    """Run the actions at the same time, a thread each; return their results in the actions' order."""
    waiting = list(actions)
    with ThreadPoolExecutor(len(waiting)) as pool:
        return [future.result(TIMEOUT) for future in [pool.submit(action) for action in waiting]]


def ask(urls: Sequence[str], userid: str, question: str, every: float = 0.2, replacements: int = 0) -> Bubble:
    """Ask, poll until the bubble is finished, and return it; its text may become shorter `replacements` times."""
    with wecom_user(list(urls), userid) as person:
        bubble = person.says(question)
        person.sees_finish(bubble, TIMEOUT, every, replacements)
        return bubble


def sees_end(person: WeComUser, bubble: Bubble, refuge: str, still_running: Callable[[], bool]) -> str:
    """Poll until the answer is finished; once no answer runs, the replica may be gone: then poll `refuge`."""
    try:
        return person.sees_finish(bubble, TIMEOUT, every=0.2)
    except CallbackFailed:
        assert not still_running(), "a poll was lost while answers ran"
    with wecom_user([refuge], person.userid) as moved:
        return moved.sees_finish(Bubble(bubble.msgid, bubble.frames), TIMEOUT, every=0.2)


@dataclass(frozen=True)
class Stored:
    """A stream's keys in Redis: its fields, its text, and the text of its list's chunks from `start` on."""

    fields: Mapping[str, str]
    text: bytes
    list_text: bytes


def stored(server: RedisServer, stream_id: str) -> Stored:
    """Read a stream's keys byte for byte."""
    keys = stream_keys(stream_id)
    with server.client(decode_responses=False) as client:
        raw, text, chunks = client.hgetall(keys.hash), client.get(keys.text), client.lrange(keys.messages, 0, -1)
    fields = {name.decode(): value.decode() for name, value in raw.items()}
    entries = [json.loads(chunk) for chunk in chunks[int(fields.get("start", 0)) :]]
    list_text = "".join(entry["content"] for entry in entries if not entry.get("is_error"))
    return Stored(fields, text or b"", list_text.encode())


def empty(server: RedisServer) -> None:
    """Remove all keys once no answer is in progress: its owner would write it again."""
    with server.client() as client:
        wait_until(lambda: not client.exists(*running_keys()), TIMEOUT)
        client.flushall()


def people(count: int) -> list[DemoUser]:
    return [DemoUser(f"user{n:03}", f"E{n:04}", f"员工{n}") for n in range(count)]


def company_settings(maria: MariaServer, database: str, auth: MockAuth, **changes: str) -> dict[str, str]:
    """Create the auth API's users in a new database, and return the settings with which a replica finds them."""
    create_demo_users(maria.fresh_database(database), auth.users.values())
    return {
        "AUTH_MODE": "external",
        "AUTH_SERVICE_URL": auth.url,
        "AUTH_USER_QUERY": DEMO_USER_QUERY,
        "MYSQL_HOST": "127.0.0.1",
        "MYSQL_PORT": str(maria.port),
        "MYSQL_USER": "root",
        "MYSQL_DATABASE": database,
        **changes,
    }
