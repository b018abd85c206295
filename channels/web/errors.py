"""Maps every error to an envelope with a code of the documented table, without revealing the cause.

Health, metrics and WeCom's callbacks have their own error format: the stable code alone. A channel may have another
format for all errors below its addresses, also for those of the framework.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from math import ceil
from types import MappingProxyType

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from channels.web.next_replica import next_replica
from channels.web.rest import STORE_CODE, RestError, envelope
from config.errors import LaibaoError
from config.texts import Texts
from services.errors import StoreUnavailable

log = logging.getLogger(__name__)

#: Addresses whose errors contain only the code.
OWN_FORMAT = ("/healthz", "/health", "/readyz", "/metrics")
WECOM = "/wechat/"

UNKNOWN_CODE = 90000
#: Retry-After in seconds with 429 and 503, of errors that concern no answer.
RETRY_AFTER = "5"
#: Retry-After in seconds of answers that were refused or failed, by HTTP status; and for the rate limit, which counts
#: by the minute.
ANSWER_RETRY_AFTER = {429: 10, 503: 5}
RATE_RETRY_AFTER = 60
#: HTTP status by error code, for codes that end an answer without being the provider's failure.
OF_REASON = {
    "auth_required": 401,
    "auth_failed": 401,
    "unknown_user": 403,
    "auth_refused": 403,
    "credential_lost": 403,
    "not_allowed": 403,
    "auth_unavailable": 503,
    "store_refused": 500,
    "provider_timeout": 504,
    "answer_timeout": 504,
    "replica_full": 429,
    "user_full": 429,
    "address_blocked": 429,
    "turns_full": 429,
    "quota_used": 429,
    "draining": 503,
    "cancelled": 409,
    "id_conflict": 409,
    "push_bot_callback": 409,
    "push_conflict": 409,
    "push_limited": 429,
    "push_queue_full": 429,
}
#: HTTP status by error code, for all codes that end or prevent an answer; codes not listed have 502.
STATUS = {
    **OF_REASON,
    "provider_busy": 429,
    "rate_limited": 429,
    "http_full": 503,
    "store_unavailable": 503,
    "service_unavailable": 503,
    "stream_unknown": 404,
    "bot_unknown": 404,
    "answer_running": 409,
    "not_rateable": 409,
    "feedback_full": 503,
    "empty_question": 422,
    "form_rejected": 422,
    "form_answered": 409,
    "form_expired": 409,
    "form_gone": 409,
    "form_unsent": 409,
    "question_too_large": 413,
    "forbidden_words": 422,
    "media_too_large": 413,
    "media_wrong_type": 415,
    "media_unsupported": 422,
    "file_unknown": 422,
    "files_full": 429,
    "files_store_full": 503,
    "answer_failed": 500,
    "server_error": 500,
}

#: Returns the reply of an error in another format than the envelope.
ErrorFormat = Callable[[RestError], Response]


def register_rest_errors(
    app: Flask,
    texts: Texts,
    formats: Mapping[str, ErrorFormat] = MappingProxyType({}),
    *,
    missing: Callable[[], Response | None] = lambda: None,
) -> None:
    """Register the error handlers; `formats` are the formats of addresses, by the beginning of the address.

    `missing` returns the page for a browser at an address that does not exist, None for any other request.
    """

    def shown(error: RestError) -> Response:
        own = next((one for prefix, one in formats.items() if request.path.startswith(prefix)), refused)
        if own is refused and error.status == 404 and error.data is None:
            reply = missing() or refused(error.translated(texts))
            reply.headers.update(error.headers)
            reply.vary.add("Accept")
        else:
            reply = own(error.translated(texts))
        if error.for_another:
            reply.headers.update(next_replica(request))
        return reply

    def ours(error: LaibaoError) -> Response:
        log.warning("request failed", extra={"code": error.code, "cause": str(error), "path": request.path})
        status = status_of(error)
        if keeps_own_format(request.path):
            return _alone(error.code, status)
        code = STORE_CODE if isinstance(error, StoreUnavailable) else 0
        later = {"Retry-After": RETRY_AFTER} if status in (429, 503) else {}
        return shown(RestError(status, texts.known(error.code), code=code, reason=error.code, headers=later))

    def of_framework(error: HTTPException) -> Response | HTTPException:
        """Answer errors such as an unknown address, a wrong method or a body that is too large."""
        if error.response is not None:
            return error
        status = error.code or 500
        headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
        if keeps_own_format(request.path):
            return _alone((error.name or "error").lower().replace(" ", "_"), status, headers)
        return shown(RestError(status, headers=headers))

    def unexpected(error: Exception) -> Response:
        """Answer an unexpected exception and log its traceback."""
        log.error("unexpected error", exc_info=error)
        own = keeps_own_format(request.path)
        return _alone("unknown", 500) if own else shown(RestError(500, code=UNKNOWN_CODE))

    app.register_error_handler(RestError, shown)
    app.register_error_handler(LaibaoError, ours)
    app.register_error_handler(HTTPException, of_framework)
    app.register_error_handler(Exception, unexpected)


def status_of_code(code: str) -> int:
    return STATUS.get(code, 502)


def status_of(error: LaibaoError) -> int:
    """Return the HTTP status of an error at REST addresses."""
    return OF_REASON.get(error.code, error.status)


def retry_headers(code: str, retry_after: float = 0.0, limit: str = "") -> dict[str, str]:
    """Return the header Retry-After of an error's reply, if it has one, and those of the `limit` that is reached.

    `retry_after` is the provider's Retry-After in seconds, 0.0 when it sent none; `limit` is as of `AnswerError.limit`.
    """
    if limit:
        name, most, window, new_at = limit.split()
        left = str(max(1, ceil(float(new_at) - time.time())))
        return {
            "Retry-After": left,
            "X-RateLimit-Limit": most,
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": new_at,
            "RateLimit-Policy": f'"{name}";q={most};w={window}',
            "RateLimit": f'"{name}";r=0;t={left}',
        }
    seconds = ceil(retry_after) or (
        RATE_RETRY_AFTER if code == "rate_limited" else ANSWER_RETRY_AFTER.get(status_of_code(code))
    )
    return {"Retry-After": str(seconds)} if seconds else {}


def keeps_own_format(path: str) -> bool:
    return path in OWN_FORMAT or path.startswith(WECOM)


def refused(error: RestError) -> Response:
    """Return the reply of a `RestError` as an envelope."""
    return envelope(error.data, status=error.status, code=error.code, message=error.message, headers=error.headers)


def _alone(code: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    reply = jsonify({"code": code})
    reply.status_code = status
    reply.headers.extend(headers or {})
    return reply
