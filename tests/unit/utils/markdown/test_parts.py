"""A long answer goes out in numbered messages that hold all of it, each whole Markdown within its size."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.properties import examples
from tests.support.texts import squeezed
from tests.unit.utils.markdown.test_markdown import MARKDOWN
from utils.markdown.late_text import OPENING_BYTES, Rest, numbered_parts
from utils.markdown.wecom import open_fence
from utils.stream_utils import FRAME_BYTES, answer_text

MARK = re.compile(r"\A\((\d+)/(\d+)\)\n\n")
CUT = "（太长）"


def parts_of(rest: Rest, ending: str = "", *, shown: int, most: int = 1000, max_bytes: int = FRAME_BYTES) -> list[str]:
    return [*numbered_parts(rest, ending, shown=shown, most=most, truncated=CUT, max_bytes=max_bytes).messages]


def bodies(parts: list[str]) -> list[str]:
    return [MARK.sub("", part) for part in parts]


@pytest.mark.parametrize("shown", [0, 1])
def test_the_parts_are_the_text_in_order_with_their_numbers(shown: int) -> None:
    """The numbers count the parts that were shown before."""
    text = "\n\n".join(f"第 {number} 条：{'字' * 40}" for number in range(600))

    parts = parts_of(Rest(text), "参考资料：手册", shown=shown)

    marks = [match.groups() for match in map(MARK.match, parts) if match]
    total = len(parts) + shown
    assert marks == [(str(number), str(total)) for number in range(1 + shown, total + 1)]
    assert len(parts) == 4
    assert "".join(map(squeezed, bodies(parts))) == squeezed(text) + "参考资料：手册"


def test_one_part_that_is_all_has_no_number() -> None:
    """A short answer that is sent as a message looks like any message."""
    assert parts_of(Rest("年假五天。"), shown=0) == ["年假五天。"]
    assert parts_of(Rest(""), shown=1) == []
    assert parts_of(Rest(""), "出错了", shown=1) == ["(2/2)\n\n出错了"]


def test_an_ending_that_does_not_fit_is_a_message_of_its_own() -> None:
    """No source and no link to a file is left out for lack of room."""
    parts = parts_of(Rest("字" * 6820), "链接" * 10, shown=1)

    assert bodies(parts) == ["字" * 6820, "链接" * 10]


@pytest.mark.parametrize(
    "text",
    ["| 一 | 二 |\n|---|---|\n" + "| 年假 | 五天 |\n" * 3000, "```python\n" + "print('年假')\n" * 4000 + "```\n\n完。"],
    ids=["table", "code"],
)
def test_tables_and_code_go_on_whole_in_each_part(text: str) -> None:
    """Each part repeats a table's header or a fence's language, and leaves no fence open."""
    first = text.split("\n", 1)[0]

    parts = bodies(parts_of(Rest(answer_text(text)), shown=0))

    assert len(parts) > 2
    assert all(part.startswith(first) and open_fence(part) is None for part in parts)
    repeated = squeezed("\n".join(text.split("\n")[:2])) if text.startswith("|") else "```python"
    told = "".join(squeezed(part).removeprefix(repeated).removesuffix("```") for part in parts)
    assert told.replace("```", "") == squeezed(text).removeprefix(repeated).replace("```", "")


@pytest.mark.parametrize(
    "piece", ["| " + "字" * 30_000 + " |", "👨\u200d👩\u200d👧" * 9000, "x" * 50_000, " \n" * 40_000]
)
def test_no_text_is_too_large_for_it(piece: str) -> None:
    """A row, a line or a cluster that is larger than a message is cut; nothing of it is lost."""
    text = f"| 一 |\n|---|\n{piece}"

    parts = bodies(parts_of(Rest(text), shown=1))

    assert all(len(part.encode()) <= FRAME_BYTES for part in parts)
    assert squeezed(piece).strip("|") in squeezed("".join(parts)).replace("|一||---|", "")


def without_fences(text: str) -> str:
    """Return the text without white space and lines that open or close code, which parts repeat."""
    lines = [line for line in text.split("\n") if not line.lstrip().startswith(("```", "~~~"))]
    return squeezed("\n".join(lines)).rstrip("`~")


def without_marks(text: str) -> str:
    """Return the text without white space and what code is marked with: a line may begin with such words."""
    return squeezed(text).replace("`", "").replace("~", "")


@settings(max_examples=examples(150))
@example(piece="```[x](https://x.example)<think>```", times=4, limit=80)
@example(piece="~~~[x](https://x.example)\n", times=1, limit=80)
@example(piece="a</think>\n```[x](https://x.example)`<think>", times=4, limit=110)
@given(piece=MARKDOWN, times=st.sampled_from([1, 4, 9]), limit=st.integers(80, 300))
def test_every_part_is_whole_markdown_within_its_size(piece: str, times: int, limit: int) -> None:
    """Whatever the text, the parts end, none is larger than allowed or empty, and the last words are the text's."""
    text = answer_text("\n\n".join([piece + "字" * 20] * times) + "\n\n再见")

    parts = parts_of(Rest(text), shown=1, max_bytes=limit)

    assert all(0 < len(part.encode()) <= limit for part in parts)
    assert all(squeezed(body) for body in bodies(parts))
    together = "\n".join(bodies(parts))
    assert any(read(together).endswith(read(text)[-2:]) for read in (without_fences, without_marks))


