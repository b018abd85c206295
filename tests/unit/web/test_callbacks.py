"""The endpoint before the framework: which requests are callbacks, and what the channel gets of them."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.wecom.callbacks import MAX_BODY, CallbackEndpoint
from services.errors import CallbackRefused

TOO_MUCH = io.BytesIO(b" " * (MAX_BODY + 1))


class Channel:
    """Keeps what it gets; refuses or fails where a test says so."""

    def __init__(self, error: Exception | None = None) -> None:
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self._error = error

    def receive(self, bot: str, args: dict[str, str], body: bytes) -> bytes:
        self.received.append((bot, args, body))
        if self._error:
            raise self._error
        return b"sealed"


def behind(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("404 Not Found", [])
    return [b"behind"]


def post(
    endpoint: CallbackEndpoint, path: str, query: str = "", body: bytes = b"", **environ: Any
) -> tuple[str, bytes]:
    """Return the status line and the body of a reply by WSGI."""
    told: list[Any] = []
    request = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        **environ,
    }
    reply = b"".join(endpoint(request, lambda status, headers: told.extend((status, dict(headers)))))
    assert told[1].get("Content-Length", str(len(reply))) == str(len(reply))
    return told[0], reply


def endpoint_of(channel: Channel) -> CallbackEndpoint:
    return CallbackEndpoint(behind, channel, lambda error: None)


@pytest.mark.parametrize(
    ("path", "bot"),
    [
        ("/wechat/callback", "default"),
        ("/wechat/callback/hr", "hr"),
        ("/wechat/callback/default", "default"),
        ("/wechat/callback/人事", "人事"),
    ],
)
def test_a_callback_is_answered_at_the_endpoint(path: str, bot: str) -> None:
    """The bot is named by the address; the channel gets the arguments and the body as they came."""
    channel = Channel()

    assert post(endpoint_of(channel), path, "nonce=1&timestamp=2", b"{}") == ("200 OK", b"sealed")
    assert channel.received == [(bot, {"nonce": "1", "timestamp": "2"}, b"{}")]


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/wechat/callback", "GET"),
        ("/wechat/callback", "PUT"),
        ("/wechat/callback/", "POST"),
        ("/wechat/callback/hr/more", "POST"),
        ("/wechat/callbacks", "POST"),
        ("/wechat", "POST"),
        ("/", "POST"),
        ("", "POST"),
    ],
)
def test_everything_else_is_the_applications(path: str, method: str) -> None:
    """The endpoint looks at nothing but callbacks, and the lane is told that it is none."""
    channel = Channel()

    assert post(endpoint_of(channel), path, REQUEST_METHOD=method) == ("404 Not Found", b"behind")
    assert method != "POST" or endpoint_of(channel).reply(path, "", b"") is None
    assert channel.received == []


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "消"]), st.text(max_size=5)), max_size=5))
def test_arguments_are_read_as_they_were_written(pairs: list[tuple[str, str]]) -> None:
    """Escaped or not, blank or not; of a name that comes twice the first counts."""
    channel = Channel()
    pairs = [(name, value.encode("utf-8", "replace").decode()) for name, value in pairs]

    post(endpoint_of(channel), "/wechat/callback", urlencode(pairs))

    (_, args, _) = channel.received[0]
    assert {name: args[name] for name, _ in pairs} == dict(reversed(pairs))


def test_plain_arguments_mean_what_escaped_ones_do() -> None:
    """The short way of a query without escapes reads it like the long way."""
    channel, query = Channel(), "nonce=1&timestamp=2&nonce=3&empty=&bare&msg_signature=abc=="
    post(endpoint_of(channel), "/wechat/callback", query)
    post(endpoint_of(channel), "/wechat/callback", f"{query}&x={quote('%')}")

    (_, plain, _), (_, escaped, _) = channel.received
    assert {**plain, "x": "%"} == escaped
    assert (plain["nonce"], plain["bare"], plain["msg_signature"]) == ("1", "", "abc==")


@pytest.mark.parametrize(
    ("environ", "check"),
    [
        ({"CONTENT_LENGTH": str(MAX_BODY + 2)}, "body_too_large"),
        ({"CONTENT_LENGTH": "9"}, "broken_body"),
        ({"CONTENT_LENGTH": "", "wsgi.input_terminated": True, "wsgi.input": TOO_MUCH}, "body_too_large"),
    ],
)
def test_a_body_that_does_not_come_whole_is_refused(environ: dict[str, Any], check: str) -> None:
    """Too large as announced or as sent, or cut short."""
    refused: list[str] = []
    channel = Channel()
    endpoint = CallbackEndpoint(behind, channel, lambda error: refused.append(error.code))

    status, reply = post(endpoint, "/wechat/callback", body=b"{}", **environ)

    assert (status, json.loads(reply)) == ("400 Bad Request", {"code": "callback_refused"})
    assert (refused, channel.received) == ([check], [])


def test_a_body_that_nobody_announced_is_empty() -> None:
    """Without a length, and from a server that does not end the stream itself, there is nothing to read."""
    channel = Channel()
    post(endpoint_of(channel), "/wechat/callback", CONTENT_LENGTH="")

    assert channel.received == [("default", {"": ""}, b"")]


def test_a_refusal_says_nothing_of_its_cause() -> None:
    """The check that failed is for the log; the status is the error's."""
    told: list[str] = []
    endpoint = CallbackEndpoint(
        behind, Channel(CallbackRefused(code="bad_signature")), lambda error: told.append(error.code)
    )

    assert post(endpoint, "/wechat/callback") == ("400 Bad Request", b'{"code": "callback_refused"}')
    assert told == ["bad_signature"]


