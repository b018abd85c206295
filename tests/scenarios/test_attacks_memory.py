"""Attacks on memory: readers that read nothing of a long answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from websockets.sync.client import connect

from services.stream_store import stream_keys
from tests.event_reader import events
from tests.house import Replica, settings_for
from tests.scenarios.unread import ANSWER, MIB, allow_files, get, handshake, peak, served, settled_peak, unread
from tests.servers import RedisServer, wait_until
from utils.markdown_blocks import render_markdown

pytestmark = pytest.mark.scenario

READERS = 1000
#: MiB that all of them may cost together.
MOST = 200.0
KEY = "not-a-real-key"
HEADER = {"X-API-Key": KEY}
SHOWN = f"X-API-Key: {KEY}"


def resumed(path: str, **members: object) -> Callable[[str, int], bytes]:
    return lambda stream, _: handshake(path, json.dumps({"type": "resume", "stream_id": stream, **members}), SHOWN)


def fetched(accept: str, *headers: str) -> Callable[[str, int], bytes]:
    return lambda stream, _: get(f"/api/chat/{stream}", SHOWN, f"Accept: {accept}", *headers)


#: How a reader comes back to an answer that is whole; it lacks all of it, or the last frame alone.
WAYS: dict[str, Callable[[str, int], bytes]] = {
    "chat socket": resumed("/ws/chat", cursor=0),
    "chat socket at the end": lambda stream, end: resumed("/ws/chat", cursor=end)(stream, end),
    "event stream at the end": lambda stream, end: fetched("text/event-stream", f"Last-Event-ID: {end}")(stream, end),
    "chat socket with HTML": resumed("/ws/chat", cursor=0, render="html"),
    "realtime socket": resumed("/ws/realtime-asr", cursor=0),
    "event stream": fetched("text/event-stream"),
    "JSON": fetched("application/json", "Accept-Encoding: br, gzip"),
}


@pytest.fixture(scope="module")
def memory_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def memory_replica(memory_redis: RedisServer, tmp_path: Path) -> Iterator[Replica]:
    """A replica of one worker, with places for all readers."""
    allow_files(4096)
    own = {"RAG_PROVIDER": "tests.scenarios.unread:MegabyteAnswers", "API_KEYS": KEY, "HTTP_WAITS_MAX": "1100"}
    limits = {"RATE_LIMIT_IP": "off", "RATE_LIMIT_USER": "off", "SOCKETS_MAX": "1100"}
    replica = Replica(settings_for(memory_redis.url(), **own, **limits), tmp_path)
    try:
        yield replica.wait_ready()
    finally:
        replica.kill()


def asked(replica: Replica) -> str:
    """Ask for the long answer; return its stream."""
    reply = requests.post(f"{replica.url}/api/chat", json={"query": "?"}, headers=HEADER, timeout=60)
    assert reply.json()["data"]["content"] == ANSWER
    return str(reply.json()["data"]["stream_id"])


@pytest.mark.parametrize("way", WAYS)
def test_readers_that_read_nothing_cost_little(way: str, memory_replica: Replica, memory_redis: RedisServer) -> None:
    """1,000 of them that come back to 1 MiB cost less than 200 MiB together, whatever way they come."""
    stream = asked(memory_replica)
    with memory_redis.client() as client:
        end = client.llen(stream_keys(stream).messages)
    before = peak(memory_replica)
    assert 0.9 * MIB < len(ANSWER.encode()) <= MIB

    with unread(memory_replica.port, WAYS[way](stream, end), READERS) as readers:
        wait_until(lambda: served(readers) == READERS, 60.0)
        cost = settled_peak(memory_replica) - before
        print(f"{way}: {cost:.0f} MiB")

    assert cost < MOST


def test_readers_that_read_get_all_of_it(memory_replica: Replica) -> None:
    """The same answer, byte for byte, as frames, HTML and events."""
    stream = asked(memory_replica)

    with connect(f"ws://127.0.0.1:{memory_replica.port}/ws/chat", additional_headers=HEADER, max_size=None) as chat:
        chat.send(json.dumps({"type": "resume", "stream_id": stream, "cursor": 0, "render": "html"}))
        frames = [json.loads(chat.recv(30))]
        while frames[-1].get("role") != "assistant":
            frames.append(json.loads(chat.recv(30)))
    url = f"{memory_replica.url}/api/chat/{stream}"
    with requests.get(url, headers={**HEADER, "Accept": "text/event-stream"}, stream=True, timeout=60) as reply:
        said = list(events(line.decode() for line in reply.iter_lines()))

    assert "".join(frame["content"] for frame in frames if frame["type"] == "chat_delta") == ANSWER
    assert (frames[-1]["content"], frames[-1]["html"]) == (ANSWER, render_markdown(ANSWER))
    assert "".join(event.data["content"] for event in said if event.name == "delta") == ANSWER
    assert said[-1].data["content"] == ANSWER
    assert "Traceback" not in memory_replica.log
