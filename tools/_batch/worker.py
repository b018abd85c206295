"""A process that only processes batches, for deployments with BATCH_WORKER=external.

It is a replica without channels: it takes lanes, asks their questions, and drains on SIGTERM like every replica.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bootstrap.container import Container
from config.errors import SettingsError
from config.logging import configure_logging
from config.settings import Settings, load_settings
from server.startup import check_folders
from services import metrics
from services.errors import StoreUnavailable

log = logging.getLogger(__name__)

#: Seconds a probe may take to send its request.
PROBE_SECONDS = 10.0
TEXT = "text/plain; charset=utf-8"


def work(port: int | None = None) -> int:
    """Work until SIGTERM or SIGINT, then drain; return the exit status.

    Probes and metrics are served on `port`, else on OPS_PORT, else on PORT.
    """
    leave = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave.set())
    try:
        settings = load_settings()
        check_folders(settings)
        configure_logging(settings.log_level, settings.log_format, settings.log_dir, secrets=settings.secrets)
        container = worker_container(settings)
        with answering(container, settings.host, port or settings.ops_port or settings.port):
            _work(container, leave)
    except SettingsError as exc:
        print(f"wechatlaibao: {exc}", file=sys.stderr)
        return 1
    return 0


def worker_container(settings: Settings) -> Container:
    """Return a replica that processes batches, whatever BATCH_WORKER is.

    Raises:
        SettingsError: batches are disabled or have no database.
    """
    if settings.batch_worker == "embedded":
        log.warning("the web works on batches too: BATCH_WORKER is embedded")
    working: dict[str, Any] = {"batch_worker": "embedded"}
    container = Container(settings.model_copy(update=working))
    if container.batches is None:
        raise SettingsError("there are no batches to work on: they need BATCH_ENABLED, and MYSQL_HOST or DATABASE_PATH")
    return container


@contextmanager
def answering(container: Container, host: str, port: int) -> Iterator[None]:
    """Serve probes and metrics during the block.

    Raises:
        SettingsError: the port cannot be used.
    """

    class ProbeHandler(BaseHTTPRequestHandler):
        timeout = PROBE_SECONDS

        def do_GET(self) -> None:
            status, text = answer(container, self.path)
            self.send_response(status)
            self.send_header("Content-Type", TEXT)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Do not log probes."""

    try:
        server = ThreadingHTTPServer((host, port), ProbeHandler)
    except OSError as exc:
        raise SettingsError(f"--port, OPS_PORT or PORT: {host}:{port} cannot be used ({exc.strerror})") from exc
    server.daemon_threads = True
    with server:
        threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def answer(container: Container, path: str) -> tuple[int, bytes]:
    """Return the HTTP status and the body for a path."""
    match path.partition("?")[0]:
        case "/healthz":
            return 200, b"ok\n"
        case "/readyz":
            words = {"ready": b"ready\n", "migrating": b"migrating\n", "not ready": b"starting or leaving\n"}
            return 200 if container.readiness == "ready" else 503, words[container.readiness]
        case "/metrics":
            return 200, metrics.render()
    return 404, b"only /healthz, /readyz and /metrics\n"


def _work(container: Container, leave: threading.Event) -> None:
    try:
        if container.migrator:
            # This process does nothing else, so it does not start without its tables.
            with suppress(StoreUnavailable):
                container.migrator.run(container.settings.migration_seconds)
        container.start()
        leave.wait()
    finally:
        container.close()
