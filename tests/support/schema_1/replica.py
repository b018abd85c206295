"""Open, write, read and end a stream as a replica of schema version 1 does.

The Lua scripts beside this file are those of that version and must never change. They are called directly, so that a
change of the product's own store does not change what is tested here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

LUA = Path(__file__).parent
TTL, MAX_SECONDS = 1800.0, 1200.0
READ_BYTES = 20_484
#: The fields of a poll's reply, in this order.
SNAPSHOT = ("status", "error_code", "waiting", "access", "epoch", "owner", "lapsed", "over", "text", "size", "length")
#: The fields with which a question's stream was created.
FIELDS = {
    "status": "processing",
    "content": "年假?",
    "question": json.dumps(
        {
            "text": "年假?",
            "channel": "wecom",
            "bot": "default",
            "principal": "zhangsan",
            "chat": "",
            "msgid": "m",
            "inputs": {},
            "files": [],
        }
    ),
    "access": "tag",
    "created_time": "2026-01-01T00:00:00.000+00:00",
    "auth_state": "",
    "error_code": "",
    "waiting": "",
    "delivered": "",
    "reply": "",
    "message_id": "",
    "task_id": "",
    "run_id": "",
    "token": "",
    "user_info": "",
    "conversation_id": "",
}


class OldReplica:
    """One stream as version 1 handles it; `now` is the time its scripts get in seconds, "" for Redis's own clock."""

    def __init__(self, client: redis.Redis, *, stream_id: str = "s", owner: str = "old", lease: float = 6.0) -> None:
        self._client = client
        self._id = stream_id
        name = f"dify_stream:{stream_id}"
        self.keys = (name, f"{{{name}}}:messages", f"{{{name}}}:text")
        self.owner, self.epoch, self.lease = owner, 1, lease
        self.now = ""
        #: The number of chunks it wrote, and the index of the chunk with which its text begins.
        self.length = self.start = 0

    def open(self, *, frame_seconds: float | None = 330.0) -> bool:
        """Create the stream; return False if it exists already."""
        fields = {"dify_finished": "0", **FIELDS, "v": "1", "epoch": 1, "start": 0}
        times = (self.lease, TTL, MAX_SECONDS, "" if frame_seconds is None else frame_seconds)
        reply = self._run("open", self.now, self.owner, *times, READ_BYTES, len(fields), *_flat(fields))
        return bool(reply[0] == 1)

    def append(self, *texts: str, op: str = "", sentence: str = "", **fields: str) -> Sequence[Any]:
        """Append chunks as its flusher did, with `sentence` an error chunk after them; return the script's reply."""
        chunks: list[str] = []
        for text in texts:
            chunks += (_chunk(text), text)
        if sentence:
            chunks += (_chunk(sentence, is_error=True, is_final=True), "")
        head = (self.now, self.epoch, self.owner, self.lease, self.start, self.length, op, len(fields))
        reply: Sequence[Any] = self._run("append", *head, *_flat(fields), *chunks)
        if reply[0] == "ok":
            self.length += len(chunks) // 2
        return reply

    def replace(self, text: str) -> Sequence[Any]:
        self.start = self.length
        return self.append(text)

    def finish(self, *texts: str) -> Sequence[Any]:
        return self.append(*texts, op="finish", status="completed", dify_finished="1", error_code="", waiting="")

    def note_running(self, lease_end: float) -> None:
        """Add the stream to the index of running streams; `lease_end` is by this replica's own clock."""
        shard = zlib.crc32(self._id.encode()) % 16
        self._client.zadd(f"dify_streams:running:{shard}", {self._id: round(lease_end, 3)})

    def read(self) -> dict[str, Any]:
        """Poll once; return the snapshot's fields by name."""
        return dict(zip((*SNAPSHOT, "start"), self._run("read", self.now, READ_BYTES), strict=True))

    def chunks(self, cursor: int) -> list[str]:
        """Return the contents of the chunks from `cursor` on."""
        return [json.loads(chunk)["content"] for chunk in self._run("chunks", cursor, 1000)[4]]

    def reap(self) -> str:
        """Mark a lapsed stream as suspect or, if marked for long enough, end it with an error; return the outcome."""
        outcome, *rest = self._run("takeover", self.now, self.owner, self.lease)
        if outcome == "taken":
            self.epoch, self.start, self.length, _ = rest
            self.append(op="finish", sentence="中断了", status="error", error_code="interrupted", dify_finished="1")
        return str(outcome)

    def cancel(self) -> str:
        return str(self._run("cancel"))

    def standing(self) -> tuple[str, float]:
        """Return the stream's status and the seconds since its lease ended."""
        status, late = self._run("head", self.now)
        return status, float(late)

    def _run(self, name: str, *args: Any) -> Any:
        source = "".join((LUA / f"{part}.lua").read_text("utf-8") for part in ("prelude", name))
        return self._client.eval(source, len(self.keys), *self.keys, *args)


def _chunk(content: str, **marks: bool) -> str:
    entry = {"content": content, "timestamp": "2026-01-01T00:00:00.000+00:00", **marks}
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":"))


def _flat(fields: Mapping[str, Any]) -> list[Any]:
    return [part for pair in fields.items() for part in pair]
