"""A batch on three replicas that are lost, with a Redis that restarts. With more items: `tests.scenarios.batch_run`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.scenarios.batch_run import CONCURRENT, Scene, run
from tests.support.servers.processes import MariaServer, RedisServer

pytestmark = [pytest.mark.scenario, pytest.mark.full]

ITEMS = 160


def test_a_batch_outlives_replicas_and_a_restart_of_redis(
    maria_server: MariaServer, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """After a kill and a SIGTERM every item has one result, in order, and only failed or lost calls are repeated.

    The limit of concurrent calls holds over all replicas, as the provider counts them.
    """
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(aof=True))
        report = run(Scene(stack, tmp_path, redis, maria_server, lanes=CONCURRENT), ITEMS)

    print("", report, sep="\n")
    record_property("batch", str(report))
    assert report.wrong == []
    assert report.peak <= CONCURRENT
    assert report.calls <= report.items + report.failures + report.in_flight
    assert report.failures == ITEMS // 20
