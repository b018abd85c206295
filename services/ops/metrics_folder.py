"""The folder that one gunicorn and its workers keep their metrics in: made at its start, gone with it.

The master holds a lock on its folder for as long as it lives, so that a folder nobody holds is known to be left over by
a master that was killed: its counts must be neither shown again nor left in memory.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Where prometheus_client looks for the folder, once, when it is first imported.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
#: The place in memory, where the container has one: the files are a few KB per worker and written at every count.
MEMORY = Path("/dev/shm")
#: Bytes a place must have free: a write to a mapped file on a full one ends the process.
ROOM = 8 << 20
PREFIX = "wechatlaibao-metrics-"
LOCK = "lock"


def make_folder(*, memory: Path = MEMORY) -> Path:
    """Make a folder of this process's own where there is room for it, and take away what killed masters left.

    Raises OSError where nothing is writable.
    """
    for place in (memory, Path(tempfile.gettempdir())):
        with suppress(OSError):
            sweep(place)
            if _free_bytes(place) >= ROOM:
                return make_in(place)
    raise OSError(f"neither {memory} nor {tempfile.gettempdir()} is writable and has {ROOM >> 20} MiB free")


def make_in(place: Path) -> Path:
    """Make and hold a folder in `place`. It gets the name that a sweep looks for when it is held already."""
    fresh = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=place))
    # Never closed: the lock ends with this process and the workers it forks.
    fcntl.flock(os.open(fresh, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    (fresh / LOCK).touch()
    return fresh.rename(place / fresh.name.removeprefix("."))


def sweep(place: Path) -> None:
    """Remove the folders in `place` that no living master holds."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError), _opened(folder) as number:
            if os.fstat(number).st_uid == os.getuid():
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(folder: Path, operation: int) -> Iterator[None]:
    """Hold the lock between who reads all files of the folder and who puts one in the place of several.

    `operation` is one of flock's: BlockingIOError with LOCK_NB where another holds it.
    """
    with (folder / LOCK).open("rb") as file:
        fcntl.flock(file, operation)
        yield


def _free_bytes(place: Path) -> int:
    space = os.statvfs(place)
    return space.f_bavail * space.f_frsize


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield number
    finally:
        os.close(number)
