"""The external auth API over real HTTP: which replies grant a token, refuse the user, or count as an outage."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from demo.mocks.auth import DemoUser, MockAuth
from services.errors import AuthError
from services.identity.auth_api_service import MAX_ANSWER, PROVEN_SECONDS, AuthApi
from services.identity.user_store import UserRecord
from services.models import UserInfo
from tests.support.servers.processes import FakeClock, free_port
from tests.support.servers.raw_server import RawServer, received

ZHANGSAN = UserRecord(UserInfo("E1001"), "demo-password")
WANGWU = UserRecord(UserInfo("E1002"), "demo-password")


@pytest.fixture
def auth() -> Iterator[MockAuth]:
    with MockAuth() as mock:
        yield mock


@pytest.fixture
def api(auth: MockAuth) -> Iterator[AuthApi]:
    client = AuthApi(auth.url, timeout=10.0)
    yield client
    client.close()


def code_of(api: AuthApi, record: UserRecord = ZHANGSAN) -> str:
    with pytest.raises(AuthError) as caught:
        api.token(record)
    assert record.password not in str(caught.value) or not record.password
    return caught.value.code


def test_a_right_password_returns_a_token(auth: MockAuth, api: AuthApi) -> None:
    """The token's life is the API's `expires_in`, and infinite without it. The credentials are in no URL by default."""
    assert api.token(ZHANGSAN) == (auth.tokens[0], float("inf"))
    assert api.token(WANGWU) == (auth.tokens[1], 1.0)
    assert auth.methods == {"POST": 2}


def test_get_sends_the_credentials_as_parameters(auth: MockAuth) -> None:
    """With method get, as in the original, any characters are escaped, and the URL's own query is kept."""
    auth.users["E1001"] = DemoUser("zhangsan", "E1001", password="f@ke &密=码?")
    for number, url in enumerate((auth.url, f"{auth.url}?from=bot")):
        api = AuthApi(url, method="get")
        assert api.token(UserRecord(UserInfo("E1001"), "f@ke &密=码?"))[0] == auth.tokens[number]
        api.close()

    assert auth.methods == {"GET": 2}


@pytest.mark.parametrize("method", ["get", "post"])
def test_no_password_is_logged(method: Any, caplog: pytest.LogCaptureFixture) -> None:
    """urllib3 logs the URL of a reply with damaged headers: its parameters, with GET the password, are cut off."""
    body = b'{"success": true, "data": "fake-token"}'
    damaged = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nno header\r\n\r\n%s" % (len(body), body)
    with RawServer(damaged) as server, caplog.at_level(logging.DEBUG):
        api = AuthApi(f"{server.url}/auth/login", method=method)
        api.token(ZHANGSAN)
        logging.getLogger("urllib3.connection").debug("a line with %(what)s", {"what": "names"})
        api.close()

    assert "/auth/login" in caplog.text
    assert "a line with names" in caplog.text
    assert "demo-password" not in caplog.text
    assert "fake-token" not in caplog.text


@pytest.mark.parametrize("status", [200, 400, 401, 403])
def test_success_false_is_auth_refused(auth: MockAuth, api: AuthApi, status: int) -> None:
    """`"success": false` is `auth_refused` with status 200 and with client errors; so is the mock's wrong password."""
    assert code_of(api, UserRecord(UserInfo("E1001"), "fake-wrong")) == "auth_refused"
    auth.says(status, {"success": False, "message": "用户名或密码错误"})

    assert code_of(api) == "auth_refused"


def test_an_empty_password_is_never_sent(auth: MockAuth, api: AuthApi) -> None:
    """A user without a password is refused here, because a directory may accept it as an anonymous login."""
    assert code_of(api, UserRecord(UserInfo("E1001"), "")) == "auth_refused"
    assert not auth.calls


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"<html>Login</html>"),
        (200, b"\xff\xfe\xff"),
        (200, b"[" * 60_000),
        (200, {"success": True, "data": "t", "more": "x" * MAX_ANSWER}),
        (200, []),
        (200, "true"),
        (200, {}),
        (200, {"success": 1, "data": "t"}),
        (200, {"success": "true", "data": "t"}),
        (200, {"success": "false"}),
        (200, {"success": True}),
        (200, {"success": True, "data": None}),
        (200, {"success": True, "data": ""}),
        (200, {"success": True, "data": 7}),
        (200, {"success": True, "data": {}}),
        (200, {"success": True, "data": {"token": ["t"]}}),
        (200, {"success": True, "data": " padded"}),
        (200, {"success": True, "data": "two\r\nlines"}),
        (200, {"success": True, "data": "令牌"}),
        (200, {"success": True, "data": "t" * 4097}),
        (200, {"success": True, "data": {"token": "t", "expires_in": 0}}),
        (200, {"success": True, "data": {"token": "t", "expires_in": -5}}),
        (200, {"success": True, "data": {"token": "t", "expires_in": "soon"}}),
        (200, {"success": True, "data": {"token": "t", "expires_in": True}}),
        (200, {"success": True, "data": {"token": "t", "expires_in": float("nan")}}),
        (200, {"success": True, "data": {"token": "t", "expires_in": []}}),
        (201, {"success": True, "data": "t"}),
        (302, {"success": True, "data": "t"}),
        (401, b"<html>proxy</html>"),
        (404, {"error": "Not Found"}),
        (429, {"success": False}),
        (500, {"success": False}),
        (500, {"success": True, "data": "t"}),
        (502, b"Bad Gateway"),
    ],
)
def test_an_unexpected_reply_is_an_outage(auth: MockAuth, api: AuthApi, status: int, body: Any) -> None:
    """A reply that is not in the API's form is `auth_unavailable`: it neither grants a token nor refuses the user."""
    auth.says(status, body)

    assert code_of(api) == "auth_unavailable"


