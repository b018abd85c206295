"""Reads the usage of an answer. Any field may be missing, have another type, or hold an invalid value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from services.models import Usage
from services.providers.client.json_fields import count, price, text

_NUMBER = re.compile(r"[0-9]{1,16}(\.[0-9]{1,16})?([eE][+-]?[0-9]{1,3})?")
_CURRENCY = re.compile(r"[A-Za-z]{1,8}")


def usage_of(fields: Mapping[str, Any]) -> Usage:
    """Return the usage, read from OpenAI's names for tokens (or `tokens`) and Dify's names for the price."""
    asked, answered = count(fields.get("prompt_tokens")), count(fields.get("completion_tokens"))
    total = count(fields.get("total_tokens")) or count(fields.get("tokens")) or asked + answered
    cost = price(fields.get("total_price")) or price(fields.get("price"))
    currency = text(fields.get("currency"))
    return Usage(
        total_tokens=total,
        prompt_tokens=asked,
        completion_tokens=answered,
        total_price=cost if _NUMBER.fullmatch(cost) else "",
        currency=currency if _CURRENCY.fullmatch(currency) else "",
    )
