"""Uploads files over a long connection, in parts, and returns the message that shows them.

Redis has the parts of an upload that WeCom acknowledged, and the media_id of a complete one, so an upload can be
continued on any connection of the bot.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from config.errors import LaibaoError
from services.files.kinds import recognized
from services.wecom.long_connection.allowance_store import AllowanceStore
from services.wecom.long_connection.lease_store import hidden
from services.wecom.long_connection.link import Link
from services.wecom.long_connection.protocol import (
    BUSY,
    NOT_SUBSCRIBED,
    UPLOAD_CHUNK,
    UPLOAD_FINISH,
    UPLOAD_INIT,
    Ack,
    AckMissing,
    LinkLost,
)
from services.wecom.long_connection.upload_store import KnownUpload, UploadStore
from utils.keyring import Keyring, keys_of

log = logging.getLogger(__name__)

#: How WeCom shows a file: a picture, a video, a voice message, or a file to download.
OutgoingKind = Literal["image", "video", "voice", "file"]

_MIB = 1024 * 1024
#: Bytes of the largest file; more are not sent.
MAX_FILE = 20 * _MIB
#: By the file name extension that the first bytes imply: the kind, and the bytes of its largest file.
_KINDS: dict[str, tuple[OutgoingKind, int]] = {
    "jpg": ("image", 2 * _MIB),
    "png": ("image", 2 * _MIB),
    "mp4": ("video", 10 * _MIB),
    "amr": ("voice", 2 * _MIB),
}
#: Bytes of one part. WeCom takes 512 KiB and 100 parts.
PART_BYTES = 384 * 1024
#: Parts of a bot that wait for their acknowledgement at once: WeCom answers more with "system error".
IN_FLIGHT = 2
#: Timeouts in seconds: for the acknowledgement of a part; and for a file, and for the wait for the bot's other files.
PART_SECONDS, FILE_SECONDS = 20.0, 180.0
#: Seconds after which an upload that took too long is continued.
DELAY = 5.0
#: Attempts for each step of an upload that WeCom does not acknowledge.
ATTEMPTS = 3


class UploadRefused(LaibaoError):
    """WeCom does not accept a file: `code` is WeCom's error code, or `too_large`."""

    code = "upload_refused"


class UploadDelayed(LaibaoError):
    """An upload is not complete: a limit of WeCom, a busy WeCom, or a timeout. A call after `seconds` continues it."""

    code = "upload_delayed"

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class FileMessage(NamedTuple):
    """The body of a message that shows an uploaded file."""

    body: dict[str, Any]
    #: Names the upload, for `Uploads.forget`.
    digest: str
    #: Whether the file was uploaded for an earlier message: WeCom may have deleted it since.
    is_reused: bool


class Uploads:
    """The uploads of all bots, one file of a bot at a time."""

    def __init__(self, store: UploadStore, allowance: AllowanceStore, keys: Mapping[str, Keyring]) -> None:
        """`keys` are each bot's keys: names of uploads in Redis are hashed with them."""
        self._store = store
        self._allowance = allowance
        self._keys = keys
        self._locks: Mapping[str, threading.Lock] = defaultdict(threading.Lock)

    def message(self, link: Link, name: str, content: bytes) -> FileMessage:
        """Upload a file, unless WeCom has it, and return the message that shows it.

        Raises:
            UploadRefused: WeCom does not accept the file.
            UploadDelayed, LinkLost, AckMissing: it is not complete; a later call on any connection continues it.
            StoreUnavailable: Redis is away.
        """
        if len(content) > MAX_FILE:
            raise UploadRefused(code="too_large")
        kind = outgoing_kind(content)
        digest = self._digest(link.bot, kind, name, content)
        with self._locked(link.bot):
            known = self._store.find(link.bot, digest)
            media_id = known.media_id or self._uploaded(link, _File(kind, name, content, digest), known)
        return FileMessage({"msgtype": kind, kind: {"media_id": media_id}}, digest, bool(known.media_id))

    def forget(self, bot: str, digest: str) -> None:
        """Forget an upload whose media_id WeCom refuses: the file's next message uploads it again.

        Raises:
            StoreUnavailable: Redis is away.
        """
        self._store.forget(bot, digest)

    def _digest(self, bot: str, kind: OutgoingKind, name: str, content: bytes) -> str:
        parts = f"{kind}:{hashlib.sha256(content).hexdigest()}:{name}"
        return hidden(keys_of(self._keys[bot])[0], "upload", parts)

    @contextmanager
    def _locked(self, bot: str) -> Iterator[None]:
        lock = self._locks[bot]
        if not lock.acquire(timeout=FILE_SECONDS):
            raise UploadDelayed(DELAY)
        try:
            yield
        finally:
            lock.release()

    def _uploaded(self, link: Link, file: _File, known: KnownUpload) -> str:
        """Upload a file, or continue the upload that is known; return its media_id."""
        upload = _Upload(link, file, self._store)
        try:
            if known.upload_id:
                return upload.complete(known.upload_id, known.parts)
        except UploadRefused as exc:
            # WeCom has ended the session of an earlier connection: begin anew.
            log.info("upload begins anew", extra={"bot": link.bot, "code": exc.code})
            self._store.forget(link.bot, file.digest)
        if seconds := self._allowance.upload(link.bot, file.digest):
            raise UploadDelayed(seconds)
        return upload.complete(upload.begin(), frozenset())


