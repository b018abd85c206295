"""`bench.sizing`: every line calculates what it prints, and names the sources of its numbers."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

import pytest

from bench import report, sizing
from bench.figures import Figure
from config.settings import Settings

pytestmark = pytest.mark.full

#: Rows with round numbers: a poll 200 µs, a delta 50 µs, a question 1 ms; Redis 10, 5 and 100 µs.
ROWS = {
    "polls.cpu.1k": (200.0, "µs"),
    "polls.cpu.16k": (400.0, "µs"),
    "polls.redis_cpu.1k": (10.0, "µs"),
    "polls.redis_cpu.16k": (20.0, "µs"),
    "polls.bytes.1k": (2000.0, "B"),
    "polls.bytes.16k": (25_000.0, "B"),
    "polls.redis_net.1k": (1500.0, "B"),
    "polls.redis_net.16k": (20_000.0, "B"),
    "streams.1000.cpu_per_delta": (50.0, "µs"),
    "streams.1000.redis_cpu_per_delta": (5.0, "µs"),
    "streams.1000.redis_net_per_delta": (500.0, "B"),
    "streams.1000.dify_net_per_delta": (250.0, "B"),
    "streams.1000.rss": (300.0, "MiB"),
    "questions.cpu": (1000.0, "µs"),
    "questions.redis_cpu": (100.0, "µs"),
    "questions.redis_net": (5000.0, "B"),
    "growth.replicas.efficiency": (0.9, "ratio"),
    "growth.live.100k.redis_bytes_per_stream": (2500.0, "B"),
    "start.worker_rss": (80.0, "MiB"),
}
FIGURES = [Figure(name, (value,), unit, "made up") for name, (value, unit) in ROWS.items()]


def options(*arguments: str) -> Namespace:
    return sizing.parse(arguments)


def sheet(case: str, *arguments: str) -> sizing.Sheet:
    return sizing.derive(FIGURES, options(*arguments), case)


def values(of: sizing.Sheet, *names: str) -> list[float]:
    return [of[name].value for name in names]


def test_live_answers_are_questions_times_seconds() -> None:
    """The usual case: 60,000 people who ask once a minute, 20 s each, are 20,000 live answers."""
    usual = sheet("usual", "--users", "60000")

    assert values(usual, "questions", "live", "polls", "deltas") == [1000, 20_000, 20_000, 200_000]


def test_in_the_worst_case_every_person_waits() -> None:
    """The worst case: as many live answers as people, and a question whenever one has ended."""
    worst = sheet("worst", "--users", "60000", "--polls", "2", "--deltas", "5")

    assert values(worst, "questions", "live", "polls", "deltas") == [3000, 60_000, 120_000, 300_000]


def test_replicas_are_cpu_over_headroom() -> None:
    """4 + 10 + 1 cores at 0.6 of each, and 0.9 of adding up: 28 replicas, 7 pods of four."""
    usual = sheet("usual", "--users", "60000")

    assert values(usual, "CPU of polls", "CPU of deltas", "CPU of questions") == pytest.approx([4, 10, 1])
    assert values(usual, "replicas by CPU", "replicas", "pods") == [28, 28, 7]
    assert usual["memory of a pod"].value == pytest.approx((20 * 300 + 28 * 80) / 7 / 1024)


def test_a_replica_has_a_maximum_of_answers() -> None:
    """With slow deltas, which cost little CPU, the setting decides."""
    slow = sheet("worst", "--users", "60000", "--deltas", "0.1", "--polls", "0.1")

    places = Settings.model_fields["stream_max_per_replica"].default
    assert slow["replicas by CPU"].value < 60_000 / places
    assert slow["replicas"].value == 60_000 / places


def test_redis_nodes_follow_cpu_and_memory() -> None:
    """0.2 + 1 + 0.1 cores are 3 nodes; the questions of 1,800 s are stored: 4.5 GB."""
    usual = sheet("usual", "--users", "60000")
    small = sheet("usual", "--users", "60000", "--node-gb", "1.5")

    assert usual["CPU of Redis"].value == pytest.approx(1.3)
    assert values(usual, "Redis nodes by CPU", "stored", "Redis nodes by memory", "Redis nodes") == [3, 1_800_000, 1, 3]
    assert usual["memory of Redis"].value == pytest.approx(4.5)
    assert values(small, "Redis nodes by memory", "Redis nodes") == [5, 5]


def test_few_people_need_one_server_and_a_cluster_has_three() -> None:
    """A Redis Cluster needs three primaries."""
    assert sheet("usual", "--users", "600")["Redis nodes"] == sizing.Quantity(1, "nodes")
    assert sheet("usual", "--users", "40000")["Redis nodes by CPU"].value == 2
    assert sheet("usual", "--users", "40000")["Redis nodes"] == sizing.Quantity(3, "primaries")
    assert sheet("usual", "--users", "40000")["Redis servers"].value == 6


def test_the_network_is_calculated_from_bytes() -> None:
    """WeCom: polls; Redis: polls, deltas and questions; Dify: deltas."""
    usual = sheet("usual", "--users", "60000")

    assert usual["WeCom network"].value == pytest.approx(20_000 * 2000 * 8 / 1e9)
    assert usual["Redis network"].value == pytest.approx((20_000 * 1500 + 200_000 * 500 + 1000 * 5000) * 8 / 1e9)
    assert usual["network of a node"].value == pytest.approx(usual["Redis network"].value / 3)
    assert usual["Dify network"].value == pytest.approx(200_000 * 250 * 8 / 1e9)


def test_each_live_answer_is_a_run_of_dify() -> None:
    """Containers are runs over the runs of one container."""
    assert sheet("worst", "--users", "60000", "--dify-runs", "70")["Dify containers"].value == 858


def test_long_texts_are_counted_by_their_own_rows() -> None:
    """With --text 16k every figure of a poll is that of 16 KiB."""
    long = sheet("usual", "--users", "60000", "--text", "16k")

    assert long["CPU of polls"].value == pytest.approx(8)
    assert long["WeCom network"].value == pytest.approx(20_000 * 25_000 * 8 / 1e9)
    assert not [line for line in long.lines if ".1k]" in line]


@pytest.mark.parametrize("case", sizing.CASES)
def test_every_row_is_named_where_it_is_used(case: str) -> None:
    """The derivation names each row of the results it took, and each option and setting."""
    named = set(re.findall(r"\[([^\]]+)\]", "\n".join(sheet(case).lines)))

    assert {name for name in named if "." in name} == {name for name in ROWS if not name.endswith(".16k")}
    assert named >= {"--users", "--answer-seconds", "--polls", "--deltas", "--headroom", "STREAM_TTL"}


def test_every_product_that_is_printed_is_right() -> None:
    """The printed factors give the printed result, within four digits."""
    products = [line for line in sheet("usual").lines if "×" in line and "(" not in line]

    assert len(products) > 10
    for line in products:
        terms, _, result = re.sub(r" ≤ .*", "", line[26:]).rpartition(" = ")
        value = 1.0
        for sign, number in re.findall(r"(^|[×/]) ?([\d,.]+) ", terms):
            value = value / read(number) if sign == "/" else value * read(number)
        assert value == pytest.approx(read(result.split()[0]), rel=2e-3), line


def read(number: str) -> float:
    return float(number.replace(",", ""))


def test_a_missing_row_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the row that the results lack."""
    results = tmp_path / "results.json"
    report.write(results, [figure for figure in FIGURES if figure.name != "questions.cpu"], {})

    assert sizing.main(["--results", str(results)]) == 1
    assert capsys.readouterr() == ("", "bench.sizing: the results have no questions.cpu\n")


def test_the_command_prints_both_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """First both side by side, then the lines of each."""
    report.write(tmp_path / "results.json", FIGURES, {})

    assert sizing.main(["--results", str(tmp_path / "results.json"), "--users", "60000"]) == 0

    printed = capsys.readouterr().out
    assert printed.startswith("| 60,000 concurrent users | usual | worst |")
    assert "| replicas | 28 replicas | 84 replicas |" in printed
    assert printed.count("```text") == 2
