"""Turns the end of an answer into a reply: the whole answer, or an error with an HTTP status and a stable reason."""

from __future__ import annotations

from math import ceil
from typing import Any

from channels.web.errors import OF_REASON, UNKNOWN_CODE
from channels.web.rest import STORE_CODE, RestError
from config.texts import Texts
from services.streams.long_text import Whole
from utils.formats.json_slices import Slices, text_member

#: HTTP status by error code, for codes that end or prevent an answer; codes not listed have 502.
STATUS = {
    **OF_REASON,
    "provider_busy": 429,
    "rate_limited": 429,
    "http_full": 503,
    "store_unavailable": 503,
    "service_unavailable": 503,
    "stream_unknown": 404,
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
    "answer_failed": 500,
    "server_error": 500,
}
#: Envelope codes that differ from the default of their HTTP status.
CODES = {
    "store_unavailable": STORE_CODE,
    "service_unavailable": STORE_CODE,
    "answer_failed": UNKNOWN_CODE,
    "server_error": UNKNOWN_CODE,
}
#: Bytes of the longest text a JSON reply holds in memory; a longer one is read from Redis while it is sent.
WHOLE_BYTES = 64 * 1024
#: Retry-After in seconds by HTTP status, and for the rate limit, which counts by the minute.
RETRY_AFTER = {429: 10, 503: 5}
RATE_RETRY_AFTER = 60


def answered(stream_id: str, whole: Whole, *, most: int = WHOLE_BYTES) -> dict[str, Any]:
    """Return the data of a completed answer; a text longer than `most` bytes comes in slices."""
    data = {
        "stream_id": stream_id,
        "content": _content(whole, most),
        "status": whole.status,
        "sources": list(whole.sources),
        "usage": whole.usage.figures(),
        "metadata": whole.metadata,
    }
    return {**data, "mock": True} if whole.mock else data


def refusal(code: str, texts: Texts, *, sentence: str = "", retry_after: float = 0.0, **data: object) -> RestError:
    """Return the error reply of a code; `sentence` defaults to the text of the code.

    `retry_after` is the provider's Retry-After in seconds, 0.0 when it sent none.
    """
    status = STATUS.get(code, 502)
    told = ceil(retry_after)
    seconds = told or (RATE_RETRY_AFTER if code == "rate_limited" else RETRY_AFTER.get(status))
    return RestError(
        status,
        sentence or texts.error(code),
        code=CODES.get(code, 0),
        reason=code,
        data={**data, "retry_after": told} if told else data,
        headers={"Cache-Control": "no-store", **({"Retry-After": str(seconds)} if seconds else {})},
    )


def failed(stream_id: str, whole: Whole, sentence: str, texts: Texts, *, most: int = WHOLE_BYTES) -> RestError:
    """Return the error reply of an answer that was not completed, with its text so far."""
    code = "cancelled" if whole.status == "cancelled" else whole.error_code or "answer_failed"
    data: dict[str, object] = {"stream_id": stream_id, "content": _content(whole, most)}
    cost = {"usage": whole.usage.known} if whole.usage.known else {}
    return refusal(code, texts, sentence=sentence, retry_after=whole.retry_after, **data, **cost)


def _content(whole: Whole, most: int) -> str | Slices:
    return text_member(whole.slices, long=whole.long is not None and whole.size > most)
