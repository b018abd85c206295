"""A message leaves once, for a listed host or a group's robot, and the simulator's side checks it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.mocks.group_robot import MockGroupRobot
from demo.wecom.responses import ResponseServer
from services.errors import ProviderError
from services.wecom.markdown_service import WECOM_HOST, MarkdownRefused, MarkdownService
from tests.support.servers.processes import free_port
from tests.support.servers.raw_server import RawServer, dripping
from utils.deadline import Deadline

URL = f"https://{WECOM_HOST}/cgi-bin/aibot/response?response_code=x"


@pytest.fixture
def server() -> Iterator[ResponseServer]:
    with ResponseServer() as server:
        yield server


@pytest.fixture
def service() -> Iterator[MarkdownService]:
    service = MarkdownService(("127.0.0.1",), backoff=0.0)
    yield service
    service.close()


@pytest.mark.parametrize(
    ("url", "hosts", "allowed"),
    [
        (URL, (WECOM_HOST,), True),
        (URL, (), False),
        (URL, ("wecom.example.com",), False),
        (URL.replace("https", "http"), (WECOM_HOST,), False),
        (URL.replace(WECOM_HOST, f"{WECOM_HOST}:8443"), (WECOM_HOST,), False),
        (URL.replace(WECOM_HOST, f"{WECOM_HOST}:443"), (WECOM_HOST,), True),
        (URL.replace("response?", "other?"), (WECOM_HOST,), False),
        (URL.replace(WECOM_HOST, f"me@{WECOM_HOST}"), (WECOM_HOST,), False),
        (URL.replace(WECOM_HOST, f"{WECOM_HOST}.example.com"), (WECOM_HOST,), False),
        ("http://wecom.example.com:8080/any/path", ("wecom.example.com",), True),
        ("http://WeCom.example.com/", (".example.com",), True),
        ("http://127.0.0.1:80/", ("127.0.0.1",), True),
        ("http://[::1]:80/", ("::1",), True),
        ("ftp://wecom.example.com/", ("wecom.example.com",), False),
        ("http://wecom.example.com:port/", ("wecom.example.com",), False),
        ("", (WECOM_HOST, ".", "127.0.0.1"), False),
    ],
)
def test_only_listed_hosts_are_allowed(url: str, hosts: tuple[str, ...], allowed: bool) -> None:
    """WeCom's own host takes https, its port and its path only; any other that is listed takes all of them."""
    assert MarkdownService(hosts).allows(url) is allowed


def test_a_message_follows_the_documented_rules(server: ResponseServer, service: MarkdownService) -> None:
    """It is JSON with msgtype markdown, on one POST."""
    service.post(server.url_for("once"), "**十天**")

    (post,) = server.of("once")
    assert (post.content, post.broken) == ("**十天**", ())


def test_each_message_has_a_connection_of_its_own(service: MarkdownService) -> None:
    """This server never closes: a kept connection would be used again, and could break under the next message."""
    with RawServer(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"errcode":0}', hang=True) as server:
        for _ in range(2):
            service.post(server.url, "十天")

    assert len(server.heads) == 2


class UntilItListens(MarkdownService):
    """Starts the server after the first attempt has failed."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1",), backoff=0.0)
        self._port = port
        self.servers: list[ResponseServer] = []

    def _post(self, url: str, content: str, deadline: Deadline) -> None:
        try:
            super()._post(url, content, deadline)
        except ProviderError:
            self.servers.append(ResponseServer(self._port).start())
            raise


def test_an_attempt_that_could_not_connect_is_repeated() -> None:
    """Nothing has left, so the message is sent as soon as the server listens."""
    port = free_port()
    service = UntilItListens(port)

    service.post(f"http://127.0.0.1:{port}/cgi-bin/aibot/response?response_code=late", "十天")

    (server,) = service.servers
    assert [post.content for post in server.posts] == ["十天"]
    service.close()
    server.close()


def test_the_error_of_a_server_that_never_listens_has_no_address(service: MarkdownService) -> None:
    """The error names neither the address nor its code."""
    with pytest.raises(ProviderError) as caught:
        service.post(f"http://127.0.0.1:{free_port()}/?response_code=secret", "十天")

    assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", b"garbage\r\n\r\n"])
def test_a_message_that_left_is_not_sent_again(service: MarkdownService, reply: bytes) -> None:
    """Without a proper reply it is unknown whether the message counts, so no other follows. No error has the code."""
    with RawServer(reply) as server, pytest.raises(ProviderError) as caught:
        service.post(f"{server.url}/?response_code=secret", "十天")

    assert (len(server.heads), caught.value.unsent) == (1, False)
    assert "secret" not in f"{caught.value!r}{caught.value.__cause__!r}"


@pytest.mark.parametrize(("errcode", "status", "cause"), [(93000, 200, "errcode 93000"), (0, 500, "HTTP 500")])
def test_a_robot_that_refuses_is_not_sent_the_message_again(
    service: MarkdownService, errcode: int, status: int, cause: str
) -> None:
    """The robot gets Markdown, and may have shown it all the same."""
    with MockGroupRobot() as robot:
        service.post(robot.url, "**您好**")
        robot.errcode, robot.status = errcode, status
        with pytest.raises(MarkdownRefused, match=cause):
            service.post(robot.url, "一")

        assert (robot.messages[0], robot.requests) == ("**您好**", 2)


def test_a_handshake_that_fails_is_repeated(service: MarkdownService) -> None:
    """TLS failed before the request: nothing has left."""
    with RawServer(b"this is not TLS") as server, pytest.raises(ProviderError) as caught:
        service.post(f"{server.url.replace('http:', 'https:')}/?response_code=x", "十天")

    assert (len(server.heads), caught.value.unsent) == (4, True)


def test_a_silent_server_is_given_up() -> None:
    """The whole message has a time limit, and is not repeated after it."""
    service = MarkdownService(("127.0.0.1",), total_seconds=0.2)
    with RawServer(b"", hang=True) as server, pytest.raises(ProviderError):
        service.post(server.url, "十天")

    assert len(server.heads) <= 1


def test_a_reply_that_comes_byte_by_byte_is_given_up() -> None:
    """Each byte comes in time for a socket's timeout; the limit for the whole message ends it."""
    service = MarkdownService(("127.0.0.1",), total_seconds=0.2)
    with dripping() as (port, given_up):
        with pytest.raises(ProviderError):
            service.post(f"http://127.0.0.1:{port}/?response_code=x", "十天")
        in_time = not given_up.is_set()

    assert in_time


def test_redirects_are_not_followed(service: MarkdownService, server: ResponseServer) -> None:
    """A redirect is a failure: the text would go to a host that nobody listed."""
    with ResponseServer() as other:
        server.status, server.location = 307, other.url_for("elsewhere")
        with pytest.raises(ProviderError, match="HTTP 307"):
            service.post(server.url_for("once"), "十天")

        assert (len(server.posts), other.posts) == (1, [])
