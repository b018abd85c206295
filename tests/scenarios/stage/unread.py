"""Connections that ask for a long answer and read nothing of it, and what they cost the worker that serves them."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from websockets.frames import Opcode

from services.models import Delta, ProviderEvent, Query
from services.providers.base import BaseRAGProvider
from tests.support.replicas import Replica
from tests.support.sockets.far_end import masked
from utils.deadline import Deadline

#: A paragraph of 3 bytes a character, a Markdown list and a blank line; the answer is 1 MiB less a few bytes.
PIECE = "grapes, and their skins; " * 12 + "\U0001f347\n\n- **one** `x`\n\n"
ANSWER = PIECE * (2**20 // len(PIECE.encode()))
#: Bytes a client's kernel takes, at the least: so little that the answer stays with the server.
WINDOW = 4096
MIB = 2**20


class MegabyteAnswers(BaseRAGProvider):
    """Answers every question with 1 MiB, in small pieces."""

    name = "megabyte"
    app = "megabyte"

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        for start in range(0, len(ANSWER), 40):
            yield Delta(ANSWER[start : start + 40])

    def health_check(self) -> bool:
        return True


def handshake(path: str, message: str, *headers: str) -> bytes:
    """Return a WebSocket's request with its first message."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: Upgrade", "Upgrade: websocket", *headers]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", "", ""]
    return "\r\n".join(lines).encode() + masked(Opcode.TEXT, message.encode())


def get(path: str, *headers: str) -> bytes:
    """Return a plain request."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()


@contextmanager
def unread(port: int, requests: Sequence[bytes], count: int) -> Iterator[list[socket.socket]]:
    """Open so many connections that send one of the requests each, in turns, and read nothing."""
    with ExitStack() as stack:
        readers = []
        for number in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
            sock.connect(("127.0.0.1", port))
            sock.sendall(requests[number % len(requests)])
            readers.append(sock)
        yield readers


def served(readers: list[socket.socket]) -> int:
    """Return how many of them have something to read."""
    poll = select.poll()
    for reader in readers:
        poll.register(reader, select.POLLIN)
    return len(poll.poll(0))


def peak(replica: Replica) -> float:
    """Return the MiB its worker has had in memory at the most."""
    (pid,) = replica.workers
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def settled_peak(replica: Replica, *, still: float = 3.0, most: float = 25.0) -> float:
    """Return the peak once it has not grown for `still` seconds."""
    end = time.monotonic() + most
    seen, since = peak(replica), time.monotonic()
    while time.monotonic() < end and time.monotonic() - since < still:
        time.sleep(0.2)
        if (now := peak(replica)) > seen + 0.5:
            seen, since = now, time.monotonic()
    return peak(replica)
