"""Every stream ends, and every message keeps its stream, on real processes that are stopped and restarted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble, WeComUser
from tests.scenarios.stage.people import TIMEOUT, ask, at_once, stored
from tests.support.replicas import GUNICORN, Replica, dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import RedisServer, wait_until
from utils.stream_utils import render_frame

pytestmark = [pytest.mark.scenario, pytest.mark.full]

#: The mock's failures, with the error code of the stream's end.
WAYS_TO_FAIL = {
    # A broken or silent run is looked up at the provider until the stream's own timeout.
    "silent": "answer_timeout",
    "no-headers": "answer_timeout",
    "ping-only": "answer_timeout",
    "pings-after-text": "answer_timeout",
    "drip-bytes": "answer_timeout",
    "drip-events": "answer_timeout",
    "drop": "answer_timeout",
    "drop-in-a-line": "answer_timeout",
    "eof": "answer_timeout",
    "error-after-text": "provider_error",
    "endless-line": "provider_error",
}


def test_every_stream_ends_after_every_provider_failure(
    redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    """Silence, slow bytes, pings and broken connections all end in time, with the text so far and a sentence."""
    limits = {"DIFY_TIMEOUT": "2", "STREAM_MAX_SECONDS": "4", "STREAM_LEASE": "4"}
    with MockDify(ping_every=0.3) as dify:
        with replicas(2, settings_for(redis_url, **dify_settings(dify.base_url), **limits), tmp_path) as (one, other):
            urls = (one.url, other.url)
            bubbles = at_once(partial(ask, urls, way, f"[[{way}]]年假") for way in WAYS_TO_FAIL)
        wait_until(lambda: dify.open_streams == 0)

    for (way, code), bubble in zip(WAYS_TO_FAIL.items(), bubbles, strict=True):
        found = stored(redis_server, bubble.stream_id)
        assert (way, found.fields["status"], found.fields["error_code"]) == (way, "error", code)
        assert bubble.content == render_frame(found.text.decode(), growing=False, suffix=ZH[code])


@contextmanager
def growing(replica: Replica, question: str = "入职流程 [[slow]]") -> Iterator[tuple[WeComUser, Bubble]]:
    """Ask a replica, and wait until the first words of the answer are shown."""
    with wecom_user([replica.url]) as person:
        bubble = person.says(question)
        wait_until(lambda: "入职" in person.polls(bubble).content, TIMEOUT)
        yield person, bubble


@contextmanager
def frozen(replica: Replica) -> Iterator[None]:
    """Stop a replica's processes (SIGSTOP) during the block."""
    pids = [replica.process.pid, *replica.workers]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def polls_to_the_end(url: str, bubble: Bubble) -> Bubble:
    """Continue a bubble on another replica until it is finished."""
    moved = Bubble(bubble.msgid, [bubble.last], bubble.asked)
    with wecom_user([url]) as person:
        person.sees_finish(moved, TIMEOUT, every=0.1)
    return moved


def test_the_readers_clock_ends_the_frame_of_a_frozen_owner(
    redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    """WeCom sees the end in time; later polls repeat it, also after the owner resumes and completes the answer."""
    times = {"WECHAT_ANSWER_SECONDS": "3", "STREAM_LEASE": "30"}
    with MockDify(slow=0.2) as dify:
        env = settings_for(redis_url, **dify_settings(dify.base_url), **times)
        with replicas(2, env, tmp_path) as (owner, other), growing(owner) as (_, bubble):
            with frozen(owner):
                moved = polls_to_the_end(other.url, bubble)
            partial_text = stored(redis_server, bubble.stream_id).fields["shown"]
            wait_until(lambda: stored(redis_server, bubble.stream_id).fields["status"] == "completed", TIMEOUT)
            with wecom_user([owner.url, other.url]) as later:
                again = {later.polls(moved).content for _ in range(4)}

        answer = dify.expected_answer("入职流程 [[slow]]")
        assert 3.0 <= moved.frames[-5].at < 25.0
        assert answer.startswith(partial_text)
        assert len(partial_text) < len(answer)
        assert again == {render_frame(partial_text, growing=False, suffix=ZH["frame_ended"])}
        assert stored(redis_server, bubble.stream_id).text == answer.encode(), "the producer has its own deadline"


def test_a_host_that_was_frozen_loses_no_worker(redis_url: str, tmp_path: Path) -> None:
    """Its arbiter wakes before its worker, which has shown no sign for longer than gunicorn's timeout."""
    replica = Replica(settings_for(redis_url), tmp_path, command=(*GUNICORN, "--timeout", "4"))
    try:
        (worker,) = replica.wait_ready().workers
        pids = [replica.process.pid, worker]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(9.0)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        # The arbiter has looked at its workers several times.
        time.sleep(4.0)

        assert (replica.ready, replica.workers) == (True, [worker])
    finally:
        replica.kill()
