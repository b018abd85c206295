"""The folder of one gunicorn's metrics: whose it is, where it is, and when it goes."""

from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from services.ops.metrics_folder import LOCK, make_folder, make_in, remove, sweep
from tests.support.replicas import ROOT

MASTER = """
import sys, time
from pathlib import Path
from services.ops.metrics_folder import make_in
print(make_in(Path(sys.argv[1])), flush=True)
time.sleep(60)
"""


def killed_master(place: Path) -> Path:
    """Return the folder of a master that was killed; it was there until then."""
    with subprocess.Popen(
        [sys.executable, "-c", MASTER, str(place)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as master:
        assert master.stdout is not None
        folder = Path(master.stdout.readline().strip())
        sweep(place)
        spared = folder.is_dir()
        master.kill()
    assert spared
    return folder


def test_what_a_killed_master_left_goes_at_the_next_start(tmp_path: Path) -> None:
    """While it lived nobody touched it; afterwards its counts are neither shown again nor kept in memory."""
    left = killed_master(tmp_path)
    assert left.is_dir()

    own = make_folder(memory=tmp_path)

    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [own]


def test_each_start_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """Two gunicorns on one machine do not add their counts up, and no other user reads or writes them."""
    first, second = make_in(tmp_path), make_in(tmp_path)

    assert first != second
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    assert {path.name for path in first.iterdir()} == {LOCK}
    assert all(not path.name.startswith(".") for path in tmp_path.iterdir())


def test_a_removed_folder_may_be_removed_again(tmp_path: Path) -> None:
    """An end that comes twice is one."""
    folder = make_in(tmp_path)

    remove(folder)
    remove(folder)

    assert list(tmp_path.iterdir()) == []


def test_without_a_place_in_memory_it_is_among_the_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every machine has /dev/shm."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    folder = make_folder(memory=tmp_path / "none")

    assert folder.parent == tmp_path


def test_a_machine_without_any_place_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start fails with the places' names: metrics of one worker in four would be wrong and look right."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nothing"))

    with pytest.raises(OSError, match=r"none.*nothing"):
        make_folder(memory=tmp_path / "none")
