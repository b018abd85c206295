"""Fetcher: what is fetched, what is tried again, and which error each failure becomes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from services.errors import FetchError, ProviderError
from services.http.addresses import AddressRules, Target, parsed
from services.http.fetcher import Fetched, Fetcher
from tests.support.servers.processes import free_port, when
from tests.support.servers.raw_server import RawServer, self_signed
from utils.deadline import Deadline


def ok(body: bytes = b"bytes", *headers: bytes, length: int | None = None) -> bytes:
    announced = b"Content-Length: %d" % (len(body) if length is None else length)
    return b"\r\n".join((b"HTTP/1.1 200 OK", announced, *headers, b"", body))


def status(line: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 " + line, b"Content-Length: 0", *headers, b"", b""))


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    """A fetcher that allows this machine."""
    made = Fetcher(AddressRules(("127.0.0.1",)), backoff=0.0)
    yield made
    made.close()


def fetched(fetcher: Fetcher, url: str, seconds: float = 60.0, max_bytes: int = 100) -> Fetched:
    return fetcher.fetch(url, Deadline(seconds), max_bytes)


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(FetchError) as caught:
        call()
    assert "127.0.0.1" not in str(caught.value)
    return caught.value.code


def test_a_file_is_fetched_with_its_name(fetcher: Fetcher) -> None:
    """The path is sent unchanged, and without a Content-Type, which WeCom's store answers with 400."""
    head = (b"Content-Type: Image/PNG; x=y", b"Content-Disposition: attachment; filename*=UTF-8''%E5%9B%BE.png")
    with RawServer(ok(b"bytes", *head)) as server:
        file = fetched(fetcher, f"{server.url}/a/./b%2f?sign=q%3d")

    assert file == Fetched(b"bytes", "图.png", "image/png")
    assert server.heads[0].startswith(b"GET /a/./b%2f?sign=q%3d HTTP/1.1\r\n")
    assert b"content-type" not in server.heads[0].lower()


@pytest.mark.parametrize("first", [b"", status(b"503 Busy"), status(b"429 Slow"), ok(b"by", length=5)])
def test_a_failure_that_may_pass_is_tried_three_times(fetcher: Fetcher, first: bytes) -> None:
    """None, one that breaks before or within the body, 429 and 5xx; the third reply counts."""
    with RawServer(first, first, ok()) as server:
        assert fetched(fetcher, server.url).content == b"bytes"
    with RawServer(first) as failing:
        assert code_of(lambda: fetched(fetcher, failing.url)) == "media_failed"
    assert code_of(lambda: fetched(fetcher, f"http://127.0.0.1:{free_port()}/")) == "media_failed"

    assert (len(server.heads), len(failing.heads)) == (3, 3)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"401 No", "media_too_old"),
        (b"403 Expired", "media_too_old"),
        (b"404 Gone", "media_too_old"),
        (b"410 Gone", "media_too_old"),
        (b"400 Bad", "media_failed"),
    ],
)
def test_a_refused_address_is_not_tried_again(fetcher: Fetcher, line: bytes, code: str) -> None:
    """A store refuses an address whose five minutes are over."""
    with RawServer(status(line)) as server:
        assert code_of(lambda: fetched(fetcher, server.url)) == code

    assert len(server.heads) == 1


@pytest.mark.parametrize(
    "reply",
    [
        ok(b"x" * 101),
        ok(b"", length=101),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101,
    ],
)
def test_a_file_that_is_too_large_is_not_read_on(fetcher: Fetcher, reply: bytes) -> None:
    """By its announced length or while it arrives; the server never ends these bodies."""
    with RawServer(reply, hang=True) as server:
        assert code_of(lambda: fetched(fetcher, server.url)) == "media_too_large"

    assert len(server.heads) == 1


def test_a_file_of_exactly_the_limit_is_fetched(fetcher: Fetcher) -> None:
    """The limit is the largest size that is allowed."""
    with RawServer(ok(b"x" * 100)) as server:
        assert len(fetched(fetcher, server.url).content) == 100


