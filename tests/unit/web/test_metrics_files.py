"""The metrics of several processes: files of live and dead workers, added up and rendered."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.ops.metrics_files import MetricsUnavailable, continue_files, drop_gauges, render, render_apart
from services.ops.metrics_folder import VARIABLE, free_number, make_in
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
CONTINUE = """
import os
from pathlib import Path
from services.ops.metrics_files import continue_files
continue_files(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]), 0)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_in(tmp_path)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a process that counted and ended, by kind of metric."""
    folder = make_in(tmp_path_factory.mktemp("work"))
    works(folder, WORK)
    return {path.name.rpartition("_")[0]: path.read_bytes() for path in folder.glob("*.db")}


@pytest.fixture
def worker(folder: Path, work: dict[str, bytes]) -> Callable[[], int]:
    """A function that adds the files of one more worker, and returns its number."""
    numbers = itertools.count()

    def added() -> int:
        number = next(numbers)
        for kind, content in work.items():
            (folder / f"{kind}_{number}.db").write_bytes(content)
        return number

    return added


def works(folder: Path, code: str) -> None:
    """Run a worker's code to its end."""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, VARIABLE: str(folder)}, check=True)


def rendered(folder: Path) -> Samples:
    return samples(render(folder).decode())


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


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
    worker()
    dead = worker()
    before = rendered(folder)

    drop_gauges(folder, dead)

    assert rendered(folder) == {**before, ("wechatlaibao_streams_running",): 5.0}


def test_a_worker_continues_the_counts_of_a_dead_one(folder: Path) -> None:
    """It writes to the same files: their number does not grow with deaths, and gauges begin anew."""
    for _ in range(3):
        works(folder, CONTINUE + WORK)

    shown = rendered(folder)
    assert files(folder) == {f"{kind}_0.db" for kind in ("counter", "histogram", "gauge_livesum", "gauge_livemax")}
    assert (shown["wechatlaibao_reasks_total",], shown["wechatlaibao_streams_running",]) == (9, 5)
    assert shown["wechatlaibao_callback_seconds_count", "text"] == 9


def test_a_number_is_free_when_its_worker_is_dead() -> None:
    """The smallest number is taken first; a worker that is alive keeps its own, also while it is stopped."""
    assert [free_number(taken) for taken in ((), {0, 1}, {1, 2}, {0, 2})] == [0, 2, 0, 1]


def test_an_unreadable_file_is_dropped(
    folder: Path, worker: Callable[[], int], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a file would fail every scrape and the start of the worker; a warning names it."""
    worker()
    (folder / "counter_1.db").write_bytes(b"\xff\xff\xff\x7f" * 4)
    (folder / "histogram_1.db").touch()

    monkeypatch.setattr("prometheus_client.values.ValueClass", None)
    with caplog.at_level(logging.WARNING):
        continue_files(folder, 1)

    logged = [record for record in caplog.records if record.name == "services.ops.metrics_files"]
    assert {record.__dict__["file"] for record in logged} == {"counter_1.db", "histogram_1.db"}
    assert rendered(folder)["wechatlaibao_reasks_total",] == 3


def test_a_file_that_is_being_made_fails_no_scrape(folder: Path, worker: Callable[[], int]) -> None:
    """A new worker's file is empty between its opening and its first byte."""
    worker()
    (folder / "counter_1.db").touch()

    assert rendered(folder)["wechatlaibao_reasks_total",] == 3


def test_a_separate_process_renders_the_same_text(folder: Path, worker: Callable[[], int]) -> None:
    """A separate process renders, and the serving process only passes the text on."""
    worker()

    assert samples(render_apart(folder, timeout=60.0).decode()) == rendered(folder)


def test_rendering_has_a_timeout(folder: Path) -> None:
    """It raises `MetricsUnavailable` after the timeout, here that of a file that is never read to its end."""
    os.mkfifo(folder / "counter_0.db")

    with pytest.raises(MetricsUnavailable, match="TimeoutExpired"):
        render_apart(folder, timeout=0.05)


def test_a_failed_rendering_raises_an_error(tmp_path: Path) -> None:
    """A partial or an empty text would look like a reset of all counters."""
    with pytest.raises(MetricsUnavailable, match="CalledProcessError"):
        render_apart(tmp_path / "gone", timeout=60.0)
