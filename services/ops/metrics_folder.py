"""The metrics folder of one gunicorn master and its workers: made at the start, removed at the end.

The master locks its folder while it lives. An unlocked folder was left by a master that was killed: its counts must be
neither shown again nor left in memory.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

#: The environment variable in which prometheus_client looks for the folder when it is first imported.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
#: A file system in memory, if there is one: the files are a few KB per worker and written at every count.
MEMORY = Path("/dev/shm")
#: Bytes that must be free: a write to a mapped file on a full file system kills the process (SIGBUS).
ROOM = 8 << 20
PREFIX = "wechatlaibao-metrics-"


def make_folder(*, memory: Path = MEMORY) -> Path:
    """Make a folder for this process where there is enough space, and remove the folders of killed masters.

    Raises:
        OSError: no folder is writable and has `ROOM` bytes free.
    """
    for parent in (memory, Path(tempfile.gettempdir())):
        with suppress(OSError):
            sweep(parent)
            space = os.statvfs(parent)
            if space.f_bavail * space.f_frsize >= ROOM:
                return make_in(parent)
    raise OSError(f"neither {memory} nor {tempfile.gettempdir()} is writable and has {ROOM >> 20} MiB free")


def make_in(parent: Path) -> Path:
    """Make and lock a folder in `parent`. It gets the name that `sweep` looks for only after it is locked."""
    fresh = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
    # Never closed: the lock ends with this process and the workers it forks.
    fcntl.flock(os.open(fresh, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fresh.rename(parent / fresh.name.removeprefix("."))


def sweep(parent: Path) -> None:
    """Remove the folders in `parent` that no living master has locked."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError), _opened(folder) as number:
            if os.fstat(number).st_uid == os.getuid():
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def free_number(taken: Collection[int]) -> int:
    """Return the smallest number that no living worker has taken."""
    return next(number for number in count() if number not in taken)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield number
    finally:
        os.close(number)
