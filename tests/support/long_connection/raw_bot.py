"""A client of the long connection that sends exactly what a test says: no heartbeat, no second try."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import queue
import threading
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from demo.wecom.long_connection.commands import UPLOAD_CHUNK, UPLOAD_FINISH, UPLOAD_INIT

#: Seconds for which `request` and `next_callback` wait.
TIMEOUT = 10.0
#: Bytes of a chunk of an upload.
CHUNK = 512 * 1024


class UploadRefused(Exception):
    """The server refused an upload; the argument is its errcode."""


class RawBot:
    """One connection of a bot. Entering it subscribes if `secret` is given."""

    def __init__(self, url: str, bot_id: str = "", secret: str = "") -> None:
        self._connecting = connect(url, compression=None, ping_interval=None, proxy=None, max_size=2**20)
        self._bot_id, self._secret = bot_id, secret
        self._acks: dict[str, queue.Queue[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)
        #: The messages and events that came and were not taken.
        self.callbacks: queue.Queue[dict[str, Any]] = queue.Queue()
        #: The req_ids of the acks in the order in which they came.
        self.acked: list[str] = []
        #: Set when the connection is closed.
        self.closed = threading.Event()

    def __enter__(self) -> Self:
        self._websocket = self._connecting.__enter__()
        threading.Thread(target=self._read, daemon=True).start()
        if self._secret:
            assert self.subscribe()["errcode"] == 0
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._connecting.__exit__(kind, exc, tb)

    def subscribe(self) -> dict[str, Any]:
        """Subscribe and return the ack."""
        return self.request("aibot_subscribe", {"bot_id": self._bot_id, "secret": self._secret})

    def request(self, cmd: str, body: dict[str, Any] | None = None, req_id: str = "") -> dict[str, Any]:
        """Send a frame and return its ack; "" is a new req_id."""
        req_id = self.send(cmd, body, req_id)
        return self._acks[req_id].get(timeout=TIMEOUT)

    def send(self, cmd: str, body: dict[str, Any] | None = None, req_id: str = "") -> str:
        """Send a frame and return its req_id."""
        req_id = req_id or f"r{next(self._numbers)}"
        self._acks.setdefault(req_id, queue.Queue())
        frame = {"cmd": cmd, "headers": {"req_id": req_id}} | ({} if body is None else {"body": body})
        self._websocket.send(json.dumps(frame))
        return req_id

    def streams(self, req_id: str, content: str, *, finish: bool = False, stream_id: str = "s1") -> dict[str, Any]:
        """Send a stream frame and return its ack."""
        stream = {"id": stream_id, "finish": finish, "content": content}
        return self.request("aibot_respond_msg", {"msgtype": "stream", "stream": stream}, req_id)

    def uploads(self, kind: str, content: bytes, *, name: str = "a.bin", first: int = 0) -> str:
        """Upload a file, its last chunk first, and return its media_id; `first` is the index of its first chunk."""
        chunks = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
        sizes = {"total_size": len(content), "total_chunks": len(chunks)}
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        begun = self.request(UPLOAD_INIT, {"type": kind, "filename": name, "md5": digest, **sizes})
        if begun["errcode"]:
            raise UploadRefused(begun["errcode"])
        upload_id = begun["body"]["upload_id"]
        for index, chunk in reversed(list(enumerate(chunks, first))):
            said = {"upload_id": upload_id, "chunk_index": index, "base64_data": base64.b64encode(chunk).decode()}
            self.request(UPLOAD_CHUNK, said)
        finished = self.request(UPLOAD_FINISH, {"upload_id": upload_id})
        if finished["errcode"]:
            raise UploadRefused(finished["errcode"])
        return str(finished["body"]["media_id"])

    def next_callback(self) -> dict[str, Any]:
        """Return the next message or event."""
        return self.callbacks.get(timeout=TIMEOUT)

    def next_req_id(self) -> str:
        """Return the req_id of the next message or event."""
        return str(self.next_callback()["headers"]["req_id"])

    def _read(self) -> None:
        try:
            for text in self._websocket:
                frame = json.loads(text)
                if "cmd" in frame:
                    self.callbacks.put(frame)
                else:
                    self.acked.append(frame["headers"]["req_id"])
                    self._acks[frame["headers"]["req_id"]].put(frame)
        except ConnectionClosed:
            pass
        finally:
            self.closed.set()
