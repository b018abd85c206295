"""What a service says its answer cost: any field may be missing, of another type, or nonsense."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from services.models import Usage
from services.providers.dify_fields import count, price, text

#: More tokens than any answer has; what lies outside is no count, and counters must never fall.
_MOST = 10**12
_NUMBER = re.compile(r"[0-9]{1,16}(\.[0-9]{1,16})?([eE][+-]?[0-9]{1,3})?")
_CURRENCY = re.compile(r"[A-Za-z]{1,8}")


def usage_of(fields: Mapping[str, Any]) -> Usage:
    """Return it, from the names that OpenAI gave the tokens, or shorter ones, and Dify the price."""
    asked, answered = _tokens(fields, "prompt_tokens"), _tokens(fields, "completion_tokens")
    total = _tokens(fields, "total_tokens") or _tokens(fields, "tokens") or asked + answered
    cost = price(fields.get("total_price")) or price(fields.get("price"))
    currency = text(fields.get("currency"))
    return Usage(
        total_tokens=total,
        prompt_tokens=asked,
        completion_tokens=answered,
        total_price=cost if _NUMBER.fullmatch(cost) else "",
        currency=currency if _CURRENCY.fullmatch(currency) else "",
    )


def _tokens(fields: Mapping[str, Any], name: str) -> int:
    found = count(fields.get(name))
    return found if 0 <= found < _MOST else 0
