"""The metrics folder of one gunicorn: its owner, its location, and its removal."""

from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from services.ops.metrics_folder import make_folder, make_in, remove, sweep
from tests.support.replicas import ROOT

MASTER = """
import sys, time
from pathlib import Path
from services.ops.metrics_folder import make_in
print(make_in(Path(sys.argv[1])), flush=True)
time.sleep(60)
"""


def killed_master(parent: Path) -> Path:
    """Return the folder of a killed master; check that a sweep kept it while the master lived."""
    with subprocess.Popen(
        [sys.executable, "-c", MASTER, str(parent)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as master:
        assert master.stdout is not None
        folder = Path(master.stdout.readline().strip())
        sweep(parent)
        spared = folder.is_dir()
        master.kill()
    assert spared
    return folder


def test_a_start_removes_the_folders_of_killed_masters(tmp_path: Path) -> None:
    """The folder is kept while its master lives; later its counts would be shown again and stay in memory."""
    left = killed_master(tmp_path)
    assert left.is_dir()

    own = make_folder(memory=tmp_path)

    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [own]


def test_each_start_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """Two gunicorns on one machine do not share counts, and other users cannot read or write the folder.

    A removed folder may be removed again.
    """
    first, second = make_in(tmp_path), make_in(tmp_path)

    assert first != second
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    assert not list(first.iterdir())
    assert all(not path.name.startswith(".") for path in tmp_path.iterdir())
    for folder in (first, second, second):
        remove(folder)
    assert list(tmp_path.iterdir()) == []


def test_without_shared_memory_the_folder_is_a_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some machines have no /dev/shm."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    folder = make_folder(memory=tmp_path / "none")

    assert folder.parent == tmp_path


def test_without_a_writable_folder_the_start_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start fails and names the folders it tried; the metrics of one worker of four would be wrong."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nothing"))

    with pytest.raises(OSError, match=r"none.*nothing"):
        make_folder(memory=tmp_path / "none")
