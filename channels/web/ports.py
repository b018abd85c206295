"""Which of the ports a request came by: the one for everybody, or the operators' own."""

from __future__ import annotations

from flask import request


def is_for_operators(ops_port: int | None) -> bool:
    """Tell whether the request came by the operators' port, or there is none of their own.

    The accepted socket tells, for headers and what is derived from them are the client's word.
    """
    if ops_port is None:
        return True
    accepted = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
    try:
        return accepted is not None and accepted.getsockname()[1] == ops_port
    except OSError:
        return False
