"""A mock of a company's external auth API over real HTTP, with demo users and faults that can be switched on."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import sqlalchemy as sa

from demo.mocks.http import Handler, HttpMock

Behaviour = Literal["normal", "slow", "error", "garbage", "refuse", "hang"]


@dataclass(frozen=True, slots=True)
class DemoUser:
    """A user of the demo company. `expires_in` is the lifetime of this user's tokens in seconds; None for no limit."""

    userid: str
    user_code: str
    user_name: str = ""
    phone: str = ""
    gender: str = ""
    password: str = field(default="demo-password", repr=False)
    expires_in: float | None = None


#: wangwu's tokens expire after a second, so each of this user's questions renews one. lisi is not in the database.
DEMO_USERS = (
    DemoUser("zhangsan", "E1001", "张三", "13800000001", "男"),
    DemoUser("wangwu", "E1002", "王五", "13800000002", "女", expires_in=1.0),
)
DEMO_USER_QUERY = "SELECT user_code, password, user_name, phone, gender FROM demo_users WHERE userid = :userid"


def create_demo_users(url: str, users: Iterable[DemoUser] = DEMO_USERS) -> None:
    """Drop and create the table `demo_users` with these users, in SQLite or MySQL."""
    columns = ("userid", "user_code", "user_name", "phone", "gender", "password")
    table = sa.Table("demo_users", sa.MetaData(), *(sa.Column(name, sa.String(100)) for name in columns))
    rows = [{name: value for name, value in asdict(user).items() if name in columns} for user in users]
    engine = sa.create_engine(url, poolclass=sa.NullPool, hide_parameters=True)
    with engine.begin() as connection:
        table.drop(connection, checkfirst=True)
        table.create(connection)
        if rows:
            connection.execute(table.insert(), rows)


class MockAuth(HttpMock):
    """A context manager: `with MockAuth() as auth: AuthApi(auth.url)`.

    `behaviour` applies to all later calls; `delay` is how many seconds "slow" takes; `calls` counts token requests by
    user_code; `accepted_connections` counts connections. `says` sets an arbitrary reply.
    """

    def __init__(self, users: Iterable[DemoUser] = DEMO_USERS, *, port: int = 0) -> None:
        self.users = {user.user_code: user for user in users}
        self.behaviour: Behaviour = "normal"
        self.delay = 1.0
        #: The status of HEAD, which the API does not offer.
        self.head_status = 405
        self.calls: Counter[str] = Counter()
        self.methods: Counter[str] = Counter()
        #: Names of all request headers received, in lower case.
        self.headers: set[str] = set()
        #: Issued tokens, oldest first.
        self.tokens: list[str] = []
        self._scripted: tuple[int, bytes, dict[str, str]] | None = None
        self.listen("127.0.0.1", port, _AuthHandler)
        self.url = f"{self.address}/auth/login"

    def says(self, status: int, body: Any, **headers: str) -> None:
        """Answer every call with this status and body: bytes unchanged, anything else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._scripted = (status, raw, headers)

    def answer(self, method: str, usercode: str, password: str) -> tuple[int, bytes, dict[str, str]]:
        """Count the call and return the reply's status, body and headers."""
        with self._lock:
            self.calls[usercode] += 1
            self.methods[method] += 1
        seconds = {"slow": self.delay, "hang": None}.get(self.behaviour, 0.0)
        if self.closing.wait(seconds):
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


class _AuthHandler(Handler):
    mock: MockAuth

    def get(self) -> None:
        parameters = parse_qs(urlsplit(self.path).query)
        self._answer({name: values[0] for name, values in parameters.items()})

    def post(self) -> None:
        self._answer(self.json_body() or {})

    def head(self) -> None:
        self.send_head(self.mock.head_status, {"Content-Length": "0"})

    def _answer(self, credentials: dict[str, str]) -> None:
        self.mock.headers.update(name.lower() for name in self.headers)
        who = credentials.get("usercode", ""), credentials.get("password", "")
        status, body, headers = self.mock.answer(self.command, *who)
        self.send(status, body, headers=headers)
