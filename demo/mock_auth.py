"""The external auth API as a company would run it, over real HTTP, with people to log in and faults to switch on."""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

import sqlalchemy as sa

Behaviour = Literal["normal", "slow", "error", "garbage", "refuse", "hang"]


@dataclass(frozen=True, slots=True)
class DemoUser:
    """A person of the demo company; `expires_in` is the seconds the auth API gives this person's tokens."""

    userid: str
    user_code: str
    user_name: str = ""
    phone: str = ""
    gender: str = ""
    password: str = field(default="demo-password", repr=False)
    expires_in: float | None = None


#: 王五's tokens end after a second, so that every question of his shows a renewal. lisi is in no database.
DEMO_USERS = (
    DemoUser("zhangsan", "E1001", "张三", "13800000001", "男"),
    DemoUser("wangwu", "E1002", "王五", "13800000002", "女", expires_in=1.0),
)
UNKNOWN_USERID = "lisi"
DEMO_USER_QUERY = "SELECT user_code, password, user_name, phone, gender FROM demo_users WHERE userid = :userid"


def create_demo_users(url: str, users: Iterable[DemoUser] = DEMO_USERS) -> None:
    """Create the table `demo_users` anew with these people, in SQLite or MySQL."""
    columns = ("userid", "user_code", "user_name", "phone", "gender", "password")
    table = sa.Table("demo_users", sa.MetaData(), *(sa.Column(name, sa.String(100)) for name in columns))
    rows = [{name: value for name, value in asdict(user).items() if name in columns} for user in users]
    engine = sa.create_engine(url, poolclass=sa.NullPool, hide_parameters=True)
    with engine.begin() as connection:
        table.drop(connection, checkfirst=True)
        table.create(connection)
        if rows:
            connection.execute(table.insert(), rows)


class MockAuth:
    """A context manager: `with MockAuth() as auth: AuthService(..., url=auth.url)`.

    `behaviour` is what it does from now on; `delay` the seconds that "slow" takes; `calls` how often each user_code
    asked for a token; `connections` how many were opened. `says` makes it answer anything at all.
    """

    def __init__(self, users: Iterable[DemoUser] = DEMO_USERS, *, port: int = 0) -> None:
        self.users = {user.user_code: user for user in users}
        self.behaviour: Behaviour = "normal"
        self.delay = 1.0
        #: The status of HEAD, which the API does not offer.
        self.head_status = 405
        self.calls: Counter[str] = Counter()
        self.methods: Counter[str] = Counter()
        #: The names of the headers the calls came with, in lower case.
        self.headers: set[str] = set()
        self.connections = 0
        #: Tokens in the order they were given.
        self.tokens: list[str] = []
        self._scripted: tuple[int, bytes, dict[str, str]] | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/auth/login"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop listening and drop every connection, also those it keeps waiting."""
        self._closing.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(5.0)
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def says(self, status: int, body: Any, **headers: str) -> None:
        """Answer every call with this status and body: bytes as they are, all else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._scripted = (status, raw, headers)

    def answer(self, method: str, usercode: str, password: str) -> tuple[int, bytes, dict[str, str]]:
        """Count the call and return status, body and headers of its answer."""
        with self._lock:
            self.calls[usercode] += 1
            self.methods[method] += 1
        seconds = {"slow": self.delay, "hang": None}.get(self.behaviour, 0.0)
        if self._closing.wait(seconds):
            raise ConnectionAbortedError("the mock is closing")
        if self._scripted:
            return self._scripted
        if self.behaviour == "error":
            return 500, b'{"timestamp": 1, "error": "Internal Server Error"}', {}
        if self.behaviour == "garbage":
            return 200, b"<html><body>Maintenance</body></html>", {"Content-Type": "text/html"}
        return 200, json.dumps(self._login(usercode, password), ensure_ascii=False).encode(), {}

    def _login(self, usercode: str, password: str) -> dict[str, Any]:
        user = self.users.get(usercode)
        if self.behaviour == "refuse" or user is None or user.password != password:
            return {"success": False, "message": "用户名或密码错误", "data": None}
        token = f"demo-token-{usercode}-{secrets.token_hex(8)}"
        with self._lock:
            self.tokens.append(token)
        if user.expires_in is None:
            return {"success": True, "data": token}
        return {"success": True, "data": {"token": token, "expires_in": user.expires_in}}

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self.connections += 1
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], auth: MockAuth) -> None:
        super().__init__(address, _Handler)
        self.auth = auth

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is no event."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.auth.opened(self.connection)

    def finish(self) -> None:
        super().finish()
        self.server.auth.closed(self.connection)

    def do_GET(self) -> None:
        parameters = parse_qs(urlsplit(self.path).query)
        self._answer({name: values[0] for name, values in parameters.items()})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_HEAD(self) -> None:
        self.send_response(self.server.auth.head_status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, credentials: dict[str, str]) -> None:
        auth = self.server.auth
        auth.headers.update(name.lower() for name in self.headers)
        status, body, headers = auth.answer(
            self.command, credentials.get("usercode", ""), credentials.get("password", "")
        )
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the original's GET has the password in its address."""
