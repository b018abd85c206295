"""Tells whether a request came by the public port or by the operators' port."""

from __future__ import annotations

from flask import request


def is_for_operators(ops_port: int | None) -> bool:
    """Tell whether the request came by the operators' port; always True without such a port.

    Reads the port of the accepted socket, because the client can forge headers and values derived from them.
    """
    if ops_port is None:
        return True
    accepted = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
    try:
        return accepted is not None and accepted.getsockname()[1] == ops_port
    except OSError:
        return False
