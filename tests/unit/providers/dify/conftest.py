"""A mock Dify, and providers of it whose limits no test reaches by chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from demo.mocks.dify.server import MockDify
from services.providers.dify.provider import DifyProvider
from services.providers.recovery import RecoveryTimeouts
from tests.support.answers import TIMEOUT
from tests.support.made_providers import dify_provider

KEY = "app-fake-key"
#: An id that no mock gives.
STRANGER = "11111111-2222-4333-8444-555555555555"
#: Long timeouts of a recovery, with short pauses between its polls.
LONG = RecoveryTimeouts(unknown=60.0, running=60.0, listening=60.0, saving=60.0, pause=0.02, longest_pause=0.05)

Make = Callable[..., DifyProvider]


@pytest.fixture
def dify() -> Iterator[MockDify]:
    """A mock Dify with a ping every 10 ms."""
    with MockDify(ping_every=0.01, slow=0.001) as mock:
        yield mock


@pytest.fixture
def make(dify: MockDify) -> Iterator[Make]:
    """Make providers of the mock, with options; they are closed after the test."""
    made: list[DifyProvider] = []
    limits = dict.fromkeys(["timeout", "end_grace", "failure_grace", "linger"], TIMEOUT)

    def provider(**options: Any) -> DifyProvider:
        wanted: dict[str, Any] = {"base_url": dify.base_url, "api_keys": [KEY], "backoff": 0.01, "timeouts": LONG}
        made.append(dify_provider(**wanted | limits | options))
        return made[-1]

    yield provider
    for each in made:
        each.close()
