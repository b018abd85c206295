"""Clients that hold connections: they ask for something large and read none of it, or ask for nothing."""

from __future__ import annotations

import re
import resource
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType

import requests

from tests.support.replicas import Replica, wecom_user
from tests.support.servers.processes import wait_until

#: Seconds a replica has to take in a flood; sooner than it gives up, by itself, a client that reads nothing.
SETTLE_SECONDS = 25.0
#: Bytes that a client's kernel takes; with the server's own buffer less than the largest script has.
RECEIVE_BUFFER = 4096


class SilentClients:
    """Connections to a replica, held until the block ends."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._held: list[socket.socket] = []

    def hold(self, count: int, request: bytes = b"", addresses: Sequence[str] = ("127.0.0.1",)) -> None:
        """Open so many connections, from each address as many, and send the request on each of them."""
        for number in range(count):
            client = socket.socket()
            self._held.append(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            client.settimeout(10)
            client.bind((addresses[number % len(addresses)], 0))
            client.connect(("127.0.0.1", self._replica.port))
            # Refused already: it is closed before it has sent anything.
            with suppress(ConnectionError):
                client.sendall(request)

    def __enter__(self) -> SilentClients:
        allow_files()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for client in self._held:
            client.close()


def allow_files() -> None:
    """Let this process, and those it starts, open as many files as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def script_of(replica: Replica) -> bytes:
    """Return a request for the largest script of a page, which is more than kernels keep for a client."""
    page = requests.get(f"{replica.url}/docs", timeout=30).text
    scripts = re.findall(r'src="[^"]*?(docs/assets/[^"]*bundle[^"]*\.js)"', page)
    return f"GET /{scripts[0]} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def _slowest_reply(replica: Replica) -> float:
    """Ask the probes, and callbacks with a question, on new connections; return the longest wait in seconds."""
    with wecom_user([replica.url], "somebody") as user:
        asks: list[Callable[[], object]] = [
            lambda: requests.get(f"{replica.url}/healthz", timeout=30).raise_for_status(),
            lambda: requests.get(f"{replica.url}/readyz", timeout=30).raise_for_status(),
            user.verifies_url,
            partial(user.says, "hello"),
        ]
        return max(_seconds(ask) for ask in asks)


def _seconds(ask: Callable[[], object]) -> float:
    began = time.monotonic()
    ask()
    return time.monotonic() - began


def usual_wait(replica: Replica, rounds: int = 7, *, settle: float = SETTLE_SECONDS) -> float:
    """Return the median of some rounds' longest waits in seconds: this machine may have other work in one of them.

    The rounds begin when the replica has taken in the flood of connections.
    """
    wait_until(lambda: _slowest_reply(replica) < 1.0, settle)
    return sorted(_slowest_reply(replica) for _ in range(rounds))[rounds // 2]
