"""GET /files/<token>: files of answers and whole texts as attachments, by a signed link that ends."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import ResponseServer
from services.files.answer_store import Owner, StoredFile
from services.files.links import FileRef
from services.streams.records import NewStream
from services.streams.store import stream_keys
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import RedisServer, wait_until

PUBLIC = "https://chat.example.com"
CONTENT = bytes(range(256)) * 1500


@pytest.fixture
def server(redis_url: str) -> Iterator[AppServer]:
    with AppServer(redis_url, PUBLIC_URL=PUBLIC) as server:
        yield server


def keeps(server: AppServer, stored: StoredFile, content: bytes = CONTENT) -> str:
    """Store a file of a running stream, and return its link."""
    container = server.container
    fields = {"status": "processing", "content": "?", "question": "{}", "access": "tag"}
    container.streams.open(NewStream("s0", "a", fields))
    assert container.files.store.put(Owner("s0", 1, "a"), stored, content)
    return link(server, stored.entry)


def link(server: AppServer, entry: str, seconds: float = 60.0) -> str:
    links = server.container.files.links
    return server.url + links.path(FileRef("s0", entry), links.expiry(seconds))


def test_a_file_is_an_attachment_that_runs_nothing(server: AppServer) -> None:
    """With its name in Chinese, its size, and a type that no browser guesses."""
    url = keeps(server, StoredFile("f0", "年报 1.pdf", "application/pdf", len(CONTENT)))

    reply = requests.get(f"{url}.pdf", timeout=10)

    assert (reply.status_code, reply.content) == (200, CONTENT)
    assert reply.headers["Content-Type"] == "application/pdf"
    assert reply.headers["Content-Length"] == str(len(CONTENT))
    name = "filename*=UTF-8''%E5%B9%B4%E6%8A%A5%201.pdf"
    assert reply.headers["Content-Disposition"] == f'attachment; filename="file.pdf"; {name}'
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in reply.headers["Content-Security-Policy"]
    assert "no-store" in reply.headers["Cache-Control"]


@pytest.mark.parametrize("media", ["text/html", "image/svg+xml", "application/xhtml+xml", ""])
def test_other_types_are_bytes_of_no_type(server: AppServer, media: str) -> None:
    """What a browser could run is never named as that."""
    url = keeps(server, StoredFile("f0", "x.html", media, len(CONTENT)))

    assert requests.get(url, timeout=10).headers["Content-Type"] == "application/octet-stream"


def test_every_refusal_is_the_same(server: AppServer, redis_server: RedisServer) -> None:
    """Wrong, expired, of a file that is not there or was lost, or of none: the same 404, which tells nothing."""
    url = keeps(server, StoredFile("f0", "a.txt", "text/plain", len(CONTENT)))
    keeps(server, StoredFile("f1", "b.txt", "text/plain", len(CONTENT)))
    keeps(server, StoredFile("x0", "c.txt"), b"")
    with redis_server.client() as client:
        client.delete(f"{{{stream_keys('s0').hash}}}:file:f1")
    wrong = [f"{url[:-1]}{'0' if url[-1] != '0' else '1'}", link(server, "f0", -1.0), link(server, "f9"), f"{url}/x"]
    wrong += [link(server, "f1"), link(server, "x0"), f"{server.url}/files/x", f"{server.url}/files/"]

    replies = [requests.get(address, timeout=10) for address in wrong]

    assert [reply.status_code for reply in replies] == [404] * len(wrong)
    assert len({reply.content for reply in replies}) == 1
    assert requests.get(url, timeout=10).status_code == 200


def test_a_lost_redis_is_no_404(server: AppServer, redis_server: RedisServer) -> None:
    """The link may be right: the client shall come again."""
    url = keeps(server, StoredFile("f0", "a.txt", "text/plain", len(CONTENT)))

    redis_server.pause()
    try:
        reply = requests.get(url, timeout=10)
    finally:
        redis_server.resume()

    assert reply.status_code == 503


def test_nothing_of_a_very_long_answer_is_lost(redis_url: str) -> None:
    """Longer than a frame and the message after it: the message's end links all of it, without copying it."""
    with (
        MockDify() as dify,
        ResponseServer() as responses,
        AppServer(
            redis_url, PUBLIC_URL=PUBLIC, WECHAT_RESPONSE_HOSTS="127.0.0.1", **dify_settings(dify.base_url)
        ) as server,
        server.user(responses=responses) as person,
    ):
        bubble = person.says("全部手册 [[longest]]")
        person.sees_finish(bubble, every=0.05)
        wait_until(lambda: person.late(bubble))
        (late,) = person.late(bubble)
        found = re.search(rf"{PUBLIC}(/files/\S+?)\)", late.content)
        assert found
        reply = requests.get(server.url + found[1], timeout=10)
        answer = dify.expected_answer("全部手册 [[longest]]")

    assert not responses.broken
    assert late.content.endswith("下载。）")
    assert ZH["late_truncated"] not in late.content
    assert reply.headers["Content-Type"] == "text/markdown; charset=utf-8"
    assert 'filename="file.md"' in reply.headers["Content-Disposition"]
    assert reply.content.decode() == answer
