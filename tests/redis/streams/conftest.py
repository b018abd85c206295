"""What the tests of the gateway share: a provider that waits for the test, and a replica that asks it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.streams.desk import Desk, SlowProvider


@pytest.fixture
def provider() -> Iterator[SlowProvider]:
    provider = SlowProvider()
    yield provider
    provider.go_on.set()


@pytest.fixture
def desk(any_redis_url: str, provider: SlowProvider) -> Iterator[Desk]:
    desk = Desk(any_redis_url, provider)
    yield desk
    provider.go_on.set()
    desk.close()
