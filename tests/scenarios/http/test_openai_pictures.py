"""Pictures of OpenAI clients over two replicas whose owner is killed: each is uploaded once, and asked about once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
import requests

from demo.mocks.dify.features.uploads import MockUpload
from demo.mocks.dify.server import MockDify
from tests.support.openai_program import OpenAIProgram, data_url, pictured
from tests.support.pictures import png
from tests.support.replicas import Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import wait_until

pytestmark = pytest.mark.scenario

KEY = "obviously-fake-api-key"
ASKED = "图里是什么？ [[chatflow]]"
SENT = pictured(ASKED, data_url(png(2)), data_url(png(3)))
TALK = {"X-Conversation-Id": "desk-7"}
#: Seconds that a busy machine may take.
WIDE = 60.0


@pytest.fixture
def dify() -> Iterator[MockDify]:
    with MockDify(slow=1.0, after_disconnect="runs on") as dify:
        yield dify


@pytest.fixture
def pair(redis_url: str, dify: MockDify, tmp_path: Path) -> Iterator[tuple[Replica, Replica]]:
    own = dify_settings(dify.base_url, API_KEYS=KEY, STREAM_LEASE="2", RATE_LIMIT_USER="off")
    with replicas(2, settings_for(redis_url, **own), tmp_path) as (one, other):
        yield one, other


def uploads_stored(stored: redis.Redis) -> int:
    """Return the number of uploads that are stored with the question about the pictures."""
    questions = [json.loads(stored.hget(key, "question") or "{}") for key in stored.scan_iter("dify_stream:*")]
    return max((len(question["files"]) for question in questions), default=0)


def asks_until_killed(replica: Replica, headers: dict[str, str]) -> None:
    """Send the request in a thread, whose connection breaks with the replica."""

    def asks() -> None:
        with suppress(requests.RequestException):
            OpenAIProgram(replica.url, KEY).streams(SENT, headers=headers)

    threading.Thread(target=asks, daemon=True).start()


@pytest.mark.full
def test_an_owner_killed_between_intake_and_answer(
    pair: tuple[Replica, Replica], dify: MockDify, stored: redis.Redis
) -> None:
    """The question waits for the one before it; the other replica asks it with the stored uploads."""
    one, other = pair
    program, headers = OpenAIProgram(other.url, KEY), {**TALK, "Idempotency-Key": "k1"}
    with program.begins("先回答我 [[slow]]", headers=TALK) as first:
        next(first)
        asks_until_killed(one, headers)
        wait_until(lambda: uploads_stored(stored) == 2, WIDE)
        assert not dify.asked(ASKED)
        one.kill()
    # The client of the question before it goes away, which cancels that one.
    joined = program.streams(SENT, headers=headers)

    assert (joined.done, joined.content.endswith(dify.expected_answer(ASKED))) == (True, True)
    assert [upload.content for upload in dify.uploads] == [png(2), png(3)]
    assert len(dify.asked(ASKED)) == 1
    wait_until(lambda: not list(stored.scan_iter("dify_media:*")), WIDE)


@pytest.mark.full
def test_an_owner_killed_during_the_intake(pair: tuple[Replica, Replica], dify: MockDify) -> None:
    """The picture that was not uploaded yet is taken from Redis; that of an unknown upload, too."""
    one, other = pair
    uploads: list[bytes] = []

    def kill_at_the_second(upload: MockUpload) -> None:
        uploads.append(upload.content)
        if len(uploads) == 2:
            one.kill()

    dify.before_upload_reply = kill_at_the_second
    headers = {"Idempotency-Key": "k1"}
    asks_until_killed(one, headers)
    wait_until(lambda: len(uploads) == 2, WIDE)

    joined = OpenAIProgram(other.url, KEY).streams(SENT, headers=headers)

    assert joined.content.endswith(dify.expected_answer(ASKED))
    assert uploads == [png(2), png(3), png(3)]
    assert len(dify.asked(ASKED)) == 1
