"""Forbidden words: the file's lines, what meets them, and masks over texts in pieces."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rules.words import BLANKS, MATCH_CHARACTERS, MOST_HELD, SLICE, STAR, Mask, WordRules

RULES = """# what nobody may ask, or read
refuse 机密项目
refuse re:tp-[0-9]{4}
mask 密码本
mask 密码
mask re:1[0-9]{10}   # telephones
mask re:[a-f0-9]{8,}
note 竞品
mask Straße
"""
rules = WordRules.parse(RULES)


def stars(count: int) -> str:
    return STAR * count


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hide 密码", "in line 2 refuse, mask or note"),
        ("mask", "in line 2 refuse, mask or note"),
        ("mask # nothing", "in line 2 refuse, mask or note"),
        ("mask \u200b", "in line 2 a word with characters that can be seen"),
        ("mask " + "长" * 201, "in line 2 at most 200 characters"),
        ("mask re:(a", "in line 2 an expression of RE2 (missing ): (a)"),
        ("mask re:a*", "in line 2 an expression that matches no empty text"),
        ("mask re:", "in line 2 an expression that matches no empty text"),
        *((f"mask re:{expression}", "in line 2 an expression without") for expression in ("^a", "a$", r"a\b", r"a\z")),
    ],
)
def test_a_wrong_line_is_named(line: str, expected: str) -> None:
    """The message has its number, and what was expected."""
    with pytest.raises(ValueError, match=re.escape(expected)):
        WordRules.parse(f"# first\n{line}\n")


@pytest.mark.parametrize("expression", [r"\$a", r"a\^", "[$^]a", r"[\]$]a", "[^a]b"])
def test_a_sign_is_no_anchor_where_it_is_escaped_or_in_a_class(expression: str) -> None:
    WordRules.parse(f"mask re:{expression}")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("请介绍机密项目", [2]),
        ("机 密\u3000项\u200b目", [2]),
        ("机\x00密\x9b项\ufff9目", [2]),
        ("ＴＰ－１２３４ 是什么", [3]),
        ("竞品和机密项目", [2, 8]),
        ("密码本", []),
        ("机密\n项目", []),
        (f"机{' ' * (BLANKS + 1)}密项目", []),
        ("x" * (SLICE - 2) + "机密项目", [2]),
    ],
)
def test_a_question_meets_rules(text: str, lines: list[int]) -> None:
    """Width, case, unseen characters and blanks between Chinese characters do not matter; masks are for answers."""
    assert [rule.line for rule in rules.asked(["", text])] == lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("密码本在这", f"{stars(3)}在这"),
        ("密 码\u200b 本。", f"{stars(3)}。"),
        ("打 13800138000。", f"打 {stars(11)}。"),
        ("打１３８００１３８０００", f"打{stars(11)}"),
        ("STRASSE straße", f"{stars(7)} {stars(7)}"),
        ("密码 密码", f"{stars(2)} {stars(2)}"),
        ("deadbeef" * 20, stars(160)),
        ("机密项目", "机密项目"),
        ("", ""),
    ],
)
def test_words_are_masked(text: str, shown: str) -> None:
    """Each character of the compared form is one star; what is around a word stays as it is."""
    assert rules.masked(text) == shown


def test_a_question_and_an_answer_report_their_lines() -> None:
    """The longest word at a place is masked; the log names every rule that the answer meets."""
    assert [rule.line for rule in rules.answered("密码本和竞品，13800138000")] == [4, 5, 6, 7, 8]


PIECES = st.lists(st.text(alphabet="密码本机 \u200b1380aef\tＳ\u3000ß", max_size=30), max_size=12)


@given(PIECES)
def test_the_cut_of_an_answer_changes_nothing(pieces: list[str]) -> None:
    """Whatever the pieces, the shown text is the beginning of the whole one's at every moment."""
    whole, shown, mask = rules.masked("".join(pieces)), "", Mask(rules)
    for piece in pieces:
        shown += mask.feed(piece)
        assert whole.startswith(shown)

    assert shown + mask.rest() == whole


@given(PIECES)
def test_no_masked_word_is_ever_shown(pieces: list[str]) -> None:
    """A masked text meets no mask again."""
    shown = rules.masked("".join(pieces))

    assert not [rule for rule in rules.answered(shown) if rule.action == "mask"]


def test_what_is_held_back_is_bounded() -> None:
    """The longest word less one, or the longest match of an expression with the characters of one search."""
    words, expressions = Mask(WordRules.parse("mask 一二三四")), Mask(rules)

    assert len("好" * 50) - len("".join(map(words.feed, "好" * 50))) == 3
    held = len("好" * 500) - len("".join(map(expressions.feed, "好" * 500)))
    assert MATCH_CHARACTERS <= held < MATCH_CHARACTERS + 8


def test_characters_that_nobody_sees_are_not_held_for_ever() -> None:
    """A flood of them between two characters of a word leaves the word masked, and the memory small."""
    mask = Mask(WordRules.parse("mask 密码"))
    shown = mask.feed("密") + "".join(mask.feed("\u200b" * 500) for _ in range(100))

    assert len(mask.held) <= MOST_HELD + 500
    assert shown + mask.feed("码。") + mask.rest() == "＊＊。"


def test_an_expression_has_linear_time() -> None:
    """RE2 has no expression that a text makes slow."""
    evil = WordRules.parse("mask re:(a+)+b\nrefuse re:(x+x+)+y")

    assert evil.asked(["x" * 60_000]) == []
    assert evil.masked("a" * 60_000) == "a" * 60_000