def test_redirects_are_followed_a_few_times(fetcher: Fetcher) -> None:
    """Also relative ones; the fourth is one too many."""
    around = status(b"302 Found", b"Location: /next?a=b")
    with RawServer(around, around, around, ok()) as server:
        assert fetched(fetcher, f"{server.url}/first").content == b"bytes"
    with RawServer(around) as circle:
        assert code_of(lambda: fetched(fetcher, circle.url)) == "media_failed"

    assert server.heads[3].startswith(b"GET /next?a=b ")
    assert len(circle.heads) == 4


@pytest.mark.parametrize(
    "place", ["http://localhost:%d/", "https://localhost:%d/", "file:///etc/passwd", "http://[::1]:%d/"]
)
def test_a_redirect_is_checked_like_the_first_address(fetcher: Fetcher, place: str) -> None:
    """A listed host cannot lead into the private network: nothing connects there."""
    with RawServer(ok(b"secret")) as inner:
        port = int(inner.url.rpartition(":")[2])
        there = (place % port if "%" in place else place).encode()
        with RawServer(status(b"302 Found", b"Location: " + there)) as server:
            assert code_of(lambda: fetched(fetcher, server.url)) == "media_not_allowed"

    assert inner.heads == []


def test_a_reply_that_drips_ends_with_the_deadline(fetcher: Fetcher) -> None:
    """A head that never ends, and a body that comes byte by byte."""
    for reply in (b"HTTP/1.1 200 OK\r\nX: ", ok(b"x", length=50)):
        with RawServer(reply, hang=True) as server:
            assert code_of(lambda: fetched(fetcher, server.url, seconds=0.1)) == "media_failed"


def test_an_abort_ends_the_fetch(fetcher: Fetcher) -> None:
    """A cancelled question waits for no download, nor for the pause between two tries."""
    slow = Fetcher(AddressRules(("127.0.0.1",)), backoff=300.0)
    for one, reply in ((fetcher, ok(b"x", length=50)), (slow, status(b"503 Busy"))):
        deadline = Deadline(600.0)
        with RawServer(reply, hang=True) as server:
            when(lambda: server.heads, lambda: deadline.abort("cancelled"))  # noqa: B023
            with pytest.raises(ProviderError) as caught:
                one.fetch(server.url, deadline, 100)
        assert caught.value.code == "interrupted"
    slow.close()


class Pinned(AddressRules):
    """Rules as if the name had been resolved to this address."""

    def allowed(self, url: str, also: Collection[str] = ()) -> Target:
        target = parsed(url)
        return Target(target.scheme, target.host, target.port, target.path, ("127.0.0.1",))


def test_an_unlisted_host_is_reached_at_the_checked_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The name, which nobody could resolve now, is only in the Host header and in the certificate."""
    tls, trusted = self_signed(tmp_path, "public.invalid")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    fetcher = Fetcher(Pinned(()), backoff=0.0)
    with RawServer(ok(), tls=tls) as server:
        port = server.url.rpartition(":")[2]
        assert fetched(fetcher, f"https://public.invalid:{port}/x").content == b"bytes"
        wrong = f"https://other.invalid:{port}/x"
        assert code_of(lambda: fetched(fetcher, wrong)) == "media_failed"

    assert f"Host: public.invalid:{port}\r\n".encode() in server.heads[0]


def test_a_place_is_allowed_for_one_fetch(fetcher: Fetcher) -> None:
    """`also` names places beside the listed hosts; a redirect out of the place is refused."""
    unlisted = Fetcher(AddressRules(()), backoff=0.0)
    with RawServer(ok(), status(b"302 Found", b"Location: /v1/x")) as server:
        also = (f"{server.url}/files/",)
        assert unlisted.fetch(f"{server.url}/files/a", Deadline(60.0), 100, also=also).content == b"bytes"
        with pytest.raises(FetchError) as caught:
            unlisted.fetch(f"{server.url}/files/a", Deadline(60.0), 100, also=also)
    unlisted.close()

    assert caught.value.code == "media_not_allowed"


def test_many_fetches_leave_no_timer(fetcher: Fetcher) -> None:
    """The thread that ends a fetch in time ends with the fetch."""
    before = threading.enumerate()
    with RawServer(ok()) as server:
        for _ in range(5):
            fetched(fetcher, server.url)

    timers = [one for one in threading.enumerate() if isinstance(one, threading.Timer) and one not in before]
    assert all(one.finished.is_set() for one in timers)
