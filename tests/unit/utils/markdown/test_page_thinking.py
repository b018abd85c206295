"""Thinking on pages: unfolded, folded or left out, in Dify's former form too, the same for any pieces of a text."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.properties import examples
from tests.support.servers.processes import FakeClock
from tests.unit.utils.markdown.test_markdown_blocks import BlockReader, cut
from utils.markdown.blocks import BlockRenderer, render_markdown
from utils.markdown.elements.thinking import PageThinking

ANSWER = "<p>Yes.</p>\n"
FOLDED = '<details class="thinking">\n<summary>Thinking</summary>\n<p>Well …</p>\n</details>\n'
OLD = '<details style="color:gray;background-color: #f8f8f8;padding: 8px;border-radius: 4px;" open>'
OLD += " <summary> Thinking... </summary>\nWell …\n</details>\n\nYes."

MODES: tuple[PageThinking, ...] = ("show", "fold", "hide")


@pytest.mark.parametrize(
    "text",
    ["<think>\nWell …\n</think>\n\nYes.", "<think>Well …</think>Yes.", "<Thinking>Well …</thinking>\nYes.", OLD],
)
def test_thinking_is_folded_unfolded_or_left_out(text: str) -> None:
    """Every form of it becomes one element before the answer."""
    assert render_markdown(text) == FOLDED + ANSWER
    assert render_markdown(text, thinking="show") == FOLDED.replace(">", ' open="">', 1) + ANSWER
    assert render_markdown(text, thinking="hide") == ANSWER


def test_thinking_is_markdown() -> None:
    """Its lists and code are elements, and its fences end with it."""
    html = render_markdown("<think>\n- a\n- b\n\n```py\nx\n</think>\n\nYes.")

    assert html.startswith('<details class="thinking">\n<summary>Thinking</summary>\n<ul>\n<li>a</li>')
    assert html.endswith(f"</code></pre>\n</details>\n{ANSWER}")


@pytest.mark.parametrize("text", ["`<think>`", "```\n<think>\n```", "<details>\n<summary>More</summary>\nx</details>"])
def test_other_elements_and_code_are_no_thinking(text: str) -> None:
    """Tags in code stay as they are, and so does an element with another summary."""
    assert "<details" not in render_markdown(text)


def test_control_characters_of_an_answer_open_no_block() -> None:
    """The marks around thinking cannot be written by a model."""
    assert render_markdown("\x02\nx\n\x03\n") == "<p>x</p>\n"
    assert "\x02" not in render_markdown("- ```\n<think>x</think>\n")


def test_thinking_grows_in_one_block() -> None:
    """The block is replaced while the model thinks; the answer begins in the next one."""
    reader = BlockReader().add(["<thi", "nk>\nWe", "ll …\n"])
    assert reader.html == FOLDED

    reader.add(["</think>\n\n", "Yes."])

    assert list(reader.blocks.values()) == [FOLDED, ANSWER]


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=examples(60))
@given(data=st.data(), rnd=st.randoms(use_true_random=False))
def test_any_pieces_show_the_same_thinking(mode: PageThinking, data: st.DataObject, rnd: random.Random) -> None:
    """This holds for all modes, and for tags that are cut anywhere."""
    parts = ["<think>", "</think>", "\n", "\n\n", "words ", OLD, "</details>", "<details", "`", "```\n"]
    parts += ["- ", "> ", "[1]"]
    text = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=20)))

    reader = BlockReader(BlockRenderer(thinking=mode, clock=FakeClock())).add(cut(text, rnd, 40))

    assert reader.finish() == render_markdown(text, thinking=mode)
