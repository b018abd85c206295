"""Figures as rows, as results.json and as tables: what was measured is what is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import report
from bench.figures import Figure

pytestmark = pytest.mark.full

FLOOR = Figure("polls.floor.1k", (4000.0, 4100.0, 3900.0), "polls/s", "bare WSGI function")
PRODUCT = Figure("polls.product.1k", (5000.0, 5200.0, 4900.0), "polls/s", "product", yardstick="polls.floor.1k")
SLOW = Figure("polls.p99", (61.25,), "ms", "p99 at a pace", goal="< 50")
MEAN = Figure("polls.mean", (12.0, 14.0), "ms", "mean of a poll")


def test_a_row_says_median_spread_unit_goal_and_yardstick() -> None:
    """A row has all a reader needs, and a goal that was missed catches the eye."""
    _, product, slow = report.rows([PRODUCT, SLOW], [FLOOR, PRODUCT])

    assert product.split() == ["polls.product.1k", "5,000", "4,900–5,200", "polls/s", "1.25", "×", "polls.floor.1k"]
    assert slow.split() == ["polls.p99", "61.25", "ms", "<", "50", "NO"]


def test_rows_stand_below_each_other() -> None:
    """Every cell begins, or ends, where the head of its column does."""
    head, product, slow = report.rows([PRODUCT, SLOW], [FLOOR])

    assert {line.index(unit) for line, unit in ((head, "unit"), (product, "polls/s"), (slow, "ms"))} == {
        head.index("unit")
    }
    assert head.index("median") + len("median") == product.index("5,000") + len("5,000")


def test_a_yardstick_that_is_not_there_or_in_another_unit_is_only_named() -> None:
    """No ratio is made of things that cannot be compared."""
    _, alone = report.rows([PRODUCT], [])
    _, other = report.rows([Figure("a.ratio", (1.2,), "ratio", "", yardstick=FLOOR.name)], [FLOOR])

    assert alone.endswith(" polls.floor.1k")
    assert "×" not in alone
    assert other.endswith(" polls.floor.1k")
    assert "×" not in other


def test_rows_are_shown_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody waits for the last figure to see the first, and all of them are returned."""
    seen: list[str] = []

    def measure() -> Iterator[Figure]:
        yield FLOOR
        seen.append(capsys.readouterr().out)
        yield PRODUCT

    assert report.show(measure()) == [FLOOR, PRODUCT]
    assert "polls.floor.1k" in seen[0]
    assert "1.25 × polls.floor.1k" in capsys.readouterr().out


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """results.json gives back figures in their order, with their rounds, goals and yardsticks, and the machine."""
    figures = [PRODUCT, FLOOR, SLOW]

    report.write(tmp_path / "results.json", figures, {"cores": 2})

    assert report.read(tmp_path / "results.json") == (figures, {"cores": 2})


def test_the_first_line_lays_the_originals_claims_beside() -> None:
    """A mean, a rate and a memory, each beside what the original says of itself."""
    memory = Figure("polls.rss", (96.0,), "MiB", "memory")

    line = report.first_line([PRODUCT, MEAN, memory])

    assert all(part in line for part in ("13 ms (200 ms)", "5,000 polls/s (1,000)", "96 MiB (512 MB)"))
    assert report.first_line([SLOW]) == ""
    assert "| 13 ms | 5,000 polls/s | 96 MiB |" in report.claims([PRODUCT, MEAN, memory])


def test_the_tables_have_a_row_for_every_figure() -> None:
    """Parts have a table each; a row names its figure and says what it is."""
    start = Figure("first_word.poll.p50", (4.0,), "ms", "added before the first word")

    tables = report.markdown([FLOOR, PRODUCT, start])

    assert [line for line in tables.splitlines() if line.startswith("#")] == ["### Polls", "### First word"]
    assert "| `polls.product.1k` | product | 5,000 | 4,900–5,200 | polls/s |  |  | 1.25 × polls.floor.1k |" in tables
    assert "| `first_word.poll.p50` | added before the first word | 4 |  | ms |  |  |  |" in tables
    assert len({line.count("|") for line in tables.splitlines() if line.startswith("|")}) == 1


def test_what_was_measured_at_several_steps_is_one_row() -> None:
    """A column for each step, with its spread; a goal is met when every step that has it meets it."""
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


def test_a_step_that_was_not_measured_is_left_open() -> None:
    """Two replicas can add up; one cannot."""
    one = Figure("growth.replicas.1.cpu", (200.0,), "µs", "cost")
    two = [Figure(f"growth.replicas.2.{what}", (1.0,), "ratio", what) for what in ("cpu", "adds_up")]

    assert "| `growth.replicas.*.adds_up` | adds_up |  | 1 | ratio |  |  |  |" in report.markdown([one, *two])


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0123456, "0.01235"), (61.25, "61.25"), (999.96, "1,000"), (1234.5, "1,234"), (1e6, "1,000,000"), (0.0, "0")],
)
def test_numbers_have_four_digits_and_no_exponent(value: float, written: str) -> None:
    """A number is read at a glance."""
    assert report.number(value) == written


def test_a_place_in_a_document_is_filled_again_and_again() -> None:
    """What stood between the marks gives way; all else stays."""
    document = "before\n<!-- begin: sizes -->\nold\n<!-- end: sizes -->\nafter <!-- begin: x -->y<!-- end: x -->\n"

    once = report.replaced(document, "sizes", "new")

    assert once == document.replace("old", "new")
    assert report.replaced(once, "sizes", "new") == once


@pytest.mark.parametrize("document", ["", "<!-- begin: sizes -->", "<!-- end: sizes --><!-- begin: sizes -->"])
def test_a_document_without_the_place_is_refused(document: str) -> None:
    """Nothing is dropped without a word."""
    with pytest.raises(LookupError, match="no place for its sizes"):
        report.replaced(document, "sizes", "new")
