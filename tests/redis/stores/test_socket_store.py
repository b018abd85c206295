"""The registry of open sockets: the newest of a client, the list of all, dismissals, and a Redis that lost its data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from services.errors import StoreUnavailable
from services.redis.store import ScriptRunner
from services.sockets.store import LIFE, ConnectedSocket, OpenSocket, SocketStore
from tests.support.servers.processes import FakeClock, free_port, redis_client_for, wait_until

SECRET = b"obviously fake"
#: 2026-01-01T00:00:00Z.
CONNECTED = 1_767_225_600.25


def store_of(runner: ScriptRunner, replica: str = "one", **options: float) -> SocketStore:
    return SocketStore(runner, replica=replica, secret=SECRET, **options)  # type: ignore[arg-type]


@pytest.fixture
def here(runner: ScriptRunner) -> SocketStore:
    return store_of(runner, "one")


@pytest.fixture
def there(runner: ScriptRunner) -> SocketStore:
    return store_of(runner, "two")


@pytest.fixture
def tokens() -> Iterator[str]:
    """Random tokens, so that their order has no meaning."""
    return (f"{random.getrandbits(64):016x}" for _ in iter(int, 1))


def socket(token: str, client_id: str = "client-a", principal: str = "user:E1001", channel: str = "chat") -> OpenSocket:
    return OpenSocket(token, channel, principal, client_id, CONNECTED)


def opened(store: SocketStore, entry: OpenSocket) -> OpenSocket:
    """Register a socket, and return it with its order (`since`)."""
    return replace(entry, since=store.register(entry))


def test_the_newer_socket_of_a_client_stays_open(here: SocketStore, there: SocketStore, tokens: Iterator[str]) -> None:
    """On any replica the older socket must close, at each renewal, and the newer one never."""
    for _ in range(4):
        older = opened(here, socket(next(tokens)))
        newer = opened(there, socket(next(tokens)))

        assert there.renew([(newer, 0.0)]) == {}
        for _ in range(2):
            assert here.renew([(older, 0.0)]) == {older.token: "superseded"}
        assert there.renew([(newer, 0.0)]) == {}


def test_one_renewal_of_both_sockets_closes_the_older_one(here: SocketStore, tokens: Iterator[str]) -> None:
    """Both are on one replica."""
    older, newer = opened(here, socket(next(tokens))), opened(here, socket(next(tokens)))

    assert here.renew([(newer, 0.0), (older, 0.0)]) == {older.token: "superseded"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"client_id": "client-b"}),
        ({}, {"principal": "user:E2002"}),
        ({}, {"channel": "realtime"}),
        ({"client_id": "b", "principal": "key:a"}, {"client_id": "ab", "principal": "key:"}),
    ],
)
def test_sockets_of_other_names_are_independent(
    here: SocketStore, tokens: Iterator[str], one: dict[str, str], other: dict[str, str]
) -> None:
    """Another client id, principal or channel supersedes no socket, also where names joined would be the same."""
    mine, others = opened(here, socket(next(tokens), **one)), opened(here, socket(next(tokens), **other))

    assert here.renew([(mine, 0.0), (others, 0.0)]) == {}


def test_registering_a_socket_again_changes_nothing(here: SocketStore, tokens: Iterator[str]) -> None:
    """A registration that is sent again, as after a lost reply, supersedes no socket."""
    entry = socket(next(tokens))
    opened(here, entry)
    again = opened(here, entry)

    assert here.renew([(again, 0.0)]) == {}
    assert [one.token for one in here.connections()] == [entry.token]


def test_the_older_socket_stays_after_the_newer_one_left(here: SocketStore, tokens: Iterator[str]) -> None:
    """Its renewal makes it the newest of its name again."""
    older, newer = opened(here, socket(next(tokens))), opened(here, socket(next(tokens)))
    here.leave([newer])

    assert here.renew([(older, 0.0)]) == {}


def test_the_end_of_the_older_socket_keeps_the_newer_one(
    here: SocketStore, there: SocketStore, tokens: Iterator[str]
) -> None:
    """Leaving removes only the socket's own entry, not the one of the newer socket (a fault of the originals)."""
    older, newer = opened(here, socket(next(tokens))), opened(there, socket(next(tokens)))

    here.leave([older])

    assert [one.token for one in here.connections()] == [newer.token]
    assert here.renew([(replace(older, token=next(tokens)), 0.0)]) != {}


