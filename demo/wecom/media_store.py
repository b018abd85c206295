"""WeCom's store of media: encrypted files under signed addresses that are valid for five minutes, and its faults."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, urlsplit

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from demo.mocks.http import Handler, HttpMock
from services.wecom.crypto import decode_key

#: Seconds for which an address is valid.
VALID_SECONDS = 300.0
#: Bytes between two pauses of a slow file.
PIECE = 1024


@dataclass(frozen=True)
class StoreFaults:
    """What goes wrong with one file."""

    #: The first requests that end with a reset connection, and those after them that get 503.
    resets: int = 0
    busy: int = 0
    #: An address to redirect to; "" for none.
    redirect: str = ""
    #: Seconds between two pieces of the body.
    pause: float = 0.0
    #: Whether the file is encrypted with a key that the bot does not have.
    wrong_key: bool = False
    #: Whether the address is no longer valid.
    expired: bool = False
    #: The padded length is a multiple of this; WeCom's is 32, some clients' 16.
    block: int = 32


@dataclass(frozen=True)
class _File:
    encrypted: bytes = field(repr=False)
    name: str
    faults: StoreFaults
    until: float


class MediaStore(HttpMock):
    """Keeps files encrypted, and serves them at addresses with a signature in the query."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1", *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._files: dict[str, _File] = {}
        self._secret = secrets.token_bytes(16)
        #: Requests by the file's id.
        self.requests: Counter[str] = Counter()
        #: Rules of the store that requests broke.
        self.broken: list[str] = []
        #: Called with the file's id before the body is sent; a test may block or kill here.
        self.before_body: Callable[[str], None] = lambda file_id: None
        self.listen(host, port, _StoreHandler)

    def put(self, content: bytes, aes_key: str, *, name: str = "", faults: StoreFaults | None = None) -> str:
        """Keep a file for a bot; return its address. `name` is what `Content-Disposition` says, "" for none."""
        faults, file_id = faults or StoreFaults(), secrets.token_hex(16)
        key = secrets.token_bytes(32) if faults.wrong_key else decode_key(aes_key)
        until = 0.0 if faults.expired else self._clock() + VALID_SECONDS
        with self._lock:
            self._files[file_id] = _File(encrypt_media(content, key, block=faults.block), name, faults, until)
        # Percent-encoded as in the documentation's sample: a client that encodes it again breaks it.
        return f"{self.address}/{file_id}?sign={quote(f'q-sign={self._sign(file_id)}&x=%', safe='')}"

    def find(self, file_id: str, sign: str) -> _File | None:
        """Return a file whose address is valid now."""
        with self._lock:
            file = self._files.get(file_id)
            self.requests[file_id] += 1
        valid = file is not None and sign == f"q-sign={self._sign(file_id)}&x=%" and self._clock() < file.until
        return file if valid else None

    def _sign(self, file_id: str) -> str:
        return hmac.new(self._secret, file_id.encode(), hashlib.sha1).hexdigest()


def encrypt_media(content: bytes, key: bytes, *, block: int = 32) -> bytes:
    """Encrypt a file as WeCom does: AES-256-CBC, IV = the key's first 16 bytes, padded; neither prefix nor length."""
    count = block - len(content) % block
    return Cipher(AES(key), CBC(key[:16])).encryptor().update(content + bytes([count]) * count)


class _StoreHandler(Handler):
    mock: MediaStore
    timeout = 60.0

    def post(self) -> None:
        self.send(405, b"")

    def get(self) -> None:
        store, address = self.mock, urlsplit(self.path)
        file_id = address.path.strip("/")
        if "Content-Type" in self.headers:
            store.broken.append("a GET with Content-Type")
            self.send(400, b"<Error><Code>InvalidArgument</Code></Error>", "application/xml")
            return
        file = store.find(file_id, parse_qs(address.query).get("sign", [""])[0])
        if file is None:
            self.send(403, b"<Error><Code>AccessDenied</Code></Error>", "application/xml")
        elif not self._fails(file, store.requests[file_id]):
            self._send_file(file, file_id)

    def _fails(self, file: _File, request: int) -> bool:
        """Play the faults that come instead of the file; return whether one did."""
        if request <= file.faults.resets:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif request <= file.faults.resets + file.faults.busy:
            self.send(503, b"")
        elif file.faults.redirect:
            self.send(302, b"", headers={"Location": file.faults.redirect})
        else:
            return False
        return True

    def _send_file(self, file: _File, file_id: str) -> None:
        named = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.name)}"} if file.name else {}
        length = {"Content-Length": str(len(file.encrypted))}
        self.send_head(200, {"Content-Type": "application/octet-stream", **length, **named})
        self.mock.before_body(file_id)
        if not file.faults.pause:
            self.wfile.write(file.encrypted)
            return
        for start in range(0, len(file.encrypted), PIECE):
            self.wfile.write(file.encrypted[start : start + PIECE])
            if self.mock.closing.wait(file.faults.pause):
                return
