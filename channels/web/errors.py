"""Whatever goes wrong is answered in the one shape, with a code of the table and not a word of the cause.

Health, metrics and WeCom's callbacks keep a shape of their own: the stable code alone.
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

#: Addresses whose errors are the code alone.
OWN_FORMAT = ("/healthz", "/health", "/readyz", "/metrics")
WECOM = "/wechat/"

UNKNOWN_CODE = 90000
#: Seconds after which what is full or away may be asked again.
RETRY_AFTER = "5"
#: Codes of answers that are no failure of the provider, though they end one: the HTTP status they have here.
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
    """Have every error of the application answered so; `sentence` is what people read for a code, "" for nothing."""

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
    """Return the HTTP status of an error where a REST address answers it."""
    return OF_REASON.get(error.code, error.status)


def keeps_own_format(path: str) -> bool:
    return path in OWN_FORMAT or path.startswith(WECOM)


def refused(error: RestError) -> Response:
    """Return the reply of an error of ours."""
    return envelope(error.data, status=error.status, code=error.code, message=error.message, headers=error.headers)


def _http(error: HTTPException) -> Response | HTTPException:
    """Answer what the framework raised: no such address, another method, too much."""
    if error.response is not None:
        return error
    status = error.code or 500
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    if keeps_own_format(request.path):
        return _alone((error.name or "error").lower().replace(" ", "_"), status, headers)
    return envelope(status=status, headers=headers)


def _unexpected(error: Exception) -> Response:
    """Answer what nobody expected; the log has the traceback."""
    log.error("unexpected error", exc_info=error)
    return _alone("unknown", 500) if keeps_own_format(request.path) else envelope(status=500, code=UNKNOWN_CODE)


def _alone(code: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    reply = jsonify({"code": code})
    reply.status_code = status
    reply.headers.extend(headers or {})
    return reply
