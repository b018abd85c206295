"""The estimated number of tokens of a text."""

from __future__ import annotations

import pytest

from services.conversations.history_store import estimate_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("年假怎么申请？", 7), ("word", 1), ("words", 2), ("HR 系统", 3), ("한국어", 3), ("😀", 1), ("，。", 2)],
)
def test_wide_characters_count_as_a_token_each(text: str, tokens: int) -> None:
    """Four narrow characters count as one token, rounded up."""
    assert estimate_tokens(text) == tokens
