"""Pictures and files of questions on the web: uploaded first, then named in POST /api/chat or on the chat socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
import requests

from channels.http_chat.models import FileTaken
from config.texts import EN, ZH
from demo.mocks.dify.error_replies import MockErrorReply
from demo.mocks.dify.server import MockDify
from services.files.uploads import MOST_LARGE
from tests.support.pictures import PDF, png
from tests.support.replicas import AppServer, dify_settings
from tests.support.sockets.chat_room import ChatClient, ChatSocket
from tests.support.sockets.event_reader import Program
from tests.support.uploads import uploaded, uploads

KEY, OTHER_KEY = "obviously-fake-api-key", "another-fake-api-key"
ASKED = "图里是什么？"
MAX_BYTES = 1_500_000
SETTINGS = {
    "API_KEYS": f"{KEY},{OTHER_KEY}",
    "WEBSOCKET_AUTH": "key",
    "DRAIN_SECONDS": "0",
    "RATE_LIMIT_USER": "off",
    "MEDIA_MAX_BYTES": str(MAX_BYTES),
}


@pytest.fixture
def server(redis_url: str, dify: MockDify) -> Iterator[AppServer]:
    with AppServer(redis_url, **dify_settings(dify.base_url), **SETTINGS) as server:
        yield server


def sends(server: AppServer, content: bytes, name: str = "a.png") -> requests.Response:
    return uploads(server.url, content, name, key=KEY)


def sent(server: AppServer, content: bytes, name: str = "a.png") -> str:
    return uploaded(server.url, content, name, key=KEY)


def refused(reply: requests.Response) -> tuple[int, str]:
    """Return status and reason of an error that has words for people."""
    assert reply.json()["message"]
    return reply.status_code, reply.json()["data"]["reason"]


def test_a_picture_and_a_document_reach_the_provider(server: AppServer, dify: MockDify) -> None:
    """With their names and types, in the question's order."""
    taken = FileTaken.model_validate(sends(server, PDF, "../年报.pdf").json()["data"])
    picture = sent(server, png(), "a.bin")

    reply = Program(KEY).asks(server.url, ASKED, files=[picture, taken.file_id])

    assert (taken.name, taken.type, taken.size) == ("年报.pdf", "document", len(PDF))
    (request,) = dify.requests
    assert [(upload.name, upload.mime, upload.content) for upload in dify.uploads] == [
        ("a.bin.png", "image/png", png()),
        ("年报.pdf", "application/pdf", PDF),
    ]
    assert [(one["type"], one["upload_file_id"]) for one in request.body["files"]] == [
        ("image", dify.uploads[0].id),
        ("document", dify.uploads[1].id),
    ]
    assert reply.json()["data"]["content"].startswith("我看到了")


def test_a_socket_and_rest_are_the_same_caller(server: AppServer, dify: MockDify) -> None:
    """A file that was uploaded over REST is asked about on the socket; without words by the bot's own question."""
    file_id = sent(server, png())
    socket = ChatSocket(server.url, key=KEY)

    socket.sees_end(socket.asks(ASKED, id="q1", files=[file_id]))
    socket.sees_end(socket.asks("", id="q2", files=[file_id]))
    socket.leaves()

    assert [request.body["query"] for request in dify.requests] == [ASKED, ZH["media_question"]]
    assert [len(request.body["files"]) for request in dify.requests] == [1, 1]


def test_a_file_belongs_to_its_caller(server: AppServer, dify: MockDify) -> None:
    """Another key's file is as unknown as one that never was."""
    file_id = sent(server, png())
    socket = ChatSocket(server.url, key=OTHER_KEY)
    socket.says(type="chat", content=ASKED, id="q1", files=[file_id])

    frame = socket.sees(type="error")
    socket.leaves()

    assert (frame["code"], frame["content"], frame["id"]) == ("FILE_UNKNOWN", ZH["file_unknown"], "q1")
    for key, named in ((OTHER_KEY, file_id), (KEY, "0" * 32)):
        assert refused(Program(key).asks(server.url, ASKED, files=[named])) == (422, "file_unknown")
    assert not dify.requests


def test_a_repeated_question_uploads_once(server: AppServer, dify: MockDify) -> None:
    """A client that lost the reply asks again under its id."""
    file_id = sent(server, png())

    answers = {Program(KEY).asks(server.url, ASKED, id="q1", files=[file_id]).text for _ in range(2)}

    assert (len(answers), len(dify.uploads), len(dify.requests)) == (1, 1, 1)


