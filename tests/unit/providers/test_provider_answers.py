"""The state machines of the openai and custom providers, given records that no server should send."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import ProviderError
from services.models import Delta, Metadata, ProviderEvent, ProviderIds, Replacement, Usage
from services.providers.client.json_fields import usage_of
from services.providers.custom.answer import CustomAnswer
from services.providers.openai.answer import OpenAIAnswer
from utils.formats.json_records import JSONRecords, Record

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
FIELD_NAMES = st.sampled_from(["content", "delta", "message", "role", "index", "finish_reason", "usage", "error", "id"])
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD_NAMES | st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    *("choices", "usage", "id", "model", "error", "object", "delta", "answer", "content", "response"),
    *("metadata", "sources", "message_id", "done", "final"),
]
RECORDS = st.lists(
    st.builds(
        Record, st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4), st.sampled_from(["", "done", "error", "x"])
    ),
    max_size=5,
)


def openai(records: list[Record]) -> list[ProviderEvent]:
    turn, events = OpenAIAnswer(), list[ProviderEvent]()
    try:
        for record in records:
            events += turn.take(record)
        events += turn.close()
    except ProviderError:
        pass
    return events


def custom(records: list[Record]) -> list[ProviderEvent]:
    turn, events = CustomAnswer(), list[ProviderEvent]()
    try:
        for record in records:
            events += turn.take(record)
        events += turn.close(cut_off=False)
    except ProviderError:
        pass
    return events


@pytest.mark.parametrize("turn", [openai, custom], ids=["openai", "custom"])
@given(records=RECORDS)
def test_any_json_gives_text_and_counts_or_a_defined_error(
    turn: Callable[[list[Record]], list[ProviderEvent]], records: list[Record]
) -> None:
    """No other exception is raised, every text can be encoded, and no count is negative."""
    for event in turn(records):
        match event:
            case Delta(text) | Replacement(text):
                assert text
                text.encode()
            case ProviderIds():
                event.message_id.encode()
            case Usage():
                assert min(event.total_tokens, event.prompt_tokens, event.completion_tokens) >= 0
                assert event.price >= 0
            case _:
                assert isinstance(event, Metadata)


def test_a_record_can_be_written_as_json_again() -> None:
    """Lone surrogates, NaN and infinite numbers, which later readers could not encode, are replaced."""
    line = b'{"a": "\\ud83d!", "b": NaN, "c": 1e999, "d": "\\ud83d\\ude42", "e": 0.5, "f": -Infinity}\n'

    (record,) = JSONRecords().feed(line)

    assert record.fields == {"a": "\ufffd!", "b": None, "c": None, "d": "🙂", "e": 0.5, "f": None}
    json.dumps(record.fields, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("fields", "usage"),
    [
        ({}, Usage()),
        ({"total_tokens": 3, "prompt_tokens": 2, "completion_tokens": 1}, Usage(3, 2, 1)),
        ({"prompt_tokens": 2, "completion_tokens": 1}, Usage(3, 2, 1)),
        ({"tokens": 3}, Usage(3)),
        ({"total_tokens": -1, "prompt_tokens": 10**15, "completion_tokens": True}, Usage()),
        ({"total_price": "0.00043", "currency": "USD"}, Usage(total_price="0.00043", currency="USD")),
        ({"price": 0.5}, Usage(total_price="0.5")),
        ({"price": 4.3e-05}, Usage(total_price="4.3e-05")),
        ({"price": "about a dollar", "currency": "look here\n"}, Usage()),
        ({"price": "nan", "currency": 7}, Usage()),
    ],
    ids=range(10),
)
def test_usage_has_valid_counts_only(fields: dict[str, Any], usage: Usage) -> None:
    """Values that are no counts or prices are ignored."""
    assert usage_of(fields) == usage
