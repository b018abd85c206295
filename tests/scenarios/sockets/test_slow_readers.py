"""Sockets of the production worker (gunicorn and gevent) with clients that read slowly, or stop reading."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import requests
from websockets.frames import Opcode
from websockets.sync.client import ClientConnection, connect

from tests.scenarios.stage.socket_app import PAD
from tests.scenarios.stage.unread import handshake
from tests.support.replicas import GUNICORN, Replica, settings_for
from tests.support.servers.processes import wait_until
from tests.support.sockets.far_end import TIMEOUT, masked

pytestmark = [pytest.mark.scenario, pytest.mark.full]

#: A closed port: nothing here uses Redis.
NO_REDIS = "redis://127.0.0.1:9/1"
FRAMES = 1500

ANSWERED = b'\x81\x10{"type":"hello"}\x81\x0e{"echo":"one"}\x81\x0e{"echo":"two"}'
CLOSED = b"\x88\x02\x03\xe8"


class Served(Replica):
    """The socket app under the product's gunicorn configuration, with one worker."""

    def __init__(self, folder: Path, *options: str) -> None:
        app = "tests.scenarios.stage.socket_app:create_app()"
        super().__init__(settings_for(NO_REDIS), folder, command=(*GUNICORN, *options, app))

    @property
    def state(self) -> dict[str, Any]:
        answer: dict[str, Any] = requests.get(f"{self.url}/state", timeout=TIMEOUT).json()
        return answer

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.state['pid']}/fd").iterdir()))

    @contextmanager
    def client(self, query: str = "") -> Iterator[ClientConnection]:
        """Yield a client that has received its greeting, with a small receive buffer and no read-ahead."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.connect(("127.0.0.1", self.port))
        url = f"ws://127.0.0.1:{self.port}/ws{query}"
        with connect(url, sock=sock, max_queue=1, ping_interval=None, close_timeout=TIMEOUT) as client:
            assert client.recv(TIMEOUT) == '{"type":"hello"}'
            yield client

    def stuck(self) -> bool:
        """Return whether a flood has begun and no frame was sent for two seconds."""
        sent = self.state["sent"]
        Event().wait(2.0)
        return bool(10 < sent == self.state["sent"])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    replica = Served(tmp_path)
    try:
        replica.wait_ready()
        yield replica
    finally:
        replica.kill()


def test_a_reader_that_pauses_gets_every_frame(served: Served) -> None:
    """1,500 frames of 4 kB arrive whole and in order through a small buffer, while other clients are served."""
    with served.client() as slow, served.client() as other:
        slow.send(f"flood {FRAMES}")
        wait_until(served.stuck, TIMEOUT)
        other.send("meanwhile")
        assert other.recv(TIMEOUT) == '{"echo":"meanwhile"}'
        assert served.state["sent"] < FRAMES

        frames = [json.loads(slow.recv(TIMEOUT)) for _ in range(FRAMES)]

        assert [frame["n"] for frame in frames] == list(range(FRAMES))
        assert {frame["pad"] for frame in frames} == {PAD}
        slow.send("still there")
        assert slow.recv(TIMEOUT) == '{"echo":"still there"}'

    wait_until(lambda: served.state["open"] == 0, TIMEOUT)
    assert served.state["ends"] == [[1000, True, True]] * 2


def test_a_client_that_stops_reading_is_closed(served: Served) -> None:
    """After `send_seconds` the connection is closed and its resources are freed; other clients are served meanwhile."""
    before = served.descriptors()
    with socket.create_connection(("127.0.0.1", served.port)) as never, served.client() as other:
        never.sendall(handshake("/ws?send_seconds=2", f"flood {FRAMES}"))

        def given_up() -> bool:
            other.send("still served")
            assert other.recv(TIMEOUT) == '{"echo":"still served"}'
            return bool(served.state["ends"])

        wait_until(given_up, TIMEOUT)
        assert served.state["ends"] == [[1006, False, False]]
        assert served.state["open"] == 1

    wait_until(lambda: served.descriptors() == before, TIMEOUT)
    assert "Traceback" not in served.log


@pytest.mark.parametrize("parser", ["fast", "python"])
def test_frames_sent_with_the_request_are_not_lost(tmp_path: Path, parser: str) -> None:
    """With either parser no frame is lost; closing the socket logs nothing and sends no bytes after the close frame."""
    replica = Served(tmp_path, "--http-parser", parser)
    try:
        replica.wait_ready()
        with socket.create_connection(("127.0.0.1", replica.port), TIMEOUT) as client:
            client.sendall(handshake("/ws", "one") + masked(Opcode.TEXT, b"two"))
            with client.makefile("rb") as stream:
                lines = list(iter(stream.readline, b"\r\n"))
                answered = stream.read(len(ANSWERED))
                client.sendall(masked(Opcode.CLOSE, b"\x03\xe8"))
                rest = stream.read()
        code = replica.stop()
    finally:
        replica.kill()

    assert lines[0].startswith(b"HTTP/1.1 101 ")
    assert (answered, rest) == (ANSWERED, CLOSED)
    assert code == 0
    assert not any(word in replica.log for word in ("Traceback", "[ERROR]"))
