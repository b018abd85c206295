"""What the tests of batches in SQL share: a database of each kind for a module, and an empty store in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.batches.shelf import SQL_KINDS, Shelf, empty_database
from tests.support.servers.processes import FakeClock


@pytest.fixture(scope="module", params=SQL_KINDS)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database of each kind for the whole module: creating one takes longer than most tests."""
    return empty_database(request, tmp_path_factory)


@pytest.fixture
def shelf(url: str, clock: FakeClock) -> Iterator[Shelf]:
    """An empty store with a clock that stands still."""
    with Shelf(url, clock=clock) as shelf:
        yield shelf
