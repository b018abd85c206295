"""The second part of an answer begins where the first one ended, and its Markdown is whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.properties import examples
from tests.support.texts import squeezed
from tests.unit.utils.markdown.test_markdown import MARKDOWN
from utils.markdown.late_text import Rest, rest_of, second_part
from utils.markdown.wecom import open_fence
from utils.stream_utils import FRAME_BYTES, answer_text, compose

TABLE = "| 名称 | 天数 |\n|---|---|\n| 年假 | 5 |\n| 病假 | 12 |\n\n以上。"
CODE = "看代码：\n\n```python\na = 1\nb = 2\n```\n\n完。"


def message(rest: Rest, **changes: Any) -> str:
    return second_part(rest, **{"mark": "(2/2)", "footnote": "", "ending": "", "truncated": "（太长）", **changes})


@pytest.mark.parametrize(
    ("whole", "shown", "rest"),
    [
        ("年假五天，病假十二天。", "年假五天，", "病假十二天。"),
        ("年假五天。", "", "年假五天。"),
        ("年假五天。", "年假五天。", ""),
        ("年假五天。", "病假", "年假五天。"),
        ("一\n\n二\n\n三", "一\n\n二", "三"),
        ("一\n\n二三", "一\n二", "三"),
        ("- 一\n  - 二\n  - 三", "- 一\n  - 二", "  - 三"),
        ("a👨\u200d👩\u200d👧x", "a👨", "👨\u200d👩\u200d👧x"),
        ("ae\u0301x", "ae", "e\u0301x"),
        (CODE, "看代码：", "```python\na = 1\nb = 2\n```\n\n完。"),
        (CODE, "看代码：\n\n```py", "```python\na = 1\nb = 2\n```\n\n完。"),
        (CODE, "看代码：\n\n```python", "```python\na = 1\nb = 2\n```\n\n完。"),
        (CODE, "看代码：\n\n```python\na = 1", "```python\nb = 2\n```\n\n完。"),
        (CODE, "看代码：\n\n```python\na = 1\nb", "```python\n = 2\n```\n\n完。"),
        (CODE, "看代码：\n\n```python\na = 1\nb = 2", "完。"),
        (CODE, "看代码：\n\n```python\na = 1\nb = 2\n``", "完。"),
        (CODE, "看代码：\n\n```python\na = 1\nb = 2\n```", "完。"),
        ("- 步骤\n\n    ```\n    x\n    y\n    ```\n- 二", "- 步骤\n\n    ```\n    x", "```\ny\n```\n- 二"),
        ("~~~\n一\n二\n~~~", "~~~\n一", "~~~\n二\n~~~"),
        (TABLE, "| 名称 | 天数 |\n|---|---|\n| 年假 | 5 |", "| 名称 | 天数 |\n|---|---|\n| 病假 | 12 |\n\n以上。"),
        (
            TABLE,
            "| 名称 | 天数 |\n|---|---|\n| 年假 | 5 |\n| 病",
            "| 名称 | 天数 |\n|---|---|\n| 病假 | 12 |\n\n以上。",
        ),
        (TABLE, "| 名称 | 天数 |\n|---|---|\n| 年假 | 5 |\n| 病假 | 12 |", "以上。"),
        (TABLE, "| 名称 | 天数 |\n|---|---|", "| 名称 | 天数 |\n|---|---|\n| 年假 | 5 |\n| 病假 | 12 |\n\n以上。"),
        (TABLE, "| 名称 | 天数 |\n|--", TABLE),
        (TABLE, "| 名", TABLE),
    ],
)
def test_the_rest_begins_where_the_frame_ended(whole: str, shown: str, rest: str) -> None:
    """Graphemes, rows and fences are not split; an open fence and a table's header are repeated."""
    assert rest_of(whole, shown).whole == rest


@settings(max_examples=examples(200))
@given(text=MARKDOWN, data=st.data())
def test_nothing_is_lost_between_the_parts(text: str, data: st.DataObject) -> None:
    """Whatever was read when the frame ended, and whatever fitted into it, what it showed and the rest are the answer.

    Only a line that closes a fence may be in neither: the frame closes its fence itself.
    """
    read = text[: data.draw(st.integers(0, len(text)))]
    limit = data.draw(st.integers(40, 400))
    shown = compose(read, "完", "太长", max_bytes=limit, growing=False, thinking="show").answer
    whole, rest = answer_text(text), rest_of(answer_text(text), shown)

    everything, left = squeezed(whole), squeezed(rest.text)
    assert everything.endswith(left)
    seen = squeezed(shown) if everything.startswith(squeezed(shown)) else ""
    assert not everything[len(seen) : len(everything) - len(left)].strip("`~")


@settings(max_examples=examples(200))
@given(piece=MARKDOWN, times=st.sampled_from([1, 5]), data=st.data())
def test_a_message_is_whole_markdown_within_its_limit(piece: str, times: int, data: st.DataObject) -> None:
    """It begins with the mark, has at most its bytes, leaves no fence open, and says so where it was cut."""
    text = "\n\n".join([piece + "字" * 20] * times)
    whole = answer_text(text)
    rest = rest_of(whole, answer_text(text[: data.draw(st.integers(0, len(text)))]))
    limit = data.draw(st.integers(80, 400))

    sent = message(rest, ending="（出错了）", max_bytes=limit)

    assert sent.startswith("(2/2)")
    assert len(sent.encode()) <= limit
    assert sent.endswith("（出错了）")
    assert open_fence(sent.removesuffix("\n\n（出错了）")) is None
    assert "（太长）" in sent or squeezed(rest.whole) in squeezed(sent)


@pytest.mark.parametrize("limit", range(60, 140))
def test_a_cut_closes_code_once(limit: int) -> None:
    """Also where the cut leaves `~~~` of a line of code, which is then the line that closes it."""
    lines = "\n".join(["~~~", "字" * 10, *["~~~ x"] * 8])

    sent = message(Rest(lines), ending="（出错了）", max_bytes=limit)

    assert len(sent.encode()) <= limit
    assert open_fence(sent.removesuffix("\n\n（出错了）")) is None


def test_a_still_longer_answer_says_that_it_was_cut() -> None:
    """The message has WeCom's limit, and its code is closed before the sentence."""
    rest = rest_of("```\n" + "字" * 20_000, "```\n" + "字" * 5000)

    sent = message(rest)

    assert len(sent.encode()) <= FRAME_BYTES
    assert sent.startswith("(2/2)\n\n```\n字")
    assert sent.endswith("字\n```\n\n（太长）")


def test_sources_follow_where_they_fit() -> None:
    """They stand before the ending; a message without room for them goes without."""
    rest = Rest("五天。")

    assert message(rest, footnote="来源", ending="完") == "(2/2)\n\n五天。\n\n来源\n\n完"
    assert message(rest, footnote="来源" * 40, ending="完", max_bytes=100) == "(2/2)\n\n五天。\n\n完"
