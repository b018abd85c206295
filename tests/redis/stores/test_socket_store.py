"""The registry of open sockets: the newest of a client, who is connected, who must close, and a Redis that forgets."""

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
    """Names of sockets whose order says nothing."""
    return (f"{random.getrandbits(64):016x}" for _ in iter(int, 1))


def socket(token: str, client_id: str = "client-a", principal: str = "user:E1001", channel: str = "chat") -> OpenSocket:
    return OpenSocket(token, channel, principal, client_id, CONNECTED)


def opened(store: SocketStore, entry: OpenSocket) -> OpenSocket:
    """Register a socket and return it with its place."""
    return replace(entry, since=store.register(entry))


def test_the_newer_socket_of_a_client_stays(here: SocketStore, there: SocketStore, tokens: Iterator[str]) -> None:
    """On whichever replica it came: the older one must close, the newer one never."""
    for _ in range(4):
        older = opened(here, socket(next(tokens)))
        newer = opened(there, socket(next(tokens)))

        assert there.renew([(newer, 0.0)]) == {}
        assert here.renew([(older, 0.0)]) == {older.token: "superseded"}
        assert there.renew([(newer, 0.0)]) == {}


def test_both_on_one_replica(here: SocketStore, tokens: Iterator[str]) -> None:
    """One renewal of both tells the older one only."""
    older, newer = opened(here, socket(next(tokens))), opened(here, socket(next(tokens)))

    assert here.renew([(newer, 0.0), (older, 0.0)]) == {older.token: "superseded"}


@pytest.mark.parametrize("other", [{"client_id": "client-b"}, {"principal": "user:E2002"}, {"channel": "realtime"}])
def test_others_are_left_alone(here: SocketStore, tokens: Iterator[str], other: dict[str, str]) -> None:
    """Another client id, another principal's or another channel's socket takes nobody's place."""
    mine, others = opened(here, socket(next(tokens))), opened(here, socket(next(tokens), **other))

    assert here.renew([(mine, 0.0), (others, 0.0)]) == {}


def test_parts_of_a_name_do_not_run_together(here: SocketStore, tokens: Iterator[str]) -> None:
    """What one part ends with and the next begins with makes no difference less."""
    one = opened(here, socket(next(tokens), client_id="b", principal="key:a"))
    other = opened(here, socket(next(tokens), client_id="ab", principal="key:"))

    assert here.renew([(one, 0.0), (other, 0.0)]) == {}


def test_a_verdict_is_told_until_it_is_heard(here: SocketStore, tokens: Iterator[str]) -> None:
    """The reply may be lost: the next renewal says it again."""
    older = opened(here, socket(next(tokens)))
    opened(here, socket(next(tokens)))

    assert [here.renew([(older, 0.0)]) for _ in range(2)] == [{older.token: "superseded"}] * 2


def test_registering_twice_is_registering_once(here: SocketStore, tokens: Iterator[str]) -> None:
    """A registration that is sent again, as after a lost reply, supersedes nobody."""
    entry = socket(next(tokens))
    opened(here, entry)
    again = opened(here, entry)

    assert here.renew([(again, 0.0)]) == {}
    assert [one.token for one in here.connections()] == [entry.token]


def test_the_newer_one_left_and_the_older_one_may_stay(here: SocketStore, tokens: Iterator[str]) -> None:
    """A place that nobody has any more goes back to who is still there."""
    older, newer = opened(here, socket(next(tokens))), opened(here, socket(next(tokens)))
    here.leave([newer])

    assert here.renew([(older, 0.0)]) == {}


def test_the_older_ones_end_costs_the_newer_one_nothing(
    here: SocketStore, there: SocketStore, tokens: Iterator[str]
) -> None:
    """The end of a socket that was replaced takes no other one out (the originals' fault)."""
    older, newer = opened(here, socket(next(tokens))), opened(there, socket(next(tokens)))

    here.leave([older])

    assert [one.token for one in here.connections()] == [newer.token]
    assert here.renew([(replace(older, token=next(tokens)), 0.0)]) != {}


@pytest.mark.every_redis
def test_a_redis_that_forgot_is_filled_again(
    here: SocketStore, there: SocketStore, tokens: Iterator[str], redis_client: redis.Redis
) -> None:
    """After one round of renewals it knows who is there, and the newer one is still the newer one."""
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


