"""Pictures in questions of OpenAI clients, with a model server and with Dify behind the endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import pytest
import redis

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from demo.mocks.openai.server import MockOpenAI
from tests.support.openai_program import OpenAIProgram, assistant, data_url, error_of, pictured, user
from tests.support.pictures import png
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import wait_until
from tests.support.servers.raw_server import RawServer
from tests.unit.http.test_fetcher import ok, status

KEY = "obviously-fake-api-key"
ASKED = "图里是什么？"
SETTINGS = {
    "API_KEYS": KEY,
    "DRAIN_SECONDS": "0",
    "RATE_LIMIT_USER": "off",
    "MEDIA_HOSTS": "127.0.0.1",
    "MEDIA_MAX_BYTES": "1000000",
}


@pytest.fixture
def dify_server(redis_url: str, dify: MockDify) -> Iterator[AppServer]:
    with AppServer(redis_url, **dify_settings(dify.base_url), **SETTINGS) as app_server:
        yield app_server


@pytest.fixture
def program(dify_server: AppServer) -> OpenAIProgram:
    return OpenAIProgram(dify_server.url, KEY)


def kept(redis_url: str) -> list[str]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        return list(client.scan_iter("dify_media:*"))


def test_dify_gets_uploads_of_the_end_user(program: OpenAIProgram, dify: MockDify, redis_url: str) -> None:
    """In the message's order, whether they came along or were fetched; when the answer has ended nothing is kept."""
    with RawServer(ok(png(3))) as server:
        answer = program.content(pictured(ASKED, data_url(png(2)), f"{server.url}/a"), user="ann")

    (request,) = dify.requests
    assert [(upload.user, upload.mime, upload.content) for upload in dify.uploads] == [
        ("openai:ann", "image/png", png(2)),
        ("openai:ann", "image/png", png(3)),
    ]
    assert [file["upload_file_id"] for file in request.body["files"]] == [upload.id for upload in dify.uploads]
    assert request.body["query"] == ASKED
    assert answer.startswith("我看到了")
    wait_until(lambda: not kept(redis_url), 10)


def test_a_model_server_gets_data_parts(redis_url: str) -> None:
    """Whether the picture came along or was fetched; also as a stream."""
    with (
        MockOpenAI() as model,
        RawServer(ok(png(3))) as server,
        AppServer(
            redis_url,
            OPENAI_BASE_URL=model.base_url,
            OPENAI_API_KEY="sk-fake",
            RAG_PROVIDER="openai",
            **SETTINGS,
        ) as app_server,
    ):
        program = OpenAIProgram(app_server.url, KEY)
        stream = program.streams(pictured(ASKED, f"{server.url}/a", data_url(png(2), "image/jpeg")))

        assert model.asked[-1].body["messages"] == [pictured(ASKED, data_url(png(3)), data_url(png(2)))]
        assert stream.done


def test_pictures_without_words_are_asked_about(program: OpenAIProgram, dify: MockDify) -> None:
    """The conversation is found again by what the client sent, which had no words."""
    first = pictured("", data_url(png()))
    answer = program.content(first)

    program.content(first, assistant(answer), user("乙？"))

    assert [request.body["query"] for request in dify.requests] == [ZH["media_question"], "乙？"]
    assert dify.requests[1].body["conversation_id"]


def test_pictures_of_earlier_messages_are_left_out(program: OpenAIProgram, dify: MockDify) -> None:
    """Their words go along where the conversation is not known."""
    program.content(pictured("甲？", data_url(png())), assistant("甲。"), user("乙？"))

    assert not dify.uploads
    assert dify.requests[0].body["query"] == "User: 甲？\n\nAssistant: 甲。\n\nUser: 乙？"


def test_a_repeated_request_uploads_once(
    program: OpenAIProgram, dify_server: AppServer, dify: MockDify, redis_url: str
) -> None:
    """It joins the answer, leaves no second copy, and counts for none."""
    answers = {program.content(pictured(ASKED, data_url(png())), headers={"Idempotency-Key": "k"}) for _ in range(2)}

    assert (len(answers), len(dify.uploads), len(dify.requests)) == (1, 1, 1)
    wait_until(lambda: not kept(redis_url), 10)
    wait_until(lambda: not dify_server.container.file_budget.used(), 10)


