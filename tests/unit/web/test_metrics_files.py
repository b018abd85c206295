"""The metrics of several processes: files of live and dead workers, added up and rendered."""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.ops.metrics_files import MetricsUnavailable, merge_dead, render, render_apart
from services.ops.metrics_folder import VARIABLE, locked, make_in
from tests.support.replicas import ROOT
from tests.support.scrapes import Samples, samples

WORK = """
from services import metrics
metrics.REASKS.inc(3)
metrics.CALLBACKS_REFUSED.labels("bad_signature").inc()
metrics.STREAMS_RUNNING.set(5)
metrics.REDIS_AWAY.set(1)
for seconds in (0.001, 0.3, 9.0):
    metrics.CALLBACK_SECONDS.labels("text").observe(seconds)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_in(tmp_path)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a process that counted and ended, by kind of metric."""
    folder = make_in(tmp_path_factory.mktemp("work"))
    subprocess.run([sys.executable, "-c", WORK], cwd=ROOT, env={**os.environ, VARIABLE: str(folder)}, check=True)
    return {path.name.rpartition("_")[0]: path.read_bytes() for path in folder.glob("*.db")}


@pytest.fixture
def worker(folder: Path, work: dict[str, bytes]) -> Callable[[], int]:
    """A function that adds the files of one more worker, and returns its pid."""
    pids = itertools.count(4_000_001)

    def added() -> int:
        pid = next(pids)
        for kind, content in work.items():
            (folder / f"{kind}_{pid}.db").write_bytes(content)
        return pid

    return added


def rendered(folder: Path) -> Samples:
    return samples(render(folder).decode())


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"lock"}


def test_the_metrics_of_workers_are_added_up(folder: Path, worker: Callable[[], int]) -> None:
    """Counters and gauges are summed; a gauge for an outage shows the maximum."""
    for _ in range(2):
        worker()

    shown = rendered(folder)

    assert shown["wechatlaibao_reasks_total",] == 6
    assert shown["wechatlaibao_callbacks_refused_total", "bad_signature"] == 2
    assert shown["wechatlaibao_streams_running",] == 10
    assert shown["wechatlaibao_redis_away",] == 1
    assert shown["wechatlaibao_callback_seconds_count", "text"] == 6


def test_a_dead_workers_counts_are_kept_and_its_gauges_dropped(folder: Path, worker: Callable[[], int]) -> None:
    """All sums stay, to the last bucket; the gauges of dead workers are dropped."""
    alive, dead = worker(), [worker(), worker()]
    before = rendered(folder)

    merge_dead(folder, [alive])

    after = rendered(folder)
    assert after == {**before, ("wechatlaibao_streams_running",): 5.0}
    assert not [name for name in files(folder) for pid in dead if str(pid) in name]


def test_files_of_dead_workers_do_not_accumulate(folder: Path, worker: Callable[[], int]) -> None:
    """All dead workers share two files, which hold the sums of their counts."""
    for _ in range(4):
        worker()
        merge_dead(folder, [])

    assert files(folder) == {"counter_dead.db", "histogram_dead.db"}
    assert rendered(folder)["wechatlaibao_reasks_total",] == 12


def test_an_unreadable_file_is_dropped(
    folder: Path, worker: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    """Such a file would fail every scrape; a warning names it."""
    worker()
    (folder / "counter_4000000.db").write_bytes(b"\xff\xff\xff\x7f" * 4)
    (folder / "histogram_4000000.db").touch()

    with caplog.at_level(logging.WARNING):
        merge_dead(folder, [])

    logged = [record for record in caplog.records if record.name == "services.ops.metrics_files"]
    assert {record.__dict__["file"] for record in logged} == {"counter_4000000.db", "histogram_4000000.db"}
    assert rendered(folder)["wechatlaibao_reasks_total",] == 3


def test_a_merge_does_not_disturb_a_running_scrape(
    folder: Path, worker: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scrape during a merge could count files twice, so the merge waits for the next death.

    A lock that is free is taken, however long the process was stopped before.
    """
    monkeypatch.setattr("services.ops.metrics_files.LOCK_SECONDS", 0.0)
    worker()

    with locked(folder, fcntl.LOCK_SH):
        merge_dead(folder, [])
        assert "counter_dead.db" not in files(folder)
        assert rendered(folder)["wechatlaibao_reasks_total",] == 3

    merge_dead(folder, [])
    assert files(folder) == {"counter_dead.db", "histogram_dead.db"}
    assert rendered(folder)["wechatlaibao_reasks_total",] == 3


def test_a_separate_process_renders_the_same_text(folder: Path, worker: Callable[[], int]) -> None:
    """A separate process renders, and the serving process only passes the text on."""
    worker()

    assert samples(render_apart(folder, timeout=60.0).decode()) == rendered(folder)


@pytest.fixture
def stuck(folder: Path) -> Iterator[Path]:
    """A folder whose lock is held."""
    with locked(folder, fcntl.LOCK_EX):
        yield folder


def test_rendering_has_a_timeout(stuck: Path) -> None:
    """It raises `MetricsUnavailable` after the timeout."""
    with pytest.raises(MetricsUnavailable, match="TimeoutExpired"):
        render_apart(stuck, timeout=0.05)


def test_a_failed_rendering_raises_an_error(tmp_path: Path) -> None:
    """A partial or an empty text would look like a reset of all counters."""
    with pytest.raises(MetricsUnavailable, match="CalledProcessError"):
        render_apart(tmp_path / "gone", timeout=60.0)
