"""A replica shuts down, by SIGTERM or for a reload: it serves until its last answer is whole."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import requests

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble, WeComUser
from tests.scenarios.stage.people import TIMEOUT, at_once, sees_end, stored
from tests.support.replicas import Replica, dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import RedisServer, wait_until
from utils.stream_utils import render_frame

pytestmark = [pytest.mark.scenario, pytest.mark.full]

PEOPLE = 20
DRAIN = {"DRAIN_SECONDS": "30"}


def question(number: int) -> str:
    return f"第{number}个问题 [[slow]]"


@contextmanager
def slow_dify() -> Iterator[tuple[MockDify, Callable[[], bool]]]:
    """Run a Dify whose answers take about four seconds; yield it and a function that tells whether any is running."""
    with MockDify(slow=0.14) as dify:
        yield dify, lambda: dify.open_streams > 0


@contextmanager
def crowd(replica: Replica) -> Iterator[list[tuple[WeComUser, Bubble]]]:
    """Let all users ask this replica at once."""
    with ExitStack() as stack:
        persons = [stack.enter_context(wecom_user([replica.url], f"user{number}")) for number in range(PEOPLE)]
        bubbles = at_once(partial(person.says, question(number)) for number, person in enumerate(persons))
        yield list(zip(persons, bubbles, strict=True))


@contextmanager
def failing_checks(replica: Replica, running: Callable[[], bool]) -> Iterator[list[str]]:
    """Request /healthz repeatedly; the list gets the failures that happen while answers run."""
    failures: list[str] = []
    over = threading.Event()

    def check() -> None:
        while not over.wait(0.05):
            try:
                answer = str(requests.get(f"{replica.url}/healthz", timeout=5).status_code)
            except requests.RequestException as exc:
                answer = type(exc).__name__
            if answer != "200" and running():
                failures.append(answer)

    thread = threading.Thread(target=check)
    thread.start()
    try:
        yield failures
    finally:
        over.set()
        thread.join()


def test_a_terminated_replica_serves_until_its_last_answer_is_whole(
    redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    """Polls and /healthz are answered throughout, new questions get a sentence; then the process ends within 15 s."""
    with slow_dify() as (dify, running), requests.Session() as idle:
        env = settings_for(redis_url, **dify_settings(dify.base_url), **DRAIN)
        with replicas(2, env, tmp_path) as (leaving, staying), crowd(leaving) as asked:
            assert idle.get(f"{leaving.url}/healthz", timeout=5).ok, "its connection stays open, and idle"
            wait_until(lambda: dify.open_streams == PEOPLE)
            leaving.signal(signal.SIGTERM)
            with failing_checks(leaving, running) as failures, wecom_user([leaving.url], "late") as late:
                wait_until(lambda: requests.get(f"{leaving.url}/readyz", timeout=5).status_code == 503)
                refused = late.says("还在吗？")
                assert running(), "all this while answers ran"
                ends = at_once(partial(sees_end, *each, staying.url, running) for each in asked)
                finished = time.monotonic()
                code = leaving.process.wait(TIMEOUT)
                took = time.monotonic() - finished

        assert (refused.finish, refused.content) == (True, ZH["draining"])
        answers = [dify.expected_answer(question(number)) for number in range(PEOPLE)]
        assert ends == [render_frame(answer, growing=False) for answer in answers]
        assert [stored(redis_server, bubble.stream_id).text for _, bubble in asked] == [a.encode() for a in answers]
        assert (failures, code, len(dify.requests)) == ([], 0, PEOPLE)
        assert took < 15, "an idle connection does not hold it for the drain and the graceful timeout"
        assert '"level": "ERROR"' not in leaving.log, "leaving is nothing somebody must look at"


def test_a_reload_loses_no_answer_and_refuses_no_question(
    redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    """On HUP the old worker finishes its answers while its successor takes new questions."""
    with slow_dify() as (dify, running):
        env = settings_for(redis_url, **dify_settings(dify.base_url), **DRAIN)
        with replicas(1, env, tmp_path) as (replica,), crowd(replica) as asked:
            wait_until(lambda: dify.open_streams == PEOPLE)
            old = replica.workers
            with failing_checks(replica, running) as failures:
                replica.signal(signal.SIGHUP)
                late = ask_for(2.0, replica)
                assert running(), "all this while answers ran"
                ends = at_once(partial(sees_end, *each, replica.url, running) for each in asked)
            wait_until(lambda: not set(old) & set(replica.workers), TIMEOUT)
            assert replica.stop() == 0

        answers = [dify.expected_answer(question(number)) for number in range(PEOPLE)]
        assert ends == [render_frame(answer, growing=False) for answer in answers]
        assert failures == []
        assert '"level": "ERROR"' not in replica.log
        assert len(late) > 1
        assert {stored(redis_server, bubble.stream_id).fields["status"] for bubble in late} == {"completed"}


def ask_for(seconds: float, replica: Replica) -> list[Bubble]:
    """Let new users ask one after the other, for so many seconds."""
    bubbles: list[Bubble] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with wecom_user([replica.url], f"late{len(bubbles)}") as person:
            bubbles.append(person.says("新问题"))
        time.sleep(0.05)
    return bubbles
