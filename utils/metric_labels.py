"""Label values of metrics: maps values from outside to closed sets, so that the number of series is bounded."""

from __future__ import annotations

#: The message types that WeCom documents.
MSGTYPES = ("text", "image", "mixed", "voice", "file", "video", "stream", "event")
#: The events that WeCom documents for a bot with a callback.
EVENTS = ("enter_chat", "template_card_event", "feedback_event")
#: The label of every value that is not in its set.
OTHER = "other"

#: The close codes in use: RFC 6455's and the product's own (docs/websocket.md).
CLOSE_CODES = (1000, 1001, 1003, 1005, 1006, 1007, 1009, 1011, 1012, 4401, 4408, 4409, 4410, 4429)


def close_label(code: int) -> str:
    """Return the label of a close code. Clients may send any of some thousands."""
    return str(code) if code in CLOSE_CODES else OTHER


def currency_label(currency: str) -> str:
    """Return the label of a provider's currency: three capital letters, or `OTHER`."""
    return currency.upper() if len(currency) == 3 and currency.isascii() and currency.isalpha() else OTHER


def event_label(event: str) -> str:
    """Return the label of a callback's event. WeCom may send events that are not documented."""
    return event if event in EVENTS else OTHER


def msgtype_label(msgtype: str) -> str:
    """Return the label of a callback's message type. WeCom may send types that are not documented."""
    return msgtype if msgtype in MSGTYPES else OTHER
