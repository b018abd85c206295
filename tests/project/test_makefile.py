"""The Makefile: it installs once, passes variables and arguments on, and names a missing program in one line."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.servers.processes import require_binary, wait_until

ROOT = Path(__file__).parents[2]


class Workshop:
    """A copy of the Makefile in an empty folder, with a PATH that has only the commands of the test."""

    SOURCES = ("Makefile", *(path.name for path in ROOT.glob("requirements*")), "constraints.txt")
    TOOLS = ("sh", "getconf", "touch", "rm", "find", "grep", "tail", "awk", "mkdir", "cp", "sleep")

    def __init__(self, directory: Path) -> None:
        self.project = directory / "a project"
        self.commands = directory / "bin"
        self.commands.mkdir(parents=True)
        self.project.mkdir()
        for name in self.SOURCES:
            shutil.copy(ROOT / name, self.project)
        for tool in self.TOOLS:
            (self.commands / tool).symlink_to(require_binary(tool))

    def command(self, name: str, script: str) -> None:
        """Put a shell script on the PATH."""
        path = self.commands / name
        # The system's tools are symbolic links here: replace the link, do not write through it.
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def toy_python(self) -> None:
        """Put a python3 on the PATH whose environments install nothing and log their arguments and variables."""
        toy = self.commands.parent / "toy"
        toy.write_text('#!/bin/sh\nprintf "%s|" "$@" "$ASK" "$DIFY_API_KEY" "$PORT" >>"$LOG"; echo >>"$LOG"\n')
        toy.chmod(0o755)
        self.command("python3", f'case "$2" in venv) mkdir -p .venv/bin; cp -f "{toy}" .venv/bin/python ;; esac')

    @property
    def asked(self) -> list[str]:
        """The logged calls of the toy, one line each, without those that compile what was installed."""
        log = self.project / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if not line.startswith("-m|compileall|")]

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        # No variable of this run's own make, pip or Python reaches the make under test.
        env = {"PATH": str(self.commands), "HOME": str(self.project), "LC_ALL": "C.UTF-8"}
        # SIGINT works also where the tests run in the background of a shell, which makes it ignored.
        interruptible = [require_binary("env"), "--default-signal=INT"]
        return subprocess.Popen(
            [*interruptible, require_binary("make"), "-C", str(self.project), *arguments],
            env={**env, "PIP_CONFIG_FILE": os.devnull, "LOG": str(self.project / "log"), **variables},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def make(self, *arguments: str, **variables: str) -> tuple[int, list[str]]:
        """Run make from another folder; return its exit code and output lines without make's lines on directories."""
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=100)
        return process.returncode, [line for line in (out + err).splitlines() if "ing directory" not in line]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.mark.parametrize(
    ("python", "line"),
    [
        ("", "Python 3.11 or newer is missing: apt install python3 python3-venv"),
        (
            'case "$2" in *version_info*) exit 1 ;; *) echo 3.9.2 ;; esac',
            "Python 3.11 or newer is missing (python3 is 3.9.2): apt install python3 python3-venv",
        ),
        (f'PYTHONPATH="${{0%/*}}" exec "{sys.executable}" "$@"', "python3 lacks venv: apt install python3-venv"),
    ],
    ids=["no Python", "an old one", "no venv"],
)
def test_what_is_missing_is_one_line(workshop: Workshop, python: str, line: str) -> None:
    """Make prints nothing but what to install."""
    (workshop.commands / "ensurepip.py").write_text("raise ModuleNotFoundError('ensurepip')")
    if python:
        workshop.command("python3", python)

    code, (only,) = workshop.make("demo")

    assert code != 0
    assert line in only


def test_a_failure_of_pip_is_one_line(workshop: Workshop) -> None:
    """Make prints the last error of pip, whose output is in its log."""
    workshop.toy_python()
    (workshop.commands.parent / "toy").write_text('#!/bin/sh\necho "ERROR: no space left"\nexit 1\n')

    code, (first, second) = workshop.make("demo")

    assert code != 0
    assert first.startswith("Installing requirements-demo.txt")
    assert "pip could not install requirements-demo.txt (see .venv/pip.log): ERROR: no space left" in second
    assert "no space left" in (workshop.project / ".venv/pip.log").read_text()


@pytest.mark.full
@pytest.mark.scenario
def test_a_missing_network_is_one_line(workshop: Workshop) -> None:
    """The words of the real pip are recognised."""
    workshop.command("python3", f'exec "{sys.executable}" "$@"')

    code, lines = workshop.make("demo", PIP_INDEX_URL="http://127.0.0.1:9/simple")

    assert (code, len(lines)) == (2, 2)
    assert "No connection to the Python package index" in lines[1]


def test_a_newer_python_beside_an_old_one_is_found(workshop: Workshop) -> None:
    """Where python3 is too old, make uses python3.11."""
    workshop.toy_python()
    (workshop.commands / "python3").rename(workshop.commands / "python3.11")
    workshop.command("python3", "exit 1")

    assert workshop.make("demo")[0] == 0
    assert any(call.startswith("-m|demo|") for call in workshop.asked)