@dataclass(frozen=True, slots=True)
class _File:
    kind: OutgoingKind
    name: str = field(repr=False)
    content: bytes = field(repr=False)
    digest: str

    @property
    def parts(self) -> int:
        return -(-len(self.content) // PART_BYTES)


class _Upload:
    """One upload over one connection."""

    def __init__(self, link: Link, file: _File, store: UploadStore) -> None:
        self._link = link
        self._file = file
        self._store = store
        self._end = time.monotonic() + FILE_SECONDS

    def begin(self) -> str:
        """Begin a session; return its upload_id."""
        file = self._file
        md5 = hashlib.md5(file.content, usedforsecurity=False).hexdigest()
        size = {"total_size": len(file.content), "total_chunks": file.parts, "md5": md5}
        upload_id = self._command(UPLOAD_INIT, {"type": file.kind, "filename": file.name, **size}, "upload_id")
        self._store.begin(self._link.bot, file.digest, upload_id)
        return upload_id

    def complete(self, upload_id: str, have: frozenset[int]) -> str:
        """Send the parts that WeCom does not have, and end the session; return the media_id."""
        missing = [number for number in range(self._file.parts) if number not in have]
        failures: list[Exception] = []
        shares = [missing[first::IN_FLIGHT] for first in range(IN_FLIGHT)]
        threads = [
            threading.Thread(target=self._send_parts, args=(upload_id, share, failures)) for share in shares if share
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        media_id = self._command(UPLOAD_FINISH, {"upload_id": upload_id}, "media_id")
        self._store.finish(self._link.bot, self._file.digest, media_id)
        return media_id

    def _send_parts(self, upload_id: str, numbers: Sequence[int], failures: list[Exception]) -> None:
        try:
            for number in numbers:
                if failures:
                    return
                self._send_part(upload_id, number)
        except Exception as exc:
            # Raised again in the thread that waits for the parts.
            failures.append(exc)

    def _send_part(self, upload_id: str, number: int) -> None:
        if time.monotonic() > self._end:
            raise UploadDelayed(DELAY)
        piece = self._file.content[number * PART_BYTES : (number + 1) * PART_BYTES]
        data = base64.b64encode(piece).decode()
        self._command(UPLOAD_CHUNK, {"upload_id": upload_id, "chunk_index": number, "base64_data": data})
        self._store.add(self._link.bot, self._file.digest, upload_id, number)

    def _command(self, cmd: str, body: Mapping[str, Any], wanted: str = "") -> str:
        """Send a command, again if it is not acknowledged; return the acknowledgement's member `wanted`, if any."""
        for left in reversed(range(ATTEMPTS)):
            try:
                ack = self._link.request(cmd, body, seconds=PART_SECONDS)
            except AckMissing:
                if not left:
                    raise
                continue
            if ack.errcode == NOT_SUBSCRIBED:
                raise LinkLost(sent=False)
            if ack.errcode in BUSY:
                raise UploadDelayed(BUSY[ack.errcode])
            return _member(ack, wanted)
        raise AssertionError("unreachable")


def _member(ack: Ack, name: str) -> str:
    """Return a member of an acknowledgement's body.

    Raises:
        UploadRefused: the command was refused, or there is no such member.
    """
    if ack.errcode:
        raise UploadRefused(code=str(ack.errcode))
    value = ack.body.get(name, "") if name else ""
    if name and not (isinstance(value, str) and value):
        raise UploadRefused
    return value


def outgoing_kind(content: bytes) -> OutgoingKind:
    """Return the kind by the first bytes; "file" for other bytes, and for a file that is too large for its kind."""
    kind, most = _KINDS.get(recognized("", content, "file").ending, ("file", 0))
    return kind if len(content) <= most else "file"
