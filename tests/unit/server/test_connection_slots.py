"""Connection slots: admission of requests, limits per address, and the connections that are closed to make room."""

from __future__ import annotations

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import create_environ

from server.connection_slots import EXEMPT_SECONDS, ConnectionLimits, ConnectionSlots, is_exempt
from tests.support.servers.processes import FakeClock
from utils.networks import client_of

ADDRESS, OTHER_ADDRESS = "203.0.113.1", "203.0.113.2"


def slots_of(clock: FakeClock, slots: int = 3, per_address: int = 0, proxies: int = 0) -> ConnectionSlots:
    return ConnectionSlots(ConnectionLimits(per_address, proxies), slots=slots, clock=clock)


def test_ordinary_requests_have_a_limited_number_of_slots(clock: FakeClock) -> None:
    """A request without a slot is refused until another one ends; exempt requests need no slot."""
    slots = slots_of(clock)

    assert [slots.admit(name, ADDRESS, "") for name in "abcd"] == [None, None, None, "full"]
    slots.exempt("e")
    slots.wait("a")
    assert slots.admit("d", ADDRESS, "") is None


def test_an_address_has_a_limited_number_of_connections(clock: FakeClock) -> None:
    """A connection counts from its first ordinary request until it is closed; each address is counted separately."""
    slots = slots_of(clock, slots=100, per_address=2)

    assert [slots.admit(name, ADDRESS, "") for name in "abc"] == [None, None, "address"]
    assert slots.admit("d", OTHER_ADDRESS, "") is None
    slots.wait("a")
    assert slots.admit("a", ADDRESS, "") is None
    assert slots.admit("e", ADDRESS, "") == "address"
    slots.leave("a")
    assert slots.admit("e", ADDRESS, "") is None


def test_exempt_requests_do_not_count_for_an_address(clock: FakeClock) -> None:
    """Ten connections with exempt requests leave the address its only connection."""
    slots = slots_of(clock, per_address=1)
    for name in range(10):
        slots.wait(name)
        slots.exempt(name)

    assert slots.admit("a", ADDRESS, "") is None


def test_behind_a_proxy_each_request_counts_for_its_client(clock: FakeClock) -> None:
    """A proxy may send requests of different clients on one connection."""
    slots = slots_of(clock, slots=100, per_address=1, proxies=1)

    assert slots.admit("a", "10.0.0.1", ADDRESS) is None
    assert slots.admit("b", "10.0.0.1", ADDRESS) == "address"
    slots.wait("a")
    assert slots.admit("a", "10.0.0.1", OTHER_ADDRESS) is None
    assert slots.admit("b", "10.0.0.1", ADDRESS) is None
    assert slots.admit("c", "10.0.0.1", f"{ADDRESS}, {OTHER_ADDRESS}") == "address"


def test_a_network_of_ipv6_counts_as_one_address(clock: FakeClock) -> None:
    """A /64 network is counted as one; an IPv4-mapped IPv6 address counts as the IPv4 address."""
    slots = slots_of(clock, slots=100, per_address=1)

    assert slots.admit("a", "2001:db8::1", "") is None
    assert slots.admit("b", "2001:db8::2", "") == "address"
    assert slots.admit("c", f"::ffff:{ADDRESS}", "") is None
    assert slots.admit("d", ADDRESS, "") == "address"


def test_the_connection_that_has_waited_longest_is_closed(clock: FakeClock) -> None:
    """The time counts from its last request, not from its start."""
    slots = slots_of(clock)
    for name in "abc":
        slots.wait(name)
        clock.advance(1.0)
    slots.exempt("a")
    slots.wait("a")
    clock.advance(1.0)

    assert [slots.make_room() for _ in range(4)] == ["b", "c", "a", None]


def test_a_connection_with_a_running_request_is_not_closed(clock: FakeClock) -> None:
    """An ordinary request is never closed, an exempt one, which normally takes milliseconds, after EXEMPT_SECONDS."""
    slots = slots_of(clock)
    slots.admit("a", ADDRESS, "")
    slots.exempt("b")
    assert slots.make_room() is None
    clock.advance(EXEMPT_SECONDS)
    slots.wait("new")

    assert [slots.make_room() for _ in range(3)] == ["b", "new", None]


def test_a_closed_connection_is_forgotten(clock: FakeClock) -> None:
    """This holds for all three states: waiting, exempt and ordinary."""
    slots = slots_of(clock, per_address=1)
    slots.wait("a")
    slots.exempt("b")
    slots.admit("c", ADDRESS, "")
    for name in "abc":
        slots.leave(name)
    clock.advance(60.0)

    assert (slots.idle, slots.make_room(), dict(slots._counts), slots._addresses) == ((), None, {}, {})
    assert not slots._asked


def test_a_connection_is_idle_between_two_requests(clock: FakeClock) -> None:
    """Not before its first one: that is on its way."""
    slots = slots_of(clock)
    for name in ("new", "a", "b"):
        slots.wait(name)
    slots.exempt("a")
    slots.admit("b", ADDRESS, "")
    before = slots.idle
    slots.wait("a")
    slots.wait("b")

    assert (before, slots.idle) == ((), ("a", "b"))


def test_callbacks_and_probes_are_exempt() -> None:
    """The undecoded path is compared; paths that only resemble a callback or a probe are not exempt."""
    exempt = ("/healthz", "/readyz", "/wechat/callback", "/wechat/callback/hr")
    others = ("/", "/health", "/metrics", "/wechat/callbacks", "/healthz/", "//healthz", "/%68ealthz")

    assert [path for path in (*exempt, *others) if is_exempt(path)] == list(exempt)


@pytest.mark.parametrize("proxies", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "forwarded",
    ["", ADDRESS, f"{ADDRESS}, {OTHER_ADDRESS}", f"a,{ADDRESS} ,{OTHER_ADDRESS}", f" , {ADDRESS},,{OTHER_ADDRESS}, "],
)
def test_client_of_finds_the_same_address_as_proxyfix(forwarded: str, proxies: int) -> None:
    """The application uses ProxyFix, so both limits count a request for the same client."""
    addresses: list[str] = []

    def app(environ: dict[str, str], start_response: object) -> tuple[()]:
        addresses.append(environ["REMOTE_ADDR"])
        return ()

    environ = create_environ(headers={"X-Forwarded-For": forwarded})
    environ["REMOTE_ADDR"] = "10.0.0.9"
    ProxyFix(app, x_for=proxies)(environ, lambda *_: None)  # type: ignore[arg-type]

    assert client_of("10.0.0.9", forwarded, proxies) == addresses[0]
