"""Reading JSON of other services, where any key may be missing or of another type."""

from __future__ import annotations

from typing import Any

import pytest

from services.providers.client.json_fields import count


@pytest.mark.parametrize(
    ("value", "counted"),
    [(7, 7), (0, 0), (-1, 0), (10**12, 0), (True, 0), ("7", 0), (7.5, 0), (None, 0), ([7], 0)],
    ids=str,
)
def test_a_count_is_a_whole_number_from_zero_on(value: Any, counted: int) -> None:
    """Any other value counts as 0, because a counter must not decrease."""
    assert count(value) == counted
