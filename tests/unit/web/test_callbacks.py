"""The callback endpoint before Flask: the requests that are callbacks, and the arguments that the channel gets."""

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
from server.requests import BodyBroken
from services.errors import CallbackRefused


class Broken(io.BytesIO):
    """A body that ends within a chunk, or whose client has gone."""

    def read(self, size: int | None = -1) -> bytes:
        raise BodyBroken


#: A body without a length, which the server ends.
IN_CHUNKS = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}


def spaces(size: int) -> io.BytesIO:
    return io.BytesIO(b" " * size)


class Channel:
    """A channel that records the callbacks, and raises the given error."""

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
    response: list[Any] = []
    request = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        **environ,
    }
    reply = b"".join(endpoint(request, lambda status, headers: response.extend((status, dict(headers)))))
    assert response[1].get("Content-Length", str(len(reply))) == str(len(reply))
    return response[0], reply


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
def test_a_callback_is_passed_to_the_channel(path: str, bot: str) -> None:
    """The address names the bot; the channel gets the arguments and the body unchanged."""
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
def test_other_requests_go_to_the_application(path: str, method: str) -> None:
    """The application behind answers other requests, and `reply` returns None for them."""
    channel = Channel()

    assert post(endpoint_of(channel), path, REQUEST_METHOD=method) == ("404 Not Found", b"behind")
    assert method != "POST" or endpoint_of(channel).reply(path, "", b"") is None
    assert channel.received == []


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "消"]), st.text(max_size=5)), max_size=5))
def test_arguments_are_decoded(pairs: list[tuple[str, str]]) -> None:
    """Escaped or not, blank or not; of a repeated name the first value is used."""
    channel = Channel()
    pairs = [(name, value.encode("utf-8", "replace").decode()) for name, value in pairs]

    post(endpoint_of(channel), "/wechat/callback", urlencode(pairs))

    (_, args, _) = channel.received[0]
    assert {name: args[name] for name, _ in pairs} == dict(reversed(pairs))


def test_plain_arguments_are_read_like_escaped_ones() -> None:
    """A query without escapes, which is parsed in a shorter way, gives the same arguments."""
    channel, query = Channel(), "nonce=1&timestamp=2&nonce=3&empty=&bare&msg_signature=abc=="
    post(endpoint_of(channel), "/wechat/callback", query)
    post(endpoint_of(channel), "/wechat/callback", f"{query}&x={quote('%')}")

    (_, plain, _), (_, escaped, _) = channel.received
    assert {**plain, "x": "%"} == escaped
    assert (plain["nonce"], plain["bare"], plain["msg_signature"]) == ("1", "", "abc==")


@pytest.mark.parametrize(
    ("environ", "check"),
    [
        ({"CONTENT_LENGTH": str(MAX_BODY + 2), "wsgi.input": Broken()}, "body_too_large"),
        ({"CONTENT_LENGTH": str(MAX_BODY + 1), "wsgi.input": spaces(MAX_BODY + 1)}, "body_too_large"),
        ({"CONTENT_LENGTH": "9"}, "broken_body"),
        ({**IN_CHUNKS, "wsgi.input": spaces(MAX_BODY + 1)}, "body_too_large"),
        ({**IN_CHUNKS, "wsgi.input": Broken()}, "broken_body"),
    ],
    ids=["announced, and not read", "sent", "incomplete", "in chunks", "broken chunks"],
)
def test_an_incomplete_or_too_large_body_is_rejected(environ: dict[str, Any], check: str) -> None:
    """The announced length or the body is too large, or the body is cut short."""
    refused: list[str] = []
    channel = Channel()
    endpoint = CallbackEndpoint(behind, channel, lambda error: refused.append(error.code))

    status, reply = post(endpoint, "/wechat/callback", body=b"{}", **environ)

    assert (status, json.loads(reply)) == ("400 Bad Request", {"code": "callback_refused"})
    assert (refused, channel.received) == ([check], [])


def test_the_largest_body_is_read() -> None:
    """A body of exactly `MAX_BODY` is passed to the channel."""
    channel = Channel()

    post(endpoint_of(channel), "/wechat/callback", body=b" " * MAX_BODY)

    assert [len(body) for _, _, body in channel.received] == [MAX_BODY]


def test_a_body_without_a_length_is_read_as_empty() -> None:
    """Without a length nothing is read, unless the server ends the input itself."""
    channel = Channel()
    post(endpoint_of(channel), "/wechat/callback", CONTENT_LENGTH="")

    assert channel.received == [("default", {"": ""}, b"")]


def test_the_reply_to_a_rejected_callback_has_no_cause() -> None:
    """The failed check goes to the log; the status is that of the error.

    The fast path does not know the sender: it leaves the callback to WSGI, which reports the error.
    """
    reported: list[str] = []
    endpoint = CallbackEndpoint(
        behind, Channel(CallbackRefused(code="bad_signature")), lambda error: reported.append(error.code)
    )

    assert endpoint.reply("/wechat/callback", "", b"") is None
    assert reported == []
    assert post(endpoint, "/wechat/callback") == ("400 Bad Request", b'{"code": "callback_refused"}')
    assert reported == ["bad_signature"]


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
def test_a_rejected_callback_is_reported_with_bot_sender_and_skew(query: str, skew: int | None) -> None:
    """The skew is known if there is a timestamp; the bot's name is cut to 64 characters."""
    reported: list[CallbackRefused] = []
    endpoint = CallbackEndpoint(behind, Channel(CallbackRefused(code="stale_timestamp")), reported.append)

    now = round(time.time())
    post(
        endpoint,
        f"/wechat/callback/{'b' * 90}",
        query.format(behind=now - 700, ahead=now + 700),
        REMOTE_ADDR="192.0.2.7",
    )

    (about,) = [dict(error.about) for error in reported]
    skew_found = about.pop("skew_seconds", None)
    assert about == {"bot": "b" * 64, "peer": "192.0.2.7"}
    assert skew_found == skew or (skew and abs(int(str(skew_found)) - skew) <= 60)


def test_an_unexpected_error_is_not_quoted_in_the_reply(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the traceback, the reply a stable code."""
    status, reply = post(endpoint_of(Channel(LookupError("secret detail"))), "/wechat/callback")

    assert (status, json.loads(reply)) == ("500 Internal Server Error", {"code": "unknown"})
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info


def test_the_fast_path_replies_as_wsgi_does() -> None:
    """The worker's fast path returns the same reply as a WSGI request."""
    channel = Channel()
    by_wsgi = post(endpoint_of(channel), "/wechat/callback/hr", "nonce=1", b"{}")
    by_lane = endpoint_of(channel).reply("/wechat/callback/hr", "nonce=1", b"{}")

    assert by_lane == (200, "text/plain; charset=utf-8", by_wsgi[1])
    assert channel.received[0] == channel.received[1]
