"""The external auth API over real HTTP: what counts as yes, what as no, and what as no answer."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from demo.mocks.auth import DEMO_USERS, DemoUser, MockAuth
from services.errors import AuthError
from services.identity.auth_api_service import MAX_ANSWER, PROVEN_SECONDS, AuthApi
from services.identity.user_store import UserRecord
from services.models import UserInfo
from tests.support.servers.processes import FakeClock, free_port, wait_until
from tests.support.servers.raw_server import RawServer

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


def test_a_right_password_brings_a_token(auth: MockAuth, api: AuthApi) -> None:
    """The API's token comes back, with a life only when the API gives one."""
    assert api.token(ZHANGSAN) == (auth.tokens[0], float("inf"))
    assert api.token(WANGWU) == (auth.tokens[1], 1.0)


def test_post_sends_json_in_the_body(auth: MockAuth, api: AuthApi) -> None:
    """By default nothing of the credentials is in the address."""
    api.token(ZHANGSAN)

    assert auth.methods == {"POST": 1}


def test_get_sends_parameters_as_the_original(auth: MockAuth) -> None:
    """With method get the same credentials travel as parameters, whatever is in them."""
    auth.users["E1001"] = DemoUser("zhangsan", "E1001", password="f@ke &密=码?")
    api = AuthApi(auth.url, method="get")

    assert api.token(UserRecord(UserInfo("E1001"), "f@ke &密=码?"))[0] == auth.tokens[0]

    api.close()
    api = AuthApi(f"{auth.url}?from=bot", method="get")
    assert api.token(UserRecord(UserInfo("E1001"), "f@ke &密=码?"))[0] == auth.tokens[1]

    assert auth.methods == {"GET": 2}
    api.close()


@pytest.mark.parametrize("method", ["get", "post"])
def test_no_password_is_logged(method: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Not even the HTTP client's own lines show a password or a token: it logs the address of damaged headers."""
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
def test_success_false_is_a_refusal(auth: MockAuth, api: AuthApi, status: int) -> None:
    """The API's own no counts with 200 and with a client error."""
    auth.says(status, {"success": False, "message": "用户名或密码错误"})

    assert code_of(api) == "auth_refused"


def test_a_wrong_password_is_a_refusal(api: AuthApi) -> None:
    """The mock refuses as the API does."""
    assert code_of(api, UserRecord(UserInfo("E1001"), "fake-wrong")) == "auth_refused"


def test_an_empty_password_is_never_sent(auth: MockAuth, api: AuthApi) -> None:
    """A user without a password is refused here: a directory might let an anonymous login pass."""
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
def test_an_answer_that_is_not_the_apis_is_no_refusal(auth: MockAuth, api: AuthApi, status: int, body: Any) -> None:
    """Anything unreadable or unexpected is an outage: nobody is let in, and nobody is told they were refused."""
    auth.says(status, body)

    assert code_of(api) == "auth_unavailable"


@pytest.mark.parametrize("given", [60, 60.0, "60"])
def test_a_life_may_be_a_number_or_its_text(auth: MockAuth, api: AuthApi, given: object) -> None:
    """expires_in counts in each of its usual forms."""
    auth.says(200, {"success": True, "data": {"token": "fake-t", "expires_in": given}})

    assert api.token(ZHANGSAN) == ("fake-t", 60.0)


def test_a_redirect_is_not_followed(auth: MockAuth, api: AuthApi) -> None:
    """Credentials go to the configured address only."""
    with MockAuth() as elsewhere:
        auth.says(307, b"", Location=elsewhere.url)

        assert code_of(api) == "auth_unavailable"

        assert not elsewhere.calls


def test_a_cookie_of_one_user_does_not_travel_with_another(auth: MockAuth, api: AuthApi) -> None:
    """The shared session keeps no cookies."""
    auth.says(200, {"success": True, "data": "fake-t"}, **{"Set-Cookie": "session=obviously-fake"})

    api.token(ZHANGSAN)
    api.token(WANGWU)

    assert "cookie" not in auth.headers


def test_a_netrc_file_adds_no_login(auth: MockAuth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the home of whoever runs the server is not sent along."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login obviously password fake\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    api = AuthApi(auth.url)

    api.token(ZHANGSAN)
    api.close()

    assert "authorization" not in auth.headers


def test_silence_ends_with_the_timeout(auth: MockAuth) -> None:
    """An API that never answers is unavailable after `timeout`."""
    auth.behaviour = "hang"
    api = AuthApi(auth.url, timeout=0.2)

    assert code_of(api) == "auth_unavailable"
    api.close()


def test_an_answer_in_drips_ends_with_the_timeout() -> None:
    """An API that sends a byte now and then does not hold us: the whole answer has a bound."""
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
    # The client hangs up in the middle: that is what it is tested for.
    with connection, suppress(ConnectionError):
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(3):
            clock.advance(4.0)
            connection.sendall(b" ")
        connection.recv(1)


@pytest.mark.parametrize("method", ["get", "post"])
def test_no_api_is_unavailable_without_a_word_of_the_credentials(method: Any) -> None:
    """A refused connection says what happened, and shows neither the password nor the address with it."""
    api = AuthApi(f"http://127.0.0.1:{free_port()}/", method=method)

    with pytest.raises(AuthError, match="no connection") as caught:
        api.token(ZHANGSAN)
    api.close()

    assert caught.value.code == "auth_unavailable"
    assert "demo-password" not in str(caught.getrepr(chain=True, style="short"))


def test_connections_are_kept_and_bounded(auth: MockAuth) -> None:
    """Thirty calls at once share the pool's connections."""
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


def test_a_full_pool_is_waited_for_within_the_timeout(auth: MockAuth) -> None:
    """With every connection in use, a call is unavailable after `timeout`."""
    api = AuthApi(auth.url, pool_size=1, timeout=0.1)

    with api._slots:
        assert code_of(api) == "auth_unavailable"

    assert not auth.calls
    api.close()


def test_check_needs_no_real_password(auth: MockAuth, api: AuthApi) -> None:
    """The first check logs in as a person who does not exist; further ones log nobody in while all is as it was."""
    for _ in range(3):
        api.check()

    assert auth.calls == {"wechatlaibao-probe": 1}


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b"oops"), (404, b"<html>"), (200, b"<html>Log in</html>"), (200, {"code": 0, "data": "t"}), (200, [])],
)
def test_check_finds_what_is_no_auth_api(auth: MockAuth, api: AuthApi, status: int, body: Any) -> None:
    """HTTP alone is not enough: a login must get the API's own answer. Once it does, all is well."""
    auth.says(status, body)
    for _ in range(2):
        with pytest.raises(AuthError):
            api.check()

    auth.says(200, {"success": False, "message": "no such user"})
    api.check()


