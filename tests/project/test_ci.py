"""CI's audit of packages, which prints what it found or why it was skipped, and its check of the Dockerfile."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def audit(**env: str) -> tuple[int, str]:
    """Run CI's audit; return its exit code and its output."""
    done = subprocess.run(
        [str(ROOT / ".ci/audit")], env={**os.environ, **env}, capture_output=True, text=True, timeout=110
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("output", "code", "exit_code", "expected"),
    [
        ("No known vulnerabilities found", 0, 0, "pip-audit: no known vulnerability in requirements.lock\n"),
        ("Found 1 known vulnerability in 1 package", 1, 1, "Found 1 known vulnerability in 1 package\n"),
        (
            "ConnectionError: no route",
            1,
            0,
            "pip-audit skipped: its database cannot be reached (ConnectionError: no route)\n",
        ),
    ],
    ids=["clean", "found", "away"],
)
def test_only_a_known_vulnerability_fails_the_audit(
    tmp_path: Path, output: str, code: int, exit_code: int, expected: str
) -> None:
    """When its database cannot be reached, the audit prints one line and passes."""
    stub = tmp_path / "pip-audit"
    stub.write_text(f"#!/bin/sh\necho '{output}'\nexit {code}\n")
    stub.chmod(0o755)

    assert audit(PIP_AUDIT=str(stub)) == (exit_code, expected)


@pytest.mark.full
@pytest.mark.scenario
def test_without_an_index_the_audit_is_skipped() -> None:
    """The audit installs pip-audit into its own environment; when that fails, it prints one line and passes."""
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}

    assert audit(**nowhere) == (0, "pip-audit skipped: it could not be installed\n")


@pytest.mark.full
@pytest.mark.scenario
def test_a_fault_of_a_dockerfile_fails_ci(tmp_path: Path) -> None:
    """hadolint names the line and the rule; CI runs it on the product's own Dockerfile."""
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN sudo true\n")

    command = [str(ROOT / ".ci/hadolint"), str(tmp_path / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)

    assert done.returncode == 1
    assert {"DL3006", "DL3004"} <= set(done.stdout.split())
    assert ".ci/hadolint;" in (ROOT / ".ci/run").read_text()
