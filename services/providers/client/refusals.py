"""What the refusals of a JSON service mean to us: status and body in, one of our errors out, without its sentences.

Most services use OpenAI's envelope, `{"error": {"message", "type", "param", "code"}}`, or a part of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.errors import ProviderError
from services.http.service import TransientError

#: What is taken for a code, and may be logged; a sentence, which may quote the question, is not.
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: 429s that no waiting mends: somebody has to pay.
_UNPAID = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
#: How OpenAI and Azure, Qwen, and Zhipu say that a filter refused the question.
_FILTERED = ("content_filter", "content_policy_violation", "data_inspection_failed", "DataInspectionFailed", "1301")
_RATE_LIMIT = ("rate_limit_exceeded", "rate_limit_error", "too_many_requests", "overloaded_error")


#: How servers refuse a field they do not know.
_NOT_KNOWN = (400, 422)


class StreamOptionsRefused(ProviderError):
    """The server does not know the field by which tokens are asked for, and says so by its name."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal's status, 0 where there was none, and the words that tell which it is."""

    status: int
    words: tuple[str, ...] = ()

    @classmethod
    def from_body(cls, status: int, body: bytes) -> Refusal:
        """Read an error body; proxies answer HTML, and any key may be missing."""
        try:
            envelope = json.loads(body)
        except (ValueError, RecursionError):
            envelope = None
        return cls.from_envelope(envelope if isinstance(envelope, dict) else {}, status)

    @classmethod
    def from_envelope(cls, envelope: Mapping[str, Any], status: int = 0) -> Refusal:
        """Read an error object, within `error` or by itself; a number in place of its code is its status."""
        inner = envelope.get("error")
        error = inner if isinstance(inner, dict) else envelope
        code = error.get("code")
        if not status and isinstance(code, int) and 400 <= code < 600:
            status = code
        found = (error.get(name) for name in ("code", "type", "param"))
        return cls(status, tuple(word for word in found if isinstance(word, str) and _WORD.fullmatch(word)))

    def error(self, *, where: str = "", retry_after: float = 0.0) -> ProviderError:
        """Return our error for it; one that the same question may survive a moment later is a `TransientError`."""
        passing = self.status >= 500 or (self.status == 429 and not self._names(_UNPAID))
        kind = TransientError if passing and not where else ProviderError
        wait = retry_after if passing else 0.0
        return kind(f"{where}{self}", code=self._code, http_status=self.status, retry_after=wait)

    def _names(self, words: tuple[str, ...]) -> bool:
        return any(word in words for word in self.words)

    @property
    def _code(self) -> str:
        if self._names(_UNPAID):
            return "provider_unauthorized"
        if self._names(_FILTERED):
            return "provider_filtered"
        if self.status == 429 or self._names(_RATE_LIMIT):
            return "provider_busy"
        if self.status in (401, 402, 403):
            return "provider_unauthorized"
        # A redirect, which is not followed, means that the address is wrong.
        if self.status in (404, 405) or 300 <= self.status < 400:
            return "provider_not_found"
        return "provider_rejected" if 400 <= self.status < 500 else "provider_error"

    def __str__(self) -> str:
        return " ".join((f"HTTP {self.status}" if self.status else "no status", *self.words))


def http_error(status: int, body: bytes, retry_after: float = 0.0) -> ProviderError:
    """Return our error for a reply other than 200; `retry_after` is how many seconds it asks to be left alone."""
    refusal = Refusal.from_body(status, body)
    if status in _NOT_KNOWN and b"stream_options" in body:
        return StreamOptionsRefused(f"{refusal} stream_options", code="provider_rejected", http_status=status)
    return refusal.error(retry_after=retry_after)


def stream_error(fields: Mapping[str, Any]) -> ProviderError:
    """Return our error for an error that came within the stream of an answer."""
    return Refusal.from_envelope(fields).error(where="in the stream: ")
