"""Links to pictures of other hosts: only the server makes them, nobody reads them, and they end."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator

import pytest

from services.errors import StoreUnavailable
from services.files.delivery import LINK_SECONDS, ForeignPictures
from services.files.links import FOLDER
from services.files.reading import FileReader
from services.http.addresses import AddressRules
from services.http.fetcher import Fetcher
from tests.support.pictures import MP4, png
from tests.support.servers.processes import FakeClock
from tests.support.servers.raw_server import RawServer
from tests.unit.http.test_fetcher import ok, status
from utils.keyring import Keyring

OLD, NEW = b"o" * 32, b"n" * 32
MAX_BYTES = 10_000


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_700_000_000.0)


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    """A fetcher that allows this machine."""
    made = Fetcher(AddressRules(("127.0.0.1",)), backoff=0.0)
    yield made
    made.close()


@pytest.fixture
def pictures(fetcher: Fetcher, clock: FakeClock) -> ForeignPictures:
    return pictures_of(fetcher, clock, OLD)


def pictures_of(fetcher: Fetcher, clock: FakeClock, keys: Keyring) -> ForeignPictures:
    return ForeignPictures(keys, FileReader(fetcher), max_bytes=MAX_BYTES, clock=clock)


def token(pictures: ForeignPictures, url: str) -> str:
    return pictures.path(url).removeprefix(FOLDER)


def test_a_link_shows_the_picture_until_its_end(pictures: ForeignPictures, clock: FakeClock) -> None:
    """It is fetched each time; after its end the link is nothing, and nothing is fetched."""
    with RawServer(ok(png())) as host:
        linked = token(pictures, f"{host.url}/a.png?secret=1")
        shown = [pictures.read(linked), pictures.read(linked)]
        clock.advance(LINK_SECONDS + 1)
        late = pictures.read(linked)

    assert [(one.type, one.content) for one in shown if one] == [("image/png", png())] * 2
    assert late is None
    assert len(host.heads) == 2
    assert "secret" not in linked
    assert set(linked) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize(
    "reply",
    [
        ok(b"no picture"),
        ok(MP4),
        ok(b"<svg/>", b"Content-Type: image/svg+xml"),
        ok(png() + b"\0" * MAX_BYTES),
        status(b"404 Gone"),
    ],
    ids=["text", "video", "drawing", "too-large", "gone"],
)
def test_nothing_but_a_picture_is_shown(pictures: ForeignPictures, reply: bytes) -> None:
    """Another file, a drawing that may hold scripts, a picture that is too large, and an error."""
    with RawServer(reply) as host:
        assert pictures.read(token(pictures, f"{host.url}/a.png")) is None

    assert host.heads


def test_the_rules_of_addresses_hold_when_a_link_is_opened(pictures: ForeignPictures) -> None:
    """http to a host that is not listed is not fetched."""
    with RawServer(ok(png())) as host:
        assert pictures.read(token(pictures, host.url.replace("127.0.0.1", "localhost"))) is None

    assert host.heads == []


def changed(linked: str) -> list[str]:
    """Return the token with one bit changed, once in each of its sealed bytes."""
    sealed = urlsafe_b64decode(linked[1:] + "=" * (-len(linked[1:]) % 4))
    others = [sealed[:at] + bytes([byte ^ 1]) + sealed[at + 1 :] for at, byte in enumerate(sealed)]
    return [linked[0] + urlsafe_b64encode(other).decode().rstrip("=") for other in others]


def test_a_link_that_was_changed_opens_nothing(fetcher: Fetcher, clock: FakeClock, pictures: ForeignPictures) -> None:
    """So does one of another key; an earlier key still opens its links."""
    with RawServer(ok(png())) as host:
        linked = token(pictures, f"{host.url}/a.png")
        wrong = [*changed(linked), linked[:-2], "u", "u-", "uéé", "u" * 99]
        assert [pictures.read(one) for one in wrong] == [None] * len(wrong)
        assert pictures_of(fetcher, clock, NEW).read(linked) is None
        assert host.heads == []
        assert pictures_of(fetcher, clock, lambda: (NEW, OLD)).read(linked)


def test_without_a_link_there_is_none(fetcher: Fetcher, clock: FakeClock, pictures: ForeignPictures) -> None:
    """An address that is too long, and a key in Redis while that is away."""

    def away() -> tuple[bytes, ...]:
        raise StoreUnavailable("away")

    assert pictures.path(f"https://example.com/{'x' * 2000}") == ""
    assert pictures_of(fetcher, clock, away).path("https://example.com/a.png") == ""