@pytest.mark.parametrize(
    ("query", "skew"),
    [
        ("timestamp={behind}", 700),
        ("timestamp={ahead}", -700),
        ("timestamp=%C2%B2", None),
        ("timestamp=" + "9" * 13, None),
        ("", None),
    ],
)
def test_a_refusal_is_told_with_its_bot_its_sender_and_the_clocks(query: str, skew: int | None) -> None:
    """How far the clocks are apart is known where there is a timestamp; a bot's name is cut."""
    told: list[CallbackRefused] = []
    endpoint = CallbackEndpoint(behind, Channel(CallbackRefused(code="stale_timestamp")), told.append)

    now = round(time.time())
    post(
        endpoint,
        f"/wechat/callback/{'b' * 90}",
        query.format(behind=now - 700, ahead=now + 700),
        REMOTE_ADDR="192.0.2.7",
    )

    (about,) = [dict(error.about) for error in told]
    found = about.pop("skew_seconds", None)
    assert about == {"bot": "b" * 64, "peer": "192.0.2.7"}
    assert found == skew or (skew and abs(int(str(found)) - skew) <= 60)


def test_the_lane_leaves_what_is_refused_to_wsgi() -> None:
    """The lane does not know who sent it; nothing is told twice."""
    told: list[CallbackRefused] = []
    endpoint = CallbackEndpoint(behind, Channel(CallbackRefused(code="bad_signature")), told.append)

    assert endpoint.reply("/wechat/callback", "", b"") is None
    assert told == []


def test_what_nobody_expected_is_answered_without_a_word_of_it(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the traceback, the reply a stable code."""
    status, reply = post(endpoint_of(Channel(LookupError("secret detail"))), "/wechat/callback")

    assert (status, json.loads(reply)) == ("500 Internal Server Error", {"code": "unknown"})
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info


def test_the_lane_gets_what_wsgi_gets() -> None:
    """The worker's own way to the endpoint shows the same reply."""
    channel = Channel()
    by_wsgi = post(endpoint_of(channel), "/wechat/callback/hr", "nonce=1", b"{}")
    by_lane = endpoint_of(channel).reply("/wechat/callback/hr", "nonce=1", b"{}")

    assert by_lane == (200, "text/plain; charset=utf-8", by_wsgi[1])
    assert channel.received[0] == channel.received[1]
