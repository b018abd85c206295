"""Pages and REST answers shrink on the way to who can unpack them; event streams and WeCom's callbacks never do."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Flask, Response, request
from flask_compress import Compress

from channels.web.envelope import SlicedResponse
from channels.web.errors import keeps_own_format

#: What is compressed. No event streams: a piece of one would wait in the compressor for the next.
MEDIA = (
    *("text/html", "text/css", "text/javascript", "text/csv", "application/x-ndjson"),
    *("application/json", "application/schema+json"),
)
ALGORITHMS = ("br", "gzip")
#: Bytes below which compression saves no packet.
MIN_BYTES = 500
#: Bytes compressed at one go: some milliseconds in which nothing else of the process runs.
SLICE = 64 * 1024


def compress_answers(app: Flask) -> None:
    """Have every answer of the application compressed that is worth it, and its caches told."""
    settings = {
        "COMPRESS_REGISTER": False,
        "COMPRESS_MIMETYPES": MEDIA,
        "COMPRESS_MIN_SIZE": MIN_BYTES,
        "COMPRESS_ALGORITHM": ALGORITHMS,
        "COMPRESS_ALGORITHM_STREAMING": ALGORITHMS,
    }
    app.config.update(settings)
    compress = Compress(app)

    def after(response: Response) -> Response:
        if response.mimetype not in MEDIA or keeps_own_format(request.path) or request.method == "OPTIONS":
            return response
        if isinstance(response, SlicedResponse):
            return response
        if not _unpacks():
            response.vary.add("Accept-Encoding")
            return response
        if not _is_long(response):
            return compress.after_request(response)
        response.response = _slices(response.get_data())
        compressed = compress.after_request(response)
        # The library does not ask whether the client has it already, of what comes in slices.
        compressed.make_conditional(request)
        return compressed

    app.after_request(after)


def _is_long(response: Response) -> bool:
    """Tell whether it is to be compressed piece by piece, with others served in between."""
    if response.is_streamed or response.direct_passthrough or response.status_code != 200:
        return False
    return (response.content_length or 0) > SLICE and request.method == "GET"


def _unpacks() -> bool:
    """Tell whether the client takes one of ours; the library does not see that a quality of 0 refuses."""
    accepted = request.accept_encodings
    return accepted.best_match(ALGORITHMS) is not None and all(quality > 0 for _, quality in accepted)


def _slices(content: bytes) -> Iterator[bytes]:
    for begin in range(0, len(content), SLICE):
        yield content[begin : begin + SLICE]
        time.sleep(0)
