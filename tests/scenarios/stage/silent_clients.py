"""Clients that hold connections open: they request something large and do not read it, or send no request."""

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

#: Timeout in seconds until a replica has accepted a flood; shorter than its own timeout for clients that do not read.
SETTLE_SECONDS = 25.0
#: Seconds for a reply that nothing blocks, on a busy machine; a blocked one takes as long as a timeout of the server's.
UNBLOCKED = 4.0
#: A client's receive buffer in bytes: with the server's send buffer it is smaller than the largest script.
RECEIVE_BUFFER = 4096


class SilentClients:
    """Connections to a replica, open until the end of the block."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._held: list[socket.socket] = []

    def hold(self, count: int, request: bytes = b"", addresses: Sequence[str] = ("127.0.0.1",)) -> None:
        """Open `count` connections, evenly from all addresses, and send the request on each of them."""
        for number in range(count):
            client = socket.socket()
            self._held.append(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            client.settimeout(10)
            client.bind((addresses[number % len(addresses)], 0))
            client.connect(("127.0.0.1", self._replica.port))
            # A rejected connection may be closed before the request is sent.
            with suppress(ConnectionError):
                client.sendall(request)

    def __enter__(self) -> SilentClients:
        allow_files()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for client in self._held:
            client.close()


def allow_files() -> None:
    """Raise this process's limit of open files, which its children inherit, to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def script_of(replica: Replica) -> bytes:
    """Return a request for the largest script of a page, which exceeds the kernels' buffers for a client."""
    page = requests.get(f"{replica.url}/docs", timeout=30).text
    scripts = re.findall(r'src="[^"]*?(docs/assets/[^"]*bundle[^"]*\.js)"', page)
    return f"GET /{scripts[0]} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def _slowest_reply(replica: Replica) -> float:
    """Send probes and callbacks, one with a question, on new connections; return the longest time in seconds."""
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
    """Return the median of the longest response times of `rounds` rounds, in seconds.

    The median, because the machine may have other work in one round. The rounds begin when the replica has accepted the
    flood of connections.
    """
    wait_until(lambda: _slowest_reply(replica) < UNBLOCKED, settle)
    return sorted(_slowest_reply(replica) for _ in range(rounds))[rounds // 2]
