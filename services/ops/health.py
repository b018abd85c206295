"""The state of all dependencies, probed in the background so that a health request is cheap and never waits long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger(__name__)

#: Returns whether a dependency works, or its fault in a few words.
Probe = Callable[[], bool | str]
#: Seconds a probe's result stays valid, and seconds a report waits for running probes.
FRESH_SECONDS = 10.0
WAIT_SECONDS = 2.0


class Health:
    """Keep the last result of each probe. Each probe runs at most once at a time."""

    def __init__(
        self,
        *,
        rag: tuple[str, Probe],
        dependencies: Mapping[str, Probe],
        search: tuple[str, Probe] | None = None,
        batch: Probe | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._rag = rag[0]
        self._search = search[0] if search else None
        services = {"rag": rag[1], "search": search[1] if search else None, "batch_processing": batch}
        self._services = tuple(services)
        self._probes = {**{name: probe for name, probe in services.items() if probe}, **dependencies}
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._changed = threading.Condition()
        self._results: dict[str, tuple[bool | str, float]] = {}
        self._running: set[str] = set()

    def report(self) -> dict[str, Any]:
        """Return the body of /health. A probe without a result in time counts as failed."""
        results = self._refresh()
        services = {name: results.get(name) is True for name in self._services}
        word = "not configured" if self._search is None else _word(services["search"])
        return {
            "status": _status(results),
            "services": services,
            "providers": {
                "rag": {"name": self._rag, "type": "RAG", "status": _word(services["rag"])},
                "search": {"name": self._search, "type": "Search", "status": word},
            },
            "dependencies": {name: _word(ok) for name, ok in results.items() if name not in services},
        }

    def _refresh(self) -> dict[str, bool | str]:
        with self._changed:
            now = self._clock()
            stale = [n for n in self._probes if now - self._results.get(n, (False, -FRESH_SECONDS))[1] >= FRESH_SECONDS]
            for name in set(stale) - self._running:
                self._running.add(name)
                threading.Thread(target=self._probe, args=(name,), name=f"probe-{name}", daemon=True).start()
            self._changed.wait_for(lambda: not self._running.intersection(stale), timeout=self._wait_seconds)
            late = self._running.intersection(stale)
            return {n: False if n in late else self._results.get(n, (False, 0.0))[0] for n in self._probes}

    def _probe(self, name: str) -> None:
        try:
            ok: bool | str = self._probes[name]()
        except Exception as exc:
            ok = False
            log.warning("probe failed", extra={"probe": name, "cause": type(exc).__name__})
        with self._changed:
            self._results[name] = (ok, self._clock())
            self._running.discard(name)
            self._changed.notify_all()


def _status(results: Mapping[str, bool | str]) -> str:
    """Return "unhealthy" without Redis, which every answer needs; "degraded" if any other dependency fails."""
    if results.get("redis", True) is not True:
        return "unhealthy"
    return "healthy" if all(ok is True for ok in results.values()) else "degraded"


def _word(ok: bool | str) -> str:
    if isinstance(ok, str):
        return ok
    return "ok" if ok else "unavailable"