def test_a_keys_pictures_have_a_budget(redis_url: str, dify: MockDify) -> None:
    """Whatever `user` it names; they leave it with the end of the answer, and a refused question leaves nothing."""
    picture = data_url(png() + b"x" * 600_000)
    limits = {"FILES_MAX_BYTES_PER_KEY": "1000000", "FILES_MAX_BYTES": "1000000"}
    with AppServer(redis_url, **dify_settings(dify.base_url), **SETTINGS, **limits) as server:
        program, budget = OpenAIProgram(server.url, KEY), server.container.file_budget
        budget.count(f"key:{sha256(KEY.encode()).hexdigest()[:16]}", {"another": 500_000}, seconds=100.0)

        refused = [program.asks(pictured(ASKED, picture), user=name) for name in ("ann", "ben")]
        budget.remove(["another"])
        answer = program.content(pictured(ASKED, picture), user="eve")

        assert [error_of(reply) for reply in refused] == [(429, "files_full", None)] * 2
        assert answer.startswith("我看到了")
        wait_until(lambda: not kept(redis_url), 10)
        wait_until(lambda: not budget.used(), 10)
    assert len(dify.requests) == 1


def test_the_streams_hash_has_no_picture(program: OpenAIProgram, dify_server: AppServer, dify: MockDify) -> None:
    """It is read by every poll; the picture's key is sealed in it."""
    picture = png(200, 2000) + b"x" * 300_000

    program.content(pictured(ASKED, data_url(picture)))

    client = dify_server.container.redis
    (stream,) = set(client.scan_iter("dify_stream:*"))
    assert dify.uploads[0].content == picture
    assert sum(map(len, client.hvals(stream))) < 5000


def test_a_provider_that_takes_no_pictures_says_so(redis_url: str) -> None:
    """Before anything is asked, and nothing is kept."""
    with AppServer(redis_url, RAG_PROVIDER="mock", **SETTINGS) as app_server:
        reply = OpenAIProgram(app_server.url, KEY).asks(pictured(ASKED, data_url(png())))

        assert error_of(reply) == (400, "unsupported_value", None)
        assert reply.json()["error"]["message"] == ZH["media_unsupported"]
        wait_until(lambda: not kept(redis_url), 10)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (ok(b"no picture"), "unsupported_image_media_type"),
        (ok(png() + b"x" * 1_000_000), "image_file_too_large"),
        (status(b"404 Gone"), "failed_to_download_image"),
        (status(b"302 Found", b"Location: http://169.254.169.254/latest"), "invalid_image_url"),
    ],
)
def test_an_address_that_gives_no_picture_is_the_clients_error(
    program: OpenAIProgram, dify: MockDify, reply: bytes, code: str
) -> None:
    """Also of a stream: it has no text yet. The address is not in the error."""
    with RawServer(reply) as server:
        for streams in (False, True):
            refused = program.asks(pictured(ASKED, f"{server.url}/secret"), stream=streams)
            assert error_of(refused) == (400, code, None)
            assert "secret" not in refused.text

    assert not dify.requests


def test_an_address_in_the_private_network_is_refused(program: OpenAIProgram, dify: MockDify) -> None:
    """Hosts outside `MEDIA_HOSTS` need https and a public address."""
    for url in ("http://localhost/a.png", "https://localhost/a.png", "https://10.0.0.1/a.png"):
        assert error_of(program.asks(pictured(ASKED, url))) == (400, "invalid_image_url", None)

    assert not dify.requests


def test_bodies_may_be_as_large_as_the_pictures(program: OpenAIProgram, dify: MockDify) -> None:
    """Beyond the limit of text by what the largest picture takes as base64."""
    picture = png() + b"x" * (1_000_000 - len(png()))
    program.content(pictured(ASKED, data_url(picture)), new="x" * 500_000)
    too_large = program.asks(pictured(ASKED, data_url(picture + b"x")))

    assert dify.uploads[0].content == picture
    assert error_of(too_large) == (400, "image_file_too_large", "messages[0].content")
    assert error_of(program.asks(ASKED, new="x" * 5_600_000)) == (413, "too_large", None)


def test_other_parts_are_refused(program: OpenAIProgram) -> None:
    """Sound and files, and a picture's part without a picture."""
    for part, code in (
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "unsupported_value"),
        ({"type": "image_url"}, "invalid_image_url"),
    ):
        content = [{"type": "text", "text": ASKED}, part]
        assert error_of(program.asks({"role": "user", "content": content}))[:2] == (400, code)
