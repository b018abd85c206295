"""An answer of STREAM_MAX_BYTES takes no renderer long, whatever it repeats."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from channels.thinking import thinking_and_answer
from config.settings import Settings
from config.texts import Texts
from services.files.links import FileLinks
from services.files.shown import AnswerLinks, FileOffers
from services.streams.records import Snapshot
from services.wecom.frames import EndedAnswer, WeComFrames, ended
from tests.support.properties import examples
from utils.formats.xlsx_writer import MAX_CELL
from utils.markdown.blocks import BlockRenderer, render_markdown, render_slices
from utils.markdown.pictures import in_words, references, with_pictures
from utils.markdown.plain_text import plain_text
from utils.printable import harmless
from utils.thinking import fold_thinking

MOST_BYTES: int = Settings.model_fields["stream_max_bytes"].default
SLICE = 8 * 1024
#: Seconds of CPU time of one rendering; 0.2 s is measured at most on a machine that does nothing else.
MOST_SECONDS = 2.0

#: Texts of which each begins or ends something; those that begin a text may hold all of it.
PIECES = st.sampled_from(
    [
        "`", "``", "```", "```py", "~~~", "\n", "\n\n", " ", "    ", "\t", "a", "word ", "字",
        "👩\u200d👧", "\u0301", "- ", "1. ", "- [ ] ", "# ", "> ", "|", "|-", "| a ", "---", "===", "*",
        "**", "_", "~~", "[", "]", "](", "![", "(", ")", "[a](b", "[a-]: http://x.example\n",
        "![a](/files/x)", "[1]", "【1】", "<", "<b", "<br>", "<think>", "</think>", "<details", "&",
        "&amp;", "\\", "$", "$$", "\\(", "\\frac{a}{b}", "{", "http://", "www.a", "://", "=a(", "+1",
    ]
)  # fmt: skip
UNITS = st.lists(PIECES, min_size=1, max_size=3).map("".join)
BEGINNINGS = st.sampled_from(
    ["", "", "<think>", "```\n", f"```{'x' * 20_300}\n", "| a | b |\n|---|---|\n", "[", "- ", "> ", "```wecom-card\n"]
)

OFFERS = FileOffers(Texts(), FileLinks(b"k"))
LINKS = AnswerLinks(FileLinks(b"k"), store=None)  # type: ignore[arg-type]
FRAMES = WeComFrames(Texts(), OFFERS, thinking={"b": "show", "h": "hide"})
PARTS = WeComFrames(Texts(), OFFERS, thinking={"b": "show"}, parts=30)


def in_slices(text: str) -> list[str]:
    return [text[start : start + SLICE] for start in range(0, len(text), SLICE)]


def growing(text: str) -> float:
    """Give a page's renderer the text in slices, up to the one after its Markdown, and return the longest time."""
    renderer = BlockRenderer(clock=time.thread_time)
    times = [seconds(partial(renderer.add, piece)) for piece in in_slices(text)[:10]]
    return max(*times, seconds(renderer.finish))


def seconds(render: Callable[[], object]) -> float:
    began = time.thread_time()
    render()
    return time.thread_time() - began


RENDERERS: dict[str, Callable[[str], object]] = {
    "poll": lambda text: FRAMES.content("b", ended(text, "")),
    "growing poll": lambda text: FRAMES.content("h", Snapshot("s", "processing", text=text[:20_000], late=True)),
    "late message": lambda text: FRAMES.late_message("b", EndedAnswer(text, ended(text, ""))),
    "late message of all": lambda text: FRAMES.late_message("h", EndedAnswer(text, None)),
    "parts": lambda text: PARTS.further_messages("b", EndedAnswer(text, ended(text, ""))),
    "page": lambda text: sum(map(len, render_slices(LINKS.slices("s", in_slices(text))))),
    "page without thinking": lambda text: sum(map(len, render_slices([text], thinking="hide"))),
    "batch row": lambda text: with_pictures(render_markdown(text), lambda _: "/files/x"),
    "cell of a table": harmless,
    "cell of a workbook": lambda text: harmless(plain_text(text, 2 * MAX_CELL)),
    "separate thinking": thinking_and_answer,
    "download": lambda text: in_words(fold_thinking(text, "hide"), OFFERS.words, growing=False),
    "files": references,
}


def hostile(unit: str, beginning: str = "") -> str:
    room = MOST_BYTES - len(beginning.encode())
    return beginning + unit * (room // len(unit.encode()))


def assert_quick(text: str) -> None:
    for name, render in RENDERERS.items():
        took = seconds(partial(render, text))
        assert took < MOST_SECONDS, name
    assert growing(text) < MOST_SECONDS


# Measuring coverage would multiply the time.
@pytest.mark.no_cover
@settings(max_examples=examples(100) // 10)
@example(unit="|-\n", beginning="")
@given(unit=UNITS, beginning=BEGINNINGS)
def test_no_text_holds_a_worker(unit: str, beginning: str) -> None:
    """Every rendering of a text that repeats a few pieces of Markdown takes bounded CPU time."""
    assert_quick(hostile(unit, beginning))


@pytest.mark.full
@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("unit", "beginning"),
    [
        ("![# ", ""),
        ("[", ""),
        ("[a-]: http://x.example\n", ""),
        ("a\n", f"```{'x' * 20_300}\n"),
        ("```\n", ""),
        ("- a\n", ""),
        ("`a`[b](/files/x)", ""),
        ("<think>a</think>", ""),
        ("<details", ""),
        ("`a", "<think>"),
        ("| a | b |\n", "| a | b |\n|---|---|\n"),
        ("|-\n", ""),
        ("\\frac{a}{b}[a](b", "["),
        ("[a](http://b)> 字\n===\n", "| a | b |\n|---|---|\n"),
        ("|\u0301\n", "| a | b |\n|---|---|\n"),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_texts_that_held_a_worker_do_not_any_more(unit: str, beginning: str) -> None:
    """Each of them took one renderer 0.25 to 50 s of CPU time."""
    assert_quick(hostile(unit, beginning))
