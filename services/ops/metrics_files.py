"""The metrics files of gunicorn's workers: merges those of dead workers, and renders all in a separate process.

Each worker has one file per kind of metric. The files of dead workers are added up into one, so that a scrape reads as
many files after a hundred dead workers as after the first.
"""

from __future__ import annotations

import fcntl
import logging
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from config.errors import LaibaoError
from services.ops.metrics_folder import locked

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
#: Kinds whose values still count after their worker died, because they only grow.
LASTING = ("counter", "histogram")
#: Seconds that rendering may take, and seconds that a merge waits for the lock while a rendering reads.
RENDER_SECONDS = 5.0
LOCK_SECONDS = 1.0


class MetricsUnavailable(LaibaoError):
    """The metrics could not be rendered in time."""

    code = "metrics_unavailable"
    status = 503


def merge_dead(folder: Path, alive: Collection[int]) -> None:
    """Remove the gauges of workers that are not in `alive`, and add their counts to the merged files.

    A file that cannot be read is dropped: it would make every later scrape fail.
    """
    for pid in {pid for path, pid in _files(folder, "*") if pid not in alive}:
        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    for kind in LASTING:
        dead = [path for path, pid in _files(folder, kind) if pid not in alive]
        if dead:
            _merge(folder, kind, dead)


def _files(folder: Path, kind: str) -> Iterator[tuple[Path, int]]:
    """Yield the files of a kind, each with its worker's pid, without the merged file."""
    for path in folder.glob(f"{kind}_*.db"):
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit():
            yield path, int(pid)


def _merge(folder: Path, kind: str, dead: list[Path]) -> None:
    merged, fresh = folder / f"{kind}_dead.db", folder / f"{kind}_dead.new"
    totals: dict[str, float] = defaultdict(float)
    for path in [merged, *dead] if merged.exists() else dead:
        try:
            for key, value in _values(path):
                totals[key] += value
        except (RuntimeError, ValueError, struct.error) as exc:
            log.warning("metrics of a dead worker dropped", extra={"file": path.name, "cause": type(exc).__name__})
    fresh.unlink(missing_ok=True)
    _write(fresh, totals)
    _replace(folder, merged, fresh, dead)


def _values(path: Path) -> list[tuple[str, float]]:
    every = MmapedDict.read_all_values_from_file(path)  # type: ignore[no-untyped-call]
    return [(key, value) for key, value, *_ in every]


def _write(path: Path, totals: dict[str, float]) -> None:
    file = MmapedDict(path)  # type: ignore[no-untyped-call]
    for key, value in totals.items():
        file.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]


def _replace(folder: Path, merged: Path, fresh: Path, dead: list[Path]) -> None:
    """Replace the old sum and its parts by the new sum. If scrapes hold the lock too long, the next merge does it."""
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            with locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
                fresh.replace(merged)
                for path in dead:
                    path.unlink()
                return
        except BlockingIOError:
            if time.monotonic() >= end:
                return
            time.sleep(0.01)


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
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    with locked(folder, fcntl.LOCK_SH):
        return generate_latest(registry)


if __name__ == "__main__":
    sys.stdout.buffer.write(render(Path(sys.argv[1])))
