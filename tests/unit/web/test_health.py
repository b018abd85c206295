"""The health report: the status of each dependency, its cost, and its timeout."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services.ops.health import FRESH_SECONDS, Health
from tests.support.servers.processes import FakeClock, wait_until


class Dependency:
    """A dependency that is available until `ok` or `error` is set; a cleared `gate` holds its replies back."""

    def __init__(self, ok: bool = True) -> None:
        self.ok = ok
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.calls = 0

    def probe(self) -> bool:
        self.calls += 1
        self.gate.wait(60.0)
        if self.error:
            raise self.error
        return self.ok


class Dependencies:
    def __init__(self, clock: Callable[[], float]) -> None:
        self.rag, self.redis, self.sql = Dependency(), Dependency(), Dependency()
        self._clock = clock

    def health(self, wait_seconds: float = 20.0) -> Health:
        dependencies = {"redis": self.redis.probe, "sql": self.sql.probe}
        return Health(
            rag=("dify", self.rag.probe), dependencies=dependencies, clock=self._clock, wait_seconds=wait_seconds
        )


@pytest.fixture
def deps(clock: FakeClock) -> Iterator[Dependencies]:
    deps = Dependencies(clock)
    yield deps
    for dependency in (deps.rag, deps.redis, deps.sql):
        dependency.gate.set()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("probe-")], timeout=30.0)


def test_the_report_has_its_documented_shape(deps: Dependencies) -> None:
    """Monitors read these names."""
    assert deps.health().report() == {
        "status": "healthy",
        "services": {"rag": True, "search": False, "batch_processing": False},
        "providers": {
            "rag": {"name": "dify", "type": "RAG", "status": "ok"},
            "search": {"name": None, "type": "Search", "status": "not configured"},
        },
        "dependencies": {"redis": "ok", "sql": "ok"},
    }


@pytest.mark.parametrize(
    ("down", "status"),
    [
        ((), "healthy"),
        (("sql",), "degraded"),
        (("rag",), "degraded"),
        (("rag", "sql"), "degraded"),
        (("redis",), "unhealthy"),
        (("redis", "rag", "sql"), "unhealthy"),
    ],
)
def test_the_status_is_unhealthy_only_without_redis(deps: Dependencies, down: tuple[str, ...], status: str) -> None:
    """Any other dependency that is down makes the report degraded."""
    for name in down:
        getattr(deps, name).ok = False

    report = deps.health().report()

    assert report["status"] == status
    assert report["services"]["rag"] is ("rag" not in down)
    assert report["dependencies"] == {n: "unavailable" if n in down else "ok" for n in ("redis", "sql")}


def test_a_probe_that_raises_makes_its_dependency_unavailable(
    deps: Dependencies, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the exception's type, not its message."""
    deps.sql.error = OSError("secret-host-name")

    with caplog.at_level(logging.WARNING):
        report = deps.health().report()

    assert report["dependencies"]["sql"] == "unavailable"
    (line,) = [record for record in caplog.records if record.name == "services.ops.health"]
    assert (line.message, vars(line)["probe"], vars(line)["cause"]) == ("probe failed", "sql", "OSError")
    assert "secret-host-name" not in caplog.text


def test_reports_within_seconds_reuse_the_results(deps: Dependencies, clock: FakeClock) -> None:
    """A result is kept for FRESH_SECONDS, even if the dependency changes meanwhile."""
    health = deps.health()
    health.report()
    deps.redis.ok = False

    clock.advance(FRESH_SECONDS - 0.1)
    assert health.report()["status"] == "healthy"
    assert (deps.rag.calls, deps.redis.calls, deps.sql.calls) == (1, 1, 1)

    clock.advance(0.2)
    assert health.report()["status"] == "unhealthy"
    assert (deps.rag.calls, deps.redis.calls, deps.sql.calls) == (2, 2, 2)


def test_a_dependency_that_hangs_is_probed_once(deps: Dependencies, clock: FakeClock) -> None:
    """Reports return without it, and start no other probe; after its reply the dependency is ok again."""
    health = deps.health(wait_seconds=0.05)
    deps.sql.gate.clear()
    wait_until(lambda: health.report()["dependencies"] == {"redis": "ok", "sql": "unavailable"})
    wait_until(lambda: health.report()["providers"]["rag"]["status"] == "ok")
    assert health.report()["status"] == "degraded"
    for _ in range(3):
        clock.advance(FRESH_SECONDS)
        health.report()
    wait_until(lambda: deps.sql.calls)
    assert deps.sql.calls == 1

    deps.sql.gate.set()

    wait_until(lambda: health.report()["dependencies"]["sql"] == "ok", timeout=30.0)


def test_a_dependency_that_starts_to_hang_is_unavailable(deps: Dependencies, clock: FakeClock) -> None:
    """An expired result is not used while a new probe hangs."""
    health = deps.health(wait_seconds=0.05)
    wait_until(lambda: health.report()["status"] == "healthy")
    deps.redis.gate.clear()
    clock.advance(FRESH_SECONDS)

    assert health.report()["status"] == "unhealthy"


def test_parallel_reports_share_their_probes(deps: Dependencies) -> None:
    """Twenty parallel reports make one probe of each dependency."""
    health = deps.health()
    deps.redis.gate.clear()
    reports: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: reports.append(health.report()), daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    wait_until(lambda: deps.redis.calls, timeout=30.0)

    deps.redis.gate.set()
    for thread in threads:
        thread.join(60.0)

    assert [report["status"] for report in reports] == ["healthy"] * 20
    assert (deps.rag.calls, deps.redis.calls, deps.sql.calls) == (1, 1, 1)


def test_the_first_report_probes_at_any_clock_time() -> None:
    """A clock that starts at zero, as after the machine's boot, does not make a missing result fresh."""
    redis = Dependency()

    probes: dict[str, Any] = {"rag": ("mock", Dependency().probe), "dependencies": {"redis": redis.probe}}
    report = Health(**probes, clock=lambda: 0.0, wait_seconds=30.0).report()

    assert (report["status"], redis.calls) == ("healthy", 1)
