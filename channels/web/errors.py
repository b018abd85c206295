"""Maps every error to an envelope with a code of the documented table, without revealing the cause.

Health, metrics and WeCom's callbacks have their own error format: the stable code alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from channels.web.envelope import envelope
from channels.web.rest import STORE_CODE, RestError
from services.errors import LaibaoError, StoreUnavailable

log = logging.getLogger(__name__)

#: Addresses whose errors contain only the code.
OWN_FORMAT = ("/healthz", "/health", "/readyz", "/metrics")
WECOM = "/wechat/"

UNKNOWN_CODE = 90000
#: Retry-After in seconds with 429 and 503.
RETRY_AFTER = "5"
#: HTTP status by error code, for codes that end an answer without being the provider's failure.
OF_REASON = {
    "auth_required": 401,
    "auth_failed": 401,
    "unknown_user": 403,
    "auth_refused": 403,
    "credential_lost": 403,
    "not_allowed": 403,
    "auth_unavailable": 503,
    "provider_timeout": 504,
    "answer_timeout": 504,
    "replica_full": 429,
    "user_full": 429,
    "address_blocked": 429,
    "turns_full": 429,
    "draining": 503,
    "cancelled": 409,
    "id_conflict": 409,
}


def register_rest_errors(app: Flask, sentence: Callable[[str], str] = lambda code: "") -> None:
    """Register the error handlers; `sentence` returns the text of a code, "" for none."""

    def ours(error: LaibaoError) -> Response:
        log.warning("request failed", extra={"code": error.code, "cause": str(error), "path": request.path})
        status = status_of(error)
        if keeps_own_format(request.path):
            return _alone(error.code, status)
        code = STORE_CODE if isinstance(error, StoreUnavailable) else 0
        later = {"Retry-After": RETRY_AFTER} if status in (429, 503) else {}
        message = sentence(error.code)
        return envelope({"reason": error.code}, status=status, code=code, message=message, headers=later)

    app.register_error_handler(RestError, refused)
    app.register_error_handler(LaibaoError, ours)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def status_of(error: LaibaoError) -> int:
    """Return the HTTP status of an error at REST addresses."""
    return OF_REASON.get(error.code, error.status)


def keeps_own_format(path: str) -> bool:
    return path in OWN_FORMAT or path.startswith(WECOM)


def refused(error: RestError) -> Response:
    """Return the reply of a `RestError`."""
    return envelope(error.data, status=error.status, code=error.code, message=error.message, headers=error.headers)


def _http(error: HTTPException) -> Response | HTTPException:
    """Answer the framework's errors, such as an unknown address, a wrong method or a body that is too large."""
    if error.response is not None:
        return error
    status = error.code or 500
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    if keeps_own_format(request.path):
        return _alone((error.name or "error").lower().replace(" ", "_"), status, headers)
    return envelope(status=status, headers=headers)


def _unexpected(error: Exception) -> Response:
    """Answer an unexpected exception and log its traceback."""
    log.error("unexpected error", exc_info=error)
    return _alone("unknown", 500) if keeps_own_format(request.path) else envelope(status=500, code=UNKNOWN_CODE)


def _alone(code: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    reply = jsonify({"code": code})
    reply.status_code = status
    reply.headers.extend(headers or {})
    return reply