@pytest.mark.parametrize("given", [60, 60.0, "60"])
def test_expires_in_may_be_a_number_or_a_string(auth: MockAuth, api: AuthApi, given: object) -> None:
    """An integer, a float and a string of digits give the same life in seconds."""
    auth.says(200, {"success": True, "data": {"token": "fake-t", "expires_in": given}})

    assert api.token(ZHANGSAN) == ("fake-t", 60.0)


def test_a_redirect_is_not_followed(auth: MockAuth, api: AuthApi) -> None:
    """Credentials are sent to the configured URL only."""
    with MockAuth() as other:
        auth.says(307, b"", Location=other.url)

        assert code_of(api) == "auth_unavailable"

        assert not other.calls


def test_a_silent_api_times_out(auth: MockAuth) -> None:
    """An API that does not reply is unavailable after `timeout` seconds."""
    auth.behaviour = "hang"
    api = AuthApi(auth.url, timeout=0.1)

    assert code_of(api) == "auth_unavailable"
    api.close()


def test_a_slow_reply_times_out() -> None:
    """The timeout bounds the whole reply: single bytes that arrive now and then do not prolong it."""
    clock = FakeClock()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        drip = threading.Thread(target=_drip, args=(listener, clock))
        drip.start()
        api = AuthApi(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=10.0, clock=clock)

        with pytest.raises(AuthError, match="the total time is over"):
            api.token(ZHANGSAN)

        api.close()
        drip.join(30.0)
        assert not drip.is_alive()


def _drip(listener: socket.socket, clock: FakeClock) -> None:
    connection, _ = listener.accept()
    # The client closes the connection before the reply is complete, as the test expects.
    with connection, suppress(ConnectionError):
        received(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(3):
            clock.advance(4.0)
            connection.sendall(b" ")
        connection.recv(1)


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_refused_connection_shows_no_credentials(method: Any) -> None:
    """The error names the cause, and neither it nor its chain shows the password or a URL that contains it."""
    api = AuthApi(f"http://127.0.0.1:{free_port()}/", method=method)

    with pytest.raises(AuthError, match="no connection") as caught:
        api.token(ZHANGSAN)
    with pytest.raises(AuthError):
        api.check()
    api.close()

    assert caught.value.code == "auth_unavailable"
    assert "demo-password" not in str(caught.getrepr(chain=True, style="short"))


def test_connections_are_kept_and_bounded(auth: MockAuth) -> None:
    """30 calls at once share the 4 connections of the pool."""
    auth.behaviour, auth.delay = "slow", 0.02
    api = AuthApi(auth.url, pool_size=4, timeout=30.0)
    threads = [threading.Thread(target=api.token, args=(ZHANGSAN,)) for _ in range(30)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)

    assert auth.calls == {"E1001": 30}
    assert auth.accepted_connections <= 4
    api.close()


def test_a_call_waits_for_a_slot_within_the_timeout(auth: MockAuth) -> None:
    """While every connection is in use, a call ends as `auth_unavailable` after `timeout` seconds."""
    api = AuthApi(auth.url, pool_size=1, timeout=0.1)

    with api._slots:
        assert code_of(api) == "auth_unavailable"

    assert not auth.calls
    api.close()


def test_check_needs_no_real_password(auth: MockAuth, api: AuthApi) -> None:
    """The first check logs in as a user who does not exist; later ones send only HEAD while its status is the same."""
    for _ in range(3):
        api.check()

    assert auth.calls == {"wechatlaibao-probe": 1}


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b"oops"), (404, b"<html>"), (200, b"<html>Log in</html>"), (200, {"code": 0, "data": "t"}), (200, [])],
)
def test_check_detects_a_service_that_is_no_auth_api(auth: MockAuth, api: AuthApi, status: int, body: Any) -> None:
    """The check fails until a login gets a reply in the API's own form."""
    auth.says(status, body)
    for _ in range(2):
        with pytest.raises(AuthError):
            api.check()

    auth.says(200, {"success": False, "message": "no such user"})
    api.check()


def test_check_detects_an_api_that_failed_since(auth: MockAuth, clock: FakeClock) -> None:
    """A failed login, PROVEN_SECONDS since the last proper reply, and another status of HEAD: it logs in again."""
    api = AuthApi(auth.url, clock=clock)
    api.check()

    auth.behaviour = "error"
    api.check()
    assert code_of(api) == "auth_unavailable"
    with pytest.raises(AuthError):
        api.check()

    changes: list[Callable[[], object]] = [
        lambda: clock.advance(PROVEN_SECONDS + 1.0),
        lambda: setattr(auth, "head_status", 404),
    ]
    for change in changes:
        auth.behaviour = "normal"
        api.check()
        auth.behaviour = "garbage"
        api.check()
        change()
        with pytest.raises(AuthError):
            api.check()
    api.close()
