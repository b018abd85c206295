"""`python -m bench`: the other parts run if one fails, and docs/performance.md has the figures of the results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import chart, report
from bench.figures import Figure
from bench.parts import PARTS
from bench.stage import machine

pytestmark = pytest.mark.full

ONE, TWO, LAST = (Figure(name, (1.0, 2.0), "ms", "made up") for name in ("polls.mean", "polls.p99", "start.ready"))
OTHER = Figure("questions.cpu", (900.0,), "µs", "made up")


def breaks() -> Iterator[Figure]:
    """Measure one figure, then fail."""
    yield ONE
    raise TimeoutError("redis-server: not within 60 s")


def test_a_part_that_fails_is_named_and_the_others_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Its figures so far are kept; rows are printed to standard error as they are measured."""
    figures, failed = bench.measured({"polls": breaks, "start": lambda: [LAST]})

    assert figures == [ONE, LAST]
    assert failed == ["polls failed: TimeoutError: redis-server: not within 60 s"]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.index("polls.mean") < err.index("TimeoutError") < err.index("start.ready")


def test_a_failure_is_the_exit_status_and_other_figures_are_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table ends with the failed parts; new figures join the stored ones of other parts."""
    results = tmp_path / "results.json"
    report.write(results, [OTHER], {})
    arguments = ["--only", "polls,start", "--out", str(results)]

    assert bench.main(arguments, {"polls": breaks, "start": lambda: [LAST]}) == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "polls failed: TimeoutError: redis-server: not within 60 s"
    assert [line.split()[0] for line in lines[-4:-1]] == ["figure", "polls.mean", "start.ready"]
    figures, facts = report.read(results)
    assert figures == [ONE, OTHER, LAST]
    assert facts["scale"] == 1.0
    assert bench.main(arguments, {"start": lambda: [LAST]}) == 0


def test_new_figures_of_a_part_replace_its_old_ones(tmp_path: Path) -> None:
    """All old figures of the part are dropped, those of other parts stay, in the order of the parts."""
    results = tmp_path / "results.json"
    report.write(results, [ONE, TWO, OTHER, LAST], {})
    again = Figure(ONE.name, (3.0,), "ms", "made up")

    assert bench.merged(results, ["polls"], [again]) == [again, OTHER, LAST]
    assert bench.merged(results, ["polls", "start"], [LAST, again]) == [again, OTHER, LAST]
    assert bench.merged(tmp_path / "none.json", ["polls"], [again]) == [again]
    assert bench.merged(results, list(PARTS), [again]) == [again]


def test_only_a_whole_run_replaces_the_results_by_default() -> None:
    """A run of some parts, or a shortened run, stores nothing; `growth` names its three parts."""
    assert bench.parse([]).out == report.RESULTS
    assert bench.parse([]).only == list(PARTS)
    assert bench.parse(["--scale", "0.1"]).out is None
    assert bench.parse(["--only", "start,polls"]).out is None
    assert bench.parse(["--only", "start,polls"]).only == ["polls", "start"]
    assert bench.parse(["--only", "growth"]).only == ["growth.length", "growth.live", "growth.replicas"]


def test_an_unknown_part_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The message names it."""
    with pytest.raises(SystemExit):
        bench.parse(["--only", "polls,stream"])
    assert "no part is called stream" in capsys.readouterr().err


def test_the_machine_is_described_above_the_table() -> None:
    """First the comparison of a callback, then cores, software, and the core of each process."""
    facts = machine.describe(1.0) | {"cores": 2}

    lines = list(bench.table([ONE, LAST], facts))

    assert lines[0].startswith("A replica of one worker")
    above = "\n".join(lines[1 : lines.index("")])
    assert all(part in above for part in ("2 cores", "Python 3.", "gunicorn 2", "on core 0", "load generator"))
    assert [line.split()[0] for line in lines[lines.index("") + 1 :]] == ["figure", "polls.mean", "start.ready"]
    assert "trial" not in above
    assert "a trial of 0.1 of the usual size" in machine.head(machine.describe(0.1))[0]
    assert machine.head(facts | {"cores": 1})[2:] == [*machine.ONE_CORE]


def test_the_document_has_the_figures_of_the_results() -> None:
    """Every generated section of docs/performance.md was made from bench/results.json."""
    figures, facts = report.read(report.RESULTS)
    page = bench.PAGE.read_text("utf-8")

    for name, content in bench.sections(figures, facts).items():
        assert content in page, name
        assert report.replaced(page, name, content) == page, name


def test_the_charts_are_of_the_results() -> None:
    """Each file contains the points of its chart."""
    figures, _ = report.read(report.RESULTS)

    for picture in chart.charts(figures):
        drawn = (bench.IMAGES / f"{picture.name}.svg").read_text("utf-8")
        assert f"<dc:description>{picture.description}</dc:description>" in drawn


def test_charts_are_drawn_from_figures(tmp_path: Path) -> None:
    """Polls a second are a second over a poll's CPU; the floor is a line; delays are median and p99."""
    rows = {"growth.live.1k.poll_cpu": 200.0, "growth.live.10k.poll_cpu": 250.0, "polls.floor_cpu.1k": 400.0}
    rows |= {f"streams.{count}.delay_{what}": 10.0 for count in (200, 1000) for what in ("p50", "p99")}

    figures = [Figure(name, (value,), "", "") for name, value in rows.items()]
    polls, delays = chart.charts(figures)

    assert polls.x == (1000.0, 10_000.0)
    assert [*polls.lines.values()] == [(5000.0, 4000.0), (2500.0, 2500.0)]
    assert delays.x == (200.0, 1000.0)
    chart.draw(figures, tmp_path)
    for picture in (polls, delays):
        assert picture.description in (tmp_path / f"{picture.name}.svg").read_text("utf-8")


def test_a_chart_without_its_figures_is_an_error() -> None:
    """Nothing is drawn from results that lack a part."""
    with pytest.raises(LookupError):
        chart.charts([Figure("polls.floor_cpu.1k", (400.0,), "µs", "")])
