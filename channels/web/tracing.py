"""WSGI middleware that takes, repeats and logs the ids by which a client follows its requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.wsgi import ClosingIterator

from channels.web.plain_paths import Wsgi
from utils.tracing import enter_trace, read_trace


class RequestTraces:
    """Serves each request within its trace, up to the end of its reply. WeCom's callbacks are answered before it."""

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
