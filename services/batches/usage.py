"""The cost of a task: the sums of its items' tokens and prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

Usage = Mapping[str, Any]


def usage_sums(usages: Iterable[Usage]) -> list[dict[str, Any]]:
    """Return `{total_tokens, total_price, currency}` for each currency, that of the most tokens first.

    A price is a decimal string, "" where no item has one.
    """
    tokens: dict[str, int] = {}
    prices: dict[str, Decimal] = {}
    for usage in usages:
        currency = str(usage.get("currency") or "")
        tokens[currency] = tokens.get(currency, 0) + int(usage.get("total_tokens") or 0)
        if (price := _price(usage.get("total_price"))) is not None:
            prices[currency] = prices.get(currency, Decimal()) + price
    by_tokens = sorted(tokens, key=lambda currency: (-tokens[currency], currency))
    return [
        {"total_tokens": tokens[one], "total_price": f"{prices[one]:f}" if one in prices else "", "currency": one}
        for one in by_tokens
    ]


def _price(text: Any) -> Decimal | None:
    try:
        price = Decimal(str(text or ""))
    except InvalidOperation:
        return None
    return price if price.is_finite() else None
