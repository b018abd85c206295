"""Configuration of `gunicorn` run in this folder: serves the app as its settings say, with workers that drain."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402 - nothing may be imported before the patch: a lock created earlier blocks a worker
import sys  # noqa: E402
from math import ceil  # noqa: E402
from pathlib import Path  # noqa: E402

from gunicorn.arbiter import Arbiter  # noqa: E402
from gunicorn.workers.base import Worker  # noqa: E402

from config.addresses import bracketed  # noqa: E402
from config.errors import SettingsError  # noqa: E402
from server import libraries, reloads, startup  # noqa: E402
from server.worker import count_reload, forget, spare_paused  # noqa: E402
from services.ops import metrics_folder  # noqa: E402

try:
    settings = reloads.checked_settings()
except SettingsError as exc:
    sys.exit(f"wechatlaibao: {exc}")

wsgi_app = "app:create_worker_app()"
bind = [f"{bracketed(settings.host)}:{port}" for port in (settings.port, settings.ops_port) if port]
workers = settings.workers
worker_class = "server.worker.DrainingWorker"
on_reload = count_reload
http_parser = "auto"
#: One greenlet per connection: sockets, requests that wait for an answer, and 500 for polls and REST calls.
worker_connections = settings.sockets_max + settings.http_waits_max + 500
#: The drain, plus 10 s for the worker to stop after it.
graceful_timeout = ceil(settings.drain_seconds) + 10
timeout = 60
keepalive = 15
forwarded_allow_ips = "*" if settings.trusted_proxies else "127.0.0.1"
#: Trust no header for the path; by default gunicorn accepts SCRIPT_NAME and PATH_INFO.
forwarder_headers = ""
#: gunicorn's control socket is a file, and the root file system may be read-only.
control_socket_disable = True
worker_tmp_dir = "/dev/shm"
accesslog = None


def nworkers_changed(arbiter: Arbiter, new: int, old: int | None) -> None:
    """Check at the first start that files of rules and providers can be used, and that the addresses can be bound.

    No other hook knows gunicorn's command line options (`--bind`) and runs before the first log line. On a reload,
    when `old` is the previous number of workers, the listeners exist already.
    """
    if old is not None:
        return
    names = {settings.ops_port: "OPS_PORT", settings.port: "PORT"}
    try:
        reloads.check_first_build(settings)
        if not arbiter.cfg.reuse_port and not startup.inherits_listeners(os.environ):
            startup.check_addresses(arbiter.cfg.address, names, host=settings.host)
    except SettingsError as exc:
        sys.exit(f"wechatlaibao: {exc}")


def on_starting(arbiter: Arbiter) -> None:
    """Guard reloads, and workers after a pause of the host; create the folder of the workers' metrics.

    A reload does not call this hook, so counters continue.
    """
    reloads.guard(arbiter)
    spare_paused(arbiter)
    try:
        os.environ[metrics_folder.VARIABLE] = str(metrics_folder.make_folder())
    except OSError as exc:
        sys.exit(f"wechatlaibao: no place for metrics: {exc}")
    libraries.share()


def pre_fork(arbiter: Arbiter, worker: Worker) -> None:
    """Give the worker a number, which names its metrics files."""
    worker.metrics_number = metrics_folder.free_number({one.metrics_number for one in arbiter.WORKERS.values()})


def post_fork(arbiter: Arbiter, worker: Worker) -> None:
    # Imported late: prometheus_client reads the folder's name from the environment at import.
    from services.ops.metrics_files import continue_files

    continue_files(Path(os.environ[metrics_folder.VARIABLE]), worker.metrics_number)


def child_exit(arbiter: Arbiter, worker: Worker) -> None:
    """Remove the gauges of a dead worker. Called for every death of a worker."""
    from services.ops.metrics_files import drop_gauges

    forget(worker)
    try:
        drop_gauges(Path(os.environ[metrics_folder.VARIABLE]), worker.metrics_number)
    except OSError:
        arbiter.log.exception("gauges of a dead worker could not be removed")


def on_exit(arbiter: Arbiter) -> None:
    metrics_folder.remove(Path(os.environ[metrics_folder.VARIABLE]))
