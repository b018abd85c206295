"""Turns the end of an answer into a reply: the whole answer, or an error with an HTTP status and a stable reason."""

from __future__ import annotations

from math import ceil
from typing import Any

from channels.options import ThinkingMode
from channels.thinking import text_members
from channels.waiting.statuses import retry_headers
from channels.web.errors import UNKNOWN_CODE, status_of_code
from channels.web.rest import STORE_CODE, RestError
from config.texts import Texts
from services.streams.long_text import Whole

#: Envelope codes that differ from the default of their HTTP status.
CODES = {
    "store_unavailable": STORE_CODE,
    "service_unavailable": STORE_CODE,
    "answer_failed": UNKNOWN_CODE,
    "server_error": UNKNOWN_CODE,
}
#: Bytes of the longest text a JSON reply holds in memory; a longer one is read from Redis while it is sent.
WHOLE_BYTES = 64 * 1024


def answered(
    stream_id: str, whole: Whole, *, thinking: ThinkingMode = "show", most: int = WHOLE_BYTES
) -> dict[str, Any]:
    """Return the data of a completed answer; a text longer than `most` bytes comes in slices.

    Raises:
        StreamUnknown, StoreUnavailable: a long text cannot be read to separate its thinking.
    """
    data = {
        "stream_id": stream_id,
        **text_members(whole, thinking, most),
        "status": whole.status,
        "sources": list(whole.sources),
        "files": list(whole.files),
        "suggestions": whole.suggestions,
        "usage": whole.usage.figures(),
        "metadata": whole.metadata,
    }
    return {**data, "mock": True} if whole.mock else data


def refusal(code: str, texts: Texts, *, sentence: str = "", retry_after: float = 0.0, **data: object) -> RestError:
    """Return the error reply of a code; `sentence` defaults to the text of the code.

    `retry_after` is the provider's Retry-After in seconds, 0.0 when it sent none.
    """
    told = ceil(retry_after)
    return RestError(
        status_of_code(code),
        sentence or texts.error(code),
        code=CODES.get(code, 0),
        reason=code,
        data={**data, "retry_after": told} if told else data,
        headers={"Cache-Control": "no-store", **retry_headers(code, retry_after)},
    )


def failed(
    stream_id: str,
    whole: Whole,
    sentence: str,
    texts: Texts,
    *,
    thinking: ThinkingMode = "show",
    most: int = WHOLE_BYTES,
) -> RestError:
    """Return the error reply of an answer that was not completed, with its text so far; raises what `answered` does."""
    code = "cancelled" if whole.status == "cancelled" else whole.error_code or "answer_failed"
    data: dict[str, object] = {"stream_id": stream_id, **text_members(whole, thinking, most)}
    cost = {"usage": whole.usage.known} if whole.usage.known else {}
    return refusal(code, texts, sentence=sentence, retry_after=whole.retry_after, **data, **cost)
