"""Checks before the start: folders are writable, and addresses can be bound."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from config.errors import SettingsError
from server.startup import PORT_PAUSE, PORT_SECONDS, check_addresses, check_folders, inherits_listeners
from tests.support.servers.processes import free_port
from tests.support.settings_values import settings

NAMES: dict[int | None, str] = {5000: "PORT"}


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A listening socket, which occupies its port."""
    with closing(socket.create_server(("127.0.0.1", free_port()))) as server:
        yield server


def address_of(server: socket.socket) -> tuple[str, int]:
    host, port = server.getsockname()
    return host, port


def refused_folders(**variables: object) -> str:
    with pytest.raises(SettingsError) as caught:
        check_folders(settings(**{name: str(value) for name, value in variables.items()}))
    return str(caught.value)


def refused_address(host: str, port: int, names: dict[int | None, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        check_addresses([(host, port)], names, host=host, sleep=lambda seconds: None)
    return str(caught.value)


def test_missing_folders_are_created(tmp_path: Path) -> None:
    """The folders for logs and results are empty afterwards; a database's file is not created."""
    logs, results = tmp_path / "a" / "logs", tmp_path / "b" / "results"

    check_folders(
        settings(LOG_DIR=str(logs), BATCH_STORAGE_PATH=str(results), DATABASE_PATH=str(tmp_path / "laibao.db"))
    )

    assert [list(folder.iterdir()) for folder in (logs, results)] == [[], []]
    assert not (tmp_path / "laibao.db").exists()


def test_every_folder_that_is_not_writable_is_named(tmp_path: Path) -> None:
    """A file instead of a folder, a folder in /proc, and a database whose folder is missing, or that is a folder."""
    (tmp_path / "file").write_text("")

    line = refused_folders(
        LOG_DIR=tmp_path / "file", BATCH_STORAGE_PATH="/proc/nope", DATABASE_PATH=tmp_path / "nope" / "x.db"
    )

    assert line.startswith(f"LOG_DIR='{tmp_path}/file' is wrong: expected a folder to write to")
    assert line.endswith("(also: BATCH_STORAGE_PATH, DATABASE_PATH)")
    assert "an SQLite file" in refused_folders(DATABASE_PATH=tmp_path)


def test_a_free_address_stays_free() -> None:
    """The check does not listen; Unix sockets and descriptors are left to gunicorn."""
    address = ("127.0.0.1", free_port())

    check_addresses([address, "/run/web.sock", 3], {}, host="127.0.0.1")

    with closing(socket.create_server(address)):
        pass


def test_a_port_in_use_is_named_by_its_variable(taken: socket.socket) -> None:
    """The line has a command that finds the other process; a port of gunicorn's own option is named `--bind`."""
    host, port = address_of(taken)

    line = refused_address(host, port, {port: "OPS_PORT"})

    assert line.startswith(f"OPS_PORT='{port}' is wrong: expected a free port")
    assert f"ss -ltnp 'sport = :{port}'" in line
    assert refused_address(host, port, {}).startswith(f"--bind='{host}:{port}' is wrong")


def test_a_port_that_becomes_free_is_waited_for(taken: socket.socket) -> None:
    """The check retries for up to PORT_SECONDS, so that an immediate restart succeeds."""
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            taken.close()

    check_addresses([address_of(taken)], {}, host="127.0.0.1", sleep=sleep)

    assert len(pauses) == 3
    assert sum(pauses) < PORT_SECONDS
    assert set(pauses) == {PORT_PAUSE}


def test_an_address_of_another_machine_names_host() -> None:
    """The line names HOST, not PORT."""
    line = refused_address("192.0.2.1", 5000, NAMES)

    assert line.startswith("HOST='192.0.2.1' is wrong: expected an address of this machine")


def test_inherited_listeners_are_detected() -> None:
    """gunicorn passes them on at USR2, systemd at the start, by variables of the environment."""
    assert inherits_listeners({"GUNICORN_FD": "3"})
    assert inherits_listeners({"LISTEN_PID": str(os.getpid())})
    assert not inherits_listeners({"LISTEN_PID": "1", "GUNICORN_PID": "1"})
