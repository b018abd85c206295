"""Errors in OpenAI's shape: `{"error": {message, type, param, code}}`. No text of a provider is in them."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

from flask import Response

from channels.web.errors import retry_headers, status_of_code
from channels.web.rest import RestError
from config.texts import Texts

#: The addresses whose errors have this shape.
PREFIX = "/v1/"
#: OpenAI's code by our reason; other reasons are codes themselves.
CODES = {
    "auth_required": "invalid_api_key",
    "auth_failed": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
    "quota_used": "insufficient_quota",
    "question_too_large": "context_length_exceeded",
    "forbidden_words": "content_filter",
    "invalid_fields": "invalid_value",
    "media_unsupported": "unsupported_value",
    "media_too_large": "image_file_too_large",
    "media_wrong_type": "unsupported_image_media_type",
    "media_not_allowed": "invalid_image_url",
    "media_too_old": "failed_to_download_image",
    "media_failed": "failed_to_download_image",
}
#: HTTP status by our reason, where OpenAI's differs from that of the other REST addresses.
STATUS = {
    **dict.fromkeys((reason for reason in CODES if reason.startswith("media_")), 400),
    "question_too_large": 400,
    "forbidden_words": 400,
    "empty_question": 400,
    "invalid_fields": 400,
}
#: The steps of a field's path that name fields, not types of a union.
_STEP = re.compile(r"[a-z_]+|[0-9]+")


def openai_refusal(
    code: str, texts: Texts, *, sentence: str = "", retry_after: float = 0.0, limit: str = ""
) -> RestError:
    """Return the error of a code; `sentence` defaults to the text of the code.

    `retry_after` is the provider's Retry-After in seconds, 0.0 when it sent none; `limit` is as of `AnswerError.limit`.
    """
    headers = {"Cache-Control": "no-store", **retry_headers(code, retry_after, limit)}
    return RestError(status_of_code(code), sentence or texts.error(code), reason=code, headers=headers)


def invalid(message: str, param: str, *, status: int = 400, code: str = "invalid_value") -> RestError:
    """Return the error of a wrong request; `param` is the field."""
    return RestError(status, message, reason=code, data={"param": param})


def openai_error(error: RestError, texts: Texts) -> Response:
    body = json.dumps({"error": error_object(error, texts)}, ensure_ascii=False)
    return Response(body, _status(error), error.headers, mimetype="application/json")


def error_object(error: RestError, texts: Texts) -> dict[str, Any]:
    """Return the member `error` of a reply or of a stream's last chunk."""
    data, status = error.data or {}, _status(error)
    reason = data.get("reason", "")
    wrong = next(iter(data.get("errors", ())), None)
    param = _param(wrong["field"]) if wrong else data.get("param")
    message = f"{param}: {wrong['problem']}" if wrong else error.message or texts.translated(HTTPStatus(status).phrase)
    return {"message": message, "type": _type(status), "param": param, "code": CODES.get(reason, reason) or None}


def _status(error: RestError) -> int:
    return STATUS.get((error.data or {}).get("reason", ""), error.status)


def _type(status: int) -> str:
    if status >= 500:
        return "server_error"
    return "rate_limit_error" if status == 429 else "invalid_request_error"


def _param(path: str) -> str:
    """Return a field's path as OpenAI writes it, `messages[0].content`, without the types of a union."""
    steps = []
    for step in path.split("."):
        if not _STEP.fullmatch(step) or step in ("str", "list"):
            break
        steps.append(f"[{step}]" if step.isdecimal() else f".{step}")
    return "".join(steps).removeprefix(".")
