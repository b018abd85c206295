"""`python -m bench`: a part that fails costs the others nothing, and the document is what the results say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import chart, report
from bench.figures import Figure
from bench.stage import machine

pytestmark = pytest.mark.full

ONE, TWO, LAST = (Figure(name, (1.0, 2.0), "ms", "made up") for name in ("polls.mean", "polls.p99", "start.ready"))
OTHER = Figure("questions.cpu", (900.0,), "µs", "made up")


def breaks() -> Iterator[Figure]:
    """Measure one figure, then fail."""
    yield ONE
    raise TimeoutError("redis-server: not within 60 s")


def test_a_part_that_fails_is_named_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    """What it had measured stays; rows come while it runs, and not between the lines of the table."""
    figures, failed = bench.measured({"polls": breaks, "start": lambda: [LAST]})

    assert figures == [ONE, LAST]
    assert failed == ["polls failed: TimeoutError: redis-server: not within 60 s"]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.index("polls.mean") < err.index("TimeoutError") < err.index("start.ready")


def test_a_failure_is_the_exit_status_and_keeps_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table has what was measured, and ends with what was not; both join what was kept before."""
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


def test_one_part_measured_again_takes_its_place_among_the_others(tmp_path: Path) -> None:
    """Its old figures go, also those that came no more; the others' stay, all in the order of the parts."""
    results = tmp_path / "results.json"
    report.write(results, [ONE, TWO, OTHER, LAST], {})
    again = Figure(ONE.name, (3.0,), "ms", "made up")

    assert bench.merged(results, ["polls"], [again]) == [again, OTHER, LAST]
    assert bench.merged(results, ["polls", "start"], [LAST, again]) == [again, OTHER, LAST]
    assert bench.merged(tmp_path / "none.json", ["polls"], [again]) == [again]
    assert bench.merged(results, list(bench.PARTS), [again]) == [again]


def test_only_a_whole_run_replaces_the_results_of_itself() -> None:
    """A look at one part, or a short run, changes no document."""
    assert bench.parse([]).out == report.RESULTS
    assert bench.parse([]).only == list(bench.PARTS)
    assert bench.parse(["--scale", "0.1"]).out is None
    assert bench.parse(["--only", "start,polls"]).out is None
    assert bench.parse(["--only", "start,polls"]).only == ["polls", "start"]


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A slip of the pen does not measure nothing."""
    with pytest.raises(SystemExit):
        bench.parse(["--only", "polls,stream"])
    assert "no part is called stream" in capsys.readouterr().err


def test_above_the_table_stands_who_ran_where() -> None:
    """Callbacks first, then cores, software, and the places of servers and load generator."""
    facts = machine.describe(1.0) | {"cores": 2}

    lines = list(bench.table([ONE, LAST], facts))

    assert lines[0].startswith("A replica of one worker")
    above = "\n".join(lines[1 : lines.index("")])
    assert all(part in above for part in ("2 cores", "Python 3.", "gunicorn 2", "on core 0", "load generator"))
    assert [line.split()[0] for line in lines[lines.index("") + 1 :]] == ["figure", "polls.mean", "start.ready"]
    assert "trial" not in above
    assert "a trial of 0.1 of the usual size" in machine.head(machine.describe(0.1))[0]
    assert machine.places(1) == ["one core: servers, load generator, Redis and mock Dify share it"]


# The document


def test_the_document_is_what_the_results_say() -> None:
    """Every figure of docs/performance.md is that of bench/results.json: `python -m bench --docs` was run."""
    figures, facts = report.read(report.RESULTS)
    page = bench.PAGE.read_text("utf-8")

    for name, content in bench.sections(figures, facts).items():
        assert content in page, name
        assert report.replaced(page, name, content) == page, name


def test_the_pictures_are_of_the_results() -> None:
    """Each chart carries the points it was drawn from."""
    figures, _ = report.read(report.RESULTS)

    for picture in chart.charts(figures):
        drawn = (bench.IMAGES / f"{picture.name}.svg").read_text("utf-8")
        assert f"<dc:description>{picture.description}</dc:description>" in drawn


def test_one_command_makes_the_document_anew(tmp_path: Path) -> None:
    """Tables, sizes and pictures come from the results alone, and come again the same."""
    page = tmp_path / "performance.md"
    shutil.copy(bench.PAGE, page)
    figures, facts = report.read(report.RESULTS)
    for name in bench.sections(figures, facts):
        page.write_text(report.replaced(page.read_text("utf-8"), name, "old"), "utf-8")

    bench.rewrite(page, tmp_path)

    assert page.read_text("utf-8") == bench.PAGE.read_text("utf-8")
    for picture in chart.charts(figures):
        assert picture.description in (tmp_path / f"{picture.name}.svg").read_text("utf-8")


def test_pictures_say_what_they_are_drawn_from() -> None:
    """Polls a second are a second over a poll's CPU; the floor is a line; delays are median and p99."""
    rows = {"growth.live.1k.poll_cpu": 200.0, "growth.live.10k.poll_cpu": 250.0, "polls.floor_cpu.1k": 400.0}
    rows |= {f"streams.{count}.delay_{what}": 10.0 for count in (200, 1000) for what in ("p50", "p99")}

    polls, delays = chart.charts([Figure(name, (value,), "", "") for name, value in rows.items()])

    assert [(line.x, line.y) for line in polls.lines] == [
        ((1000.0, 10_000.0), (5000.0, 4000.0)),
        ((1000.0, 10_000.0), (2500.0, 2500.0)),
    ]
    assert [line.x for line in delays.lines] == [(200.0, 1000.0)] * 3


def test_a_picture_without_its_rows_is_refused() -> None:
    """Nothing is drawn of results that lack a part."""
    with pytest.raises(LookupError):
        chart.charts([Figure("polls.floor_cpu.1k", (400.0,), "µs", "")])
