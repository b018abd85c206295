"""About how many tokens a text has."""

from __future__ import annotations

import pytest

from utils.tokens import estimate_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("年假怎么申请？", 7), ("word", 1), ("words", 2), ("HR 系统", 3), ("한국어", 3), ("😀", 1), ("，。", 2)],
)
def test_wide_characters_are_a_token_each(text: str, tokens: int) -> None:
    """Four narrow ones are one, and a rest counts whole."""
    assert estimate_tokens(text) == tokens
