"""Who may hold a worker's connections, and who goes when they get short."""

from __future__ import annotations

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import create_environ

from server.connection_slots import EXEMPT_SECONDS, ConnectionLimits, ConnectionSlots, is_exempt
from utils.networks import client_of

ONE, OTHER = "203.0.113.1", "203.0.113.2"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def slots_of(clock: Clock, slots: int = 3, per_address: int = 0, proxies: int = 0) -> ConnectionSlots:
    return ConnectionSlots(ConnectionLimits(per_address, proxies), slots=slots, clock=clock)


def test_ordinary_requests_have_so_many_slots(clock: Clock) -> None:
    """One more is refused until one is over; callbacks and probes need none."""
    slots = slots_of(clock)

    assert [slots.admit(name, ONE, "") for name in "abcd"] == [None, None, None, "full"]
    slots.exempt("e")
    slots.wait("a")
    assert slots.admit("d", ONE, "") is None


def test_an_address_has_so_many_connections(clock: Clock) -> None:
    """A connection counts from its first ordinary request to its end; other addresses have their own count."""
    slots = slots_of(clock, slots=100, per_address=2)

    assert [slots.admit(name, ONE, "") for name in "abc"] == [None, None, "address"]
    assert slots.admit("d", OTHER, "") is None
    slots.wait("a")
    assert slots.admit("a", ONE, "") is None
    assert slots.admit("e", ONE, "") == "address"
    slots.leave("a")
    assert slots.admit("e", ONE, "") is None


def test_an_exempt_request_counts_for_nobody(clock: Clock) -> None:
    """However many connections bring callbacks."""
    slots = slots_of(clock, per_address=1)
    for name in range(10):
        slots.wait(name)
        slots.exempt(name)

    assert slots.admit("a", ONE, "") is None


def test_behind_a_proxy_each_request_counts_for_its_client(clock: Clock) -> None:
    """The connections are the proxy's, and bring another client's request each time."""
    slots = slots_of(clock, slots=100, per_address=1, proxies=1)

    assert slots.admit("a", "10.0.0.1", ONE) is None
    assert slots.admit("b", "10.0.0.1", ONE) == "address"
    slots.wait("a")
    assert slots.admit("a", "10.0.0.1", OTHER) is None
    assert slots.admit("b", "10.0.0.1", ONE) is None
    assert slots.admit("c", "10.0.0.1", f"{ONE}, {OTHER}") == "address"


def test_an_owner_of_a_network_is_one_address(clock: Clock) -> None:
    """A /64 of IPv6; an IPv4 address in IPv6's form is that address."""
    slots = slots_of(clock, slots=100, per_address=1)

    assert slots.admit("a", "2001:db8::1", "") is None
    assert slots.admit("b", "2001:db8::2", "") == "address"
    assert slots.admit("c", f"::ffff:{ONE}", "") is None
    assert slots.admit("d", ONE, "") == "address"


def test_who_has_waited_longest_makes_room(clock: Clock) -> None:
    """Since its last request, not since it came."""
    slots = slots_of(clock)
    for name in "abc":
        slots.wait(name)
        clock.now += 1.0
    slots.exempt("a")
    slots.wait("a")
    clock.now += 1.0

    assert [slots.make_room() for _ in range(4)] == ["b", "c", "a", None]


def test_a_request_that_takes_its_time_is_left_alone(clock: Clock) -> None:
    """An ordinary one for ever; an exempt one, which takes milliseconds, for some seconds."""
    slots = slots_of(clock)
    slots.admit("a", ONE, "")
    slots.exempt("b")
    assert slots.make_room() is None
    clock.now += EXEMPT_SECONDS
    slots.wait("new")

    assert [slots.make_room() for _ in range(3)] == ["b", "new", None]


def test_a_connection_that_is_over_leaves_nothing(clock: Clock) -> None:
    """In whichever state it was."""
    slots = slots_of(clock, per_address=1)
    slots.wait("a")
    slots.exempt("b")
    slots.admit("c", ONE, "")
    for name in "abc":
        slots.leave(name)
    clock.now += 60.0

    assert (slots.waiting, slots.make_room(), dict(slots._counts), slots._addresses) == ((), None, {}, {})


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/wechat/callback", "/wechat/callback/hr"])
def test_callbacks_and_probes_are_exempt(path: str) -> None:
    """As they are sent."""
    assert is_exempt(path)


@pytest.mark.parametrize(
    "path", ["/", "/health", "/metrics", "/wechat/callbacks", "/healthz/", "//healthz", "/%68ealthz"]
)
def test_nothing_else_is_exempt(path: str) -> None:
    """Nor what only looks like it."""
    assert not is_exempt(path)


@pytest.mark.parametrize("proxies", [0, 1, 2, 3])
@pytest.mark.parametrize("forwarded", ["", ONE, f"{ONE}, {OTHER}", f"a,{ONE} ,{OTHER}", f" , {ONE},,{OTHER}, "])
def test_the_client_is_whom_flask_takes_for_it(forwarded: str, proxies: int) -> None:
    """ProxyFix, which the application uses, finds the same address."""
    seen: list[str] = []

    def app(environ: dict[str, str], start_response: object) -> tuple[()]:
        seen.append(environ["REMOTE_ADDR"])
        return ()

    environ = create_environ(headers={"X-Forwarded-For": forwarded})
    environ["REMOTE_ADDR"] = "10.0.0.9"
    ProxyFix(app, x_for=proxies)(environ, lambda *_: None)  # type: ignore[arg-type]

    assert client_of("10.0.0.9", forwarded, proxies) == seen[0]
