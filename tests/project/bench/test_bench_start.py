"""`bench.start`: what counts as ready, and that no replica is left behind."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench import start
from bench.load.turns import PRODUCT, production
from tests.support.servers.processes import RedisServer, free_port
from tests.support.servers.raw_server import RawServer

pytestmark = pytest.mark.full


@pytest.mark.parametrize(
    ("reply", "ready"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", False),
        (b"", False),
    ],
)
def test_only_a_200_is_ready(reply: bytes, ready: bool) -> None:
    """A replica that listens, or says that it is not ready, is not."""
    with RawServer(reply) as server:
        assert start._ready(urlsplit(server.url).port or 0) is ready
        assert server.heads[0].startswith(b"GET /readyz HTTP/1.1\r\n")


def test_nobody_who_listens_is_not_ready() -> None:
    """It is asked again."""
    assert not start._ready(free_port())


@pytest.mark.scenario
def test_a_start_ends_with_its_block(redis_server: RedisServer, tmp_path: Path) -> None:
    """It serves within the block and not after it; its worker is known."""
    with start.started(production(redis_server.url()), tmp_path, PRODUCT) as (seconds, replica):
        assert start._ready(replica.port)
        assert len(replica.workers) == 1

    assert seconds > 0
    assert not start._ready(replica.port)


@pytest.mark.scenario
@pytest.mark.timeout(240)
def test_floor_and_product_start_as_often() -> None:
    """Every figure is there, and each has its yardstick."""
    figures = {figure.name: figure for figure in start.measure(0.02)}

    names = ("floor", "ready", "floor_rss", "worker_rss", "idle_cpu")
    assert set(figures) == {f"start.{name}" for name in names}
    assert len(figures["start.ready"].rounds) == len(figures["start.floor"].rounds) == 2
    assert figures["start.worker_rss"].yardstick == "start.floor_rss"
