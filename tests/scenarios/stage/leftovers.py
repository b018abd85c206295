"""The product with one more endpoint, which counts threads, greenlets, sockets and memory of its process.

Use it as Replica(env, folder, command=COMMAND).
"""

from __future__ import annotations

import gc
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

import requests
from flask import Flask
from gevent import Greenlet

from app import create_app
from tests.support.replicas import GUNICORN, Replica

COMMAND = (*GUNICORN, "tests.scenarios.stage.leftovers:application()")


@dataclass(frozen=True)
class Figures:
    """The counts of one process."""

    threads: int
    greenlets: int
    sockets: int
    #: Resident memory in MiB.
    memory: float

    def more_than(self, before: Figures, kept: Figures) -> dict[str, float]:
        """Return the increases since `before` that exceed `kept`, by name."""
        now, then, most = asdict(self), asdict(before), asdict(kept)
        return {name: round(now[name] - then[name], 1) for name in now if now[name] - then[name] > most[name]}


def application() -> Flask:
    app = create_app()
    app.add_url_rule("/figures", view_func=lambda: asdict(count()))
    return app


def count() -> Figures:
    """Count this process's resources after a garbage collection."""
    gc.collect()
    alive = [each for each in gc.get_objects() if issubclass(type(each), Greenlet) and not each.dead]
    links = [_target(entry) for entry in Path("/proc/self/fd").iterdir()]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory = round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
    return Figures(threading.active_count(), len(alive), sum("socket" in link for link in links), memory)


def figures(replica: Replica) -> Figures:
    """Return the counts of a replica's worker."""
    return Figures(**requests.get(f"{replica.url}/figures", timeout=10, headers={"Connection": "close"}).json())


def _target(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except OSError:
        return ""
