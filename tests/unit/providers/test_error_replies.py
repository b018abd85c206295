"""The error that a reply's status and body become; the provider tests check each status over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.http.service import TransientError
from services.providers.client.errors import ServiceErrorReply, http_error, stream_error


def test_an_error_keeps_codes_and_drops_messages() -> None:
    """A code may be logged; a message may quote the question or a key, in any field."""
    error = {
        "message": "sk-secret",
        "type": "invalid_request_error",
        "param": "messages 机密",
        "code": "you: sk-secret",
    }

    assert (
        str(ServiceErrorReply.from_body(400, json.dumps({"error": error}).encode())) == "HTTP 400 invalid_request_error"
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b'{"error": null}', b'{"error": "no"}', b'{"code": []}', b"{" * 9000, b"\xff"],
    ids=range(9),
)
def test_any_body_is_a_provider_error(body: bytes) -> None:
    """Proxies and servers may send any body with an error status."""
    assert str(http_error(418, body)) == "HTTP 418"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"error": {"code": 429}}, "provider_busy"),
        ({"error": {"code": "rate_limit_exceeded"}}, "provider_busy"),
        ({"error": {"type": "overloaded_error"}}, "provider_busy"),
        ({"error": {"type": "insufficient_quota"}}, "provider_unauthorized"),
        ({"error": {"code": 401}}, "provider_unauthorized"),
        ({"error": {"code": 503}}, "provider_error"),
        ({"error": {"code": 7}}, "provider_error"),
        ({"error": True}, "provider_error"),
    ],
    ids=range(8),
)
def test_an_error_within_a_stream_is_final(fields: dict[str, Any], code: str) -> None:
    """It has a code of its own, and is no TransientError, which would be retried."""
    error = stream_error(fields)

    assert error.code == code
    assert not isinstance(error, TransientError)
