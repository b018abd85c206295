"""Figures as rows of the terminal, in results.json, and in tables of the document."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import report
from bench.figures import Figure

pytestmark = pytest.mark.full

FLOOR = Figure("polls.floor.1k", (4000.0, 4100.0, 3900.0), "polls/s", "bare WSGI function")
PRODUCT = Figure("polls.product.1k", (5000.0, 5200.0, 4900.0), "polls/s", "product", yardstick="polls.floor.1k")
SLOW = Figure("polls.p99", (61.25,), "ms", "p99 at a pace", goal="< 50")
MEAN = Figure("polls.mean", (12.0, 14.0), "ms", "mean of a poll")


def test_a_row_has_median_spread_unit_goal_and_yardstick() -> None:
    """A missed goal is marked NO; cells are aligned with the head of their column."""
    product, slow = (report.row(figure, [FLOOR, PRODUCT]) for figure in (PRODUCT, SLOW))

    assert product.split() == ["polls.product.1k", "5,000", "4,900–5,200", "polls/s", "1.25", "×", "polls.floor.1k"]
    assert slow.split() == ["polls.p99", "61.25", "ms", "<", "50", "NO"]
    assert report.head().index("unit") == product.index("polls/s") == slow.index("ms")


def test_a_yardstick_that_is_missing_or_has_another_unit_is_only_named() -> None:
    """No ratio is calculated of different units."""
    alone = report.row(PRODUCT, [])
    other = report.row(Figure("a.ratio", (1.2,), "ratio", "", yardstick=FLOOR.name), [FLOOR])

    assert [row.endswith(" polls.floor.1k") for row in (alone, other)] == [True, True]
    assert "×" not in alone + other


def test_stored_figures_are_read_again(tmp_path: Path) -> None:
    """Figures keep their order, rounds, goals and yardsticks; the machine's description is stored too."""
    figures = [PRODUCT, FLOOR, SLOW]

    report.write(tmp_path / "results.json", figures, {"cores": 2})

    assert report.read(tmp_path / "results.json") == (figures, {"cores": 2})


def test_the_first_line_compares_with_the_claims_of_the_original() -> None:
    """Mean, rate and memory are each followed by the original's claim."""
    memory = Figure("polls.rss", (96.0,), "MiB", "memory")

    (line,) = report.comparison([PRODUCT, MEAN, memory])

    assert all(part in line for part in ("13 ms (200 ms)", "5,000 polls/s (1,000)", "96 MiB (512 MB)"))
    assert [*report.comparison([SLOW])] == []
    assert "| 13 ms | 5,000 polls/s | 96 MiB |" in report.claims([PRODUCT, MEAN, memory])


def test_the_tables_have_a_row_for_every_figure() -> None:
    """Each part has a table; each row has the figure's name and description."""
    start = Figure("first_word.poll.p50", (4.0,), "ms", "added before the first word")

    tables = report.markdown([FLOOR, PRODUCT, start])

    assert [line for line in tables.splitlines() if line.startswith("#")] == ["### Polls", "### First word"]
    assert "| `polls.product.1k` | product | 5,000 | 4,900–5,200 | polls/s |  |  | 1.25 × polls.floor.1k |" in tables
    assert "| `first_word.poll.p50` | added before the first word | 4 |  | ms |  |  |  |" in tables
    assert len({line.count("|") for line in tables.splitlines() if line.startswith("|")}) == 1


def test_figures_of_several_steps_are_one_row() -> None:
    """Each step is a column, with its spread; a goal is met if every step that has it meets it."""
    lost = [
        Figure(f"streams.{count}.lost", (float(count == 200),), "answers", "lost", goal="<= 0") for count in (200, 500)
    ]
    delay = [Figure(f"streams.{count}.p99", (30.0, 10.0), "ms", "delay", yardstick="a.b") for count in (200, 500)]
    goal = [
        Figure(f"streams.{count}.rss", (300.0,), "MiB", "memory", goal=limit)
        for count, limit in ((200, ""), (500, "< 512"))
    ]

    tables = report.markdown([*lost, *delay, *goal, Figure("streams.naive", (150.0,), "µs", "a plain program")])

    single, series = tables.removeprefix("### Streams\n\n").split("\n\n")
    assert single.splitlines()[2:] == ["| `streams.naive` | a plain program | 150 |  | µs |  |  |  |"]
    assert series.splitlines() == [
        "| figure | what it is | 200 | 500 | unit | goal | met | beside its yardstick |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| `streams.*.lost` | lost | 1 | 0 | answers | <= 0 | NO |  |",
        "| `streams.*.p99` | delay | 20 (10–30) | 20 (10–30) | ms |  |  | a.b |",
        "| `streams.*.rss` | memory | 300 | 300 | MiB | < 512 at 500 | yes |  |",
    ]


def test_a_step_that_was_not_measured_is_empty() -> None:
    """A figure of two replicas has no value in the column of one."""
    one = Figure("growth.replicas.1.cpu", (200.0,), "µs", "cost")
    two = [Figure(f"growth.replicas.2.{what}", (1.0,), "ratio", what) for what in ("cpu", "adds_up")]

    assert "| `growth.replicas.*.adds_up` | adds_up |  | 1 | ratio |  |  |  |" in report.markdown([one, *two])


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0123456, "0.01235"), (61.25, "61.25"), (999.96, "1,000"), (1234.5, "1,234"), (1e6, "1,000,000"), (0.0, "0")],
)
def test_numbers_have_four_digits_and_no_exponent(value: float, written: str) -> None:
    """Four significant digits, with thousands separators."""
    assert report.number(value) == written


def test_a_section_of_a_document_is_replaced() -> None:
    """Only the text between the marks changes, also the second time."""
    document = "before\n<!-- begin: sizes -->\nold\n<!-- end: sizes -->\nafter <!-- begin: x -->y<!-- end: x -->\n"

    once = report.replaced(document, "sizes", "new")

    assert once == document.replace("old", "new")
    assert report.replaced(once, "sizes", "new") == once


@pytest.mark.parametrize("document", ["", "<!-- begin: sizes -->", "<!-- end: sizes --><!-- begin: sizes -->"])
def test_a_document_without_the_marks_is_an_error(document: str) -> None:
    """The message names the section."""
    with pytest.raises(LookupError, match="no marks for its sizes"):
        report.replaced(document, "sizes", "new")
