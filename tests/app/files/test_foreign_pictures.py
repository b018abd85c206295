"""Pictures of other hosts in answers on the chat socket: fetched by the gateway, never by the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from demo.mocks.dify.server import MockDify
from tests.support.pictures import png
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.raw_server import RawServer
from tests.support.sockets.chat_room import ChatSocket
from tests.unit.http.test_fetcher import ok, status

PICTURE = re.compile(r'<a class="picture" href="([^"]+)"[^>]*><img src="(/files/[\w.-]+)" alt="([^"]*)"></a>')


@pytest.fixture
def server(redis_url: str, dify: MockDify) -> Iterator[AppServer]:
    settings = dify_settings(dify.base_url, WEBSOCKET_AUTH="none", MEDIA_HOSTS="127.0.0.1")
    with AppServer(redis_url, **settings) as server:
        yield server


def answered(server: AppServer, text: str) -> dict[str, Any]:
    """Return the whole answer that repeats this text, as HTML."""
    socket = ChatSocket(server.url)
    frames = socket.sees_end(socket.asks(f"{text} [[echo]]", render="html"))
    socket.leaves()
    return dict(frames[-2])


def downloaded(server: AppServer, link: str) -> requests.Response:
    return requests.get(server.url + link, timeout=30)


def test_a_picture_of_another_host_is_shown_by_the_gateway(server: AppServer) -> None:
    """As a picture in a link to where it is; the text stays the provider's."""
    with RawServer(ok(png())) as host:
        url = f"{host.url}/图 1.png?a=1&b=2".replace(" ", "%20")
        frame = answered(server, f'看![一"座<房子]({url})。')

    ((address, link, words),) = PICTURE.findall(frame["html"])
    assert (frame["content"], words) == (f'看![一"座<房子]({url})。', "一&quot;座&lt;房子")
    assert address == url.replace("图", "%E5%9B%BE").replace("&", "&amp;")
    assert downloaded(server, link).content == png()
    assert [one["url"] for one in frame["files"]] == [link]


@pytest.mark.parametrize("reply", [ok(b"no picture"), status(b"404 Gone")])
def test_a_picture_that_cannot_be_had_stays_a_link(server: AppServer, reply: bytes) -> None:
    """The picture in the link is none, so the page shows its words."""
    with RawServer(reply) as host:
        frame = answered(server, f"![房子]({host.url}/a.png)")

    ((address, link, words),) = PICTURE.findall(frame["html"])
    assert (address, words) == (f"{host.url}/a.png", "房子")
    assert "files" not in frame
    assert downloaded(server, link).status_code == 404


@pytest.mark.parametrize("address", ["http://localhost:{port}/a.png", "https://10.0.0.1/a.png"])
def test_private_addresses_are_not_fetched(server: AppServer, address: str) -> None:
    """The rules are those of media: https and a public address, or a listed host."""
    with RawServer(ok(png())) as host:
        frame = answered(server, f"![房子]({address.format(port=host.url.rpartition(':')[2])})")

    assert "files" not in frame


def test_pictures_in_code_and_links_are_left(server: AppServer) -> None:
    with RawServer(ok(png())) as host:
        code = answered(server, f"`![房子]({host.url}/a.png)` [站]({host.url}/b.png)")

    assert "<img" not in code["html"]
    assert "files" not in code
