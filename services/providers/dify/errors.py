"""What Dify's refusals mean to us: status and body in, one of our errors out. Its words stay out of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.errors import ConversationGone, ProviderError
from services.http.service import TransientError

#: A body may hold a Flask suffix after these words (langgenius/dify#28481).
_GONE = "Conversation Not Exists"
_CODE = re.compile(r"[a-z0-9_]{1,64}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Dify's error envelope, read with a default for every key: `code` is "" where there was none we know to be one."""

    status: int
    code: str
    conversation_gone: bool

    @classmethod
    def from_body(cls, status: int, body: bytes) -> Refusal:
        """Read an error body; proxies answer HTML, and some Dify versions leave keys out."""
        try:
            envelope = json.loads(body)
        except (ValueError, RecursionError):
            envelope = None
        return cls.from_envelope(status, envelope if isinstance(envelope, dict) else {})

    @classmethod
    def from_envelope(cls, status: int, envelope: Mapping[str, Any]) -> Refusal:
        code, message = envelope.get("code"), envelope.get("message")
        known = code if isinstance(code, str) and _CODE.fullmatch(code) else ""
        gone = known == "conversation_completed" or (isinstance(message, str) and _GONE in message)
        return cls(status, known, gone)

    def __str__(self) -> str:
        return f"HTTP {self.status} {self.code or 'without a code'}"


def http_error(status: int, body: bytes, retry_after: float = 0.0) -> ProviderError:
    """Return our error for a reply other than 200; `retry_after` is how many seconds it asks to be left alone."""
    refusal = Refusal.from_body(status, body)
    if refusal.conversation_gone and status in (400, 404):
        return ConversationGone(str(refusal), http_status=status)
    kind = TransientError if status >= 500 or refusal.code == "too_many_requests" else ProviderError
    wait = retry_after if status >= 500 or status == 429 else 0.0
    return kind(str(refusal), code=_code_for(status), http_status=status, retry_after=wait)


def _code_for(status: int) -> str:
    if status >= 500:
        return "provider_error"
    exact = {
        401: "provider_unauthorized",
        403: "provider_unauthorized",
        404: "provider_not_found",
        429: "provider_busy",
    }
    return exact.get(status, "provider_rejected")


def stream_error(event: Mapping[str, Any]) -> ProviderError:
    """Return our error for an `error` event; since Dify 1.13 it may have neither code nor ids.

    Its codes say little: a model's failure arrives as 400 invalid_param, so none means that our request was wrong.
    """
    status = event.get("status")
    refusal = Refusal.from_envelope(status if isinstance(status, int) else 0, event)
    if refusal.conversation_gone:
        return ConversationGone(f"in the stream: {refusal}", http_status=refusal.status)
    return ProviderError(f"in the stream: {refusal}", code="provider_error", http_status=refusal.status)


def paused_error() -> ProviderError:
    """Return the error of a run that waits for somebody's approval, which cannot be given here."""
    return ProviderError("the workflow waits for a person", code="provider_paused")


def may_pass(error: ProviderError) -> bool:
    """Tell whether the same look-up may succeed a moment later: Dify was away, busy or broken, or its reply was."""
    return error.http_status in (0, 200, 429) or error.http_status >= 500
