"""Reads JSON from other services, where any key may be missing or have another type. A wrong value reads as empty."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from services.models import Usage


def json_object(body: bytes | str) -> Mapping[str, Any] | None:
    """Parse a JSON object; None if the body is not JSON or not an object."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


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
        # JSON can contain half a surrogate pair, which cannot be encoded as UTF-8 for Redis or a socket.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def count(value: Any) -> int:
    """Return a count; 0 if it is not an integer from 0 up to 10**12."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12 else 0


def price(value: Any) -> str:
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""


_NUMBER = re.compile(r"[0-9]{1,16}(\.[0-9]{1,16})?([eE][+-]?[0-9]{1,3})?")
_CURRENCY = re.compile(r"[A-Za-z]{1,8}")


def usage_of(fields: Mapping[str, Any]) -> Usage:
    """Return the usage, read from OpenAI's names for tokens (or `tokens`) and Dify's names for the price."""
    prompt, completion = count(fields.get("prompt_tokens")), count(fields.get("completion_tokens"))
    total = count(fields.get("total_tokens")) or count(fields.get("tokens")) or prompt + completion
    cost = price(fields.get("total_price")) or price(fields.get("price"))
    currency = text(fields.get("currency"))
    return Usage(
        total_tokens=total,
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_price=cost if _NUMBER.fullmatch(cost) else "",
        currency=currency if _CURRENCY.fullmatch(currency) else "",
    )
