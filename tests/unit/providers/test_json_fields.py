"""JSON of other parties, where any key may be missing or of another type."""

from __future__ import annotations

from typing import Any

import pytest

from services.providers.client.json_fields import count


@pytest.mark.parametrize(
    ("value", "counted"),
    [(7, 7), (0, 0), (-1, 0), (10**12, 0), (True, 0), ("7", 0), (7.5, 0), (None, 0), ([7], 0)],
    ids=str,
)
def test_a_number_of_things_is_a_whole_one_from_nought_on(value: Any, counted: int) -> None:
    """Anything else is no number of things: a counter must not go backwards for it."""
    assert count(value) == counted
