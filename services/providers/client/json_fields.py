"""JSON of other parties, where any key may be missing or of another type: read as it should be, or as nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def text(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:
        # JSON can spell half a surrogate pair, which no store and no socket could encode.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def count(value: Any) -> int:
    """Return a number of things: what is negative, or more than anybody counts, is nothing."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12 else 0


def price(value: Any) -> str:
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
