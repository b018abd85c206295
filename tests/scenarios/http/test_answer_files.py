"""Pictures and files on web channels with two real replicas: each opens every link, also when the owner is killed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import requests

from demo.mocks.dify.server import MockDify
from services.streams.store import stream_keys
from tests.scenarios.stage.people import TIMEOUT, stored
from tests.support.replicas import Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.sockets.event_reader import Program
from tests.support.sockets.visitor import visit

pytestmark = pytest.mark.scenario

KEY = "obviously-fake-api-key"
ASKED = "怎么画一座房子？ [[pictures]]"
LINK = re.compile(r"/files/[\w.-]+")


def settings(redis: RedisServer, dify: MockDify) -> dict[str, str]:
    return settings_for(redis.url(), **dify_settings(dify.base_url), API_KEYS=KEY, STREAM_LEASE="2")


def opened(replica: Replica, link: str) -> bytes:
    reply = requests.get(replica.url + link, timeout=TIMEOUT)
    assert reply.status_code == 200
    return reply.content


def on_socket(replica: Replica) -> dict[str, Any]:
    """Return the last frame of an answer on the chat socket."""
    with visit(replica.url, "chat", key=KEY) as client:
        client.says({"type": "chat", "content": ASKED, "id": "1", "render": "html"})
        last = client.until({"type": "chat", "role": "assistant"})
        assert "sign=" not in str(client.frames)
        deltas = [frame["content"] for frame in client.frames if frame["type"] == "chat_delta"]
    assert "".join(deltas) == last["content"]
    return last


def on_realtime(replica: Replica) -> dict[str, Any]:
    """Return the text and files of an answer on the realtime socket."""
    with visit(replica.url, "realtime", key=KEY) as client:
        client.says({"type": "asr_chunk", "text": ASKED, "is_final": True})
        last = client.until({"type": "answer", "final": True})
        text = "".join(frame["content"] for frame in client.frames if frame["type"] == "answer")
    return {"content": text, "files": last["files"]}


@pytest.mark.timeout(120)
def test_every_replica_opens_the_links_of_every_channel(redis_server: RedisServer, tmp_path: Path) -> None:
    """Both sockets and plain HTTP have the same pictures, and the page's HTML shows them."""
    with MockDify() as dify, replicas(2, settings(redis_server, dify), tmp_path) as (first, second):
        http = Program(KEY).asks(first.url, ASKED).json()["data"]
        chat = on_socket(first)
        answers = [http, chat, on_realtime(first)]
        files = [[opened(second, one["url"]) for one in answer["files"]] for answer in answers]

    assert [len(LINK.findall(answer["content"])) for answer in answers] == [3, 3, 3]
    assert files[0] == files[1] == files[2]
    assert len(files[0]) == 4
    shown = re.findall(r'<img src="([^"]+)" alt="(?:房子|照片)">', chat["html"])
    assert shown == LINK.findall(chat["content"])[:2]
    assert "sign=" not in str(answers)
    assert dify.base_url not in str(answers)


@pytest.mark.timeout(120)
@pytest.mark.full
def test_a_killed_owners_files_are_used(redis_server: RedisServer, tmp_path: Path) -> None:
    """The other replica goes on with the answer, and fetches only what is missing; links that were shown open."""
    with MockDify() as dify, replicas(2, settings(redis_server, dify), tmp_path) as (owner, other):
        dify.held.add("photo")
        reader = Program(KEY).reads(owner.url, ASKED)
        hash_key = stream_keys(reader.stream_id).hash
        with redis_server.client() as client:
            wait_until(lambda: client.hlen(f"{{{hash_key}}}:files") == 2, TIMEOUT)
        had = list(reader.text)
        owner.kill()
        dify.held.clear()
        whole = Program(KEY).gets(other.url, reader.stream_id).json()["data"]
        contents = [opened(other, one["url"]) for one in whole["files"]]
        fields = stored(redis_server, reader.stream_id).fields

    assert int(fields["epoch"]) > 1
    assert whole["content"].startswith("".join(had))
    assert len(contents) == 4
    assert [dify.fetched(name) for name in ("9d1c.png", "house.webp")] == [1, 1]
