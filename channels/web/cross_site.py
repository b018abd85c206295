"""Refuses requests of other sites' pages, by `Origin` at REST addresses, and by `Host` (DNS rebinding).

A foreign page in a user's browser reaches servers in that user's network, but cannot forge `Origin` and `Host`.
Programs send no `Origin` and are not affected.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from flask import Flask, Response, request

from channels.web.envelope import envelope
from channels.web.ports import is_for_operators
from services import metrics
from utils.origins import is_host_of, may_open

log = logging.getLogger(__name__)

#: Addresses where the origin is checked here; sockets check it in `admission.py`.
REST = ("/api/", "/v1/")
#: Addresses accepted with any `Host`: WeCom's callbacks, and probes, which use the pod's IP.
ANY_HOST = ("/wechat/callback", "/healthz", "/readyz")
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
            return _refused("host", 400, "This server has another name.", host)
        origin = request.headers.get("Origin")
        if origin is not None and request.path.startswith(REST) and not may_open(origin, host, origins):
            return _refused("origin", 403, "Pages of this origin may not ask here.", origin)
        return None

    def after(response: Response) -> Response:
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response

    app.before_request(check)
    app.after_request(after)


def _is_open(ops_port: int | None) -> bool:
    path = request.path
    return path in ANY_HOST or path.startswith(f"{ANY_HOST[0]}/") or (bool(ops_port) and is_for_operators(ops_port))


def _refused(check: str, status: int, message: str, shown: str) -> Response:
    metrics.REST_REFUSED.labels(check).inc()
    log.warning("request refused", extra={"check": check, "path": request.path[:LOGGED], check: shown[:LOGGED]})
    return envelope({"reason": check}, status=status, message=message)