def test_packages_are_installed_once(workshop: Workshop) -> None:
    """The second start installs nothing; a changed requirements file installs again."""
    workshop.toy_python()
    workshop.make("demo")
    first = len(workshop.asked)

    workshop.make("demo")
    second = len(workshop.asked)
    changed = workshop.project / "requirements.txt"
    os.utime(changed, (changed.stat().st_atime, (workshop.project / ".venv/demo.stamp").stat().st_mtime + 10))
    workshop.make("demo")

    assert (first, second) == (2, 3)
    assert "install" in workshop.asked[3]


def test_a_failed_install_is_tried_again(workshop: Workshop, tmp_path: Path) -> None:
    """An environment whose installation failed is not used."""
    workshop.toy_python()
    works = (tmp_path / "toy").read_text()
    (tmp_path / "toy").write_text(f'{works}case "$*" in *install*) exit 1 ;; esac\n')
    failed = workshop.make("demo")[0]
    (workshop.project / ".venv/bin/python").write_text(works)

    assert (failed != 0, workshop.make("demo")[0]) == (True, 0)
    assert ["install" in call for call in workshop.asked] == [True, True, False]


def test_a_linked_environment_is_not_emptied(workshop: Workshop, tmp_path: Path) -> None:
    """If .venv is a symbolic link, make stops with one line instead of clearing its target."""
    workshop.toy_python()
    others = tmp_path / "others"
    (others / "bin").mkdir(parents=True)
    (workshop.project / ".venv").symlink_to(others)

    code, lines = workshop.make("demo")

    assert code == 2
    assert [line for line in lines if ".venv is a link" in line] == lines
    assert (others / "bin").is_dir()


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        (["demo", "ASK=年假 $5 (怎么)申请?", "DIFY_API_KEY=app-$5"], "-m|demo|年假 $5 (怎么)申请?|app-$5|8$0|"),
        (["check-dify", "DIFY_API_KEY=app-$5", "CHECK_ARGS=--user 'a b'"], "-m|tools.dify|--check|--user|a b||app-$5|"),
        (["check-ws"], "-m|demo.check_ws|"),
    ],
    ids=["demo", "check-dify", "check-ws"],
)
def test_options_reach_the_program(workshop: Workshop, goal: list[str], words: str) -> None:
    """Variables and arguments arrive byte for byte, from the command line and from the environment.

    The demo's requirements are installed, not those of development; a failure of the program is make's.
    """
    workshop.toy_python()

    assert workshop.make(*goal, PORT="8$0")[0] == 0

    assert workshop.asked[-1].startswith(words)
    assert not any("requirements-dev.txt" in call for call in workshop.asked)
    (workshop.project / ".venv/bin/python").write_text("#!/bin/sh\nexit 1\n")
    assert workshop.make(*goal)[0] != 0


@pytest.mark.parametrize(
    ("goal", "words", "is_whole"),
    [
        ("test", "|-m|not full|-k|name|", False),
        ("test-random", "|-m|not full|--seed|random|-k|name|", False),
        ("test-all", "|--hypothesis-profile=full|-k|name|", True),
    ],
)
def test_the_tests_get_their_selection(workshop: Workshop, goal: str, words: str, is_whole: bool) -> None:
    """`make test` deselects full tests, `make test-all` none; PYTEST_ARGS is passed on."""
    workshop.toy_python()

    assert workshop.make(goal, "PYTEST_ARGS=-k name")[0] == 0

    assert any("requirements-dev.txt" in call for call in workshop.asked)
    call = workshop.asked[-1]
    assert call.startswith("-m|pytest|")
    assert words in call
    assert ("not full" not in call) is is_whole


def test_lock_installs_by_hash(workshop: Workshop) -> None:
    """LOCK=1 installs every package from the lock files, with hashes."""
    workshop.toy_python()

    assert workshop.make("venv", "LOCK=1")[0] == 0

    installed = [call.partition("--require-hashes|--requirement|")[2] for call in workshop.asked if "install" in call]
    assert [names.split("|")[0] for names in installed] == ["requirements-dev.lock", "requirements-fast.lock"]


#: A demo that runs until SIGINT, and logs its end.
ENDLESS = """#!/bin/sh
trap 'echo gone >>"$LOG"; exit 0' INT
echo $$ >>"$LOG"
while :; do sleep 0.1; done
"""


def test_ctrl_c_ends_the_demo_too(workshop: Workshop) -> None:
    """SIGINT reaches the demo, make waits for its end, and no process is left."""
    workshop.toy_python()
    workshop.make("demo")
    (workshop.project / ".venv/bin/python").write_text(ENDLESS)

    process = workshop.start("demo")
    try:
        (pid,) = wait_until(lambda: workshop.asked[2:], timeout=30)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=30)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    assert workshop.asked[3:] == ["gone"]
    assert not Path(f"/proc/{pid}").exists()
