"""The health report: what it says of each part, that it is cheap, and that nothing holds it up for long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services.ops.health import FRESH_SECONDS, Health
from tests.support.servers.processes import FakeClock, wait_until


class Part:
    """An outside party that is well until told otherwise; `gate` holds its answers back."""

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


class Parts:
    def __init__(self, clock: Callable[[], float]) -> None:
        self.rag, self.redis, self.sql = Part(), Part(), Part()
        self._clock = clock

    def health(self, wait_seconds: float = 20.0) -> Health:
        dependencies = {"redis": self.redis.probe, "sql": self.sql.probe}
        return Health(
            rag=("dify", self.rag.probe), dependencies=dependencies, clock=self._clock, wait_seconds=wait_seconds
        )


@pytest.fixture
def parts(clock: FakeClock) -> Iterator[Parts]:
    parts = Parts(clock)
    yield parts
    for part in (parts.rag, parts.redis, parts.sql):
        part.gate.set()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("probe-")], timeout=30.0)


def test_the_report_has_its_documented_shape(parts: Parts) -> None:
    """Monitors read these names."""
    assert parts.health().report() == {
        "status": "healthy",
        "services": {"rag": True, "search": False, "batch_processing": False},
        "providers": {
            "rag": {"name": "dify", "type": "RAG", "status": "ok"},
            "search": {"name": None, "type": "Search", "status": "not configured"},
        },
        "dependencies": {"redis": "ok", "sql": "ok"},
    }


@pytest.mark.parametrize(
    ("away", "status"),
    [
        ((), "healthy"),
        (("sql",), "degraded"),
        (("rag",), "degraded"),
        (("rag", "sql"), "degraded"),
        (("redis",), "unhealthy"),
        (("redis", "rag", "sql"), "unhealthy"),
    ],
)
def test_only_without_redis_nothing_can_be_answered(parts: Parts, away: tuple[str, ...], status: str) -> None:
    """Anything else that is away costs some answers."""
    for name in away:
        getattr(parts, name).ok = False

    report = parts.health().report()

    assert report["status"] == status
    assert report["services"]["rag"] is ("rag" not in away)
    assert report["dependencies"] == {n: "unavailable" if n in away else "ok" for n in ("redis", "sql")}


def test_a_probe_that_fails_is_a_part_that_is_away(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """The log names the kind of failure, never its words."""
    parts.sql.error = OSError("secret-host-name")

    with caplog.at_level(logging.WARNING):
        report = parts.health().report()

    assert report["dependencies"]["sql"] == "unavailable"
    assert [(r.message, vars(r)["probe"], vars(r)["cause"]) for r in caplog.records] == [
        ("probe failed", "sql", "OSError")
    ]
    assert "secret-host-name" not in caplog.text


def test_asking_again_costs_nothing_for_a_while(parts: Parts, clock: FakeClock) -> None:
    """A result is good for some seconds, whatever became of the part meanwhile."""
    health = parts.health()
    health.report()
    parts.redis.ok = False

    clock.advance(FRESH_SECONDS - 0.1)
    assert health.report()["status"] == "healthy"
    assert (parts.rag.calls, parts.redis.calls, parts.sql.calls) == (1, 1, 1)

    clock.advance(0.2)
    assert health.report()["status"] == "unhealthy"
    assert (parts.rag.calls, parts.redis.calls, parts.sql.calls) == (2, 2, 2)


def test_a_part_that_does_not_answer_is_waited_for_briefly(parts: Parts) -> None:
    """The report comes all the same, and says so of that part alone."""
    health = parts.health(wait_seconds=0.2)
    parts.sql.gate.clear()

    began = time.monotonic()
    report = health.report()

    assert time.monotonic() - began < 10.0
    assert (report["status"], report["dependencies"]) == ("degraded", {"redis": "ok", "sql": "unavailable"})


def test_a_part_that_hangs_is_asked_once(parts: Parts, clock: FakeClock) -> None:
    """Reports do not pile up threads behind it; once it answers it counts again."""
    health = parts.health(wait_seconds=0.05)
    parts.sql.gate.clear()
    for _ in range(3):
        health.report()
        clock.advance(FRESH_SECONDS)
    wait_until(lambda: parts.sql.calls)
    assert parts.sql.calls == 1

    parts.sql.gate.set()

    wait_until(lambda: health.report()["dependencies"]["sql"] == "ok", timeout=30.0)


def test_what_answered_before_and_hangs_now_is_not_well(parts: Parts, clock: FakeClock) -> None:
    """An old result does not hide a part that fell silent."""
    health = parts.health(wait_seconds=0.2)
    health.report()
    parts.redis.gate.clear()
    clock.advance(FRESH_SECONDS)

    assert health.report()["status"] == "unhealthy"


def test_reports_at_once_share_their_probes(parts: Parts) -> None:
    """Twenty monitors cost one probe of each part."""
    health = parts.health()
    parts.redis.gate.clear()
    reports: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: reports.append(health.report()), daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    wait_until(lambda: parts.redis.calls, timeout=30.0)

    parts.redis.gate.set()
    for thread in threads:
        thread.join(60.0)

    assert [report["status"] for report in reports] == ["healthy"] * 20
    assert (parts.rag.calls, parts.redis.calls, parts.sql.calls) == (1, 1, 1)


def test_the_first_report_probes_whatever_the_clock_says() -> None:
    """A clock that begins at zero, as right after the machine's start, is no fresh result."""
    redis = Part()

    report = Health(rag=("mock", Part().probe), dependencies={"redis": redis.probe}, clock=lambda: 0.0).report()

    assert (report["status"], redis.calls) == ("healthy", 1)
