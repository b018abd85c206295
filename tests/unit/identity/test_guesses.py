"""Wrong credentials are counted per address, in bounded memory, and block only the address they came from."""

from __future__ import annotations

import logging

import pytest

from services.errors import AddressBlocked
from services.identity.guesses import Guesses
from tests.support.servers.processes import FakeClock

ADDRESS, OTHER_ADDRESS = "203.0.113.7", "198.51.100.9"


def blocked(guesses: Guesses, ip: str) -> float:
    """Return for how many seconds an address is still blocked; 0.0 if it is not."""
    try:
        guesses.check(ip, "caller", "wrong")
    except AddressBlocked as exc:
        return exc.seconds
    return 0.0


def test_an_address_is_blocked_until_its_window_ends() -> None:
    """The window begins with the first failure; other addresses are not blocked."""
    clock = FakeClock()
    guesses = Guesses(most=2, window=60.0, clock=clock)

    guesses.failed(ADDRESS, "caller", "wrong")
    before = blocked(guesses, ADDRESS)
    clock.advance(20)
    guesses.failed(ADDRESS, "admin", "wrong")

    assert (before, blocked(guesses, ADDRESS), blocked(guesses, OTHER_ADDRESS)) == (0.0, 40.0, 0.0)
    clock.advance(40)
    assert blocked(guesses, ADDRESS) == 0.0
    guesses.failed(ADDRESS, "caller", "wrong")
    assert blocked(guesses, ADDRESS) == 0.0


@pytest.mark.parametrize(
    ("guessing", "other", "is_blocked"),
    [("2001:db8::1", "2001:db8::ffff", True), ("2001:db8::1", "2001:db8:1::1", False), ("", "", False)],
)
def test_ipv6_addresses_are_counted_by_network(guessing: str, other: str, is_blocked: bool) -> None:
    """A client with one address of an IPv6 network usually has all of them; clients without a known one are many."""
    guesses = Guesses(most=1)

    guesses.failed(guessing, "caller", "wrong")

    assert bool(blocked(guesses, other)) is is_blocked


def test_beyond_the_limit_the_oldest_address_is_dropped() -> None:
    """This bounds memory against an attacker with many addresses."""
    guesses = Guesses(most=1, addresses=3)

    for number in range(4):
        guesses.failed(f"203.0.113.{number}", "caller", "wrong")

    assert [bool(blocked(guesses, f"203.0.113.{number}")) for number in range(4)] == [False, True, True, True]


def test_a_block_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The warning has the address, the kind of credential and the window's seconds."""
    guesses = Guesses(most=2)

    for _ in range(5):
        guesses.failed(ADDRESS, "admin", "wrong")

    (line,) = [record for record in caplog.records if record.name == "services.identity.guesses"]
    assert (line.levelno, line.message) == (logging.WARNING, "address blocked")
    assert vars(line).items() >= {"address": ADDRESS, "kind": "admin", "seconds": 60.0}.items()


def test_a_credential_that_was_right_there_before_passes() -> None:
    """It is no guess; elsewhere, and after it was revoked, it is blocked like every other one."""
    guesses = Guesses(most=1)
    guesses.succeeded(ADDRESS, "key")
    guesses.failed(ADDRESS, "caller", "wrong")
    guesses.failed(OTHER_ADDRESS, "caller", "wrong")

    guesses.check(ADDRESS, "caller", "key")

    for address, secret in ((ADDRESS, "wrong"), (ADDRESS, "another"), (OTHER_ADDRESS, "key")):
        with pytest.raises(AddressBlocked):
            guesses.check(address, "caller", secret)
    guesses.failed(ADDRESS, "caller", "key")
    with pytest.raises(AddressBlocked):
        guesses.check(ADDRESS, "caller", "key")


def test_right_credentials_are_kept_in_bounded_memory() -> None:
    """Beyond the limit the one that was shown longest ago is dropped."""
    guesses = Guesses(most=1, addresses=2)
    for secret in ("one", "two", "one", "three"):
        guesses.succeeded(ADDRESS, secret)
    guesses.failed(ADDRESS, "caller", "wrong")

    guesses.check(ADDRESS, "caller", "one")
    guesses.check(ADDRESS, "caller", "three")
    with pytest.raises(AddressBlocked):
        guesses.check(ADDRESS, "caller", "two")
