"""Maps Dify's error reply (status and body) to a `ProviderError`, without Dify's own message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.errors import ConversationGone, FormRefused, ProviderError, StreamBroken
from services.http.service import TransientError, aborted_error
from services.providers.client.json_fields import json_object
from utils.deadline import Deadline

#: Part of Dify's message. In some replies Flask appends a sentence to it (langgenius/dify#28481).
_GONE = "Conversation Not Exists"
_CODE = re.compile(r"[a-z0-9_]{1,64}")
#: Our codes by Dify's, for a form that takes no answer any more.
_FORM_ENDED = {"human_input_form_submitted": "form_answered", "human_input_form_expired": "form_expired"}


@dataclass(frozen=True, slots=True)
class DifyErrorReply:
    """Dify's error envelope. `code` is "" if the body had none that may be logged."""

    status: int
    code: str
    conversation_gone: bool

    @classmethod
    def from_body(cls, status: int, body: bytes) -> DifyErrorReply:
        """Parse an error body. Proxies send HTML, and some Dify versions leave keys out."""
        return cls.from_envelope(status, json_object(body) or {})

    @classmethod
    def from_envelope(cls, status: int, envelope: Mapping[str, Any]) -> DifyErrorReply:
        code, message = envelope.get("code"), envelope.get("message")
        known = code if isinstance(code, str) and _CODE.fullmatch(code) else ""
        gone = known == "conversation_completed" or (isinstance(message, str) and _GONE in message)
        return cls(status, known, gone)

    def __str__(self) -> str:
        return f"HTTP {self.status} {self.code or 'without a code'}"


def http_error(status: int, body: bytes, retry_after: float = 0.0) -> ProviderError:
    """Return the error for a reply with a status other than 200; `retry_after` is its `Retry-After` in seconds."""
    reply = DifyErrorReply.from_body(status, body)
    if reply.conversation_gone and status in (400, 404):
        return ConversationGone(str(reply), http_status=status)
    if reply.code in _FORM_ENDED and status == 412:
        return FormRefused(str(reply), code=_FORM_ENDED[reply.code], http_status=status)
    kind = TransientError if status >= 500 or reply.code == "too_many_requests" else ProviderError
    wait = retry_after if status >= 500 or status == 429 else 0.0
    return kind(str(reply), code=_code_for(status), http_status=status, retry_after=wait)


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
    """Return the error for an `error` event. Since Dify 1.13 the event may have neither code nor ids.

    The code is not mapped: a failure of the model arrives as 400 invalid_param, like a wrong request.
    """
    status = event.get("status")
    reply = DifyErrorReply.from_envelope(status if isinstance(status, int) else 0, event)
    if reply.conversation_gone:
        return ConversationGone(f"in the stream: {reply}", http_status=reply.status)
    return ProviderError(f"in the stream: {reply}", code="provider_error", http_status=reply.status)


#: Codes of a stream that ended before its answer did, although the run at Dify may go on.
_BREAKS = ("provider_timeout", "provider_unreachable")


def as_break(exc: ProviderError, *, running: bool) -> ProviderError:
    """Return a `StreamBroken` for an error that cut off the stream of a run in progress, else the error itself.

    After a `StreamBroken` Dify may have the answer. It has none to a question that cannot have left.
    """
    broken = exc.code in _BREAKS and running and not exc.unsent and not isinstance(exc, TransientError)
    return StreamBroken(str(exc), code=exc.code) if broken else exc


def paused_error() -> ProviderError:
    """Return the error of a run that waits for a person by other means: by e-mail, or with a form that wants files."""
    return ProviderError("the workflow waits for a person", code="provider_paused")


def no_slot(deadline: Deadline) -> ProviderError:
    """Return the error of a question that got none of the slots in time."""
    if deadline.aborted:
        return aborted_error(deadline)
    return ProviderError("too many questions in flight", code="provider_busy")
