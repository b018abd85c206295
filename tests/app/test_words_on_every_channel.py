"""A masked word is shown on no channel at any moment, however the provider cuts and replaces its text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

import pytest
import redis
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.models import Complete, Delta, ProviderEvent, Query, Replacement
from services.providers.base import BaseRAGProvider
from services.usage.log_store import SqlLogStore
from tests.support.openai_program import OpenAIProgram, user
from tests.support.replicas import AppServer
from tests.support.servers.processes import wait_until
from tests.support.sockets.event_reader import EventReader
from tests.support.sockets.visitor import visit
from tools._ws.frames import AnswerLog
from utils.deadline import Deadline

pytestmark = pytest.mark.full

KEY = "obviously-fake-api-key"
SECRET, QUESTION = "密码本", "在哪？"
HEADERS = {"X-API-Key": KEY}
WIDE = 60.0

#: Short ones: the word is cut everywhere, and often. Invisible characters and spaces within it hide no word.
PIECES = st.lists(st.sampled_from([*SECRET, SECRET, SECRET[:2], SECRET[1:], "好", " \u200b"]), min_size=1, max_size=2)
TEXTS = PIECES.map("".join)
EVENTS = st.lists(st.one_of(TEXTS.map(Delta), TEXTS.map(Delta), TEXTS.map(Replacement)), min_size=1, max_size=8)


class Cut(BaseRAGProvider):
    """Yields the events of the present example."""

    name = app = "cut"
    events: ClassVar[Sequence[ProviderEvent]] = ()

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        yield from self.events
        yield Complete()

    def health_check(self) -> bool:
        return True


@dataclass
class Gateway:
    app: AppServer
    log: SqlLogStore
    asked: int = 0

    @property
    def url(self) -> str:
        return self.app.url


@pytest.fixture
def gateway(redis_url: str, tmp_path: Path) -> Iterator[Gateway]:
    words = tmp_path / "words.txt"
    words.write_text(f"mask {SECRET}\n", "utf-8")
    database = tmp_path / "laibao.db"
    named = {"WORDS_FILE": str(words), "DATABASE_PATH": str(database), "RAG_PROVIDER": f"{__name__}:{Cut.__name__}"}
    app = AppServer(redis_url, API_KEYS=KEY, QUESTION_LOG="full", **named)
    try:
        with closing(SqlLogStore(f"sqlite:///{database}")) as log:
            yield Gateway(app, log)
    finally:
        app.close()


def wecom(here: Gateway) -> Iterator[str]:
    with here.app.user() as person:
        bubble = person.says(QUESTION)
        person.sees_finish(bubble, every=0.01)
    yield from (frame.content for frame in bubble.frames)


def chat(here: Gateway) -> Iterator[str]:
    with visit(here.url, "chat", key=KEY) as client:
        client.says({"type": "chat", "content": QUESTION, "id": "1"})
        client.until({"type": "chat", "role": "assistant"})
        yield from so_far(client.frames)


def realtime(here: Gateway) -> Iterator[str]:
    with visit(here.url, "realtime", key=KEY) as client:
        client.says({"type": "asr_chunk", "text": QUESTION, "is_final": True})
        client.until({"type": "answer", "final": True})
        yield from so_far(client.frames)


def so_far(frames: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """Yield each frame, and the text that a client shows after it."""
    log = AnswerLog()
    for frame in frames:
        raw = json.dumps(frame, ensure_ascii=False)
        yield from (raw, log.take(raw).so_far)


def events(here: Gateway) -> Iterator[str]:
    body = {"query": QUESTION, "stream": True}
    reply = requests.post(f"{here.url}/api/chat", json=body, headers=HEADERS, stream=True, timeout=WIDE)
    reader = EventReader(reply)
    reader.sees_end()
    shown = ""
    for event in reader.events:
        shown = "" if event.name == "reset" else shown + str(event.data.get("content", ""))
        yield from (json.dumps(event.data, ensure_ascii=False), shown)
        shown = "" if event.name == "done" else shown


def openai(here: Gateway) -> Iterator[str]:
    answer = OpenAIProgram(here.url, KEY).streams(user(QUESTION))
    yield from (json.dumps(chunk, ensure_ascii=False) for chunk in answer.chunks)
    yield answer.content


def batch(here: Gateway) -> Iterator[str]:
    tasks, body = f"{here.url}/api/batch/tasks", {"name": "一个问题", "texts": [QUESTION]}
    task_id = requests.post(tasks, json=body, headers=HEADERS, timeout=WIDE).json()["data"]["task_id"]

    def state() -> str:
        reply = requests.get(f"{tasks}/{task_id}", headers=HEADERS, timeout=WIDE)
        return str(reply.json()["data"]["status"])

    wait_until(lambda: state() in ("completed", "failed"), WIDE, every=0.05)
    results = requests.get(f"{tasks}/{task_id}/results", headers=HEADERS, timeout=WIDE).json()
    yield json.dumps(results, ensure_ascii=False)


CHANNELS: Sequence[Callable[[Gateway], Iterator[str]]] = (wecom, chat, realtime, events, openai, batch)


# An example asks on all channels, which takes about a second.
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=EVENTS)
def test_no_channel_shows_a_masked_word(gateway: Gateway, stored: redis.Redis, made: Sequence[ProviderEvent]) -> None:
    """No frame, event, chunk or result, no text that a client has put together, no row of the log and no key."""
    Cut.events = made
    stored.flushall()
    shown = {channel.__name__: list(channel(gateway)) for channel in CHANNELS}
    gateway.asked += len(CHANNELS)
    wait_until(lambda: len(list(gateway.log.rows())) == gateway.asked, WIDE, every=0.05)

    # The newest rows are those of this example.
    shown["log"] = [str(row["answer"]) for row, _ in islice(gateway.log.rows(), len(CHANNELS))]
    shown["redis"] = list(kept(stored))
    assert {where for where, texts in shown.items() if any(holds(text) for text in texts)} == set()
    assert all(shown.values())


def kept(stored: redis.Redis) -> Iterator[str]:
    """Yield each value that Redis has of streams."""
    for key in stored.scan_iter("*dify_stream:*"):
        kind = stored.type(key)
        if kind == "string":
            yield str(stored.get(key))
        elif kind == "list":
            yield from map(str, stored.lrange(key, 0, -1))
        elif kind == "hash":
            yield from map(str, stored.hvals(key))


def holds(text: str) -> bool:
    """Tell whether a text has the word, also with what people do not see within it."""
    return SECRET in text.replace(" ", "").replace("\u200b", "")