def test_of_two_equally_old_ones_one_stays(here: SocketStore, tokens: Iterator[str]) -> None:
    """Who cannot be told apart by age is by name: never both close, never both stay."""
    pair = [replace(socket(next(tokens)), since=CONNECTED) for _ in range(2)]

    verdicts: dict[str, str] = {}
    for _ in range(2):
        for entry in pair:
            verdicts |= here.renew([(entry, 0.0)])

    assert verdicts == {min(entry.token for entry in pair): "superseded"}


def test_a_place_comes_after_what_the_replica_knows(here: SocketStore, tokens: Iterator[str]) -> None:
    """A socket that Redis never heard of, and whose place is in the future, is still the older one."""
    unheard = replace(socket(next(tokens)), since=here.now() + 100.0)

    newer = socket(next(tokens))
    newer = replace(newer, since=here.register(newer, after=unheard.since))

    assert newer.since > unheard.since
    assert here.renew([(unheard, 0.0), (newer, 0.0)]) == {unheard.token: "superseded"}


def test_places_are_given_by_the_clock_of_redis(runner: ScriptRunner, tokens: Iterator[str]) -> None:
    """A replica whose clock is wrong neither wins nor loses by it, and learns the right time."""
    slow, right = SocketStore(runner, replica="slow", secret=SECRET, clock=FakeClock(1000.0)), store_of(runner)
    older = opened(right, socket(next(tokens)))
    opened(slow, socket(next(tokens)))

    assert right.renew([(older, 0.0)]) == {older.token: "superseded"}
    assert slow.now() == pytest.approx(right.now(), abs=30.0)


def test_the_list_says_who_is_connected(here: SocketStore, there: SocketStore, tokens: Iterator[str]) -> None:
    """Client id, channel, since when, how long silent and where; of all replicas, the oldest first."""
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


def test_a_new_socket_is_listed_at_once(here: SocketStore, there: SocketStore, tokens: Iterator[str]) -> None:
    """Without waiting for the next renewal."""
    opened(here, socket(next(tokens)))

    assert [one.client_id for one in there.connections()] == ["client-a"]


def test_a_socket_that_left_is_listed_no_more(
    here: SocketStore, tokens: Iterator[str], redis_client: redis.Redis
) -> None:
    """Leaving takes it out at once, and so does being told to close."""
    left, stays = opened(here, socket(next(tokens), "left")), opened(here, socket(next(tokens), "stays"))
    newer = opened(here, socket(next(tokens), "stays"))

    here.leave([left])
    here.renew([(stays, 0.0)])

    assert [one.token for one in here.connections()] == [newer.token]
    here.leave([])
    here.leave([newer, newer])
    assert here.connections() == []
    assert redis_client.keys() == []


def test_a_dead_replicas_sockets_end_by_themselves(
    runner: ScriptRunner, tokens: Iterator[str], redis_client: redis.Redis
) -> None:
    """Nobody renews them: they are not listed, others' renewals clear them away, and their place is free."""
    dead, alive = store_of(runner, "dead", life=0.3), store_of(runner, "alive", life=0.3)
    gone = [opened(dead, socket(next(tokens), f"gone-{i}")) for i in range(5)]
    stays = opened(alive, socket(next(tokens), "stays"))

    def only_one_is_left() -> bool:
        assert alive.renew([(stays, 0.0)]) == {}
        return redis_client.hlen("{dify_sockets}:open") == 1

    wait_until(only_one_is_left)
    assert [one.client_id for one in alive.connections()] == ["stays"]
    assert redis_client.hlen("{dify_sockets}:newest") == redis_client.zcard("{dify_sockets}:renewed") == 1
    assert dead.renew([(one, 0.0) for one in gone]) == {}


def test_clearing_away_happens_without_sockets_too(
    runner: ScriptRunner, tokens: Iterator[str], redis_client: redis.Redis
) -> None:
    """A replica without any sockets clears away what dead ones left, while somebody else renews."""
    dead, empty, alive = store_of(runner, life=0.3), store_of(runner, life=0.3), store_of(runner, life=60.0)
    opened(dead, socket(next(tokens), "gone"))
    stays = opened(alive, socket(next(tokens), "stays"))

    def cleared() -> bool:
        alive.renew([(stays, 0.0)])
        empty.renew([])
        return redis_client.hlen("{dify_sockets}:open") == 1

    wait_until(cleared)