@pytest.mark.every_redis
def test_renewals_restore_a_registry_that_redis_lost(
    here: SocketStore, there: SocketStore, tokens: Iterator[str], redis_client: redis.Redis
) -> None:
    """After one round the list is complete, and the newer socket is still the newest, in any order of renewals."""
    for renewing_first in ("older", "newer"):
        older, newer = opened(here, socket(next(tokens))), opened(there, socket(next(tokens)))
        redis_client.flushall()

        order = [(here, older), (there, newer)]
        for store, entry in order if renewing_first == "older" else reversed(order):
            store.renew([(entry, 0.0)])

        assert there.renew([(newer, 0.0)]) == {}
        assert here.renew([(older, 0.0)]) == {older.token: "superseded"}
        assert [one.token for one in here.connections()] == [newer.token]
        there.leave([newer])


def test_of_two_sockets_of_the_same_age_one_stays(here: SocketStore, tokens: Iterator[str]) -> None:
    """The token decides between equal ages, so never both close and never both stay."""
    pair = [replace(socket(next(tokens)), since=CONNECTED) for _ in range(2)]

    verdicts: dict[str, str] = {}
    for _ in range(2):
        for entry in pair:
            verdicts |= here.renew([(entry, 0.0)])

    assert verdicts == {min(entry.token for entry in pair): "superseded"}


def test_a_new_sockets_order_is_after_the_known_one(here: SocketStore, tokens: Iterator[str]) -> None:
    """A socket whose order is in the future, and that Redis never had, still counts as the older one."""
    unregistered = replace(socket(next(tokens)), since=here.now() + 100.0)

    newer = socket(next(tokens))
    newer = replace(newer, since=here.register(newer, after=unregistered.since))

    assert newer.since > unregistered.since
    assert here.renew([(unregistered, 0.0), (newer, 0.0)]) == {unregistered.token: "superseded"}


def test_the_order_is_by_the_clock_of_redis(runner: ScriptRunner, tokens: Iterator[str]) -> None:
    """A replica's wrong clock changes no order, and its estimate of Redis's time is right after a registration."""
    slow, right = SocketStore(runner, replica="slow", secret=SECRET, clock=FakeClock(1000.0)), store_of(runner)
    older = opened(right, socket(next(tokens)))
    opened(slow, socket(next(tokens)))

    assert right.renew([(older, 0.0)]) == {older.token: "superseded"}
    assert slow.now() == pytest.approx(right.now(), abs=30.0)


def test_the_list_shows_the_sockets_of_all_replicas(
    here: SocketStore, there: SocketStore, tokens: Iterator[str]
) -> None:
    """Each has client id, channel, connection time, idle seconds and replica; the oldest is first."""
    first, second = (
        opened(here, socket(next(tokens))),
        opened(there, socket(next(tokens), "client-b", channel="realtime")),
    )
    second = replace(second, connected_at=CONNECTED - 60)

    here.renew([(first, 12.5)])
    there.renew([(second, 0.0)])

    realtime, chat = here.connections()
    assert realtime == ConnectedSocket(second.token, "client-b", "realtime", CONNECTED - 60, realtime.idle, "two")
    assert chat == ConnectedSocket(first.token, "client-a", "chat", CONNECTED, chat.idle, "one")
    assert 12.5 <= chat.idle < 12.5 + LIFE
    assert 0.0 <= realtime.idle < LIFE


def test_a_closed_socket_is_not_listed(here: SocketStore, tokens: Iterator[str], redis_client: redis.Redis) -> None:
    """Leaving removes a socket from the list at once, and so does the verdict that it must close."""
    left, stays = opened(here, socket(next(tokens), "left")), opened(here, socket(next(tokens), "stays"))
    newer = opened(here, socket(next(tokens), "stays"))

    here.leave([left])
    here.renew([(stays, 0.0)])

    assert [one.token for one in here.connections()] == [newer.token]
    here.leave([])
    here.leave([newer, newer])
    assert here.connections() == []
    assert redis_client.keys() == []


@pytest.mark.parametrize("renews", [True, False])
def test_a_dead_replicas_sockets_expire(
    here: SocketStore, there: SocketStore, tokens: Iterator[str], redis_client: redis.Redis, renews: bool
) -> None:
    """They are not listed, the renewals of replicas with and without sockets remove them, and their names are free."""
    gone = [opened(here, socket(next(tokens), f"gone-{i}")) for i in range(5)]
    stays = opened(there, socket(next(tokens), "stays"))
    members = map(str, redis_client.zrange("{dify_sockets}:renewed", 0, -1))
    redis_client.zadd("{dify_sockets}:renewed", {one: 1.0 for one in members if not one.endswith(f" {stays.token}")})
    assert [one.client_id for one in there.connections()] == ["stays"]
    assert redis_client.hlen("{dify_sockets}:open") == 6

    assert there.renew([(stays, 0.0)] if renews else []) == {}

    counts = [redis_client.hlen(f"{{dify_sockets}}:{one}") for one in ("open", "newest")]
    assert [*counts, redis_client.zcard("{dify_sockets}:renewed")] == [1, 1, 1]
    assert here.renew([(one, 0.0) for one in gone]) == {}


