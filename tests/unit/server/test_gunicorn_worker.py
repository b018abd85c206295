"""The worker's own steps, without a server around it; the scenarios run it for real."""

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

from server import worker as gunicorn_worker
from server.worker import LAST_SECONDS, DrainingWorker, forget
from services.errors import SettingsError


def worker(close: Callable[[], None]) -> Any:
    """Return the only worker there is, of the newest generation, which serves its app, on no socket."""
    for age in range(256):
        forget(SimpleNamespace(age=age))
    made: Any = DrainingWorker.__new__(DrainingWorker)
    made._servers = (SimpleNamespace(),)
    made._generation = gunicorn_worker._shared[gunicorn_worker._RELOADS]
    made.cfg, made.alive, made.log = Config(), True, logging.getLogger("worker")
    made.wsgi = SimpleNamespace(extensions={"wechatlaibao": SimpleNamespace(close=close, leave=lambda: None)})
    return made


def test_a_leaving_worker_drains_first_and_once() -> None:
    """However often it is told, it goes on until the app has given everything back."""
    closed: list[bool] = []
    leaving = worker(lambda: closed.append(True))

    leaving.handle_exit(signal.SIGTERM, None)
    leaving.handle_exit(signal.SIGTERM, None)
    assert leaving.alive
    gevent.wait(timeout=5)

    assert (closed, leaving.alive, leaving.cfg.graceful_timeout) == ([True], False, LAST_SECONDS)


def test_a_drain_that_fails_ends_the_worker_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """A worker that cannot drain must not stay for ever."""

    def fail() -> None:
        raise RuntimeError("a bug")

    leaving = worker(fail)
    leaving.handle_exit(signal.SIGTERM, None)
    gevent.wait(timeout=5)

    assert not leaving.alive
    assert "drain failed" in caplog.text


def test_a_wrong_setting_stops_the_arbiter_with_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The exit code tells the arbiter not to try again."""

    def load(self: GeventWorker) -> None:
        raise SettingsError("RAG_PROVIDER: x, expected y")

    monkeypatch.setattr(GeventWorker, "load_wsgi", load)

    with pytest.raises(SystemExit) as stopped:
        worker(lambda: None).load_wsgi()

    assert stopped.value.code == Arbiter.APP_LOAD_ERROR
    assert caplog.messages == ["wechatlaibao: RAG_PROVIDER: x, expected y"]


def test_what_is_loaded_is_out_of_the_collectors_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full collection looks at nothing that was there when serving began: it would stop the worker for that long."""
    kept: list[list[int]] = []
    monkeypatch.setattr(GeventWorker, "load_wsgi", lambda self: kept.append([1]))
    gc.unfreeze()
    try:
        worker(lambda: None).load_wsgi()
        assert gc.get_freeze_count() > 10_000
        assert not any(one is kept for one in gc.get_objects())
    finally:
        gc.unfreeze()
