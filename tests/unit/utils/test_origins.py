"""Origins: pages of the server itself and of PUBLIC_ORIGINS may open a socket, others may not."""

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
def test_a_page_of_this_server_may_open_a_socket(origin: str, host: str) -> None:
    """The origin has the host and port of the Host header, in any case, with or without the default port."""
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
def test_a_page_of_another_origin_may_not_open_a_socket(origin: str, host: str) -> None:
    """This includes another host or port, other schemes, and values that are no origin."""
    assert not may_open(origin, host)


def test_an_allowed_origin_may_open_a_socket() -> None:
    """The host of the server does not matter; scheme, host and port of the origin must match."""
    allowed = ("https://chat.example.com", "http://intra.example:8080")

    assert may_open("https://chat.example.com:443", "10.0.0.7:5000", allowed)
    assert may_open("http://intra.example:8080", "10.0.0.7:5000", allowed)
    assert not may_open("http://chat.example.com", "10.0.0.7:5000", allowed)
    assert not may_open("http://intra.example", "10.0.0.7:5000", allowed)
    assert not may_open("https://www.chat.example.com", "10.0.0.7:5000", allowed)


def test_an_invalid_origin_matches_no_allowed_one() -> None:
    """An unreadable origin is not equal to an unreadable entry of the list."""
    assert not may_open("null", "10.0.0.7:5000", ("null", ""))


def test_an_origin_is_normalised() -> None:
    """Scheme and host are in lower case, and the port is always set."""
    assert parse_origin("HTTPS://Chat.Example.COM") == Origin("https", "chat.example.com", 443)


@pytest.mark.parametrize(
    "host", ["chat.example.com", "Chat.Example.COM:8443", "chat.example.com.", "a.b.intra", "[::1]:5000"]
)
def test_a_host_matches_a_name(host: str) -> None:
    """Port and case do not matter; a name with a leading dot matches all its subdomains."""
    assert is_host_of(host, ("chat.example.com", ".intra", "::1"))


@pytest.mark.parametrize(
    "host", ["", "evil.example", "chat.example.com.evil.example", "intra", "xintra", "[::1", "x@evil"]
)
def test_another_host_matches_no_name(host: str) -> None:
    """Text that is no host does not match either."""
    assert not is_host_of(host, ("chat.example.com", ".intra", "::1"))
