"""The metrics of several processes: what workers leave behind, added up and rendered."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
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


def worker(folder: Path, code: str = WORK) -> int:
    """Run a process that counts and ends; return its pid."""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, VARIABLE: str(folder)})
    assert process.wait(30) == 0
    return process.pid


def rendered(folder: Path) -> Samples:
    return samples(render(folder).decode())


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"lock"}


def test_several_workers_are_one(folder: Path) -> None:
    """Counts and places add up; of a state that is bad anywhere, the worst is shown."""
    for _ in range(2):
        worker(folder)

    shown = rendered(folder)

    assert shown["wechatlaibao_reasks_total",] == 6
    assert shown["wechatlaibao_callbacks_refused_total", "bad_signature"] == 2
    assert shown["wechatlaibao_streams_running",] == 10
    assert shown["wechatlaibao_redis_away",] == 1
    assert shown["wechatlaibao_callback_seconds_count", "text"] == 6


def test_a_dead_workers_counts_stay_and_its_gauges_go(folder: Path) -> None:
    """To the last bucket, the sum is as before; what was running in it runs no more."""
    alive, dead = worker(folder), [worker(folder), worker(folder)]
    before = rendered(folder)

    merge_dead(folder, [alive])

    after = rendered(folder)
    assert after == {**before, ("wechatlaibao_streams_running",): 5.0}
    assert not [name for name in files(folder) for pid in dead if str(pid) in name]


def test_deaths_do_not_collect(folder: Path) -> None:
    """After any number of dead workers there are two files of theirs, whose sum is all they counted."""
    for _ in range(4):
        worker(folder)
        merge_dead(folder, [])

    assert files(folder) == {"counter_dead.db", "histogram_dead.db"}
    assert rendered(folder)["wechatlaibao_reasks_total",] == 12


def test_a_file_nobody_can_read_costs_only_itself(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Left there, it would fail every scrape; a line names it."""
    worker(folder)
    (folder / "counter_4000000.db").write_bytes(b"\xff\xff\xff\x7f" * 4)
    (folder / "histogram_4000000.db").touch()

    with caplog.at_level(logging.WARNING):
        merge_dead(folder, [])

    assert {record.__dict__["file"] for record in caplog.records} == {"counter_4000000.db", "histogram_4000000.db"}
    assert rendered(folder)["wechatlaibao_reasks_total",] == 3


def test_a_merge_leaves_a_scrape_that_reads_alone(folder: Path) -> None:
    """Between the sum's coming and its parts' going a scrape would count twice; the next death merges what was left."""
    worker(folder)

    with locked(folder, fcntl.LOCK_SH):
        merge_dead(folder, [])
        assert "counter_dead.db" not in files(folder)
        assert rendered(folder)["wechatlaibao_reasks_total",] == 3

    merge_dead(folder, [])
    assert files(folder) == {"counter_dead.db", "histogram_dead.db"}
    assert rendered(folder)["wechatlaibao_reasks_total",] == 3


def test_another_process_renders_the_same(folder: Path) -> None:
    """The serving process has no more to do than to pass it on."""
    worker(folder)

    assert samples(render_apart(folder).decode()) == rendered(folder)


@pytest.fixture
def stuck(folder: Path) -> Iterator[Path]:
    """A folder whose lock somebody holds."""
    with locked(folder, fcntl.LOCK_EX):
        yield folder


def test_a_rendering_has_an_end(stuck: Path) -> None:
    """One that hangs is given up."""
    with pytest.raises(MetricsUnavailable, match="TimeoutExpired"):
        render_apart(stuck, timeout=0.5)


def test_a_rendering_that_fails_is_no_text(tmp_path: Path) -> None:
    """Half a text, or an empty one, would look as if everything had been reset."""
    with pytest.raises(MetricsUnavailable, match="CalledProcessError"):
        render_apart(tmp_path / "gone")