def test_check_finds_an_api_that_broke_since(auth: MockAuth, clock: FakeClock) -> None:
    """A login that failed, another answer to HEAD, or a long time make the next check log in again."""
    api = AuthApi(auth.url, clock=clock)
    api.check()

    auth.behaviour = "error"
    api.check()
    assert code_of(api) == "auth_unavailable"
    with pytest.raises(AuthError):
        api.check()

    auth.behaviour = "normal"
    api.check()
    clock.advance(PROVEN_SECONDS + 1.0)
    auth.behaviour = "garbage"
    with pytest.raises(AuthError):
        api.check()
    api.close()


def test_check_finds_an_address_that_became_another(auth: MockAuth, api: AuthApi) -> None:
    """HEAD, which logs nobody in, has another status since: what answers may be something else."""
    api.check()
    auth.head_status = 404
    auth.behaviour = "garbage"

    with pytest.raises(AuthError):
        api.check()


def test_check_finds_an_absent_api() -> None:
    """A refused connection fails the check."""
    api = AuthApi(f"http://127.0.0.1:{free_port()}/")

    with pytest.raises(AuthError):
        api.check()
    api.close()


@pytest.mark.parametrize(
    ("behaviour", "code"), [("error", "auth_unavailable"), ("garbage", "auth_unavailable"), ("refuse", "auth_refused")]
)
def test_the_mocks_faults_are_what_they_say(auth: MockAuth, api: AuthApi, behaviour: Any, code: str) -> None:
    """Each fault of the demo's API is one of the two failures, and normal works again after it."""
    auth.behaviour = behaviour
    assert code_of(api) == code
    auth.behaviour = "normal"

    assert api.token(ZHANGSAN)


def test_the_mock_closes_while_it_keeps_somebody_waiting() -> None:
    """Closing ends a call that hangs, and the caller's with it."""
    auth = MockAuth(DEMO_USERS)
    auth.start()
    auth.behaviour = "hang"
    api = AuthApi(auth.url, timeout=60.0)
    caller = threading.Thread(target=code_of, args=(api,))
    caller.start()
    wait_until(lambda: auth.calls["E1001"])

    auth.close()

    caller.join(30.0)
    assert not caller.is_alive()
    api.close()


def test_after_a_silence_no_idle_connection_is_trusted(auth: MockAuth) -> None:
    """One call waits in vain on a connection that is forgotten on its way; the next does not."""
    api = AuthApi(auth.url, timeout=2.0)
    auth.behaviour, auth.delay = "slow", 0.6
    threads = [threading.Thread(target=api.token, args=(ZHANGSAN,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    auth.behaviour = "hang"
    assert code_of(api) == "auth_unavailable"
    auth.behaviour = "normal"

    assert api.token(ZHANGSAN)

    assert auth.accepted_connections == 3
    api.close()