def test_each_renewal_starts_the_life_again(
    here: SocketStore, tokens: Iterator[str], redis_client: redis.Redis
) -> None:
    """A socket expires one life after its last renewal, not after its first."""
    entry = opened(here, socket(next(tokens)))
    [member] = map(str, redis_client.zrange("{dify_sockets}:renewed", 0, -1))
    first = float(str(redis_client.zscore("{dify_sockets}:renewed", member)))

    def renewed() -> bool:
        here.renew([(entry, 0.0)])
        return float(str(redis_client.zscore("{dify_sockets}:renewed", member))) > first

    wait_until(renewed)


@pytest.mark.parametrize("renewed", [False, True])
def test_every_key_has_a_ttl(
    runner: ScriptRunner, tokens: Iterator[str], redis_client: redis.Redis, renewed: bool
) -> None:
    """The TTL starts at registration, and at a renewal that finds no keys."""
    store = store_of(runner, life=30.0)
    entry = opened(store, socket(next(tokens)))
    if renewed:
        redis_client.flushall()
        store.renew([(entry, 0.0)])
    store.dismiss("client-a")

    ttls = {str(key): redis_client.pttl(key) for key in redis_client.scan_iter()}
    assert len(ttls) == 4
    assert 0 < ttls.pop("{dify_sockets}:dismissed") <= 60_000
    assert [ttl for ttl in ttls.values() if not 0 < ttl <= 30_000] == []


def test_every_socket_of_a_dismissed_client_must_close(
    here: SocketStore, there: SocketStore, tokens: Iterator[str]
) -> None:
    """The verdict goes to all principals and channels with this client id only, and is repeated at each renewal."""
    mine = opened(here, socket(next(tokens)))
    others = opened(there, socket(next(tokens), principal="anonymous", channel="realtime"))
    bystander = opened(there, socket(next(tokens), "client-b"))

    assert set(here.dismiss("client-a")) == {mine.token, others.token}

    for _ in range(2):
        assert here.renew([(mine, 0.0)]) == {mine.token: "dismissed"}
        assert there.renew([(others, 0.0), (bystander, 0.0)]) == {others.token: "dismissed"}


def test_a_dismissed_client_may_come_back(here: SocketStore, tokens: Iterator[str]) -> None:
    """A dismissal closes only the sockets that are open at that time."""
    opened(here, socket(next(tokens)))
    here.dismiss("client-a")

    back = opened(here, socket(next(tokens)))

    assert here.renew([(back, 0.0)]) == {}


def test_dismissing_an_unknown_client_closes_nothing(
    here: SocketStore, tokens: Iterator[str], redis_client: redis.Redis
) -> None:
    """No socket closes, and Redis gets no key."""
    opened(here, socket(next(tokens)))

    assert here.dismiss("client") == []
    assert redis_client.exists("{dify_sockets}:dismissed") == 0


@pytest.mark.every_redis
def test_a_thousand_sockets_are_renewed_in_one_call(here: SocketStore, tokens: Iterator[str]) -> None:
    """Each verdict belongs to its socket, and all sockets are listed."""
    entries = [replace(socket(next(tokens), f"client-{i}"), since=CONNECTED + i) for i in range(1000)]
    assert here.renew([(entry, 0.0) for entry in entries]) == {}

    newer = opened(here, socket(next(tokens), "client-999"))

    assert here.renew([(entry, 0.0) for entry in entries]) == {entries[999].token: "superseded"}
    listed = here.connections()
    assert len(listed) == 1000
    assert newer.token in {one.token for one in listed}


def test_redis_shows_no_principal(here: SocketStore, tokens: Iterator[str], redis_client: redis.Redis) -> None:
    """The principal is in no key, field or value."""
    opened(here, socket(next(tokens)))
    fields = [
        *redis_client.hgetall("{dify_sockets}:newest").items(),
        *redis_client.hgetall("{dify_sockets}:open").items(),
        *redis_client.zrange("{dify_sockets}:renewed", 0, -1),
    ]

    assert len(fields) == 3
    assert "E1001" not in repr([fields, redis_client.keys()])
    assert "E1001" not in repr(socket("t"))


def test_no_redis_is_store_unavailable(tokens: Iterator[str]) -> None:
    """Every method raises our error when Redis is away."""
    with redis_client_for(f"redis://127.0.0.1:{free_port()}/0") as client:
        store = store_of(ScriptRunner(client))
        entry = socket(next(tokens))

        for step in (
            lambda: store.register(entry),
            lambda: store.renew([]),
            lambda: store.leave([entry]),
            lambda: store.connections(),
            lambda: store.dismiss("client-a"),
        ):
            with pytest.raises(StoreUnavailable):
                step()
