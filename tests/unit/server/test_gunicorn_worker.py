"""Single methods of the worker, without a server; the scenarios run real gunicorn processes."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.workers.ggevent import GeventWorker

from config.errors import SettingsError
from server import worker as gunicorn_worker
from server.worker import LAST_SECONDS, DrainingWorker, forget, spare_paused
from tests.support.servers.processes import FakeClock


def worker(close: Callable[[], None]) -> Any:
    """Return the only worker, of the newest generation, with an app and without a listener."""
    for age in range(256):
        forget(SimpleNamespace(age=age))
    created: Any = DrainingWorker.__new__(DrainingWorker)
    created._servers = (SimpleNamespace(),)
    created._generation = gunicorn_worker._shared[gunicorn_worker._RELOADS]
    created.cfg, created.alive, created.log = Config(), True, logging.getLogger("worker")
    created.wsgi = SimpleNamespace(extensions={"wechatlaibao": SimpleNamespace(close=close, leave=lambda: None)})
    return created


def drain(leaving: Any) -> None:
    """Send a worker two SIGTERMs and wait for its end."""
    leaving.handle_exit(signal.SIGTERM, None)
    leaving.handle_exit(signal.SIGTERM, None)
    assert leaving.alive
    # `gevent.wait` may return at once where an earlier test of this process has left something to its hub.
    with gevent.Timeout(10, False):
        while leaving.alive:
            gevent.sleep(0.01)


def test_a_stopping_worker_drains_once() -> None:
    """Several SIGTERMs start one drain, and the worker lives until the app is closed."""
    closed: list[bool] = []
    leaving = worker(lambda: closed.append(True))

    drain(leaving)

    assert (closed, leaving.alive, leaving.cfg.graceful_timeout) == ([True], False, LAST_SECONDS)


def test_a_drain_that_fails_stops_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    """The error is logged, and the worker does not keep running."""

    def fail() -> None:
        raise RuntimeError("a bug")

    leaving = worker(fail)
    drain(leaving)

    assert not leaving.alive
    assert "drain failed" in caplog.text


def test_an_arbiter_that_was_stopped_looks_once_more(clock: FakeClock) -> None:
    """After a pause of its own it ends no worker before its second look; otherwise every look counts."""
    looks: list[float] = []
    began = clock.now
    arbiter: Any = SimpleNamespace(murder_workers=lambda: looks.append(clock.now - began))
    spare_paused(arbiter, clock=clock)

    for seconds in (1.0, 1.0, 90.0, 1.0):
        clock.advance(seconds)
        arbiter.murder_workers()

    assert looks == [1.0, 2.0, 93.0]


def test_a_wrong_setting_stops_the_arbiter_with_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The exit code makes the arbiter stop instead of starting another worker."""

    def load(self: GeventWorker) -> None:
        raise SettingsError("RAG_PROVIDER: x, expected y")

    monkeypatch.setattr(GeventWorker, "load_wsgi", load)

    with pytest.raises(SystemExit) as stopped:
        worker(lambda: None).load_wsgi()

    assert stopped.value.code == Arbiter.APP_LOAD_ERROR
    logged = [record.message for record in caplog.records if record.name == "worker"]
    assert logged == ["wechatlaibao: RAG_PROVIDER: x, expected y"]


def test_loaded_objects_are_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full garbage collections, which pause the worker, do not visit objects that existed when serving began."""
    loaded: list[list[int]] = []
    monkeypatch.setattr(GeventWorker, "load_wsgi", lambda self: loaded.append([1]))
    gc.unfreeze()
    try:
        worker(lambda: None).load_wsgi()
        assert gc.get_freeze_count() > 10_000
        assert not any(one is loaded for one in gc.get_objects())
    finally:
        gc.unfreeze()
