"""Which origins may open a socket: the server's own pages', those of PUBLIC_ORIGINS, and nobody else's."""

from __future__ import annotations

import pytest

from utils.origins import Origin, is_host_of, may_open, parse_origin


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:5000", "127.0.0.1:5000"),
        ("https://chat.example.com", "chat.example.com"),
        ("https://chat.example.com", "chat.example.com:443"),
        ("https://chat.example.com:443", "chat.example.com"),
        ("http://chat.example.com", "chat.example.com:80"),
        ("https://Chat.Example.com", "chat.EXAMPLE.com"),
        ("http://[::1]:5000", "[::1]:5000"),
        ("https://[2001:db8::1]", "[2001:DB8::1]"),
    ],
)
def test_a_page_of_this_server_may(origin: str, host: str) -> None:
    """An origin with the host and port of the Host header is the server's own, whichever way they are spelt."""
    assert may_open(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "chat.example.com"),
        ("https://chat.example.com.evil.example", "chat.example.com"),
        ("https://evilchat.example.com", "chat.example.com"),
        ("http://chat.example.com:8080", "chat.example.com"),
        ("https://chat.example.com", "chat.example.com:80"),
        ("http://chat.example.com", "chat.example.com:443"),
        ("https://chat.example.com@evil.example", "chat.example.com"),
        ("https://user@chat.example.com", "chat.example.com"),
        ("https://chat.example.com, https://evil.example", "chat.example.com"),
        ("https://chat.example.com/path", "chat.example.com"),
        ("https://chat.example.com:notaport", "chat.example.com"),
        ("https://chat.example.com:0", "chat.example.com"),
        ("https://[::1", "[::1"),
        ("null", "null"),
        ("", ""),
        ("https://", ""),
        ("chat.example.com", "chat.example.com"),
        ("file://chat.example.com", "chat.example.com"),
        ("ws://chat.example.com", "chat.example.com"),
    ],
)
def test_a_foreign_page_may_not(origin: str, host: str) -> None:
    """Another host, another port, no page at all or no origin at all: nothing of it is the server's own."""
    assert not may_open(origin, host)


def test_an_allowed_origin_may() -> None:
    """A page of PUBLIC_ORIGINS may open a socket wherever it is served; its scheme and port count."""
    allowed = ("https://chat.example.com", "http://intra.example:8080")

    assert may_open("https://chat.example.com:443", "10.0.0.7:5000", allowed)
    assert may_open("http://intra.example:8080", "10.0.0.7:5000", allowed)
    assert not may_open("http://chat.example.com", "10.0.0.7:5000", allowed)
    assert not may_open("http://intra.example", "10.0.0.7:5000", allowed)
    assert not may_open("https://www.chat.example.com", "10.0.0.7:5000", allowed)


def test_what_is_no_origin_matches_no_allowed_one() -> None:
    """An origin nobody can read is not taken for an entry nobody can read."""
    assert not may_open("null", "10.0.0.7:5000", ("null", ""))


def test_an_origin_has_one_spelling() -> None:
    """Host in lower case, the default port written out."""
    assert parse_origin("HTTPS://Chat.Example.COM") == Origin("https", "chat.example.com", 443)


@pytest.mark.parametrize(
    "host", ["chat.example.com", "Chat.Example.COM:8443", "chat.example.com.", "a.b.intra", "[::1]:5000"]
)
def test_a_host_of_the_names_is_known(host: str) -> None:
    """Whatever its port and case; a name with a dot before it stands for all below it."""
    assert is_host_of(host, ("chat.example.com", ".intra", "::1"))


@pytest.mark.parametrize(
    "host", ["", "evil.example", "chat.example.com.evil.example", "intra", "xintra", "[::1", "x@evil"]
)
def test_another_host_is_not(host: str) -> None:
    """Nor is what names no host."""
    assert not is_host_of(host, ("chat.example.com", ".intra", "::1"))
