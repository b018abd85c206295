"""What is tried before anything listens: folders, files, addresses."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server.startup import PORT_PAUSE, PORT_SECONDS, check_addresses, check_folders, inherits_listeners
from services.errors import SettingsError
from tests.support.settings_values import settings

NAMES: dict[int | None, str] = {5000: "PORT"}


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A socket that listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
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


def test_folders_that_can_be_written_are_made(tmp_path: Path) -> None:
    """Folders that are missing are there afterwards, and empty; of a database its folder must exist."""
    logs, results = tmp_path / "a" / "logs", tmp_path / "b" / "results"

    check_folders(
        settings(LOG_DIR=str(logs), BATCH_STORAGE_PATH=str(results), DATABASE_PATH=str(tmp_path / "laibao.db"))
    )

    assert [list(folder.iterdir()) for folder in (logs, results)] == [[], []]
    assert not (tmp_path / "laibao.db").exists()


def test_all_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file in a folder's place, /proc, and a database in a folder that is missing."""
    (tmp_path / "file").write_text("")

    line = refused_folders(
        LOG_DIR=tmp_path / "file", BATCH_STORAGE_PATH="/proc/nope", DATABASE_PATH=tmp_path / "nope" / "x.db"
    )

    assert line.startswith(f"LOG_DIR='{tmp_path}/file' is wrong: expected a folder to write to")
    assert line.endswith("(also: BATCH_STORAGE_PATH, DATABASE_PATH)")


def test_a_database_is_a_file(tmp_path: Path) -> None:
    """A folder in its place is named."""
    assert "an SQLite file" in refused_folders(DATABASE_PATH=tmp_path)


def test_a_free_address_is_left_free() -> None:
    """Trying it listens on nothing; of addresses that are no host and port gunicorn knows more."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        address = address_of(server)

    check_addresses([address, "/run/web.sock", 3], {}, host="127.0.0.1")

    with closing(socket.create_server(address)):
        pass


def test_a_port_that_is_taken_is_named_by_its_variable(taken: socket.socket) -> None:
    """The line says how to find who listens; one of gunicorn's own options is named as such."""
    host, port = address_of(taken)

    line = refused_address(host, port, {port: "OPS_PORT"})

    assert line.startswith(f"OPS_PORT='{port}' is wrong: expected a free port")
    assert f"ss -ltnp 'sport = :{port}'" in line
    assert refused_address(host, port, {}).startswith(f"--bind='{host}:{port}' is wrong")


def test_a_process_that_ends_may_give_its_port_up(taken: socket.socket) -> None:
    """A port is tried for some seconds: who restarts the product at once is not refused."""
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            taken.close()

    check_addresses([address_of(taken)], {}, host="127.0.0.1", sleep=sleep)

    assert len(pauses) == 3
    assert sum(pauses) < PORT_SECONDS
    assert set(pauses) == {PORT_PAUSE}


def test_an_address_of_another_machine_is_the_hosts_fault() -> None:
    """HOST is named, not PORT."""
    line = refused_address("192.0.2.1", 5000, NAMES)

    assert line.startswith("HOST='192.0.2.1' is wrong: expected an address of this machine")


def test_listeners_of_a_predecessor_are_not_tried() -> None:
    """gunicorn hands them over on USR2, systemd at the start."""
    assert inherits_listeners({"GUNICORN_FD": "3"})
    assert inherits_listeners({"LISTEN_PID": str(os.getpid())})
    assert not inherits_listeners({"LISTEN_PID": "1", "GUNICORN_PID": "1"})
