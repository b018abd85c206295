"""Mutated inputs of every kind break nothing; `make fuzz` sends any number of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.fuzz import run

pytestmark = [pytest.mark.scenario, pytest.mark.full]


@pytest.mark.parametrize("mode", ["key", "token", "none"])
def test_a_few_hundred_mutated_inputs_break_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    """With every WEBSOCKET_AUTH. The table and the breaches are the run's output."""
    held = run(600, 1, tmp_path, settings=[f"WEBSOCKET_AUTH={mode}"])

    assert held, capsys.readouterr().out
