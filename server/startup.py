"""What the settings need of the machine: folders that can be written, and ports on which nobody listens.

The web's arbiter asks before it logs or listens, so that what is wrong is one line and no worker starts for nothing.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from config.problems import Invalid, Problem
from config.settings import Settings

#: Seconds for a process that is ending to give up its port; gunicorn itself tries for five.
PORT_SECONDS = 3.0
PORT_PAUSE = 0.1

#: What gunicorn has of an address: host and port; of a Unix socket or a file descriptor something else.
Address = object


def check_folders(settings: Settings) -> None:
    """Try the folders and files that are written to; folders that are missing are made.

    Raises:
        Invalid: one of them cannot be written.
    """
    if found := list(_folder_problems(settings)):
        raise Invalid(found)


def check_addresses(
    addresses: Iterable[Address],
    names: Mapping[int | None, str],
    *,
    host: str,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Try every address before it is listened on. `names` says which variable a port comes from.

    Raises:
        Invalid: the host is none of this machine's, or the port is another process's or needs rights.
    """
    for address in addresses:
        if isinstance(address, tuple):
            _check_address(address[0], address[1], names.get(address[1], "--bind"), host, sleep)


def inherits_listeners(env: Mapping[str, str]) -> bool:
    """Tell whether this process was given its listeners: by the gunicorn it replaces (USR2), or by systemd."""
    return "GUNICORN_FD" in env or env.get("LISTEN_PID") == str(os.getpid())


def _folder_problems(settings: Settings) -> Iterator[Problem]:
    for name, folder in (("LOG_DIR", settings.log_dir), ("BATCH_STORAGE_PATH", settings.batch_storage_path)):
        if folder and (why := _why_not_writable(Path(folder))):
            yield Problem(name, folder, f"a folder to write to ({why})")
    if settings.database_path and (why := _why_no_database(Path(settings.database_path))):
        yield Problem("DATABASE_PATH", settings.database_path, f"an SQLite file, in a folder that exists ({why})")


def _why_not_writable(folder: Path, *, make: bool = True) -> str:
    """Return the reason, "" where a file can be written there. Only a try tells: root has rights that /proc ignores."""
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as exc:
        return exc.strerror or type(exc).__name__


def _why_no_database(path: Path) -> str:
    if not path.exists():
        return _why_not_writable(path.parent, make=False)
    try:
        with path.open("rb"):
            return ""
    except OSError as exc:
        return exc.strerror or type(exc).__name__


def _check_address(host: str, port: int, name: str, given: str, sleep: Callable[[float], None]) -> None:
    pauses = round(PORT_SECONDS / PORT_PAUSE)
    for pause in range(pauses + 1):
        error = _bind_error(host, port)
        if error is None:
            return
        if error.errno != errno.EADDRINUSE or pause == pauses:
            raise Invalid([_address_problem(error, host, port, name, given)])
        sleep(PORT_PAUSE)


def _bind_error(host: str, port: int) -> OSError | None:
    """Return what keeps this process from the address, None where nothing does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As gunicorn sets it: connections of a process that is gone keep nobody from its port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            return exc
    return None


def _address_problem(error: OSError, host: str, port: int, name: str, given: str) -> Problem:
    value = str(port) if name != "--bind" else f"{host}:{port}"
    match error.errno:
        case errno.EADDRINUSE:
            finding = f"`ss -ltnp 'sport = :{port}'` shows which"
            return Problem(name, value, f"a free port, but another process listens on {host}:{port}; {finding}")
        case errno.EACCES:
            return Problem(name, value, f"a port that this user may listen on, such as 5000 ({error.strerror})")
    name, value = ("HOST", given) if name != "--bind" else (name, value)
    return Problem(name, value, f"an address of this machine, or 0.0.0.0 for all ({error.strerror})")
