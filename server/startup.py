"""Check before the start that settings are right, folders are writable and ports are free.

gunicorn's arbiter runs the checks before it logs or listens, so that an error is one line and no worker is started.
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
from config.settings import Settings, load_settings

#: Seconds to wait for a terminating process to release the port; gunicorn itself retries for five.
PORT_SECONDS = 3.0
PORT_PAUSE = 0.1

#: An entry of gunicorn's `cfg.address`: a tuple of host and port, or another type for Unix sockets and descriptors.
Address = object


def load_checked() -> Settings:
    """Load the settings of this process and check their folders.

    Raises:
        SettingsError: a value is missing or wrong, or a folder is not writable.
    """
    settings = load_settings()
    check_folders(settings)
    return settings


def check_folders(settings: Settings) -> None:
    """Check that configured folders and files are writable; create missing folders.

    Raises:
        Invalid: a folder or file is not writable.
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
    """Check that every TCP address can be bound. `names` maps a port to the variable that sets it.

    Raises:
        Invalid: the host is not an address of this machine, or the port is in use or needs privileges.
    """
    for address in addresses:
        if isinstance(address, tuple):
            _check_address(address[0], address[1], names.get(address[1], "--bind"), host, sleep)


def inherits_listeners(env: Mapping[str, str]) -> bool:
    """Return whether the listeners are inherited: from the gunicorn this one replaces (USR2), or from systemd."""
    return "GUNICORN_FD" in env or env.get("LISTEN_PID") == str(os.getpid())


def _folder_problems(settings: Settings) -> Iterator[Problem]:
    for name, folder in (("LOG_DIR", settings.log_dir), ("BATCH_STORAGE_PATH", settings.batch_storage_path)):
        if folder and (why := _why_not_writable(Path(folder))):
            yield Problem(name, folder, f"a folder to write to ({why})")
    if settings.database_path and (why := _why_no_database(Path(settings.database_path))):
        yield Problem("DATABASE_PATH", settings.database_path, f"an SQLite file, in a folder that exists ({why})")


def _why_not_writable(folder: Path, *, make: bool = True) -> str:
    """Return why no file can be created in `folder`, or "". Creates one, because permission bits do not bind root."""
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
    """Return the error of binding the address, or None."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As gunicorn sets it: connections in TIME_WAIT then do not block the port.
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
