"""The process that works on batches and does nothing else: beside a web that leaves them to it.

It is a replica without doors: it takes lanes, asks their questions, and drains on SIGTERM as every replica does.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from config.logging import configure_logging
from config.settings import Settings, load_settings
from services.container import Container
from services.errors import SettingsError

log = logging.getLogger(__name__)

#: Seconds between two touches of the file that says we are alive.
TOUCH_SECONDS = 5.0


def work(alive_file: Path | None = None) -> int:
    """Work until SIGTERM or SIGINT, then drain; return the exit status.

    `alive_file` is touched every few seconds while the work goes on: a probe looks at its age, and restarts a process
    that hangs. Redis or the database being away is no hanging.
    """
    leave = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave.set())
    try:
        settings = load_settings()
        configure_logging(settings.log_level, settings.log_format, settings.log_dir, secrets=settings.secrets)
        container = _container(settings)
        container.start()
    except SettingsError as exc:
        print(f"wechatlaibao: {exc}", file=sys.stderr)
        return 1
    try:
        _stay(container, leave, alive_file)
    finally:
        container.close()
        if alive_file:
            alive_file.unlink(missing_ok=True)
    return 0


def _container(settings: Settings) -> Container:
    if settings.batch_worker == "embedded":
        log.warning("the web works on batches too: BATCH_WORKER is embedded")
    working: dict[str, Any] = {"batch_worker": "embedded"}
    container = Container(settings.model_copy(update=working))
    if container.batches is None:
        raise SettingsError("there are no batches to work on: they need BATCH_ENABLED, and MYSQL_HOST or DATABASE_PATH")
    return container


def _stay(container: Container, leave: threading.Event, alive_file: Path | None) -> None:
    """Return when it is time to leave."""
    while not leave.wait(TOUCH_SECONDS if alive_file else None):
        if alive_file and container.batches and container.batches.alive:
            alive_file.touch()
