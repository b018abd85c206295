"""A Redis server inside this process for the demo and unit tests: correct, slow, and without persistence.

It is fakeredis with Lua behind a TCP socket. Limits: some hundred to a few thousand operations per second, a thread per
connection that wakes 50 times a second, and the memory of one process.
"""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from io import BufferedIOBase
from types import TracebackType
from typing import Any, Self, cast

import redis
from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler

#: Redis's error reply beyond `maxclients`.
FULL = b"-ERR max number of clients reached\r\n"
#: Seconds between checks for replies that become available without a new command, such as those of blocking reads.
IDLE = 0.02
#: Seconds after which the connection of a client that does not read its replies is closed.
WRITE_TIMEOUT = 30.0


class EmbeddedRedis:
    """A context manager: `with EmbeddedRedis() as server: Redis.from_url(server.url)`."""

    def __init__(self, *, port: int = 0, max_connections: int = 50) -> None:
        self._server = _RedisServer(port, max_connections)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.port: int = self._server.server_address[1]
        self.url = f"redis://127.0.0.1:{self.port}/1"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop listening, drop every connection, and wait for the threads."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(5.0)
        self._server.close_connections()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class _RedisServer(TcpFakeServer):
    request_queue_size = 128

    def __init__(self, port: int, max_connections: int) -> None:
        super().__init__(("127.0.0.1", port))
        self.RequestHandlerClass = _RedisHandler
        # A blocked thread must not keep the process alive; `close_connections` waits for all others.
        self.daemon_threads = True
        self._max_connections = max_connections
        self._open: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._open) >= self._max_connections
            if not full:
                thread = threading.Thread(target=self.process_request_thread, args=(request, client_address))
                thread.daemon = True
                self._open[request] = thread
        if full:
            with suppress(OSError):
                request.sendall(FULL)
            self.shutdown_request(request)
        else:
            thread.start()

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: clients that disconnect are normal."""

    def close_connections(self) -> None:
        with self._lock:
            connections = list(self._open.items())
        for connection, _ in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for _, thread in connections:
            thread.join(5.0)


class _RedisHandler(TCPFakeRequestHandler):
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.writer.writer = cast(BufferedIOBase, _BlockingWriter(self.connection))

    def handle(self) -> None:
        """Serve until the client or the server closes. fakeredis's own loop disconnects after every error reply."""
        with suppress(ConnectionError):
            while not self.server._shutdown_event.is_set():
                if self.current_client.can_read():
                    self._reply()
                elif command := self._received():
                    self.current_client.get_socket().sendall(command)

    def _reply(self) -> None:
        try:
            self.writer.dump(self.current_client.read_response())
        except redis.ResponseError as exc:
            self.writer.dump(exc)

    def _received(self) -> bytes:
        """Return a line of a command, or b"" if none arrives within `IDLE`; only then may pushed replies be sent.

        Reads before it waits, because complete commands may be in the buffer while the socket has no data.
        """
        if line := self.rfile.readline():
            return line
        if not select.select([self.connection], [], [], IDLE)[0]:
            return b""
        if not (line := self.rfile.readline()):
            raise ConnectionAbortedError("the client went")
        return line


class _BlockingWriter:
    """Writes replies completely to a non-blocking socket; fakeredis drops bytes that do not fit the kernel's buffer."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, reply: bytes) -> None:
        left = memoryview(reply)
        while left:
            try:
                left = left[self._connection.send(left) :]
            except BlockingIOError:
                if not select.select([], [self._connection], [], WRITE_TIMEOUT)[1]:
                    raise ConnectionAbortedError("the client does not read its reply") from None

    def flush(self) -> None:
        """Do nothing: `write` does not buffer."""
