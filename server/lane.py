"""The callbacks' own way through a worker: gunicorn's C parser reads the request, one send takes the reply.

gunicorn's request, its environ and its response cost more than all the product does for a poll: without them a worker
answers half as many again. What is not plainly a whole callback goes gunicorn's way, and gunicorn judges it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

try:
    from gunicorn_h1c import parse_request_fast  # type: ignore[import-untyped]
except ImportError:
    parse_request_fast = None

#: Bytes of the largest request that is taken here; it has to come in one piece.
MOST = 16 * 1024

#: Path, query and body of a callback to status, content type and body; None of any other path.
Answer = Callable[[str, str, bytes], tuple[int, str, bytes] | None]


class CallbackLane:
    """Answers whole requests, as bytes."""

    def __init__(self, answer: Answer, prefix: str, *, clock: Callable[[], float] = time.time) -> None:
        """Take who answers, and how the paths of callbacks begin."""
        self._answer = answer
        self._begins = f"POST {prefix}".encode()
        self._clock = clock
        self._second = -1
        self._head = ""

    @staticmethod
    def possible() -> bool:
        """Tell whether gunicorn's C parser is there."""
        return parse_request_fast is not None

    def takes(self, request: bytes) -> bool:
        """Tell whether a request begins as a callback does."""
        return request.startswith(self._begins)

    def reply(self, request: bytes) -> bytes | None:
        """Return the reply to a request that is whole and nothing but a callback; None where it is for gunicorn."""
        if not self.takes(request):
            return None
        try:
            parsed = parse_request_fast(request)
        except Exception:
            # Whatever is wrong with it, or missing, gunicorn has the words for it.
            return None
        # The parser has -1 for what a request does not say.
        plain = parsed.minor_version == 1 and not parsed.has_chunked and parsed.connection_close < 1
        whole = parsed.content_length >= 0 and len(request) == parsed.consumed + parsed.content_length
        head = request[: parsed.consumed]
        folded = b"\n " in head or b"\n\t" in head
        if not (plain and whole) or folded or parsed.get_header(b"Expect") or parsed.get_header(b"Upgrade"):
            return None
        path, _, query = parsed.path.partition(b"?")
        if b"%" in path or b"#" in parsed.path or not parsed.path.isascii():
            return None
        answer = self._answer(path.decode(), query.decode(), request[parsed.consumed :])
        return None if answer is None else self._written(*answer)

    def _written(self, status: int, kind: str, body: bytes) -> bytes:
        now = int(self._clock())
        if now != self._second:
            self._second, self._head = now, f"Server: gunicorn\r\nDate: {formatdate(now, usegmt=True)}\r\n"
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{self._head}Connection: keep-alive\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return b"".join((head.encode(), body))
