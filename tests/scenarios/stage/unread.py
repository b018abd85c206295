"""Connections that request a long answer and do not read it, and the memory they cost the worker."""

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

#: Text with characters of 1 and 4 bytes, a Markdown list and a blank line; the answer is just under 1 MiB.
PIECE = "grapes, and their skins; " * 12 + "\U0001f347\n\n- **one** `x`\n\n"
ANSWER = PIECE * (2**20 // len(PIECE.encode()))
#: A client's receive buffer in bytes: so small that most of the answer stays in the server.
WINDOW = 4096
MIB = 2**20


class MegabyteAnswers(BaseRAGProvider):
    """A provider that answers every question with 1 MiB, in small deltas."""

    name = "megabyte"
    app = "megabyte"

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        for start in range(0, len(ANSWER), 40):
            yield Delta(ANSWER[start : start + 40])

    def health_check(self) -> bool:
        return True


def handshake(path: str, message: str, *headers: str) -> bytes:
    """Return a WebSocket handshake with a first message."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: Upgrade", "Upgrade: websocket", *headers]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", "", ""]
    return "\r\n".join(lines).encode() + masked(Opcode.TEXT, message.encode())


def get(path: str, *headers: str) -> bytes:
    """Return a plain GET request."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()


def post(path: str, body: str, *headers: str) -> bytes:
    """Return a plain POST request of JSON."""
    sized = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *sized, *headers, "", body]).encode()


@contextmanager
def unread(port: int, requests: Sequence[bytes], count: int) -> Iterator[list[socket.socket]]:
    """Open `count` connections that send one of the requests each, in turn, and read nothing."""
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
    """Return how many of the connections have data to read."""
    poll = select.poll()
    for reader in readers:
        poll.register(reader, select.POLLIN)
    return len(poll.poll(0))


def peak(replica: Replica) -> float:
    """Return the worker's peak memory (VmHWM) in MiB."""
    (pid,) = replica.workers
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def settled_peak(replica: Replica, *, still: float = 3.0, most: float = 25.0) -> float:
    """Return the peak in MiB once it has not grown for `still` seconds, or after `most` seconds."""
    end = time.monotonic() + most
    seen, since = peak(replica), time.monotonic()
    while time.monotonic() < end and time.monotonic() - since < still:
        time.sleep(0.2)
        if (now := peak(replica)) > seen + 0.5:
            seen, since = now, time.monotonic()
    return peak(replica)
