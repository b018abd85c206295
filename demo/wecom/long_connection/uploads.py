"""Files that a bot uploads in chunks: their limits, and the media_id under which messages name them."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from demo.wecom.long_connection.commands import ErrorCode
from demo.wecom.long_connection.frame_outcome import RejectedFrame, breaks
from demo.wecom.long_connection.screen import UploadedFile
from demo.wecom.long_connection.sliding_limit import SlidingLimit
from demo.wecom.picture_rules import media_type

#: The largest file of each type, in bytes.
LARGEST = {"image": 2 * 2**20, "voice": 2 * 2**20, "video": 10 * 2**20, "file": 20 * 2**20}
CHUNK_BYTES, MOST_CHUNKS = 512 * 1024, 100
#: Seconds for which an upload can go on, and a media_id be used.
SESSION_SECONDS, MEDIA_SECONDS = 1800.0, 3 * 86_400.0
#: Chunks without an ack at most, in an upload of more than `FEW_CHUNKS`.
IN_FLIGHT, FEW_CHUNKS = 2, 10
AMR = b"#!AMR"


@dataclass
class Upload:
    """One upload, which may go on over another connection."""

    kind: str
    name: str
    total_size: int
    total_chunks: int
    md5: str
    began: float
    chunks: dict[int, bytes] = field(default_factory=dict, repr=False)
    #: How often each chunk came.
    received: Counter[int] = field(default_factory=Counter)
    #: "" until it is finished.
    media_id: str = ""
    finished: float = 0.0
    #: WeCom has deleted the file before its time.
    deleted: bool = False

    @property
    def content(self) -> bytes:
        return b"".join(chunk for _, chunk in sorted(self.chunks.items()))


class BotUploads:
    """The uploads of one bot by upload_id. Each method raises `RejectedFrame` for a frame that breaks a rule."""

    def __init__(self) -> None:
        self.uploads: dict[str, Upload] = {}
        self._allowance = SlidingLimit()

    def begin(self, body: Mapping[str, Any], now: float) -> dict[str, Any]:
        """Begin an upload and return its id."""
        kind, name, md5 = body.get("type"), body.get("filename"), body.get("md5", "")
        if not isinstance(kind, str) or kind not in LARGEST:
            raise breaks("upload", "type is not one of image, voice, video and file", ErrorCode.INVALID_TYPE_OF_FILE)
        if not isinstance(name, str) or not name:
            raise breaks("upload", "filename is missing")
        size, count = _number(body, "total_size"), _number(body, "total_chunks")
        if size > LARGEST[kind]:
            text = f"{'an' if kind == 'image' else 'a'} {kind} of more than {LARGEST[kind]} bytes: {size}"
            raise breaks("upload", text, ErrorCode.INVALID_FILE_SIZE)
        if count > MOST_CHUNKS or not count <= size <= count * CHUNK_BYTES:
            raise breaks("upload", f"total_chunks does not fit: {count} for {size} bytes")
        if not self._allowance.take(now):
            raise breaks("rate", "more than 30 uploads a minute or 1,000 an hour", ErrorCode.TOO_OFTEN)
        upload_id = secrets.token_hex(16)
        self.uploads[upload_id] = Upload(kind, name, size, count, str(md5), now)
        return {"upload_id": upload_id}

    def add(self, body: Mapping[str, Any], now: float, in_flight: int) -> None:
        """Keep a chunk. `in_flight` chunks of the connection have no ack, this one included."""
        upload, index = self._running(body, now), body.get("chunk_index")
        # WeCom's sample counts from 1, its SDK from 0.
        if type(index) is not int or not 0 <= index <= upload.total_chunks:
            raise breaks("upload", "chunk_index does not fit total_chunks")
        if in_flight > IN_FLIGHT and upload.total_chunks > FEW_CHUNKS:
            raise breaks("upload", f"more than {IN_FLIGHT} chunks without an ack", ErrorCode.SYSTEM_BUSY)
        chunk = _decoded(body.get("base64_data"))
        if not 0 < len(chunk) <= CHUNK_BYTES:
            raise breaks("upload", f"a chunk of more than {CHUNK_BYTES} bytes, or empty: {len(chunk)}")
        if upload.chunks.setdefault(index, chunk) != chunk:
            raise breaks("upload", "a chunk changed")
        upload.received[index] += 1

    def finish(self, body: Mapping[str, Any], now: float) -> dict[str, Any]:
        """Put the chunks together and return the media_id; a repeated finish returns the same one."""
        upload = self._running(body, now)
        if not upload.media_id:
            _check(upload)
            upload.media_id, upload.finished = secrets.token_urlsafe(24), now
        return {"type": upload.kind, "media_id": upload.media_id, "created_at": int(time.time())}

    def find(self, message: Mapping[str, Any], now: float) -> UploadedFile:
        """Return the file that a message of its type names."""
        kind = str(message["msgtype"])
        member = message.get(kind)
        media_id = member.get("media_id") if isinstance(member, Mapping) else None
        found = next((each for each in self.uploads.values() if media_id and each.media_id == media_id), None)
        if found is None or found.kind != kind:
            raise breaks("media_id", f"the media_id is no {kind} of this bot", ErrorCode.INVALID_MEDIA_ID)
        if found.deleted:
            raise RejectedFrame(ErrorCode.INVALID_MEDIA_ID)
        if now - found.finished > MEDIA_SECONDS:
            raise breaks("media_id", "the media_id is older than three days", ErrorCode.INVALID_MEDIA_ID)
        return UploadedFile(kind, found.name, found.content)

    def delete_all(self) -> None:
        """Delete all files before their time: a media_id that a bot has kept is refused."""
        for upload in self.uploads.values():
            upload.deleted = True

    def _running(self, body: Mapping[str, Any], now: float) -> Upload:
        upload = self.uploads.get(str(body.get("upload_id")))
        if upload is None:
            raise breaks("upload", "upload_id is unknown")
        if now - upload.began > SESSION_SECONDS:
            raise breaks("upload", "the upload is older than 30 minutes")
        return upload


def _check(upload: Upload) -> None:
    """Raise `RejectedFrame` unless all chunks are there and make a file of the type."""
    first, content = min(upload.chunks, default=0), upload.content
    if sorted(upload.chunks) != list(range(first, first + upload.total_chunks)) or first > 1:
        raise breaks("upload", f"{len(upload.chunks)} of {upload.total_chunks} chunks are there")
    if len(content) != upload.total_size:
        raise breaks("upload", f"{len(content)} bytes instead of {upload.total_size}", ErrorCode.INVALID_FILE_SIZE)
    if upload.md5 not in ("", hashlib.md5(content, usedforsecurity=False).hexdigest()):
        raise breaks("upload", "md5 is not that of the bytes")
    if upload.kind == "voice" and not content.startswith(AMR):
        raise breaks("upload", "a voice is AMR only", ErrorCode.INVALID_TYPE_OF_FILE)
    if upload.kind == "image" and not media_type(content):
        raise breaks("upload", "an image is neither JPG nor PNG", ErrorCode.INVALID_TYPE_OF_FILE)


def _number(body: Mapping[str, Any], name: str) -> int:
    value = body.get(name)
    if type(value) is not int or value < 1:
        raise breaks("upload", f"{name} is no positive number")
    return value


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        raise breaks("upload", "base64_data is no Base64") from None
