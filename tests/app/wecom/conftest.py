"""Fixtures for tests of a replica behind WeCom's callback. Each module defines `values`, the replica's settings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.wecom.simulator import ResponseServer
from tests.support.replicas import AppServer


@pytest.fixture
def responses() -> Iterator[ResponseServer]:
    with ResponseServer() as responses:
        yield responses


@pytest.fixture
def app_server(values: dict[str, str]) -> Iterator[AppServer]:
    with AppServer(**values) as app_server:
        yield app_server
