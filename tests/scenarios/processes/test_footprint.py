"""`tests.scenarios.footprint` on a small load: it runs, and its figures are those of the load."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.replicas import ROOT

pytestmark = [pytest.mark.scenario, pytest.mark.full]


def test_the_footprint_of_a_small_load_is_measured() -> None:
    """Every answer runs, is polled, and is measured when it has ended."""
    load = ["--streams", "3", "--deltas", "30", "--every", "0.15", "--window", "1", "--to-the-end"]

    printed = subprocess.run(
        [sys.executable, "-m", "tests.scenarios.footprint", *load],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    ).stdout

    figures = json.loads(printed)
    assert (figures["running"], figures["polls_failed"], figures["text_bytes"]) == (3, 0, 30 * 6)
    assert figures["idle_rss"] > 0
    assert figures["redis_bytes"] > 0
