"""What keeps other people's web pages out: the page's origin at REST addresses, the host that a request names.

A browser sends a page's requests with the visitor's network and, on its word alone, `Origin` and `Host`. Programs send
no `Origin`, and pass.
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

#: Addresses that ask and change: pages elsewhere may not use them. Sockets look at the origin themselves.
REST = ("/api/", "/v1/")
#: Addresses that are reached under any name: WeCom's callbacks, and an orchestrator's probes, which use the pod's IP.
ANY_HOST = ("/wechat/callback", "/healthz", "/readyz")
#: Characters of a refused origin or host that go into the log.
LOGGED = 200


def keep_pages_out(app: Flask, *, origins: Collection[str], hosts: Collection[str], ops_port: int | None) -> None:
    """Have requests of foreign pages refused, and all answers say that their type is not to be guessed.

    `origins` are those of pages that may ask beside this server's own; `hosts` the names it is reached by, none for
    any. On the `ops_port` any name will do: Prometheus uses addresses.
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
