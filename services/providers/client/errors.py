"""Maps a JSON service's error reply (status and body) to a `ProviderError`, without the service's own message.

Most services use OpenAI's envelope, `{"error": {"message", "type", "param", "code"}}`, or a part of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.errors import ProviderError
from services.http.service import TransientError
from services.providers.client.json_fields import json_object

#: Only a string of this form is taken as a code and may be logged: a sentence may quote the question.
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Codes of a 429 that waiting does not resolve: the account has to be paid.
_UNPAID = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
#: Codes of a content filter: OpenAI and Azure, Qwen, Zhipu.
_FILTERED = ("content_filter", "content_policy_violation", "data_inspection_failed", "DataInspectionFailed", "1301")
_RATE_LIMIT = ("rate_limit_exceeded", "rate_limit_error", "too_many_requests", "overloaded_error")


#: Statuses of a server that does not know a field of the request.
_UNKNOWN_FIELD = (400, 422)


class StreamOptionsUnsupported(ProviderError):
    """The server rejected the field `stream_options`, which requests the token counts, by name."""


@dataclass(frozen=True, slots=True)
class ServiceErrorReply:
    """An error reply: its HTTP status, 0 if there was none, and the codes found in its body."""

    status: int
    words: tuple[str, ...] = ()

    @classmethod
    def from_body(cls, status: int, body: bytes) -> ServiceErrorReply:
        """Parse an error body. Proxies send HTML, and any key may be missing."""
        return cls.from_envelope(json_object(body) or {}, status)

    @classmethod
    def from_envelope(cls, envelope: Mapping[str, Any], status: int = 0) -> ServiceErrorReply:
        """Read an error object, nested in `error` or not. A number in the place of its code is the status."""
        inner = envelope.get("error")
        error = inner if isinstance(inner, dict) else envelope
        code = error.get("code")
        if not status and isinstance(code, int) and 400 <= code < 600:
            status = code
        found = (error.get(name) for name in ("code", "type", "param"))
        return cls(status, tuple(word for word in found if isinstance(word, str) and _WORD.fullmatch(word)))

    def error(self, *, where: str = "", retry_after: float = 0.0) -> ProviderError:
        """Return the error to raise: a `TransientError` if the same question may succeed a moment later."""
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
        # Redirects are not followed: one means that the configured URL is wrong.
        if self.status in (404, 405) or 300 <= self.status < 400:
            return "provider_not_found"
        return "provider_rejected" if 400 <= self.status < 500 else "provider_error"

    def __str__(self) -> str:
        return " ".join((f"HTTP {self.status}" if self.status else "no status", *self.words))


def http_error(status: int, body: bytes, retry_after: float = 0.0) -> ProviderError:
    """Return the error for a reply with a status other than 200; `retry_after` is its `Retry-After` in seconds."""
    reply = ServiceErrorReply.from_body(status, body)
    if status in _UNKNOWN_FIELD and b"stream_options" in body:
        return StreamOptionsUnsupported(f"{reply} stream_options", code="provider_rejected", http_status=status)
    return reply.error(retry_after=retry_after)


def stream_error(fields: Mapping[str, Any]) -> ProviderError:
    """Return the error for an error record inside an answer's stream."""
    return ServiceErrorReply.from_envelope(fields).error(where="in the stream: ")
