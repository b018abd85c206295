"""The callbacks' fast path: the requests it accepts, those it leaves to gunicorn, and its replies."""

from __future__ import annotations

from importlib.metadata import version
from inspect import signature
from typing import Any

import pytest
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import Unreader
from gunicorn.workers.ggevent import GeventWorker
from hypothesis import given
from hypothesis import strategies as st

from server.fast_path import FastPath, Serving
from tests.support.servers.processes import FakeClock

gunicorn_h1c = pytest.importorskip("gunicorn_h1c", reason="the fast path needs gunicorn's parser in C")

HEAD = b"POST /wechat/callback?nonce=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
WHOLE = HEAD + b"\r\n{}"


#: The releases that the fast path was written for, and their parts that server/fast_path.py uses.
NEEDED = "gunicorn 27.0 and gunicorn_h1c 0.6"
PARSED = ("minor_version", "has_chunked", "connection_close", "content_length", "consumed", "path", "get_header")
SIGNATURES = {"handle_request": "listener_name req sock addr", "handle_error": "req client addr exc", "timeout_ctx": ""}


class Handler:
    """Answers callbacks, except those of the path …/nobody, and records the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, bytes]] = []

    def __call__(self, path: str, query: str, body: bytes) -> tuple[int, str, bytes] | None:
        self.calls.append((path, query, body))
        return None if path.endswith("/nobody") else (200, "text/plain", "密".encode())


def missing_parts() -> list[str]:
    """Return the names that the fast path uses and the installed gunicorn lacks."""
    if not FastPath.possible():
        return ["gunicorn_h1c.parse_request_fast"]
    parsed = gunicorn_h1c.parse_request_fast(WHOLE)
    has: dict[str, Any] = {name: hasattr(parsed, name) for name in PARSED}
    has |= {name: hasattr(Unreader, name) for name in ("take_buffered", "unread")}
    has |= {name: hasattr(RequestParser, name) for name in ("finish_body", "__next__")}
    has |= {"mesg": hasattr(RequestParser(None, iter([]), None), "mesg")}
    has |= {"should_close": hasattr(RequestParser.mesg_class, "should_close")}
    for name, parameters in SIGNATURES.items():
        method = getattr(GeventWorker, name, None)
        has[name] = method is not None and list(signature(method).parameters)[1:] == parameters.split()
    return [name for name, is_there in has.items() if not is_there]


def test_the_fast_path_fits_the_installed_gunicorn() -> None:
    """Every part of gunicorn that it uses exists; the failure names the releases it was written for."""
    installed = f"gunicorn {version('gunicorn')} with gunicorn_h1c {version('gunicorn_h1c')}"

    assert not (missing := missing_parts()), (
        f"the callbacks' fast path needs {NEEDED}, but {installed} lacks {', '.join(missing)}: "
        "adapt server/fast_path.py, or set server.fast_path.ENABLED to False until that is done"
    )
    assert set(SIGNATURES) <= set(vars(Serving))
    assert FastPath(Handler(), "/wechat/callback").reply(WHOLE), f"the fast path needs {NEEDED}, not {installed}"


def test_a_complete_callback_gets_a_complete_reply() -> None:
    """Head and body are one byte string; the length counts bytes, and the connection is kept."""
    handler, clock = Handler(), FakeClock(1_000_000_000.0)
    fast_path = FastPath(handler, "/wechat/callback", clock=clock)

    assert fast_path.reply(WHOLE) == (
        b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: Sun, 09 Sep 2001 01:46:40 GMT\r\nConnection: keep-alive\r\n"
        b"Content-Type: text/plain\r\nContent-Length: 3\r\n\r\n" + "密".encode()
    )
    assert handler.calls == [("/wechat/callback", "nonce=1", b"{}")]
    clock.advance(1)
    assert b"01:46:41" in (fast_path.reply(WHOLE) or b"")


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        WHOLE[:-1],
        HEAD,
        WHOLE + b"P",
        WHOLE + WHOLE,
        WHOLE.replace(b"POST", b"PUT"),
        WHOLE.replace(b"POST", b"post"),
        WHOLE.replace(b"/wechat/callback", b"/api/chat"),
        WHOLE.replace(b"/wechat/callback", b"/wechat/callback/nobody"),
        WHOLE.replace(b"callback", b"callback/%68r"),
        WHOLE.replace(b"nonce", b"#nonce"),
        WHOLE.replace(b"callback", "callback/人".encode()),
        WHOLE.replace(b"nonce", "消".encode()),
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        WHOLE.replace(b"HTTP/1.1", b"HTTP/2.0"),
        WHOLE.replace(b"Host: x", b"Connection: close"),
        WHOLE.replace(b"Host: x", b"Connection: keep-alive, close"),
        WHOLE.replace(b"Host: x", b"Expect: 100-continue"),
        WHOLE.replace(b"Host: x", b"Connection: Upgrade\r\nUpgrade: websocket"),
        WHOLE.replace(b"Host: x", b"Content-Length: 2"),
        WHOLE.replace(b"Host: x", b"Transfer-Encoding: chunked"),
        WHOLE.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked"),
        WHOLE.replace(b"Content-Length: 2", b"Content-Length: +2"),
        WHOLE.replace(b"Content-Length: 2", b"Content-Length : 2"),
        WHOLE.replace(b"Content-Length: 2\r\n", b""),
        WHOLE.replace(b"Host: x", b"Ho st: x"),
        WHOLE.replace(b"Host: x", b"Host: x\r\n folded"),
    ],
)
def test_other_requests_are_left_to_gunicorn(request_: bytes) -> None:
    """The handler is not called, except for the path that only it can reject."""
    handler = Handler()

    assert FastPath(handler, "/wechat/callback").reply(request_) is None
    assert [path for path, _, _ in handler.calls if not path.endswith("/nobody")] == []


@given(st.binary(max_size=200), st.integers(0, len(HEAD)))
def test_no_bytes_raise_an_error_in_the_fast_path(noise: bytes, at: int) -> None:
    """Any bytes are either answered or left to gunicorn."""
    reply = FastPath(Handler(), "/wechat/callback").reply(HEAD[:at] + noise + WHOLE[at:])

    assert reply is None or reply.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_reply_has_the_handlers_status() -> None:
    """A handler that returns 400 makes the status line `400 Bad Request`."""
    fast_path = FastPath(lambda *request: (400, "application/json", b"{}"), "/wechat/callback")

    assert (fast_path.reply(WHOLE) or b"").startswith(b"HTTP/1.1 400 Bad Request\r\n")
