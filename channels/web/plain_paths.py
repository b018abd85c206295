"""Routes paths exactly as the client sent them, so that a proxy's path rules and the application agree."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]

#: An escaped character that needs no escape (RFC 3986, 2.3), or an escaped slash. No regular client sends one.
_DISGUISE = re.compile("%(?:2[DEF]|3[0-9]|4[1-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])", re.IGNORECASE)


class PlainPaths:
    """WSGI middleware that rewrites disguised paths to a form that no route matches."""

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
