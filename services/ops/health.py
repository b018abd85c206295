"""The state of all dependencies, probed in the background so that a health request is cheap and never waits long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from config.errors import LaibaoError
from services.errors import StoreUnavailable
from services.ops import remedies

log = logging.getLogger(__name__)

#: Returns whether a dependency works, or its fault in a few words.
Probe = Callable[[], bool | str]
#: Seconds a probe's result stays valid, and seconds a report waits for running probes.
FRESH_SECONDS = 10.0
WAIT_SECONDS = 2.0
#: The probes whose causes are those of Redis or SQL.
STORES = ("redis", "batch_redis", "sql", "batch_processing")


class DependencyProblem(NamedTuple):
    """A dependency that does not work."""

    #: The probe's name.
    name: str
    #: What is wrong, with the database's or Redis's own words; "unavailable" where no more is known.
    cause: str
    remedy: str
    #: The same in Chinese.
    remedy_zh: str


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
        #: By probe, the error of the last run that failed.
        self._causes: dict[str, str] = {}
        self._running: set[str] = set()

    def report(self) -> dict[str, Any]:
        """Return the body of /health. A probe without a result in time counts as failed."""
        return self._report(self._refresh())

    def look(self) -> tuple[dict[str, Any], list[DependencyProblem]]:
        """Return the body of /health, and what is wrong with its remedies, for administrators only."""
        results = self._refresh()
        problems = [self._problem(name, ok) for name, ok in results.items() if ok is not True]
        return self._report(results), problems

    def _report(self, results: Mapping[str, bool | str]) -> dict[str, Any]:
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

    def _problem(self, name: str, ok: bool | str) -> DependencyProblem:
        cause = ok if isinstance(ok, str) else self._causes.get(name, "")
        remedy, bot = _remedy(name, cause), name.partition(":")[2]
        both = (words.replace("{bot}", bot) for words in (remedy, remedies.CHINESE[remedy]))
        return DependencyProblem(name, cause or "unavailable", *both)

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
        cause = ""
        try:
            ok: bool | str = self._probes[name]()
        except LaibaoError as exc:
            ok, cause = False, remedies.cause(exc) if isinstance(exc, StoreUnavailable) else str(exc)
        except Exception as exc:
            ok = False
            log.warning("probe failed", extra={"probe": name, "cause": type(exc).__name__})
        with self._changed:
            self._results[name] = (ok, self._clock())
            self._causes[name] = cause
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


def _remedy(name: str, cause: str) -> str:
    """Return one of `remedies.CHINESE`; `{bot}` stands for the bot's name."""
    kind = name.partition(":")[0]
    if kind == "clock":
        return remedies.CLOCK
    if kind == "long_connection" and "another program" in cause:
        return remedies.EVICTED
    return remedies.remedy_of(cause.removeprefix("refused: ")) if kind in STORES else remedies.DOCTOR
