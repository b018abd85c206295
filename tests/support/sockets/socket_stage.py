"""A replica's sockets in this process: real connections, a real registry, and an endpoint that records its calls."""

from __future__ import annotations

import json
import threading
from types import TracebackType
from typing import Any

import pytest
from flask import Flask, Response
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close
from websockets.sync.client import ClientConnection, connect
from werkzeug.serving import make_server

from channels.sockets.endpoint import SocketLimits, Sockets
from channels.sockets.socket import Closed, Socket
from config.texts import Texts
from services.identity.callers import Caller, Callers
from services.identity.rate_limiter import RateLimiter
from services.redis.store import ScriptRunner
from services.redis.store import connect as connect_redis
from services.sockets.store import SocketStore

API_KEY = "obviously-fake-key-1"
SECRET = b"obviously fake"
#: Timeout in seconds of each step; it only ends a stuck test.
TIMEOUT = 30.0


class Endpoint:
    """An endpoint that sends a greeting, echoes texts, and obeys the texts `busy`, `idle` and `fail`."""

    def __init__(self, stage: Stage, socket: Socket, caller: Caller, client_id: str) -> None:
        self.stage = stage
        self.socket = socket
        self.caller = caller
        self.client_id = client_id
        self.busy = False
        self.ends: list[Closed] = []
        stage.endpoints.append(self)
        if client_id == "unmakeable":
            raise RuntimeError("no endpoint")

    def opened(self) -> None:
        if self.client_id == "unopenable":
            raise RuntimeError("not opened")
        self.socket.send({"hello": self.client_id, "principal": self.caller.principal})

    def received(self, text: str) -> None:
        if text == "fail":
            raise RuntimeError("not received")
        if text in ("busy", "idle"):
            self.busy = text == "busy"
        self.socket.send({"echo": text})

    def closed(self, closed: Closed) -> None:
        self.ends.append(closed)
        if self.client_id == "unclosable":
            raise RuntimeError("not closed")


class Stage:
    """One replica: the endpoints /chat and /realtime behind `Sockets`, served over real HTTP."""

    def __init__(self, redis_url: str, *, callers: Callers | None = None, ip: str = "", **options: Any) -> None:
        self.redis = connect_redis(redis_url, pool_size=4)
        runner = ScriptRunner(self.redis)
        self.endpoints: list[Endpoint] = []
        self.store = SocketStore(runner, replica=options.pop("replica", "one"), secret=SECRET)
        limits = {name: options.pop(name) for name in SocketLimits.__slots__ if name in options}
        self.sockets = Sockets(
            callers=callers or Callers("key", api_keys=(API_KEY, "obviously-fake-key-2")),
            limiter=RateLimiter(runner, user="", key="", ip=ip, secret=SECRET),
            store=self.store,
            texts=Texts("en"),
            limits=SocketLimits(**{"renewal": 0.1, **limits}),
            **{"origins": (), "ready": lambda: True, **options},
        )
        self.app = Flask(__name__)
        for rule in ("/<endpoint>", "/<endpoint>/<client_id>"):
            for websocket in (True, False):
                self.app.add_url_rule(rule, f"{rule}{websocket}", self.view, websocket=websocket)
        self._server = make_server("127.0.0.1", 0, self.app, threaded=True)
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def view(self, endpoint: str, client_id: str = "") -> Response:
        return self.sockets.serve(endpoint, client_id, lambda *given: Endpoint(self, *given))

    def __enter__(self) -> Stage:
        self._thread.start()
        self.sockets.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.sockets.close_all()
        self.sockets.stop()
        self._server.shutdown()
        self._server.server_close()
        self.redis.close()

    def open(self, path: str = "/chat/client-a", *, key: str | None = API_KEY, **options: Any) -> Client:
        """Return a client after a successful handshake."""
        headers = {**({"X-API-Key": key} if key is not None else {}), **options.pop("headers", {})}
        options = {"proxy": None, "open_timeout": TIMEOUT, "close_timeout": TIMEOUT, "ping_interval": None, **options}
        opening = connect(f"ws://127.0.0.1:{self.port}{path}", additional_headers=headers, **options)
        return Client(opening.__enter__())

    def refuses(self, path: str = "/chat/client-a", **options: Any) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of a handshake that must be rejected."""
        with pytest.raises(InvalidStatus) as caught:
            self.open(path, **options).close()
        response = caught.value.response
        return response.status_code, json.loads(response.body or b"null")


class Client:
    """A client whose reads wait for the expected frame."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def sees(self) -> Any:
        """Return the next frame."""
        return json.loads(self.connection.recv(timeout=TIMEOUT))

    def says(self, text: str | dict[str, Any]) -> None:
        self.connection.send(text if isinstance(text, str) else json.dumps(text))

    def asks(self, text: str) -> Any:
        self.says(text)
        return self.sees()

    def end(self) -> Close:
        """Return the close frame; fail if another frame arrives before it."""
        with pytest.raises(ConnectionClosed) as caught:
            self.connection.recv(timeout=TIMEOUT)
        assert caught.value.rcvd is not None, "the connection was lost"
        return caught.value.rcvd

    def close(self, code: int = 1000) -> None:
        self.connection.close(code)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
