"""A run of the tests is reproducible: everything random in it comes from its seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRAWS = """
import os, random, secrets, uuid
from hypothesis import given, strategies

drawn = []

@given(strategies.text(), strategies.integers())
def test_examples(text, number):
    drawn.append((text, number))

def test_values():
    drawn.append((os.urandom(8), secrets.token_hex(8), uuid.uuid4(), random.random()))

def test_more_values():
    drawn.append((secrets.randbelow(10**9), random.random()))

def teardown_module():
    print("\\ndrawn:", drawn)
"""


def drawn(folder: Path, *arguments: str) -> str:
    """Run the tests above under this suite's conftest; return what they drew, in the order in which they ran."""
    (folder / "test_draws.py").write_text(DRAWS)
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "tests.conftest", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        [*command, "-c", "pyproject.toml", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout
    return next(line for line in done.stdout.splitlines() if line.startswith("drawn:"))


@pytest.mark.full
def test_a_seed_draws_the_same_values_examples_and_order_again(tmp_path: Path) -> None:
    """Two runs with one seed are alike; another seed and a random one draw something else."""
    first = drawn(tmp_path)

    assert drawn(tmp_path) == first
    assert drawn(tmp_path, "--seed", "7") == drawn(tmp_path, "--seed", "7") != first
    assert drawn(tmp_path, "--seed", "random") != drawn(tmp_path, "--seed", "random")
