"""Lets pages of allowed origins ask at REST addresses (CORS); refuses other pages by `Origin` and `Host`.

A foreign page in a user's browser reaches servers in that user's network, but cannot forge `Origin` and `Host`.
Programs send no `Origin` and are not affected. Keys are headers, so no reply ever allows cookies to be sent along.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection

from flask import Flask, Response, request

from channels.web.rest import RestError, is_for_operators
from services import metrics
from utils.origins import is_host_of, may_open
from utils.tracing import REQUEST_ID, TRACEPARENT

log = logging.getLogger(__name__)

#: Addresses where the origin is checked here; sockets check it in `admission.py`.
REST = ("/api/", "/v1/", "/alerts")
#: Addresses accepted with any `Host`: WeCom's callbacks, and probes, which use the pod's IP.
ANY_HOST = ("/wechat/callback", "/healthz", "/readyz")
#: Methods and reply headers that pages of other origins may use, and the seconds for which a browser caches them.
METHODS = "GET, HEAD, POST, DELETE"
EXPOSED = (
    f"{REQUEST_ID}, {TRACEPARENT}, Retry-After, WWW-Authenticate, Content-Disposition, Location, RateLimit, "
    "RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"
)
MAX_AGE = "600"
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1000}")
#: Maximum characters of a refused origin or host in the log.
LOGGED = 200


def keep_pages_out(app: Flask, *, origins: Collection[str], hosts: Collection[str], ops_port: int | None) -> None:
    """Refuse requests of foreign pages, and send `X-Content-Type-Options: nosniff` with all answers.

    `origins` are allowed beside the server's own; `hosts` are the allowed names of the server, empty for any. On
    `ops_port` any name is allowed, because Prometheus uses IP addresses.
    """

    def check() -> Response | None:
        host = request.headers.get("Host", "")
        if hosts and not is_host_of(host, hosts) and not _is_open(ops_port):
            raise _refused("host", 400, "This server has another name.", host)
        origin = request.headers.get("Origin")
        if origin is not None and request.path.startswith(REST) and not may_open(origin, host, origins):
            raise _refused("origin", 403, "Pages of this origin may not ask here.", origin)
        return _preflight_reply() if _is_preflight() else None

    def after(response: Response) -> Response:
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        if request.path.startswith(REST):
            response.vary.add("Origin")
            origin = request.headers.get("Origin", "")
            if may_open(origin, request.headers.get("Host", ""), origins):
                response.headers["Access-Control-Allow-Origin"] = origin
                response.headers["Access-Control-Expose-Headers"] = EXPOSED
        return response

    app.before_request(check)
    app.after_request(after)


def _is_preflight() -> bool:
    """Return whether a browser checks that a page of an allowed origin may send a request."""
    preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    return preflight and "Origin" in request.headers and request.path.startswith(REST)


def _preflight_reply() -> Response:
    # Any header may come: clients add their own (OpenAI's package does), and none of them grants anything here.
    asked = request.headers.get("Access-Control-Request-Headers", "")
    allowed = asked if _HEADER_NAMES.fullmatch(asked) else ""
    reply = Response(status=204)
    reply.headers["Access-Control-Allow-Methods"] = METHODS
    reply.headers["Access-Control-Max-Age"] = MAX_AGE
    if allowed:
        reply.headers["Access-Control-Allow-Headers"] = allowed
    reply.vary.update(("Access-Control-Request-Headers", "Access-Control-Request-Method"))
    return reply


def _is_open(ops_port: int | None) -> bool:
    path = request.path
    return path in ANY_HOST or path.startswith(f"{ANY_HOST[0]}/") or (bool(ops_port) and is_for_operators(ops_port))


def _refused(check: str, status: int, message: str, shown: str) -> RestError:
    metrics.REST_REFUSED.labels(check).inc()
    log.warning("request refused", extra={"check": check, "path": request.path[:LOGGED], check: shown[:LOGGED]})
    return RestError(status, message, reason=check)
