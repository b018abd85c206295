"""Compresses pages and REST answers for clients that accept it; never event streams or WeCom's callbacks."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Flask, Response, request
from flask_compress import Compress

from channels.web.errors import keeps_own_format
from channels.web.rest import SlicedResponse

#: The media types to compress. Not event streams: the compressor would hold back an event until the next one.
MEDIA = (
    *("text/html", "text/css", "text/javascript", "text/csv", "application/x-ndjson"),
    *("application/json", "application/schema+json"),
)
ALGORITHMS = ("br", "gzip")
#: Bytes below which compression does not save a packet.
MIN_BYTES = 500
#: Bytes compressed at a time: takes some milliseconds, during which no other greenlet runs.
SLICE = 64 * 1024


def compress_answers(app: Flask) -> None:
    """Compress the application's answers of at least `MIN_BYTES`, and set `Vary` for caches."""
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
        # Flask-Compress does not handle conditional requests for streamed answers.
        compressed.make_conditional(request)
        return compressed

    app.after_request(after)


def _is_long(response: Response) -> bool:
    """Tell whether to compress in slices, so that other greenlets run in between."""
    if response.is_streamed or response.direct_passthrough or response.status_code != 200:
        return False
    return (response.content_length or 0) > SLICE and request.method == "GET"


def _unpacks() -> bool:
    """Tell whether the client accepts one of our algorithms; Flask-Compress ignores that q=0 means "not accepted"."""
    accepted = request.accept_encodings
    return accepted.best_match(ALGORITHMS) is not None and all(quality > 0 for _, quality in accepted)


def _slices(content: bytes) -> Iterator[bytes]:
    for begin in range(0, len(content), SLICE):
        yield content[begin : begin + SLICE]
        time.sleep(0)