def test_who_is_not_renewed_is_not_listed(
    runner: ScriptRunner, tokens: Iterator[str], redis_client: redis.Redis
) -> None:
    """Also while nobody clears away what dead replicas left."""
    short, long = store_of(runner, life=0.3), store_of(runner, life=60.0)
    opened(long, socket(next(tokens)))
    assert len(short.connections()) == 1

    wait_until(lambda: short.connections() == [])

    assert redis_client.hlen("{dify_sockets}:open") == 1


def test_each_renewal_counts_from_now_on(here: SocketStore, tokens: Iterator[str], redis_client: redis.Redis) -> None:
    """A socket lives a whole life after its last renewal, not after its first."""
    entry = opened(here, socket(next(tokens)))
    [member] = map(str, redis_client.zrange("{dify_sockets}:renewed", 0, -1))
    first = float(str(redis_client.zscore("{dify_sockets}:renewed", member)))

    def renewed() -> bool:
        here.renew([(entry, 0.0)])
        return float(str(redis_client.zscore("{dify_sockets}:renewed", member))) > first

    wait_until(renewed)


@pytest.mark.parametrize("renewed", [False, True])
def test_nothing_stays_when_nobody_renews(
    runner: ScriptRunner, tokens: Iterator[str], redis_client: redis.Redis, renewed: bool
) -> None:
    """Every key has a life, from the opening on, and from a renewal that finds nothing there."""
    store = store_of(runner, life=1.0)
    entry = opened(store, socket(next(tokens)))
    if renewed:
        redis_client.flushall()
        store.renew([(entry, 0.0)])
    store.dismiss("client-a")

    lives = {str(key): redis_client.pttl(key) for key in redis_client.scan_iter()}
    assert len(lives) == 4
    assert 0 < lives.pop("{dify_sockets}:dismissed") <= 60_000
    assert [life for life in lives.values() if not 0 < life <= 1000] == []


def test_a_dismissed_client_must_close_everywhere(here: SocketStore, there: SocketStore, tokens: Iterator[str]) -> None:
    """Every socket with the client id, whosever and at whichever channel, and no other; also when told twice."""
    mine = opened(here, socket(next(tokens)))
    others = opened(there, socket(next(tokens), principal="anonymous", channel="realtime"))
    bystander = opened(there, socket(next(tokens), "client-b"))

    assert set(here.dismiss("client-a")) == {mine.token, others.token}

    for _ in range(2):
        assert here.renew([(mine, 0.0)]) == {mine.token: "dismissed"}
        assert there.renew([(others, 0.0), (bystander, 0.0)]) == {others.token: "dismissed"}


def test_a_dismissed_client_may_come_back(here: SocketStore, tokens: Iterator[str]) -> None:
    """A dismissal closes the sockets there are, not those to come."""
    opened(here, socket(next(tokens)))
    here.dismiss("client-a")

    back = opened(here, socket(next(tokens)))

    assert here.renew([(back, 0.0)]) == {}


def test_nobody_is_dismissed_who_is_not_there(
    here: SocketStore, tokens: Iterator[str], redis_client: redis.Redis
) -> None:
    """An unknown client id closes nothing and leaves nothing."""
    opened(here, socket(next(tokens)))

    assert here.dismiss("client") == []
    assert redis_client.exists("{dify_sockets}:dismissed") == 0


@pytest.mark.every_redis
def test_a_thousand_sockets_are_one_exchange(here: SocketStore, tokens: Iterator[str]) -> None:
    """All of a replica's sockets are renewed together, and each verdict finds its socket."""
    entries = [replace(socket(next(tokens), f"client-{i}"), since=CONNECTED + i) for i in range(1000)]
    assert here.renew([(entry, 0.0) for entry in entries]) == {}

    newer = opened(here, socket(next(tokens), "client-999"))

    assert here.renew([(entry, 0.0) for entry in entries]) == {entries[999].token: "superseded"}
    listed = here.connections()
    assert len(listed) == 1000
    assert newer.token in {one.token for one in listed}


def test_redis_knows_nobodys_name(here: SocketStore, tokens: Iterator[str], redis_client: redis.Redis) -> None:
    """Who is at a socket cannot be read in Redis, in no key, field or value."""
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
    """Every step fails as our error when Redis is away."""
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
