"""A WSGI app with WebSockets only, for the production worker: it echoes, sends many frames, and reports its sockets."""

from __future__ import annotations

import gc
import os
import threading
from types import SimpleNamespace
from typing import Any

from flask import Flask, request

from channels.sockets.socket import Closed, Socket, SocketTimes, accept, converse, finish

#: Content for frames of about 4 kB.
PAD = "吃" * 1340


class Echo:
    """Echo each text; "flood N" is answered with N numbered frames, sent by another thread."""

    busy = False

    def __init__(self, sock: Socket, ends: list[Closed]) -> None:
        self._socket = sock
        self._ends = ends

    def opened(self) -> None:
        self._socket.send({"type": "hello"})

    def received(self, text: str) -> None:
        word, _, count = text.partition(" ")
        if word == "flood":
            threading.Thread(target=self._flood, args=(int(count),)).start()
        else:
            self._socket.send({"echo": text})

    def closed(self, closed: Closed) -> None:
        self._ends.append(closed)

    def _flood(self, count: int) -> None:
        all(self._socket.send({"n": n, "pad": PAD}) for n in range(count))


def create_app() -> Flask:
    app = Flask(__name__)
    app.extensions["wechatlaibao"] = SimpleNamespace(close=lambda: None, leave=lambda: None)
    sockets: list[Socket] = []
    ends: list[Closed] = []

    @app.get("/ws", websocket=True)
    def ws() -> Any:
        times = SocketTimes(send_seconds=request.args.get("send_seconds", 30.0, float))
        sock = accept(request.environ, times=times)
        sockets.append(sock)
        converse(sock, Echo(sock, ends))
        sockets.remove(sock)
        return finish()

    @app.get("/state")
    def state() -> dict[str, Any]:
        gc.collect()
        closed = [[end.code, end.by_peer, end.clean] for end in ends]
        return {"open": len(sockets), "sent": sum(sock.sent for sock in sockets), "ends": closed, "pid": os.getpid()}

    @app.get("/readyz")
    def readyz() -> str:
        return "ready"

    return app
