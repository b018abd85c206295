"""Wrong credentials are counted by address, in bounded memory, and stop nobody at another address."""

from __future__ import annotations

import logging

import pytest

from services.errors import AddressBlocked
from services.limits.guesses import Guesses
from tests.support.servers.processes import FakeClock

HERE, THERE = "203.0.113.7", "198.51.100.9"


def blocked(guesses: Guesses, ip: str) -> float:
    """Return the seconds for which an address is blocked, 0.0 where it is not."""
    try:
        guesses.check(ip, "caller")
    except AddressBlocked as exc:
        return exc.seconds
    return 0.0


def test_an_address_is_blocked_until_its_window_ends() -> None:
    """The window begins with the first failure; another address is not concerned."""
    clock = FakeClock()
    guesses = Guesses(most=2, window=60.0, clock=clock)

    guesses.failed(HERE, "caller")
    before = blocked(guesses, HERE)
    clock.advance(20)
    guesses.failed(HERE, "admin")

    assert (before, blocked(guesses, HERE), blocked(guesses, THERE)) == (0.0, 40.0, 0.0)
    clock.advance(40)
    assert blocked(guesses, HERE) == 0.0
    guesses.failed(HERE, "caller")
    assert blocked(guesses, HERE) == 0.0


def test_addresses_of_one_network_of_ipv6_count_together() -> None:
    """Whoever has one has all of its addresses."""
    guesses = Guesses(most=1)

    guesses.failed("2001:db8::1", "caller")

    assert blocked(guesses, "2001:db8::ffff")
    assert not blocked(guesses, "2001:db8:1::1")


def test_nobodys_address_is_not_blocked() -> None:
    """Where no address is known, everybody would be blocked together."""
    guesses = Guesses(most=1)

    guesses.failed("", "caller")

    assert not blocked(guesses, "")


def test_of_too_many_addresses_the_oldest_is_forgotten() -> None:
    """The memory is bounded, however many addresses an attacker has."""
    guesses = Guesses(most=1, addresses=3)

    for number in range(4):
        guesses.failed(f"203.0.113.{number}", "caller")

    assert [bool(blocked(guesses, f"203.0.113.{number}")) for number in range(4)] == [False, True, True, True]


def test_a_block_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """With the address, and nothing of what was shown."""
    guesses = Guesses(most=2)

    for _ in range(5):
        guesses.failed(HERE, "admin")

    (line,) = caplog.records
    assert (line.levelno, line.message) == (logging.WARNING, "address blocked")
    assert vars(line).items() >= {"address": HERE, "kind": "admin", "seconds": 60.0}.items()
