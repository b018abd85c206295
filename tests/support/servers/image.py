"""Build a Dockerfile without a container engine: a folder stands for the image.

A virtual environment stands for python:3.11; it is created once and copied for each stage. As root, RUN commands run as
one unprivileged user and CMD as another, so that the build cannot change this machine and the gateway cannot change its
own code. Modules are compiled at their first import, into one common folder: most are never imported.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

BUILDER = 10000
#: The environment's variables for package index and proxies, which `docker build --build-arg` would pass on.
NETWORK = re.compile(r"(PIP|SSL|REQUESTS|https?|no|HTTPS?|NO)_\w+")


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield (instruction, its text) with continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


def ignore_patterns(context: Path) -> list[str]:
    return [line for line in (context / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")]


def ignored(path: Path, patterns: list[str]) -> bool:
    """Return whether .dockerignore excludes a path, relative to the context."""
    candidates = [path, *path.parents]
    return any(
        fnmatchcase(candidate.name if pattern.startswith("**/") else str(candidate), pattern.removeprefix("**/"))
        for pattern in patterns
        for candidate in candidates
    )


def python_for_anybody() -> str:
    """Return a Python that an unprivileged user may run; one in root's home is not."""
    probe = "import sys, ensurepip; sys.exit(sys.version_info < (3, 11))"
    for path in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        done = subprocess.run(["env", path, "-c", probe], capture_output=True, cwd="/", **as_user(BUILDER))
        if done.returncode == 0:
            return path
    pytest.fail("no Python 3.11 with venv that an unprivileged user may run: apt install python3 python3-venv")


def as_user(uid: int) -> dict[str, Any]:
    """Return subprocess's arguments to run as this user; empty if the tests do not run as root."""
    return {"user": uid, "group": uid, "extra_groups": []} if os.geteuid() == 0 else {}


class Image:
    """The result of a Dockerfile: a folder, an environment, a user, and the commands to run in it."""

    def __init__(self, folder: Path, context: Path) -> None:
        self.folder = folder
        self.context = context
        self.ignore = ignore_patterns(context)
        #: The output of the last container.
        self.log = folder / "log"
        #: The file systems of the stages by name; the last one is the image.
        self.stages: dict[str, Path] = {}
        self._base = folder / "python"
        self._bytecode = folder / "bytecode"
        self._bytecode.mkdir()
        # The users of RUN and of CMD both write into it.
        self._bytecode.chmod(0o1777)

    def build(self, dockerfile: str) -> None:
        """Execute every instruction in order; an instruction without a method here raises AttributeError."""
        for name, text in instructions(dockerfile):
            getattr(self, f"_{name.lower()}")(text)

    def run(self, command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the image as its current user."""
        where: dict[str, Any] = {"cwd": self.workdir, "env": {**self.env, **env}, **as_user(self.user)}
        return subprocess.run(command, capture_output=True, text=True, timeout=300, **where)

    @contextmanager
    def container(self, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run CMD in the image for the block, and kill it at the end."""
        command = [shutil.which(self.cmd[0], path=self.env["PATH"]) or self.cmd[0], *self.cmd[1:]]
        with self.log.open("wb") as log:
            where: dict[str, Any] = {"cwd": self.workdir, "env": {**self.env, **env}, **as_user(self.user)}
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **where)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _from(self, text: str) -> None:
        base, _, name = text.partition(" AS ")
        assert base.startswith("python:3.11.")
        self.root = self.workdir = self.stages[name] = self.folder / f"stage-{len(self.stages)}"
        self.env = {"PATH": f"{self.root / 'venv/bin'}:/usr/bin:/bin", "HOME": str(self.root)}
        self.env |= {"PIP_COMPILE": "0", "PYTHONPYCACHEPREFIX": str(self._bytecode)}
        self.user = BUILDER
        self.cmd: list[str] = []
        self.labels: dict[str, str] = {}
        self.healthcheck: list[str] = []
        self._copy_base(self.root / "venv")
        self._give_to_builder(self.root)

    def _copy_base(self, venv: Path) -> None:
        """Copy the virtual environment that stands for the base image; pip's scripts contain its path."""
        if not self._base.exists():
            subprocess.run([python_for_anybody(), "-m", "venv", str(self._base)], check=True, timeout=120)
        shutil.copytree(self._base, venv, symlinks=True)
        for script in (venv / "bin").glob("pip*"):
            script.write_text(script.read_text().replace(str(self._base), str(venv)))

    def _env(self, text: str) -> None:
        self.env |= dict(pair.split("=", 1) for pair in shlex.split(text))

    def _workdir(self, text: str) -> None:
        self.workdir = self.root / text.lstrip("/")
        self.workdir.mkdir()

    def _copy(self, text: str) -> None:
        *sources, target = shlex.split(text)
        origin = self.context
        if sources[0].startswith("--from="):
            origin = self.stages[sources.pop(0).removeprefix("--from=")]
        into = self.workdir / target
        into.mkdir(exist_ok=True)
        for source in (origin / name.lstrip("/") for name in sources):
            if source.is_dir():
                shutil.copytree(source, into, ignore=self._left_out, dirs_exist_ok=True)
            else:
                shutil.copy(source, into)
        self._give_to_builder(into)

    def _label(self, text: str) -> None:
        self.labels = dict(pair.split("=", 1) for pair in shlex.split(text))

    def _run(self, text: str) -> None:
        mounted = re.match(r"--mount=type=bind,from=(\w+),source=(/\w+),target=(/\w+) +", text)
        if mounted:
            stage, source, target = mounted.groups()
            text = text[mounted.end() :].replace(f"{target} ", f"{self.stages[stage]}{source} ")
        network = {name: value for name, value in os.environ.items() if NETWORK.fullmatch(name)}
        done = self.run(["sh", "-c", text], **network)
        assert done.returncode == 0, f"RUN {text}\n{done.stdout}{done.stderr}"

    def _user(self, text: str) -> None:
        self.user = int(text.partition(":")[0])

    def _expose(self, text: str) -> None:
        assert text == "5000"

    def _healthcheck(self, text: str) -> None:
        self.healthcheck = json.loads(text.partition("CMD")[2])

    def _cmd(self, text: str) -> None:
        self.cmd = json.loads(text)

    def _left_out(self, folder: str, names: list[str]) -> list[str]:
        if not Path(folder).is_relative_to(self.context):
            return []
        inside = Path(folder).relative_to(self.context)
        return [name for name in names if ignored(inside / name, self.ignore)]

    def _give_to_builder(self, folder: Path) -> None:
        if os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, BUILDER, BUILDER, follow_symlinks=False)
