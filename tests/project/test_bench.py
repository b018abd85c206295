"""`python -m bench`: each part makes its figures, wrong answers and failed parts are reported, pages show the figures.

The commands for one subject are in tests/unit/questions/ and tests/scenarios/sockets/.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import chart, report, sizing
from bench.figures import Figure
from bench.load.callbacks import AES_KEY, TOKEN
from bench.load.generator import Job, LoadFailed, _due
from bench.load.live_streams import LiveStreams
from bench.parts import PARTS, part_of
from bench.parts.streams import not_whole
from services.wecom.crypto import WXBizJsonMsgCrypt

pytestmark = pytest.mark.full

STORED, FACTS = report.read(report.RESULTS)
#: Figures that may be 0 in a short run.
MAY_BE_ZERO = ("lost", "wrong", "share", "cpu", "kib", "net", "polls", "net_per_delta", "cpu_per_delta")


def meaning(figures: list[Figure]) -> dict[str, tuple[str, str, str]]:
    return {figure.name: (figure.unit, figure.yardstick, figure.goal) for figure in figures}


@pytest.mark.scenario
@pytest.mark.timeout(240)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_makes_the_figures_of_the_results(part: str) -> None:
    """Names, units, yardsticks and goals are those of the stored results; no answer is lost or wrong."""
    figures = list(import_module(f"bench.parts.{part.replace('.', '_')}").measure(0.03))

    assert meaning(figures) == meaning([figure for figure in STORED if part_of(figure.name) == part])
    for figure in figures:
        assert figure.value > 0 or figure.name.endswith(MAY_BE_ZERO), figure
        assert not figure.name.endswith(("lost", "wrong")) or figure.rounds == (0,), figure


def test_a_round_that_begins_late_sends_one_request() -> None:
    """A busy machine may let the time of a round pass before its first request."""
    job = Job((1,), (b"",), seconds=0.01)

    assert [_due(job, number, 0.0, 5.0) for number in (0, 1)] == [5.0, math.inf]


def test_an_answer_that_is_not_whole_is_lost() -> None:
    """An answer that is cut, altered, unfinished, missing, not ended at Dify or asked twice counts once."""
    answers = dict.fromkeys(("whole", "cut", "altered", "unfinished", "none", "twice"), "年假@1.5|")
    asks = Counter([*answers, "running", "twice"])
    found: dict[str, tuple[str | None, str | None]] = {
        "whole": ("completed", "年假@1.5|"),
        "cut": ("completed", "年假@1.5"),
        "altered": ("completed", "年假@1.6|"),
        "unfinished": ("processing", "年假@1.5|"),
        "none": (None, None),
        "running": ("completed", None),
        "twice": ("completed", "年假@1.5|"),
    }

    assert not_whole(found, answers, asks) == ["cut", "altered", "unfinished", "none", "running", "twice"]


def test_a_reply_that_differs_from_its_stream_is_found() -> None:
    """Each sample is compared with the stream that was polled: id, state and text."""

    def sealed(stream: dict[str, object]) -> bytes:
        _, envelope = WXBizJsonMsgCrypt(TOKEN, AES_KEY, "").EncryptMsg(
            json.dumps({"msgtype": "stream", "stream": stream}), "nonce"
        )
        return str(envelope).encode()

    streams = LiveStreams("few", 500, count=2)
    right = {"id": f"{1:016}{'few':0>16}", "finish": False, "content": streams.text(1)}

    streams.check({1: sealed(right)})
    wrong = [sealed({**right, **other}) for other in ({"id": "s0"}, {"finish": True}, {"content": streams.text(0)})]
    for body in (*wrong, b""):
        with pytest.raises(LoadFailed):
            streams.check({1: body})


def test_a_part_that_fails_is_named_and_the_others_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 1, and new figures, those of the failed part too, join the stored ones of other parts."""
    one, other, last = (Figure(name, (1.0,), "ms", "") for name in ("polls.mean", "questions.cpu", "start.ready"))
    results = tmp_path / "results.json"
    report.write(results, [Figure("polls.p99", (9.0,), "ms", ""), other], {})

    def breaks() -> Iterator[Figure]:
        yield one
        raise TimeoutError("redis-server: not within 60 s")

    status = bench.main(["--only", "polls,start", "--out", str(results)], {"polls": breaks, "start": lambda: [last]})

    lines = capsys.readouterr().out.splitlines()
    assert (status, lines[-1]) == (1, "polls failed: TimeoutError: redis-server: not within 60 s")
    assert [line.split()[0] for line in lines[-4:-1]] == ["figure", "polls.mean", "start.ready"]
    assert report.read(results)[0] == [one, other, last]


def test_only_a_whole_run_replaces_the_results_by_default() -> None:
    """A run of some parts, or a shortened run, stores nothing; `growth` names its three parts."""
    assert (bench.parse([]).out, bench.parse([]).only) == (report.RESULTS, list(PARTS))
    assert bench.parse(["--scale", "0.1"]).out is bench.parse(["--only", "polls"]).out is None
    assert bench.parse(["--only", "growth"]).only == ["growth.length", "growth.live", "growth.replicas"]


def test_the_document_and_the_charts_show_the_results(tmp_path: Path) -> None:
    """Every generated section of docs/performance.md and the chart were made from bench/results.json."""
    page = bench.PAGE.read_text("utf-8")

    for name, content in bench.sections(STORED, FACTS).items():
        assert report.replaced(page, name, content) == page, name
    chart.draw(STORED, tmp_path)
    described = f"<dc:description>{chart.description(STORED)}</dc:description>"
    for folder in (bench.IMAGES, tmp_path):
        assert described in (folder / chart.NAME).read_text("utf-8")
    with pytest.raises(LookupError, match="no marks for its sizes"):
        report.replaced(page, "sizes", "new")


def test_the_sizes_for_a_number_of_people_are_calculated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing row of the results is named in one line."""
    assert sizing.main(["--users", "60000", "--text", "16k"]) == 0
    assert capsys.readouterr().out.startswith("| 60,000 concurrent users | usual | worst |")

    report.write(tmp_path / "results.json", [one for one in STORED if one.name != "questions.cpu"], {})
    assert sizing.main(["--results", str(tmp_path / "results.json")]) == 1
    assert capsys.readouterr() == ("", "bench.sizing: the results have no questions.cpu\n")
