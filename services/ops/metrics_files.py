"""The metrics page, and the files of gunicorn's workers that it adds up, in prometheus_client's multiprocess mode.

A worker's number names its files instead of its pid: the smallest number that no living worker has, so that a worker
continues the counts of a dead one. No count is lost, however a worker died, and there are files for as many workers as
ever lived at once. With pids, every dead worker leaves 40 KB and adds 2.5 ms to each later scrape.
"""

from __future__ import annotations

import logging
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from config.errors import LaibaoError

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
#: Seconds that rendering may take.
RENDER_SECONDS = 5.0
#: Seconds a rendered text is reused, so that two Prometheus servers cost one rendering.
FRESH_SECONDS = 1.0


class MetricsUnavailable(LaibaoError):
    """The metrics could not be rendered in time."""

    code = "metrics_unavailable"
    status = 503


def drop_gauges(folder: Path, number: int) -> None:
    """Remove the gauges of a dead worker; its counts stay."""
    mark_process_dead(number, str(folder))  # type: ignore[no-untyped-call]


def continue_files(folder: Path, number: int) -> None:
    """Let this process, a new worker, write to the files of this number; call it before `services.metrics` is imported.

    An unreadable file is dropped: it would fail the worker's start and every scrape.
    """
    drop_gauges(folder, number)
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
    for path in folder.glob(f"*_{number}.db"):
        try:
            for _ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]
                pass
        except (RuntimeError, ValueError, struct.error) as exc:
            log.warning("metrics of a dead worker dropped", extra={"file": path.name, "cause": type(exc).__name__})
            path.unlink()


def count_in_memory() -> None:
    """Let this process, a child of the master that is no worker, write to no file; call it as `continue_files`."""
    values.ValueClass = values.MutexValue


def render_apart(folder: Path, timeout: float = RENDER_SECONDS) -> bytes:
    """Return the sum of all workers' metrics. A separate process renders it, so this one keeps serving requests.

    Raises:
        MetricsUnavailable: rendering failed or took longer than `timeout` seconds.
    """
    command = [sys.executable, "-m", __name__, str(folder)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=timeout, check=True)
    except (OSError, subprocess.SubprocessError) as exc:
        raise MetricsUnavailable(f"rendering failed: {type(exc).__name__}") from exc
    return done.stdout


def render(folder: Path) -> bytes:
    """Return the sum of all workers' metrics. Meant for a separate process: it blocks while it renders."""
    registry = CollectorRegistry()
    _FilesCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


class _FilesCollector(MultiProcessCollector):
    """Skips files that a worker has just opened, or removes now: reading an empty or missing file fails the scrape."""

    def collect(self) -> Any:
        files = [str(path) for path in Path(self._path).glob("*.db") if _has_content(path)]
        return self.merge(files, accumulate=True)  # type: ignore[no-untyped-call]


def _has_content(path: Path) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return bool(status.st_size) or not stat.S_ISREG(status.st_mode)


class MetricsPage:
    """Render at most one text at a time; requests that arrive meanwhile get the same text."""

    def __init__(self, render: Callable[[], bytes], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._render = render
        self._clock = clock
        self._lock = threading.Lock()
        self._text: bytes | None = None
        self._until = float("-inf")

    def text(self) -> bytes:
        """Return the metrics in Prometheus's text format.

        Raises:
            MetricsUnavailable: rendering failed within the last `FRESH_SECONDS`. Waiting requests do not try again.
        """
        with self._lock:
            if self._clock() >= self._until:
                self._refresh()
            if self._text is None:
                raise MetricsUnavailable("rendering failed just now")
            return self._text

    def _refresh(self) -> None:
        self._text = None
        try:
            self._text = self._render()
        finally:
            self._until = self._clock() + FRESH_SECONDS


if __name__ == "__main__":
    sys.stdout.buffer.write(render(Path(sys.argv[1])))