def test_a_provider_without_files_says_so_at_once(redis_url: str) -> None:
    """In the words of `LOCALE`, before anything is kept."""
    with AppServer(redis_url, LOCALE="en", RAG_PROVIDER="mock", **SETTINGS) as server:
        reply = sends(server, png())
        keys = server.container.redis.keys("dify_media*")

    assert (refused(reply), reply.json()["message"]) == ((422, "media_unsupported"), EN["media_unsupported"])
    assert not keys


def test_uploads_have_limits(server: AppServer) -> None:
    """One file, not empty, of `MEDIA_MAX_BYTES`; and so much of each caller within ten minutes."""
    large = PDF + bytes(MAX_BYTES - len(PDF))

    assert refused(sends(server, b"")) == (422, "invalid_fields")
    assert refused(sends(server, large + b"x")) == (413, "too_large")
    assert [sends(server, large).status_code for _ in range(MOST_LARGE)] == [201] * MOST_LARGE
    assert refused(sends(server, large)) == (429, "files_full")
    assert uploads(server.url, png(), key="").status_code == 401


def test_a_key_has_so_many_bytes_in_redis(redis_url: str, dify: MockDify) -> None:
    """Whatever address its uploads come from; a question with them counts them no second time."""
    content = PDF + bytes(1_000_000)
    limits = {"FILES_MAX_BYTES_PER_KEY": "2100000", "FILES_MAX_BYTES": "3150000", "TRUSTED_PROXIES": "1"}
    with AppServer(redis_url, **dify_settings(dify.base_url), **SETTINGS, **limits) as server:

        def upload(address: str, key: str) -> tuple[int, str]:
            reply = uploads(server.url, content, "a.pdf", key=key, address=address)
            return (201, "") if reply.status_code == 201 else refused(reply)

        first = uploaded(server.url, content, "a.pdf", key=KEY)
        asked = Program(KEY).asks(server.url, ASKED, files=[first]).status_code
        sent = [upload(f"203.0.113.{number}", KEY) for number in range(3)]
        others = [upload("203.0.113.9", OTHER_KEY) for _ in range(2)]

        assert (asked, sent) == (200, [(201, ""), (429, "files_full"), (429, "files_full")])
        assert others == [(201, ""), (503, "files_store_full")]
        assert server.container.file_budget.used() == 3 * len(content)


def test_an_upload_that_has_expired_makes_room(redis_url: str, dify: MockDify, redis_client: redis.Redis) -> None:
    """For its key at once, without a sweep."""
    limit = str(MAX_BYTES)
    limits = {"FILES_MAX_BYTES_PER_KEY": limit, "FILES_MAX_BYTES": limit}
    content = PDF + bytes(MAX_BYTES - len(PDF))
    with AppServer(redis_url, **dify_settings(dify.base_url), **SETTINGS, **limits) as server:
        taken = [sent(server, content)]
        full = refused(sends(server, content))
        redis_client.zadd("{dify_files}:ends", {taken[0]: 1.0})
        taken.append(sent(server, content))

        assert full == (429, "files_full")
        assert redis_client.zrange("{dify_files}:ends", 0, -1) == [taken[1]]
        assert server.container.file_budget.used() == MAX_BYTES


def test_a_question_names_ten_files_at_most(server: AppServer) -> None:
    """And each by an id of ours."""
    for files in (["0" * 32] * 11, ["../x"], "x"):
        assert refused(Program(KEY).asks(server.url, ASKED, files=files)) == (422, "invalid_fields")


@pytest.mark.parametrize(
    ("files", "code"), [(["0" * 32] * 11, "MEDIA_TOO_MANY"), (["x"], "INVALID_MESSAGE"), ("x", "INVALID_MESSAGE")]
)
def test_a_frame_names_ten_files_at_most(files: object, code: str) -> None:
    client = ChatClient(None)
    client.says(type="chat", content=ASKED, id="q1", files=files)

    assert (client.frames[-1]["code"], client.frames[-1]["id"]) == (code, "q1")
    client.leaves()


def test_a_provider_that_refuses_a_file_ends_the_answer(server: AppServer, dify: MockDify) -> None:
    """With the sentence and the status of the cause."""
    dify.refuses_uploads = MockErrorReply.api(413, "file_too_large", "")

    assert refused(Program(KEY).asks(server.url, ASKED, files=[sent(server, png())])) == (413, "media_too_large")
