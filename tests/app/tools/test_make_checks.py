"""The program of `make check-ws`: its output, also for a broken Dify, and that it cleans up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo import check_ws
from demo.mocks.dify.server import MockDify
from tests.support.servers.processes import free_port, wait_until

ROOT = Path(__file__).parents[3]


@contextmanager
def running_check(folder: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run the program of `make check-ws` with `folder` as home and temporary folder."""
    process = subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "demo.check_ws"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def output_of(folder: Path, **variables: str) -> tuple[int, str]:
    with running_check(folder, **variables) as process:
        out, _ = process.communicate(timeout=100)
        return process.returncode, out


def gateways_of(folder: Path) -> list[int]:
    """Return the pids of the gateway and its workers, whose working directory is below this folder."""
    return [int(cwd.parent.name) for cwd in Path("/proc").glob("[0-9]*/cwd") if _leads_into(cwd, folder)]


def _leads_into(link: Path, folder: Path) -> bool:
    try:
        # The kernel marks a removed working directory as "… (deleted)".
        return str(link.readlink()).startswith(f"{folder}/")
    except OSError:
        return False


def assert_cleaned_up(folder: Path) -> None:
    assert gateways_of(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.full
@pytest.mark.scenario
def test_both_sockets_answer_and_the_log_is_shown(tmp_path: Path) -> None:
    """Against the real server with the mock provider, every frame and the end of the log are printed."""
    code, out = output_of(tmp_path)

    assert code == 0, out
    assert re.findall(r"^--- (\w+)", out, re.M) == ["chat", "realtime", "both", "the"]
    assert out.count("**年假申请**") >= 2
    log = out.partition("--- the last of")[2]
    assert "Starting gunicorn" in log
    assert log.count("outcome=completed") == 2
    assert_cleaned_up(tmp_path)


@pytest.mark.full
@pytest.mark.scenario
def test_an_unreachable_dify_fails_the_check_soon(tmp_path: Path) -> None:
    """The error frame ends each part; the log, which has the cause, is printed also then."""
    dify = {"DIFY_BASE_URL": f"http://127.0.0.1:{free_port()}", "DIFY_API_KEY": "app-fake"}

    code, out = output_of(tmp_path, **dify)

    assert code == 1
    assert "--- no whole answer from: chat, realtime" in out
    assert "code=provider_unreachable" in out.partition("--- the last of")[2]
    assert "app-fake" not in out
    assert_cleaned_up(tmp_path)


@pytest.mark.full
@pytest.mark.scenario
def test_an_interrupted_check_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM during an answer ends the gateway and removes its folder."""
    with MockDify(default="silent") as dify:
        named = {"DIFY_BASE_URL": dify.base_url, "DIFY_API_KEY": "app-fake"}
        with running_check(tmp_path, **named) as process:
            wait_until(lambda: dify.open_streams, timeout=60)
            assert gateways_of(tmp_path) != []
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)

    assert process.returncode == 130, out
    assert "--- the last of" in out
    assert "Traceback" not in out
    assert_cleaned_up(tmp_path)


def test_an_address_without_a_key_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """An address without a key is a usage error."""
    assert check_ws.main({"DIFY_BASE_URL": "https://dify.example/v1"}) == 2
    assert capsys.readouterr().err == "DIFY_BASE_URL and DIFY_API_KEY go together: DIFY_API_KEY is missing.\n"
