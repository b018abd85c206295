"""How an answer's end becomes a reply: the whole of it, or an error with a fitting status and a stable reason."""

from __future__ import annotations

from math import ceil
from typing import Any

from channels.web.errors import OF_REASON, UNKNOWN_CODE
from channels.web.rest import STORE_CODE, RestError
from config.texts import Texts
from services.streams.records import Whole
from utils.formats.json_slices import Slices, text_member

#: HTTP statuses of what can end, or prevent, an answer here, beside those of every REST address; all others are 502.
STATUS = {
    **OF_REASON,
    "provider_busy": 429,
    "rate_limited": 429,
    "http_full": 503,
    "store_unavailable": 503,
    "service_unavailable": 503,
    "stream_unknown": 404,
    "empty_question": 422,
    "question_too_large": 413,
    "answer_failed": 500,
    "server_error": 500,
}
#: Codes of the table that differ from what the status has.
CODES = {
    "store_unavailable": STORE_CODE,
    "service_unavailable": STORE_CODE,
    "answer_failed": UNKNOWN_CODE,
    "server_error": UNKNOWN_CODE,
}
#: Bytes of the longest text that a JSON reply has in one piece: a longer one is read from Redis while it is sent.
WHOLE_BYTES = 64 * 1024
#: Seconds after which it may be better, by HTTP status, and of a rate that is counted by the minute.
RETRY_AFTER = {429: 10, 503: 5}
RATE_RETRY_AFTER = 60


def answered(stream_id: str, whole: Whole, *, most: int = WHOLE_BYTES) -> dict[str, Any]:
    """Return the data of a completed answer; a text of more than `most` bytes comes in slices."""
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
    """Return the error of a code; its message is `sentence`, or else the code's own.

    `retry_after` is how many seconds the provider wants to be left alone, 0.0 where it did not say.
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
    """Return the error of an answer that ended otherwise than completed; what there was of it goes with it."""
    code = "cancelled" if whole.status == "cancelled" else whole.error_code or "answer_failed"
    data: dict[str, object] = {"stream_id": stream_id, "content": _content(whole, most)}
    cost = {"usage": whole.usage.known} if whole.usage.known else {}
    return refusal(code, texts, sentence=sentence, retry_after=whole.retry_after, **data, **cost)


def _content(whole: Whole, most: int) -> str | Slices:
    return text_member(whole.slices, long=whole.long is not None and whole.size > most)
