"""WSGI middleware: routes paths as they were sent, and handles the ids by which a client follows its requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.wsgi import ClosingIterator

from utils.tracing import enter_trace, read_trace

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]

#: An escaped character that needs no escape (RFC 3986, 2.3), or an escaped slash. No regular client sends one.
_DISGUISE = re.compile("%(?:2[DEF]|3[0-9]|4[1-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])", re.IGNORECASE)


class PlainPaths:
    """Rewrites disguised paths to a form that no route matches: a proxy's path rules and the application then agree."""

    def __init__(self, behind: Wsgi) -> None:
        self._behind = behind

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        # gunicorn and werkzeug both set RAW_URI to the request target as it was sent.
        path = environ.get("RAW_URI", "").partition("?")[0]
        if "%" in path and _DISGUISE.search(path):
            environ["PATH_INFO"] = path
        elif "//" in environ["PATH_INFO"]:
            # werkzeug drops all leading slashes but one, and redirects a path with two slashes in a row.
            environ["PATH_INFO"] = environ["PATH_INFO"].replace("//", "/%2F")
        return self._behind(environ, start_response)


class RequestTraces:
    """Serves each request within its trace, up to the end of its reply, and repeats the trace's ids in the reply.

    WeCom's callbacks are answered before it.
    """

    def __init__(self, behind: Wsgi) -> None:
        self._behind = behind

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        trace = read_trace(environ.get("HTTP_X_REQUEST_ID", ""), environ.get("HTTP_TRACEPARENT", ""))

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> object:
            return start_response(status, [*headers, *trace.headers], *error)

        former = enter_trace(trace)

        def leave() -> None:
            enter_trace(former)

        try:
            body = self._behind(environ, start)
        except BaseException:
            leave()
            raise
        return ClosingIterator(body, leave)
