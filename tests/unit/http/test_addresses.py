"""AddressRules: listed hosts may be anything; all else is https and public, by the address that is connected to."""

from __future__ import annotations

import pytest

from services.errors import FetchError
from services.http.addresses import AddressRules, is_public, parsed, resolved

LISTED = (".myqcloud.com", "store.corp")


def rules(*addresses: str) -> AddressRules:
    """Return rules whose resolver answers with these addresses."""
    return AddressRules(LISTED, resolve=lambda host, port: list(addresses))


@pytest.mark.parametrize(
    "url",
    [
        "https://a.cos.ap-guangzhou.myqcloud.com/OBJECT?sign=q%2fb%3D",
        "http://store.corp/x",
        "http://store.corp:8080/x",
        "https://STORE.corp:444/x",
    ],
)
def test_a_listed_host_may_use_http_any_port_and_a_private_address(url: str) -> None:
    """It is reached by its own name, and its name is not looked up here."""
    assert rules("10.0.0.1").allowed(url).addresses == ()


@pytest.mark.parametrize(
    "url",
    [
        "http://public.example/x",
        "ftp://store.corp/x",
        "file:///etc/passwd",
        "https://user@store.corp/x",
        "https://store.corp@evil.example:x/",
        "https://store.corp\\@10.0.0.1/x",
        "https:///x",
        "https://[::1",
        "https://public.example:99999/x",
        "//store.corp/x",
        "",
        # ".name" is any host below it, not the name itself and not a longer word.
        "https://myqcloud.com/x",
        "https://evilmyqcloud.com/x",
        "https://store.corp.evil.example/x",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    """Unlisted http, other schemes, users, hosts that two parsers may read differently, and names like a listed one."""
    with pytest.raises(FetchError) as caught:
        rules("10.0.0.1").allowed(url)

    assert caught.value.code == "media_not_allowed"
    assert "store" not in str(caught.value)


def test_an_unlisted_host_is_reached_at_its_checked_addresses() -> None:
    """Private addresses among the public ones are left out; the resolver is asked once."""
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(f"{host}:{port}")
        return ["10.1.2.3", "8.8.8.8", "2606:4700::1111", "127.0.0.1"]

    target = AddressRules((), resolve=resolve).allowed("https://public.example:8443/a?b#c")

    assert target.addresses == ("8.8.8.8", "2606:4700::1111")
    assert (target.url, target.path, asked) == ("https://public.example:8443/a?b", "/a?b", ["public.example:8443"])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1",
        "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1", "fec0::1", "not one",
    ],
)  # fmt: skip
def test_private_addresses_are_not_public(address: str) -> None:
    """Also those that stand for an IPv4 address, and those of metadata services."""
    assert not is_public(address)
    with pytest.raises(FetchError) as caught:
        rules(address).allowed("https://public.example/x")
    assert caught.value.code == "media_not_allowed"


def test_public_addresses_are_public() -> None:
    """IPv4, IPv6, and IPv4 written as IPv6."""
    assert all(map(is_public, ("8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8")))


def test_a_host_that_is_an_address_is_checked_too() -> None:
    """The system's resolver returns an address as it is, also one in decimal or hexadecimal form."""
    for host in ("127.0.0.1", "[::1]", "0x7f.1", "2130706433"):
        with pytest.raises(FetchError):
            AddressRules(()).allowed(f"https://{host}/x")


def test_a_place_allows_what_is_below_it() -> None:
    """Scheme, host, port and path have to be those of the place, in whatever way dots and slashes are written."""
    place, allowed = ("http://dify.corp:5001/files/",), rules("10.0.0.1").allowed

    assert allowed("http://dify.corp:5001/files/tools/a.png?sign=x", place).path == "/files/tools/a.png?sign=x"
    for url in (
        "http://dify.corp:5001/v1/x",
        "http://dify.corp/files/x",
        "https://dify.corp:5001/files/x",
        "http://dify.corp:5001/files/../v1/x",
        "http://dify.corp:5001/files/%2e%2e/v1/x",
        "http://dify.corp:5001/files/..%2fv1",
        "http://dify.corp:5001/filesx",
    ):
        with pytest.raises(FetchError):
            allowed(url, place)


def test_a_path_is_sent_as_it_is() -> None:
    """No second encoding and no normalization: a signature covers it. Only what HTTP cannot carry is encoded."""
    assert parsed("https://store.corp/a/./b%2f?sign=q%3D&x=[1]").path == "/a/./b%2f?sign=q%3D&x=[1]"
    assert parsed("https://store.corp/图 片").path == "/%E5%9B%BE%20%E7%89%87"


def test_a_name_without_an_address_fails() -> None:
    """A name that nobody has is a failure, not a refusal."""
    with pytest.raises(FetchError) as caught:
        resolved("nobody.invalid", 443)

    assert caught.value.code == "media_failed"


def test_a_target_shows_no_path_in_its_repr() -> None:
    """The query of a signed URL is a credential."""
    assert "secret" not in repr(parsed("https://store.corp/x?sign=secret"))
