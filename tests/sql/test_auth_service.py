"""`AuthService` on a real Redis, database and HTTP API: one API call per user, no access on any failure."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from demo.mocks.auth import DEMO_USER_QUERY, MockAuth, create_demo_users
from services.errors import AuthError, StoreUnavailable
from services.identity.auth_service import LOCK_MARGIN, AuthService, AuthTimeouts, ExternalAuth, UserLocks
from services.identity.token_store import TokenStore
from services.identity.user_store import SqlUserStore, UserRecord
from services.models import Identity, UserInfo
from services.redis.lock_store import LockStore
from services.redis.store import ScriptRunner
from tests.support.servers.processes import (
    FakeClock,
    MariaServer,
    RedisServer,
    free_port,
    redis_client_for,
    wait_until,
)
from utils.running_time import RunningClock

#: Zero for SQL and Redis: an outage fails the authentication at once.
TIMEOUTS = AuthTimeouts(api=30.0, turn=60.0, sql=0.0, redis=0.0)
ZHANGSAN = UserInfo("E1001", "张三", "13800000001", "男")
MakeService = Callable[..., AuthService]


class HeldAuth(MockAuth):
    """An auth API that holds its answers back until the test sets `go_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def answer(self, method: str, usercode: str, password: str) -> tuple[int, bytes, dict[str, str]]:
        self.asked.set()
        assert self.go_on.wait(30.0)
        return super().answer(method, usercode, password)


class FrozenHost:
    """Stops the process for 16 s in the middle of a call, by its clock."""

    def __init__(self) -> None:
        self._real = FakeClock()
        self.clock = RunningClock(self._real)
        self.clock.tick()
        self.freezes = True

    def freeze(self) -> bool:
        """Return whether the process was stopped; it is once."""
        frozen, self.freezes = self.freezes, False
        if frozen:
            self._real.advance(16.0)
            self.clock.tick()
        return frozen

    def users(self, database: str) -> SqlUserStore:
        """Return a user database whose first query fails because of the stop."""
        freeze = self.freeze

        class Users(SqlUserStore):
            def find(self, userid: str, corp: str = "") -> UserRecord | None:
                if freeze():
                    raise StoreUnavailable("the reply is late")
                return super().find(userid, corp)

        return Users(database, DEMO_USER_QUERY)

    def auth(self) -> MockAuth:
        """Return an auth API during whose first reply, an error, the process is stopped."""
        freeze = self.freeze

        class Auth(MockAuth):
            def answer(self, method: str, usercode: str, password: str) -> tuple[int, bytes, dict[str, str]]:
                self.behaviour = "error" if freeze() else "normal"
                return super().answer(method, usercode, password)

        return Auth()


@pytest.fixture
def auth() -> Iterator[MockAuth]:
    with MockAuth() as mock:
        yield mock


@pytest.fixture
def held() -> Iterator[HeldAuth]:
    with HeldAuth() as mock:
        yield mock
        mock.go_on.set()


@pytest.fixture
def database(tmp_path: Path) -> str:
    """The URL of an SQLite file that has the demo's users."""
    url = f"sqlite:///{tmp_path / 'users.db'}"
    create_demo_users(url)
    return url


@pytest.fixture
def make_service(any_redis_url: str, database: str, auth: MockAuth) -> Iterator[MakeService]:
    """Return a function that makes services like replicas: same Redis, database and API, own clients."""
    closing: list[Callable[[], None]] = []

    def make(*, redis_url: str = any_redis_url, database: str = database, **options: Any) -> AuthService:
        client = redis_client_for(redis_url, socket_timeout=10.0)
        users = options.pop("users", None) or SqlUserStore(
            database, options.pop("query", DEMO_USER_QUERY), pool_timeout=30.0
        )
        clocks = {name: options.pop(name) for name in ("clock",) if name in options}
        runner = ScriptRunner(client)
        timeouts = replace(
            TIMEOUTS, **{name: options.pop(name) for name in ("turn", "sql", "redis") if name in options}
        )
        external = ExternalAuth(
            TokenStore(runner), users, LockStore(runner), **{"url": auth.url, "timeouts": timeouts, **options}
        )
        service = AuthService("external", external=external, **clocks)
        closing.extend([service.close, users.close, client.close])
        return service

    yield make
    for close in closing:
        close()


def refused(service: AuthService, userid: str, corp: str = "") -> str:
    with pytest.raises(AuthError) as caught:
        service.authenticate(userid, corp)
    return caught.value.code


def at_once(*calls: Callable[[], Identity]) -> list[Identity | AuthError]:
    """Make the calls at the same moment and return the outcome of each."""
    outcomes: list[Identity | AuthError] = []
    ready = threading.Barrier(len(calls))

    def run(call: Callable[[], Identity]) -> None:
        ready.wait(30.0)
        try:
            outcomes.append(call())
        except AuthError as exc:
            outcomes.append(exc)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90.0)
    return outcomes


def test_a_new_user_is_renewed_and_then_cached(make_service: MakeService, auth: MockAuth) -> None:
    """The first question calls the API, the next one reads the cache."""
    service = make_service()

    assert service.authenticate("zhangsan") == Identity("renewed", ZHANGSAN, auth.tokens[0])
    assert service.authenticate("zhangsan") == Identity("cached", ZHANGSAN, auth.tokens[0])

    assert auth.calls == {"E1001": 1}


def test_the_shorter_lifetime_wins(make_service: MakeService, auth: MockAuth, redis_client: redis.Redis) -> None:
    """An `expires_in` below `token_ttl` sets the TTL of the keys; above it `token_ttl` does."""
    service = make_service(token_ttl=500.0)

    auth.says(200, {"success": True, "data": {"token": "fake-short", "expires_in": 100}})
    service.authenticate("zhangsan")
    auth.says(200, {"success": True, "data": {"token": "fake-long", "expires_in": 9000}})
    service.authenticate("wangwu")

    assert 0 < redis_client.ttl("authorization:token:fake-short") <= 100
    assert 0 < redis_client.ttl("authorization:wechatid:zhangsan") <= 100
    assert 400 < redis_client.ttl("authorization:token:fake-long") <= 500
    assert 400 < redis_client.ttl("authorization:wechatid:wangwu") <= 500


def test_a_token_that_the_auth_service_ended_is_renewed(
    make_service: MakeService, auth: MockAuth, redis_client: redis.Redis
) -> None:
    """When the validity key of a token is gone, the next question renews the token."""
    service = make_service()
    service.authenticate("zhangsan")
    redis_client.delete(f"authorization:token:{auth.tokens[0]}")

    assert service.authenticate("zhangsan") == Identity("renewed", ZHANGSAN, auth.tokens[1])


def test_an_expired_token_is_renewed(make_service: MakeService, auth: MockAuth) -> None:
    """王五's tokens expire after a second; the next question calls the API again."""
    service = make_service()
    assert service.authenticate("wangwu").state == "renewed"

    wait_until(lambda: service.authenticate("wangwu").state == "renewed")

    assert auth.calls == {"E1002": 2}


def test_a_validity_key_of_the_auth_service_is_not_overwritten(
    make_service: MakeService, auth: MockAuth, redis_client: redis.Redis
) -> None:
    """The key that the auth service wrote keeps its value and its TTL; the user's record then comes from SQL."""
    redis_client.set("authorization:token:fake-own", "written by the auth service", ex=100)
    auth.says(200, {"success": True, "data": "fake-own"})
    service = make_service()

    assert service.authenticate("zhangsan") == Identity("renewed", ZHANGSAN, "fake-own")
    assert service.authenticate("zhangsan") == Identity("cached", ZHANGSAN, "fake-own")

    assert redis_client.get("authorization:token:fake-own") == "written by the auth service"
    assert 0 < redis_client.ttl("authorization:token:fake-own") <= 100


def test_a_valid_token_of_an_unknown_user_is_refused(make_service: MakeService, redis_client: redis.Redis) -> None:
    """A valid token whose key holds no readable user record needs the user in SQL."""
    redis_client.set("authorization:wechatid:lisi", "fake-own")
    redis_client.set("authorization:token:fake-own", "1")

    assert refused(make_service(), "lisi") == "unknown_user"


def test_each_corp_has_its_own_tokens(make_service: MakeService, auth: MockAuth, redis_client: redis.Redis) -> None:
    """The same userid in two corps is authenticated twice, under two keys; the query may filter by corp."""
    service = make_service(query=f"{DEMO_USER_QUERY} AND :corp IN ('', 'acme')")

    service.authenticate("zhangsan")
    assert service.authenticate("zhangsan", "acme").state == "renewed"
    assert service.authenticate("zhangsan", "acme").state == "cached"
    assert refused(service, "zhangsan", "other") == "unknown_user"

    assert redis_client.get("authorization:wechatid:acme:zhangsan") == auth.tokens[1]


def test_no_password_is_in_redis(make_service: MakeService, redis_client: redis.Redis) -> None:
    """No key that authentication writes contains the password."""
    service = make_service()
    service.authenticate("zhangsan")
    refused(service, "lisi")

    assert "demo-password" not in "".join(str(redis_client.get(key)) for key in redis_client.scan_iter())
    assert not redis_client.keys("dify_lock:*")


@pytest.mark.parametrize(
    ("userid", "behaviour", "code"),
    [
        ("lisi", "normal", "unknown_user"),
        ("", "normal", "unknown_user"),
        ("zhangsan", "refuse", "auth_refused"),
        ("zhangsan", "error", "auth_unavailable"),
        ("zhangsan", "garbage", "auth_unavailable"),
    ],
)
def test_each_failure_has_its_code(
    make_service: MakeService, auth: MockAuth, userid: str, behaviour: Any, code: str
) -> None:
    """Unknown user, refused and unavailable are three different codes; an unknown userid never leaves for the API."""
    auth.behaviour = behaviour

    assert refused(make_service(), userid) == code

    assert bool(auth.calls) is (userid == "zhangsan")


def test_a_denial_is_cached_for_every_replica(
    make_service: MakeService, auth: MockAuth, redis_client: redis.Redis
) -> None:
    """Until `authorization:denied` expires no replica calls the API; then it is called again."""
    one, other = make_service(), make_service()
    auth.behaviour = "refuse"

    def denied() -> bool:
        assert refused(one, "zhangsan") == "auth_refused"
        assert redis_client.pttl("authorization:denied:zhangsan") <= 30_000
        # For the test, however slowly it runs.
        return bool(redis_client.persist("authorization:denied:zhangsan"))

    wait_until(denied)
    auth.behaviour, calls = "normal", auth.calls["E1001"]

    assert refused(other, "zhangsan") == "auth_refused"
    assert auth.calls["E1001"] == calls
    redis_client.delete("authorization:denied:zhangsan")
    assert other.authenticate("zhangsan").state == "renewed"


def test_an_outage_is_looked_at_again_by_the_next_question(
    make_service: MakeService, auth: MockAuth, redis_client: redis.Redis
) -> None:
    """The auth API may be back at once: only calls that waited for the same lookup get its failure."""
    one, other = make_service(), make_service()
    auth.behaviour = "error"
    assert refused(one, "zhangsan") == "auth_unavailable"
    # However slowly the test runs.
    redis_client.set("authorization:denied:zhangsan", "auth_unavailable")
    auth.behaviour = "normal"

    assert other.authenticate("zhangsan").state == "renewed"


def test_calls_that_waited_share_an_outage(make_service: MakeService, held: HeldAuth) -> None:
    """They do not call an API that is away one after the other."""
    real = FakeClock()
    service = make_service(url=held.url, clock=RunningClock(real))
    held.says(500, b"")
    outcomes: list[Identity | AuthError] = []
    asking = threading.Thread(
        target=lambda: outcomes.extend(at_once(*[lambda: service.authenticate("zhangsan")] * 3)), daemon=True
    )
    asking.start()
    assert held.asked.wait(30.0)
    assert service._external
    locks = service._external._user_locks._locks
    wait_until(lambda: [wanted for _, wanted in locks.values()] == [3])

    real.advance(20.0)
    held.go_on.set()
    asking.join(60.0)

    assert [outcome.code for outcome in outcomes if isinstance(outcome, AuthError)] == ["auth_unavailable"] * 3
    assert held.calls["E1001"] == 1


def test_a_failure_of_sql_over_a_pause_fails_no_authentication(
    make_service: MakeService, database: str, redis_client: redis.Redis
) -> None:
    """The pause counts for two seconds of the five for which SQL may be away, and no replica hears of the failure."""
    host = FrozenHost()
    service = make_service(users=host.users(database), clock=host.clock, sql=5.0)

    assert service.authenticate("zhangsan").state == "renewed"

    assert not redis_client.exists("authorization:denied:zhangsan")


def test_a_failure_of_the_auth_api_over_a_pause_is_not_shared(
    make_service: MakeService, redis_client: redis.Redis
) -> None:
    """Its reply may have come while this process was stopped; an outage without a pause is shared."""
    host = FrozenHost()
    with host.auth() as auth:
        service = make_service(url=auth.url, clock=host.clock)

        assert refused(service, "zhangsan") == "auth_unavailable"

        assert not redis_client.exists("authorization:denied:zhangsan")
        assert service.authenticate("zhangsan").state == "renewed"


def test_two_replicas_make_one_call(make_service: MakeService, auth: MockAuth) -> None:
    """Of twenty concurrent questions of one user one renews the token; the others wait for it, on any replica."""
    auth.behaviour, auth.delay = "slow", 0.2
    one, other = make_service(), make_service()

    outcomes = at_once(*[lambda: one.authenticate("zhangsan"), lambda: other.authenticate("zhangsan")] * 10)

    assert auth.calls == {"E1001": 1}
    assert {o.token for o in outcomes if isinstance(o, Identity)} == {auth.tokens[0]}
    assert sorted(o.state for o in outcomes if isinstance(o, Identity)) == ["cached"] * 19 + ["renewed"]


def test_waiting_calls_share_a_denial(make_service: MakeService, auth: MockAuth) -> None:
    """Calls that wait for a call that is refused do not call the API again."""
    auth.behaviour = "refuse"
    one, other = make_service(), make_service()

    outcomes = at_once(*[lambda: one.authenticate("zhangsan"), lambda: other.authenticate("zhangsan")] * 5)

    assert auth.calls == {"E1001": 1}
    assert {o.code for o in outcomes if isinstance(o, AuthError)} == {"auth_refused"}
    assert len(outcomes) == 10


def test_users_do_not_wait_for_each_other(make_service: MakeService, auth: MockAuth) -> None:
    """While the call for one user hangs, other users are authenticated."""
    service = make_service()
    auth.behaviour = "hang"
    stuck = threading.Thread(target=at_once, args=(lambda: service.authenticate("wangwu"),))
    stuck.start()
    wait_until(lambda: auth.calls["E1002"])
    auth.behaviour = "normal"

    assert service.authenticate("zhangsan").state == "renewed"

    assert stuck.is_alive()
    auth.close()
    stuck.join(60.0)


def test_a_wait_for_another_replica_is_bounded(make_service: MakeService, redis_client: redis.Redis) -> None:
    """A lock that is never released costs the `turn` timeout."""
    redis_client.set("dify_lock:auth::zhangsan", "a dead replica", px=60_000)

    assert refused(make_service(turn=0.1), "zhangsan") == "auth_unavailable"

    assert redis_client.get("dify_lock:auth::zhangsan") == "a dead replica"


def test_a_dead_replicas_lock_expires(make_service: MakeService, auth: MockAuth, redis_client: redis.Redis) -> None:
    """A waiting service takes over when the lock has expired."""
    redis_client.set("dify_lock:auth::zhangsan", "a dead replica", px=200)

    assert make_service().authenticate("zhangsan").state == "renewed"

    assert auth.calls == {"E1001": 1}


def test_a_wait_within_the_process_is_bounded(make_service: MakeService, auth: MockAuth) -> None:
    """While the call for a user hangs, a second question of that user fails after the `turn` timeout."""
    service = make_service(turn=0.1)
    auth.behaviour = "hang"
    stuck = threading.Thread(target=at_once, args=(lambda: service.authenticate("wangwu"),))
    stuck.start()
    wait_until(lambda: auth.calls["E1002"])

    assert refused(service, "wangwu") == "auth_unavailable"

    auth.close()
    stuck.join(60.0)


def test_user_locks_exclude_by_name() -> None:
    """A second thread fails after its timeout for a held name, and enters another name at once."""
    locks = UserLocks()
    with locks.hold("zhangsan", 1.0):
        with pytest.raises(AuthError, match="too long"), locks.hold("zhangsan", 0.01):
            pytest.fail("entered twice")
        with locks.hold("wangwu", 0.0):
            pass

    with locks.hold("zhangsan", 0.0):
        pass


def test_unused_locks_are_removed(make_service: MakeService) -> None:
    """The process keeps no lock of a user after the authentication, so memory does not grow with users."""
    service = make_service()
    at_once(*[lambda: service.authenticate("zhangsan")] * 5)

    assert service._external is not None
    assert not service._external._user_locks._locks


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        # The token cannot be stored, so it is not used.
        ({"success": True, "data": "fake-token"}, "auth_unavailable"),
        # The lock cannot be released; the API's denial is reported all the same.
        ({"success": False}, "auth_refused"),
    ],
)
def test_redis_lost_during_the_call_is_a_failure(
    make_service: MakeService, held: HeldAuth, answer: dict[str, object], code: str
) -> None:
    """When Redis goes down during the API call, the outcome is a failure with the right code."""
    held.says(200, answer)
    outcomes: list[Identity | AuthError] = []
    with RedisServer() as server:
        service = make_service(redis_url=server.url(), url=held.url)
        caller = threading.Thread(target=lambda: outcomes.extend(at_once(lambda: service.authenticate("zhangsan"))))
        caller.start()
        assert held.asked.wait(30.0)

        server.kill()
        held.go_on.set()
        caller.join(60.0)

    assert [o.code for o in outcomes if isinstance(o, AuthError)] == [code]


def test_an_emptied_redis_costs_one_call(make_service: MakeService, redis_client: redis.Redis) -> None:
    """After Redis lost its keys and scripts the service calls the API once more, then reads the cache."""
    service = make_service()
    service.authenticate("zhangsan")
    redis_client.flushall()
    redis_client.script_flush()

    assert service.authenticate("zhangsan").state == "renewed"
    assert service.authenticate("zhangsan").state == "cached"


def test_an_outage_of_the_database_is_unavailable(
    make_service: MakeService, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """An SQL outage is not a denial; it is cached for two seconds at most, like one of the API."""
    service = make_service(database=f"sqlite:///{tmp_path / 'none' / 'users.db'}")

    assert refused(service, "zhangsan") == "auth_unavailable"

    assert 0 < redis_client.pttl("authorization:denied:zhangsan") <= 2000


def test_a_query_without_a_password_needs_an_administrator(
    make_service: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """Every user is refused, and the log names the missing column."""
    service = make_service(query="SELECT user_code FROM demo_users WHERE userid = :userid")

    assert refused(service, "zhangsan") == "store_refused"

    assert "AUTH_USER_QUERY does not return the column password" in caplog.text


@pytest.mark.full
@pytest.mark.parametrize("fault", ["login", "table"])
def test_a_refusal_of_the_database_is_not_waited_for(
    fault: str, make_service: MakeService, maria_server: MariaServer, redis_client: redis.Redis
) -> None:
    """A wrong password and a missing table stay until an administrator acts: no attempt follows."""
    url = maria_server.fresh_database("auth")
    if fault == "login":
        url = re.sub("//.*@", "//nobody:wrong@", url)
    service = make_service(database=url, sql=600.0)

    assert refused(service, "zhangsan") == "store_refused"

    assert 0 < redis_client.pttl("authorization:denied:zhangsan") <= 2000


@pytest.mark.full
def test_users_of_a_real_database_are_authenticated_once_each(
    make_service: MakeService, auth: MockAuth, maria_server: MariaServer
) -> None:
    """On MariaDB too, two replicas make one call per user."""
    url = maria_server.fresh_database("auth")
    create_demo_users(url)
    one, other = make_service(database=url), make_service(database=url)
    auth.users["E1002"] = auth.users["E1001"]

    at_once(
        *[lambda: one.authenticate("zhangsan"), lambda: other.authenticate("zhangsan")] * 3,
        *[lambda: one.authenticate("wangwu"), lambda: other.authenticate("wangwu")] * 3,
    )

    assert auth.calls == {"E1001": 1, "E1002": 1}


@pytest.mark.parametrize("method", ["post", "get"])
@pytest.mark.parametrize("behaviour", ["normal", "refuse", "error", "garbage"])
def test_no_secret_is_logged(
    make_service: MakeService, auth: MockAuth, caplog: pytest.LogCaptureFixture, method: str, behaviour: Any
) -> None:
    """No password, token or phone is in a log line or traceback, at debug level and on every failure."""
    auth.behaviour = behaviour
    service = make_service(method=method)

    with caplog.at_level(logging.DEBUG):
        try:
            service.authenticate("zhangsan")
        except AuthError:
            logging.getLogger("test").exception("failed")

    assert all(secret not in caplog.text for secret in ["demo-password", "13800000001", *auth.tokens])


def test_each_failure_is_logged_once(
    make_service: MakeService, auth: MockAuth, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure logs one warning with code and cause; its repetition from the cache logs nothing."""
    service = make_service()
    auth.behaviour = "refuse"

    refused(service, "zhangsan")
    refused(service, "zhangsan")

    warnings = [record.getMessage() for record in caplog.records if record.name == "services.identity.auth_service"]
    assert warnings == ["authentication failed: auth_refused (the auth API refused, HTTP 200)"]


def test_mode_none_accepts_every_user() -> None:
    """Without authentication the userid is the user_code; an empty userid has no user record."""
    service = AuthService("none")

    assert service.authenticate("anyone") == Identity("none", UserInfo("anyone"))
    assert service.authenticate("") == Identity("none", None)
    service.check()
    service.close()


def test_mode_allowlist_accepts_listed_users() -> None:
    """A listed userid is accepted in its own corp only."""
    service = AuthService("allowlist", allowlist=["zhangsan", "acme:wangwu"])

    assert service.authenticate("zhangsan") == Identity("none", UserInfo("zhangsan"))
    assert service.authenticate("wangwu", "acme").state == "none"
    for userid, corp in [("lisi", ""), ("", ""), ("ZHANGSAN", ""), ("wangwu", ""), ("zhangsan", "acme")]:
        assert refused(service, userid, corp) == "not_allowed"


def test_an_empty_allowlist_refuses_every_user() -> None:
    """An empty list is not the same as no restriction."""
    assert refused(AuthService("allowlist"), "zhangsan") == "not_allowed"


def test_mode_external_requires_its_stores() -> None:
    """Without them nobody is authenticated; `config.rules` refuses settings that would lead there."""
    with pytest.raises(ValueError, match="mode external"):
        AuthService("external")


def test_check_calls_the_api(make_service: MakeService, auth: MockAuth) -> None:
    """The check passes while the API answers, and fails when it is down."""
    service = make_service()
    service.check()

    auth.close()

    with pytest.raises(AuthError):
        service.check()


@pytest.mark.full
def test_a_short_outage_of_the_database_fails_no_authentication(make_service: MakeService) -> None:
    """A database that is back within the `sql` timeout authenticates the user; no failure is cached."""
    with MariaServer() as server:
        database = server.fresh_database()
        create_demo_users(database)
        service = make_service(database=database, sql=30.0)
        server.stop()
        outcome: list[Identity] = []
        asking = threading.Thread(target=lambda: outcome.append(service.authenticate("zhangsan")))
        asking.start()
        server.start()

        asking.join(40.0)

    assert [identity.state for identity in outcome] == ["renewed"]


def test_an_outage_of_redis_within_the_timeout_fails_no_authentication(
    make_service: MakeService, held: HeldAuth
) -> None:
    """A user whose API call runs while Redis restarts is accepted; the lock that stayed in Redis does not hinder it."""
    outcomes: list[Identity | AuthError] = []
    with RedisServer(aof=True) as server:
        service = make_service(redis_url=server.url(), url=held.url, redis=60.0)
        caller = threading.Thread(target=lambda: outcomes.extend(at_once(lambda: service.authenticate("zhangsan"))))
        caller.start()
        assert held.asked.wait(30.0)
        server.kill()
        held.go_on.set()
        wait_until(lambda: held.tokens, timeout=30.0)
        server.start()
        # Less than the TTL of the lock that could not be released.
        caller.join(20.0)

        assert [outcome.token for outcome in outcomes if isinstance(outcome, Identity)] == held.tokens
        assert held.calls["E1001"] == 1


def test_a_long_outage_of_redis_costs_the_redis_timeout(make_service: MakeService, auth: MockAuth) -> None:
    """The `redis` timeout ends the wait, however long the `sql` timeout is."""
    service = make_service(redis_url=f"redis://127.0.0.1:{free_port()}/1", redis=0.5, sql=600.0)

    assert refused(service, "zhangsan") == "auth_unavailable"

    assert not auth.calls


def test_a_long_outage_of_the_database_costs_the_sql_timeout(make_service: MakeService, tmp_path: Path) -> None:
    """The `redis` timeout does not prolong the wait for SQL."""
    service = make_service(database=f"sqlite:///{tmp_path / 'none' / 'users.db'}", sql=0.0, redis=600.0)

    assert refused(service, "zhangsan") == "auth_unavailable"


def test_a_dead_replicas_lock_expires_before_waiting_calls_give_up() -> None:
    """A replica killed during an authentication delays the next one by seconds, and does not fail it."""
    defaults = AuthTimeouts()

    assert defaults.api + LOCK_MARGIN < defaults.turn
