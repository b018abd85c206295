"""Metrics of real gunicorns: counts after workers are killed, reloaded or drained, and the ports that show them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import requests

from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import CallbackFailed
from services.ops.metrics_files import RENDER_SECONDS
from services.ops.metrics_folder import PREFIX
from tests.scenarios.stage.people import TIMEOUT
from tests.support.replicas import Replica, dify_settings, replicas, settings_for, wecom_user
from tests.support.scrapes import Samples, ask_metrics, samples, scrape
from tests.support.servers.processes import free_port, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

POLLS = ("wechatlaibao_callback_seconds_count", "stream")
QUESTIONS = ("wechatlaibao_callback_seconds_count", "text")
SLOTS = ("wechatlaibao_streams_max",)
RUNNING = ("wechatlaibao_streams_running",)
GROWING = ("_total", "_count", "_sum", "_bucket")


def folder_of(replica: Replica) -> Path:
    """Return the folder of a replica's metrics, from the files that its workers have mapped."""
    mapped = {Path(line.split()[-1]).parent for pid in replica.workers for line in maps(pid) if PREFIX in line}
    (folder,) = mapped
    return folder


def maps(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/maps").read_text().splitlines()


def shown(url: str) -> Samples:
    return samples(scrape(url))


def ask(replica: Replica, number: int = 1) -> int:
    """Ask `number` questions to their ends, each on its own connection; return the number of polls."""
    frames = 0
    for n in range(number):
        with wecom_user([replica.url], f"user{n}") as person:
            bubble = person.says("你好")
            person.sees_finish(bubble, TIMEOUT)
            frames += len(bubble.frames) - 1
    return frames


def test_killed_workers_lose_no_counts(redis_url: str, tmp_path: Path) -> None:
    """No count decreases, the gauges of dead workers are replaced by their successors', and no files are left."""
    env = settings_for(redis_url, WORKERS="2", STREAM_MAX_PER_REPLICA="70")
    with replicas(1, env, tmp_path) as (replica,):
        polls = ask(replica, 5)
        before = counted(replica.url, 5)

        for round_number in range(3):
            victim = replica.workers[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(partial(replaced, replica, {victim}), TIMEOUT)
            polls += ask(replica)
            after = counted(replica.url, 6 + round_number)

            fallen = {key for key in before if key[0].endswith(GROWING) and after[key] < before[key]}
            assert (fallen, after[POLLS], after[SLOTS]) == (set(), polls, 140)
            before = after


def counted(url: str, questions: int) -> Samples:
    """Wait for a scrape with so many questions and both workers' slots: a scrape may be up to a second old.

    A worker has its files before its slots: it is still loading then.
    """

    def whole() -> Samples | None:
        seen = shown(url)
        return seen if (seen.get(QUESTIONS), seen.get(SLOTS)) == (questions, 140) else None

    return cast(Samples, wait_until(whole, TIMEOUT))


def replaced(replica: Replica, gone: set[int]) -> bool:
    """Return whether the `gone` workers are gone, and two other workers have the same files."""
    workers = set(replica.workers)
    return not gone & workers and len(workers) == 2 and numbers_of_files(folder_of(replica)) == {"0", "1"}


def numbers_of_files(folder: Path) -> set[str]:
    return {path.stem.rpartition("_")[2] for path in folder.glob("*.db")}


def test_a_reload_keeps_the_counts_and_a_start_resets_them(redis_url: str, tmp_path: Path) -> None:
    """A reload keeps the counts and the folder, a new start begins at zero; the folder is removed at the end."""
    env = settings_for(redis_url)
    with replicas(1, env, tmp_path) as (replica,):
        ask(replica, 3)
        old, folder = replica.workers, folder_of(replica)
        replica.signal(signal.SIGHUP)
        wait_until(lambda: replica.workers and not set(old) & set(replica.workers), TIMEOUT)
        replica.wait_ready()
        ask(replica)
        wait_until(lambda: shown(replica.url)[QUESTIONS] == 4, TIMEOUT)
        assert folder_of(replica) == folder
        assert replica.stop() == 0
        assert not folder.exists()

    with replicas(1, env, tmp_path) as (replica,):
        assert shown(replica.url).get(QUESTIONS, 0) == 0
        assert folder_of(replica) != folder


def test_a_scrape_that_hangs_blocks_no_question(redis_url: str, tmp_path: Path) -> None:
    """The only worker goes on answering; the scrapes time out with 503, and the next one succeeds."""
    with replicas(1, settings_for(redis_url), tmp_path) as (replica,), ThreadPoolExecutor(3) as pool:
        ask(replica)
        with unreadable(folder_of(replica)):
            scrapes = [pool.submit(ask_metrics, replica.url) for _ in range(3)]
            while not all(scrape.done() for scrape in scrapes):
                ask(replica)
        replies = [scrape.result() for scrape in scrapes]
        assert [(reply.status_code, reply.json()) for reply in replies] == [(503, {"code": "metrics_unavailable"})] * 3
        assert max(reply.elapsed.total_seconds() for reply in replies) > RENDER_SECONDS - 1

        wait_until(lambda: ask_metrics(replica.url).ok, TIMEOUT)
        assert shown(replica.url)[QUESTIONS] > 1
        assert children_of(replica.workers[0]) == []


@contextmanager
def unreadable(folder: Path) -> Iterator[None]:
    """Add a file to the workers' metrics that is never read to its end."""
    file = folder / "counter_9.db"
    os.mkfifo(file)
    try:
        yield
    finally:
        file.unlink()


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@contextmanager
def with_ops_port(redis_url: str, folder: Path, **changes: str) -> Iterator[tuple[Replica, str]]:
    """Run a replica of two workers; yield it and the URL of its operations port."""
    port = free_port()
    env = settings_for(redis_url, OPS_PORT=str(port), WORKERS="2", **changes)
    with replicas(1, env, folder) as (replica,):
        yield replica, f"http://127.0.0.1:{port}"


def test_a_drain_is_served_and_scraped_to_its_end(redis_url: str, tmp_path: Path) -> None:
    """During a drain both ports are not ready; polls and scrapes are served until the last answer is whole."""
    with MockDify(delay=0.05, limit=120.0) as dify:
        dify.holds_at = 8
        changes = {"DRAIN_SECONDS": "30", **dify_settings(dify.base_url)}
        with with_ops_port(redis_url, tmp_path, **changes) as (replica, ops), wecom_user([replica.url]) as person:
            bubble = person.says("第一个问题")
            # A page that was rendered before the question may be shown for a second.
            wait_until(lambda: dify.open_streams == 1 and shown(ops)[RUNNING] == 1.0)
            replica.signal(signal.SIGTERM)
            wait_until(lambda: [ready(url) for url in (replica.url, ops)] == [503, 503])
            assert shown(ops)[RUNNING] == 1.0
            person.polls(bubble)
            dify.holds_at, scrapes = None, []
            while dify.open_streams:
                try:
                    scrapes.append(shown(ops)[RUNNING])
                    person.polls(bubble)
                except (requests.RequestException, CallbackFailed):
                    # The answer may have ended, and the replica with it, since the loop's condition was checked.
                    assert not dify.open_streams
                time.sleep(0.2)

            assert replica.process.wait(TIMEOUT) == 0
            assert set(scrapes) <= {0.0, 1.0}


def ready(url: str) -> int:
    return requests.get(f"{url}/readyz", timeout=5).status_code


def test_a_reload_refuses_no_request_on_either_port(redis_url: str, tmp_path: Path) -> None:
    """Both ports' listeners survive a reload: no request fails on either."""
    with with_ops_port(redis_url, tmp_path) as (replica, ops), ExitStack() as stack:
        old = replica.workers
        failures = [stack.enter_context(failing_requests(url)) for url in (f"{ops}/metrics", f"{replica.url}/healthz")]
        replica.signal(signal.SIGHUP)
        wait_until(lambda: len(replica.workers) == 2 and not set(old) & set(replica.workers), TIMEOUT)

        assert shown(ops)[SLOTS] > 0
    assert failures == [[], []]
    assert '"level": "ERROR"' not in replica.log


@contextmanager
def failing_requests(url: str) -> Iterator[list[str]]:
    """Request the URL repeatedly, each time on a new connection; the list gets every failure."""
    failures: list[str] = []
    over = threading.Event()

    def ask_on() -> None:
        while not over.wait(0.1):
            try:
                reply = requests.get(url, timeout=30)
            except requests.RequestException as exc:
                failures.append(type(exc).__name__)
            else:
                failures.extend([str(reply.status_code)] if not reply.ok else [])

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield failures
    finally:
        over.set()
        thread.join()