def test_after_the_most_parts_comes_the_sentence_for_the_rest() -> None:
    """An answer that needs more parts than are sent ends with the sentence, and the ending after it."""
    text = "\n\n".join(f"第 {number} 条：{'字' * 40}" for number in range(600))

    parts = numbered_parts(Rest(text), "参考资料：手册", shown=1, most=2, truncated=CUT)

    assert parts.cut
    assert [MARK.match(part)[0] for part in parts.messages] == ["(2/4)\n\n", "(3/4)\n\n", "(4/4)\n\n"]  # type: ignore[index]
    assert bodies([*parts.messages])[2] == f"{CUT}\n\n参考资料：手册"
    assert squeezed(text).startswith("".join(map(squeezed, bodies([*parts.messages[:2]]))))


def test_exactly_the_most_parts_are_the_whole_answer() -> None:
    """An ending that is a message of its own does not count."""
    parts = numbered_parts(Rest("字" * 6820 + "\n\n" + "句" * 6820), "链接" * 10, shown=1, most=2, truncated=CUT)

    assert not parts.cut
    assert [body[:1] for body in bodies([*parts.messages])] == ["字", "句", "链"]


@pytest.mark.parametrize(
    ("opening", "repeated"),
    [
        (f"```{'x' * OPENING_BYTES}\n", "```\n"),
        (f"```{'x' * (OPENING_BYTES - 3)}\n", f"```{'x' * (OPENING_BYTES - 3)}\n"),
        (f"| {'x' * OPENING_BYTES} |\n|---|\n", ""),
    ],
    ids=["long fence", "fence", "long table"],
)
def test_a_long_opening_is_not_repeated(opening: str, repeated: str) -> None:
    """A fence's info string or a table's header of more bytes would leave a part no room for text."""
    line = "| a |\n" if opening.startswith("|") else "code\n"

    first, *parts = bodies(parts_of(Rest(opening + line * 12_000), shown=1))

    assert first.startswith(opening)
    assert len(parts) > 1
    assert all(part.startswith(repeated) and len(part.partition(line)[0]) < len(repeated + line) for part in parts)


# Measuring coverage would double the time, and the small texts above cover the same lines.
@pytest.mark.no_cover
@pytest.mark.parametrize(
    "text",
    [
        f"```{'x' * 20_300}\n" + "y\n" * 480_000,
        f"- a\n\n    ```{'x' * 400}\n" + "    1234567890\n" * 70_000,
        "| a |\n|---|\n" + "| b |\n" * 160_000,
    ],
    ids=["long opening", "indented", "table"],
)
def test_each_part_reads_only_its_own_text(text: str) -> None:
    """Eight parts of 1 MB take less than 5 s of CPU time (0.6 s measured), and are as full as those of any text.

    With the long opening in each part, all of the text took 6,154 messages and 49 s.
    """
    began = time.thread_time()

    parts = numbered_parts(Rest(text), "", shown=1, most=8, truncated=CUT)

    assert time.thread_time() - began < 5
    assert parts.cut
    assert len(parts.messages) == 9
    assert sum(map(len, parts.messages[:-1])) > 8 * 19_000
