"""Runs the handlers of what a connection receives, in threads of their own and a bounded number at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from channels.wecom.long_connection.link import Link
from services.wecom.long_connection import metrics
from services.wecom.long_connection.protocol import MESSAGE
from utils.limited_log import LimitedLog

log = logging.getLogger(__name__)

#: Messages and events of all bots that one process handles at once; more are dropped, counted and logged.
MOST = 200

#: Called with the connection, the req_id, and the body of a message or event.
Handler = Callable[[Link, str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class LinkHandlers:
    """The functions that serve the connections of all bots."""

    on_message: Handler
    #: Every event but `disconnected_event`.
    on_event: Handler
    #: Each is started in a thread of its own when a connection has subscribed, and returns soon after `link.lost`.
    serve: tuple[Callable[[Link], None], ...] = ()


class Arrivals:
    """Starts a thread for each message and event."""

    def __init__(self, handlers: LinkHandlers) -> None:
        self._handlers = handlers
        self._changed = threading.Condition()
        self._running = 0
        self._dropped = LimitedLog(log, "long connection: message dropped")

    def take(self, link: Link, cmd: str, req_id: str, body: Mapping[str, Any]) -> None:
        """Handle a message or event without waiting, or drop it."""
        handler = self._handlers.on_message if cmd == MESSAGE else self._handlers.on_event
        with self._changed:
            if self._running < MOST:
                threading.Thread(target=self._run, args=(handler, link, req_id, body), daemon=True).start()
                # After the start: a thread that the system refuses to start keeps no place.
                self._running += 1
                return
        metrics.ARRIVALS_DROPPED.labels(link.bot).inc()
        self._dropped.warning({"bot": link.bot, "most": MOST})

    def wait(self, seconds: float) -> None:
        """Wait until nothing is being handled, for `seconds` at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running, seconds)

    def _run(self, handler: Handler, link: Link, req_id: str, body: Mapping[str, Any]) -> None:
        try:
            handler(link, req_id, body)
        except Exception:
            log.exception("long connection: message failed", extra={"bot": link.bot})
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
