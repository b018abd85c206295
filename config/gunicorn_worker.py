"""The production worker: on TERM and HUP it goes on serving while a greenlet drains it, and only then stops.

gunicorn's own gevent worker stops accepting at once, no hook of it fires in time to hand answers over, and one idle
connection holds it for the whole graceful timeout.
"""

from __future__ import annotations

import logging
import sys
from types import FrameType

import gevent
from gunicorn.arbiter import Arbiter
from gunicorn.workers.ggevent import GeventWorker

from services.errors import SettingsError

log = logging.getLogger(__name__)

#: Seconds for requests still in a handler after the drain; idle connections are cut then.
LAST_SECONDS = 3


class DrainingWorker(GeventWorker):  # type: ignore[misc]
    """A gevent worker that asks its app (`app.extensions["wechatlaibao"]`) to drain before it ends."""

    _leaving = False

    def load_wsgi(self) -> None:
        """Load the app; a wrong setting is one line and stops the arbiter, not a worker that starts for ever."""
        try:
            super().load_wsgi()
        except SettingsError as exc:
            self.log.error("wechatlaibao: %s", exc)
            sys.exit(Arbiter.APP_LOAD_ERROR)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self._leaving:
            self._leaving = True
            gevent.spawn(self._leave)

    def _leave(self) -> None:
        try:
            self.wsgi.extensions["wechatlaibao"].close()
        except Exception:
            log.exception("drain failed")
        finally:
            self.cfg.set("graceful_timeout", LAST_SECONDS)
            self.alive = False
