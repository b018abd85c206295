"""The sockets' registry: credentials, limits, one socket per client, the administrators' list, and the drain."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from werkzeug.middleware.proxy_fix import ProxyFix

from channels.sockets import registry
from services import metrics
from services.identity.callers import Callers
from services.identity.token_store import TokenStore
from services.models import UserInfo
from services.redis.store import ScriptRunner, connect
from tests.support.servers.processes import RedisServer, free_port, wait_until
from tests.support.sockets.socket_stage import API_KEY, TIMEOUT, Client, Stage

TOKEN = "obviously-fake-token-1"


@pytest.fixture
def stage(redis_url: str) -> Iterator[Stage]:
    with Stage(redis_url) as stage:
        yield stage


@pytest.fixture
def pair(redis_url: str) -> Iterator[tuple[Stage, Stage]]:
    """Two replicas on one Redis."""
    with Stage(redis_url, replica="one") as one, Stage(redis_url, replica="two") as two:
        yield one, two


def subprotocol_of(secret: str) -> str:
    """Return the subprotocol that carries a credential."""
    return "bearer." + base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")


def credentials(way: str, secret: str) -> dict[str, Any]:
    """Return the arguments that send a credential in one of the ways."""
    match way:
        case "bearer":
            return {"headers": {"Authorization": f"Bearer {secret}"}}
        case "lower":
            return {"headers": {"Authorization": f"bearer  {secret} "}}
        case "x-api-key":
            return {"headers": {"X-API-Key": secret}}
        case _:
            return {"subprotocols": ["wechatlaibao", subprotocol_of(secret)]}


WAYS = ("bearer", "lower", "x-api-key", "subprotocol")


@pytest.mark.parametrize("way", WAYS)
def test_a_credential_opens_a_socket(stage: Stage, way: str) -> None:
    """Each way of sending a credential identifies the caller; of several subprotocols, ours is selected."""
    with stage.open(key=None, **credentials(way, API_KEY)) as client:
        hello = client.sees()

        assert hello["hello"] == "client-a"
        assert hello["principal"].startswith("key:")
        assert client.connection.subprotocol == ("wechatlaibao" if way == "subprotocol" else None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("secret", ["wrong", ""])
def test_a_wrong_credential_is_refused(stage: Stage, way: str, secret: str) -> None:
    """The reply is the 401 envelope, and no channel is opened."""
    status, reply = stage.refuses(key=None, **credentials(way, secret))

    assert (status, reply["code"], reply["data"]) == (401, 401, None)
    assert stage.endpoints == []


@pytest.mark.parametrize("offered", ["bearer.%%%", "bearer.", "bearer._-8"])
def test_an_unreadable_credential_is_rejected(stage: Stage, offered: str) -> None:
    """Invalid base64 and invalid UTF-8 are a wrong credential, not a missing one."""
    headers = {"Sec-WebSocket-Protocol": f"wechatlaibao, {offered}"}

    assert stage.refuses(key=None, headers=headers)[0] == 401


def test_another_subprotocol_is_not_selected(stage: Stage) -> None:
    """A subprotocol of the client that the server does not know is not selected."""
    with stage.open(subprotocols=["graphql-ws"]) as client:
        assert client.connection.subprotocol is None


def test_another_scheme_is_no_credential(stage: Stage) -> None:
    """Basic authentication left by a proxy neither hides an API key nor counts as one."""
    basic = {"Authorization": "Basic b2J2aW91c2x5OmZha2U="}

    with stage.open(headers=basic) as client:
        assert client.sees()["hello"] == "client-a"
    with stage.open(key=None, headers=basic) as client:
        assert client.sees() == {"type": "auth_required"}


@pytest.mark.parametrize("query", [f"?token={API_KEY}", f"?api_key={API_KEY}", f"?access_token={API_KEY}"])
def test_no_credential_is_taken_from_the_address(stage: Stage, query: str) -> None:
    """URLs are logged by proxies, so a credential in the query is ignored."""
    with stage.open(f"/chat/client-a{query}", key=None) as client:
        assert client.sees() == {"type": "auth_required"}


def test_the_first_frame_may_carry_the_credential(stage: Stage) -> None:
    """A client without a credential is asked for one; the channel opens after it authenticates."""
    with stage.open(key=None) as client:
        assert client.sees() == {"type": "auth_required"}
        assert stage.endpoints == []

        client.says({"type": "auth", "token": API_KEY})

        assert client.sees()["principal"].startswith("key:")
        assert client.asks("anything") == {"echo": "anything"}


@pytest.mark.parametrize(
    "first",
    [
        {"type": "auth", "token": "wrong"},
        {"type": "auth", "token": ""},
        {"type": "auth", "token": 1},
        {"type": "auth"},
        {"type": "chat", "content": "hi", "token": API_KEY},
        "no json",
        "[]",
        "[" * 5000,
        '{"type": "auth", "token": "\\ud800"}',
    ],
)
def test_a_wrong_first_frame_ends_the_socket(stage: Stage, first: str | dict[str, Any]) -> None:
    """The socket is closed with 4401 and no channel is opened."""
    with stage.open(key=None) as client:
        client.sees()
        client.says(first)

        assert client.end().code == 4401
    assert stage.endpoints == []


def test_a_client_that_never_authenticates_is_closed(redis_url: str) -> None:
    """After `auth_seconds` the socket is closed with 4401, and its slot is free."""
    with Stage(redis_url, auth_seconds=0.2) as stage, stage.open(key=None) as client:
        client.sees()

        assert client.end().code == 4401
        wait_until(lambda: stage.sockets.count == 0)


def test_an_authenticated_client_is_not_closed_by_the_timeout(redis_url: str) -> None:
    """The timeout of the first frame ends with authentication."""
    with Stage(redis_url, auth_seconds=0.5) as stage, stage.open("/chat/early") as early:
        assert early.sees()["hello"] == "early"
        late = wait_until(lambda: authenticated(stage))
        assert late

        with late, stage.open("/chat/silent", key=None) as silent:
            silent.sees()
            assert silent.end().code == 4401
            assert early.asks("x") == late.asks("x") == {"echo": "x"}


def authenticated(stage: Stage) -> Client | None:
    """Return a client whose first frame had the credential; None if the timeout came before, on a busy machine."""
    client = stage.open("/chat/asked", key=None)
    with suppress(ConnectionClosed):
        client.sees()
        client.says({"type": "auth", "token": API_KEY})
        assert client.sees()["hello"] == "asked"
        return client
    return None


def test_a_users_token_opens_a_socket(redis_url: str, runner: ScriptRunner) -> None:
    """In mode token the principal is the user."""
    tokens = TokenStore(runner)
    tokens.save("zhangsan", "", TOKEN, UserInfo("E1001"), 60.0)

    with Stage(redis_url, callers=Callers("token", tokens=tokens, key=bytes(32))) as stage:
        with stage.open(key=TOKEN) as client:
            assert client.sees()["principal"] == "user:E1001"
        assert stage.refuses(key=API_KEY)[0] == 401


def test_without_redis_api_keys_are_checked_and_tokens_are_not(redis_url: str) -> None:
    """A token that cannot be checked gets 503, or 1011 after the first frame, not 401; API keys need no Redis."""
    away = f"redis://127.0.0.1:{free_port()}/0"
    nowhere = connect(away, pool_size=1)
    tokens = Callers("token", tokens=TokenStore(ScriptRunner(nowhere)), key=bytes(32))
    with Stage(away, callers=tokens) as stage:
        status, reply = stage.refuses(key=TOKEN)
        assert (status, reply["code"]) == (503, 40000)
        with stage.open(key=None) as client:
            client.sees()
            client.says({"type": "auth", "token": TOKEN})
            assert client.end().code == 1011
    with Stage(away, ip="1/minute") as stage, stage.open() as client:
        assert client.sees()["hello"] == "client-a"
    nowhere.close()


def test_mode_none_needs_no_credential(redis_url: str) -> None:
    """In mode none every client is anonymous, except those that send a valid API key."""
    open_endpoint = Callers("none", api_keys=[API_KEY])
    with Stage(redis_url, callers=open_endpoint) as stage:
        for key, principal in ((None, "anonymous"), ("whatever", "anonymous"), (API_KEY, "key")):
            with stage.open(key=key) as client:
                assert client.sees()["principal"].partition(":")[0] == principal


def test_a_client_without_an_id_gets_one(stage: Stage) -> None:
    """Each socket without a client id gets a different one."""
    with stage.open("/chat") as one, stage.open("/chat") as other:
        first, second = one.sees()["hello"], other.sees()["hello"]

    assert len(first) == len(second) == 32
    assert first != second


@pytest.mark.parametrize("client_id", ["a" * 65, "a%20b", "a:b", "%E6%9D%A5%E5%AE%9D", "a%0Ab", "a%0A"])
def test_a_strange_client_id_is_refused(stage: Stage, client_id: str) -> None:
    """A client id has at most 64 letters, digits, dots, underscores and hyphens."""
    assert stage.refuses(f"/chat/{client_id}")[0] == 400


@pytest.mark.parametrize("client_id", ["a" * 64, "A.b_c-9"])
def test_an_ordinary_client_id_is_taken(stage: Stage, client_id: str) -> None:
    """The channel gets the client id unchanged."""
    with stage.open(f"/chat/{client_id}") as client:
        assert client.sees()["hello"] == client_id


def test_a_plain_request_gets_upgrade_required(stage: Stage) -> None:
    """A request without Upgrade gets 426 and the Upgrade header, before any other check."""
    reply = requests.get(f"http://127.0.0.1:{stage.port}/chat/client-a", timeout=TIMEOUT)

    assert (reply.status_code, reply.headers["Upgrade"], reply.json()["code"]) == (426, "websocket", 400)
    assert stage.sockets.count == 0


def test_a_wrong_handshake_releases_its_slot(redis_url: str) -> None:
    """A handshake of an unknown WebSocket version gets 400, and its slot is released."""
    with Stage(redis_url, max_sockets=1) as stage:
        handshake = {"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket", "Sec-WebSocket-Version": "12"}
        headers = {**handshake, "Sec-WebSocket-Key": "b2J2aW91c2x5IGZha2U=", "X-API-Key": API_KEY}
        reply = requests.get(f"http://127.0.0.1:{stage.port}/chat/client-a", headers=headers, timeout=TIMEOUT)

        assert reply.status_code == 400
        assert stage.sockets.count == 0


def test_only_pages_of_allowed_origins_open_a_socket(redis_url: str) -> None:
    """A handshake without an Origin does not come from a browser; an Origin must be this server's or an allowed one."""
    with Stage(redis_url, origins=("https://chat.example.com",)) as stage:
        for origin in (None, f"http://127.0.0.1:{stage.port}", "https://chat.example.com:443"):
            stage.open(origin=origin).close()

        for origin in ("https://evil.example", f"http://localhost:{stage.port}", "null", ""):
            status, reply = stage.refuses(headers={"Origin": origin})
            assert (status, reply["code"]) == (403, 403)


def test_handshakes_are_limited_by_address(redis_url: str) -> None:
    """Beyond the limit 429, also with a valid credential, so that keys cannot be guessed without end."""
    with Stage(redis_url, ip="3/minute") as stage:
        stage.open().close()
        assert [stage.refuses(key="wrong")[0] for _ in range(3)] == [401, 401, 429]

        status, reply = stage.refuses()
        assert (status, reply["code"]) == (429, 20000)


@pytest.mark.parametrize("trusted", [0, 1])
def test_a_forwarded_address_counts_only_of_a_trusted_proxy(redis_url: str, trusted: int) -> None:
    """Without a trusted proxy X-Forwarded-For is ignored, so a client cannot choose the address that is counted."""
    with Stage(redis_url, ip="2/minute") as stage:
        if trusted:
            stage.app.wsgi_app = ProxyFix(stage.app.wsgi_app, x_for=trusted)  # type: ignore[method-assign]
        statuses = []
        for i in range(4):
            try:
                stage.open(headers={"X-Forwarded-For": f"203.0.113.{i}"}).close()
                statuses.append(101)
            except InvalidStatus as exc:
                statuses.append(exc.response.status_code)

    assert statuses == ([101] * 4 if trusted else [101, 101, 429, 429])


def test_sockets_are_limited_by_replica(redis_url: str) -> None:
    """Beyond the limit 503; unauthenticated sockets count too; a closed socket's slot is free again."""
    with Stage(redis_url, max_sockets=2) as stage:
        with stage.open("/chat/a"), stage.open("/chat/b", key=None):
            status, reply = stage.refuses("/chat/c")
            assert (status, reply["code"]) == (503, 503)
            assert stage.refuses("/chat/c", key="wrong")[0] == 503

        wait_until(lambda: stage.sockets.count == 0)
        stage.open("/chat/c").close()


@pytest.mark.parametrize("client_id", ["unmakeable", "unopenable", "unclosable"])
def test_a_channel_that_fails_releases_its_slot(
    redis_url: str, client_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A channel that raises is closed once; its slot is released, and the error is logged with its traceback."""
    with Stage(redis_url, max_sockets=1) as stage:
        client = stage.open(f"/chat/{client_id}")
        if client_id == "unclosable":
            client.sees()
            client.close()
        else:
            assert client.end().code == 1011

        wait_until(lambda: stage.sockets.count == 0)
        assert [len(endpoint.ends) for endpoint in stage.endpoints] == [0 if client_id == "unmakeable" else 1]
        wait_until(lambda: stage.sockets.connections() == [])
        stage.open("/chat/next").close()
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [(error.name.partition(".")[0], bool(error.exc_info)) for error in errors] == [("channels", True)]


def test_a_client_id_is_no_identity(stage: Stage) -> None:
    """Another channel, another key, or no credential with the same client id closes no socket."""
    with (
        stage.open() as mine,
        stage.open(key="obviously-fake-key-2") as others,
        stage.open("/realtime/client-a") as elsewhere,
        stage.open(key=None) as nobodys,
    ):
        for client in (mine, others, elsewhere):
            assert client.sees()["hello"] == "client-a"
        nobodys.sees()

        assert [client.asks("x") for client in (mine, others, elsewhere)] == [{"echo": "x"}] * 3


def test_a_client_that_changes_replicas_keeps_its_last_socket(pair: tuple[Stage, Stage]) -> None:
    """After several changes of the replica, the last socket stays and all others are closed."""
    opened: list[Client] = []
    for i in range(6):
        opened.append(pair[i % 2].open())
        opened[-1].sees()

    assert [client.end().code for client in opened[:-1]] == [4409] * 5
    assert opened[-1].asks("still here") == {"echo": "still here"}
    opened[-1].close()


def test_an_outage_of_redis_closes_no_socket() -> None:
    """Sockets go on and new ones open during an outage; afterwards even an empty Redis gets all of them listed.

    Of two sockets of one client, the newer one stays.
    """
    with (
        RedisServer() as server,
        Stage(server.url(), replica="one") as one,
        Stage(server.url(), replica="two") as two,
        one.open() as older,
        one.open("/chat/client-b") as other,
    ):
        older.sees(), other.sees()
        server.kill()
        with two.open() as newer:
            newer.sees()
            assert older.asks("still here") == other.asks("still here") == {"echo": "still here"}

            server.start()

            assert older.end().code == 4409
            wait_until(lambda: listed(one) == ["client-a", "client-b"], timeout=TIMEOUT)
            assert newer.asks("still here") == other.asks("still here") == {"echo": "still here"}


def listed(stage: Stage) -> list[str]:
    return sorted(one["client_id"] for one in stage.sockets.connections())


def test_connections_of_all_replicas_are_listed(pair: tuple[Stage, Stage]) -> None:
    """The list has channel, start, idle time and replica of all authenticated sockets on all replicas."""
    one, two = pair
    with one.open() as client:
        client.sees()
        with two.open("/realtime/client-b") as other, two.open("/chat/client-c", key=None) as unauthenticated:
            other.sees(), unauthenticated.sees()

            first, second = two.sockets.connections()

    assert (first["client_id"], first["channel"], first["replica"]) == ("client-a", "chat", "one")
    assert (second["client_id"], second["channel"], second["replica"]) == ("client-b", "realtime", "two")
    assert first["connected_at"].endswith("Z")
    assert set(first) == {"client_id", "channel", "connected_at", "idle_time", "replica"}
    assert 0 <= first["idle_time"] < TIMEOUT


def test_administrators_close_a_client_on_every_replica(pair: tuple[Stage, Stage]) -> None:
    """Close code 4410, after a system frame on the chat channel; other clients stay, and the client may reconnect."""
    one, two = pair
    with one.open() as chat, two.open("/realtime/client-a") as realtime, two.open("/chat/client-b") as bystander:
        for client in (chat, realtime, bystander):
            client.sees()

        assert one.sockets.disconnect("client-a") == 2

        goodbye = chat.sees()
        assert (goodbye["type"], goodbye["client_id"]) == ("system", "client-a")
        assert goodbye["content"] == "You have been disconnected by the server."
        assert chat.end().code == realtime.end().code == 4410
        wait_until(lambda: listed(one) == ["client-b"])
        with one.open() as back:
            assert back.sees()["hello"] == "client-a"
            assert back.asks("x") == bystander.asks("x") == {"echo": "x"}
        assert one.sockets.disconnect("nobody") == 0


def test_a_draining_replica_closes_idle_sockets_first(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle sockets are closed with 1012 at once, busy ones after their answer or at the end; new handshakes get 503."""
    monkeypatch.setattr(registry, "SHOWN_SECONDS", 0.2)
    with (
        stage.open("/chat/idle") as idle,
        stage.open("/chat/soon") as soon,
        stage.open("/chat/long") as long,
        stage.open("/chat/nobody", key=None) as unauthenticated,
    ):
        for client in (idle, soon, long, unauthenticated):
            client.sees()
        assert soon.asks("busy") == long.asks("busy") == {"echo": "busy"}

        stage.sockets.leave()

        assert idle.end().code == unauthenticated.end().code == 1012
        status, reply = stage.refuses("/chat/new")
        assert (status, reply["code"]) == (503, 503)
        assert soon.asks("still here") == {"echo": "still here"}
        assert soon.asks("idle") == {"echo": "idle"}
        assert soon.end().code == 1012
        assert long.asks("still here") == {"echo": "still here"}

        stage.sockets.close_all()

        assert long.end().code == 1012
        wait_until(lambda: stage.sockets.count == 0)


def test_an_answer_that_has_just_ended_is_shown_before_its_socket_is_closed(stage: Stage) -> None:
    """The last streams of a replica may end a moment before their clients have seen it."""
    with stage.open("/chat/soon") as soon:
        soon.sees()
        assert soon.asks("busy") == {"echo": "busy"}
        closing = threading.Thread(target=stage.sockets.close_all, daemon=True)

        closing.start()
        wait_until(lambda: stage.refuses("/chat/new")[0] == 503)

        assert soon.asks("the end") == {"echo": "the end"}
        assert soon.asks("idle") == {"echo": "idle"}
        assert soon.end().code == 1012
        closing.join(30)


def test_a_process_that_is_not_ready_opens_nothing(redis_url: str) -> None:
    """Handshakes get 503 while the process starts."""
    with Stage(redis_url, ready=lambda: False) as stage:
        assert stage.refuses()[0] == 503


def test_a_socket_is_one_line_in_the_log(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """The line has channel, client, close code, duration and message counts, and no secret."""
    with caplog.at_level(logging.INFO, "channels"):
        with stage.open() as client:
            client.sees()
            client.asks("something personal")
            client.close(1001)
        wait_until(lambda: stage.sockets.count == 0)

    (line,) = [record for record in caplog.records if record.name == "channels.sockets.endpoint"]
    assert (line.levelname, line.message) == ("INFO", "socket")
    fields = vars(line)
    assert (fields["channel"], fields["client_id"], fields["code"]) == ("chat", "client-a", 1001)
    assert (fields["received"], fields["sent"]) == (1, 2)
    assert (fields["by_peer"], fields["clean"], fields["authenticated"]) == (True, True, True)
    assert fields["seconds"] >= 0
    assert not [words for words in (API_KEY, "something personal") if words in repr([vars(r) for r in caplog.records])]


@pytest.mark.parametrize(
    ("check", "options"),
    [
        ("credential", {"key": "obviously-wrong"}),
        ("origin", {"origin": "https://evil.example"}),
    ],
)
def test_a_refused_handshake_is_a_warning(
    stage: Stage, caplog: pytest.LogCaptureFixture, check: str, options: dict[str, Any]
) -> None:
    """The line names the failed check and the origin, which an administrator may want to allow; no credential."""
    before = metrics.SOCKETS_REFUSED.labels("chat", check)._value.get()
    stage.refuses(**options)

    (line,) = [record for record in caplog.records if record.name == "channels.sockets.endpoint"]
    assert (line.levelname, vars(line)["check"], vars(line)["channel"]) == ("WARNING", check, "chat")
    assert vars(line).get("origin") == options.get("origin")
    assert "obviously-wrong" not in repr(vars(line))
    assert metrics.SOCKETS_REFUSED.labels("chat", check)._value.get() == before + 1


def test_sockets_are_counted(stage: Stage) -> None:
    """A gauge of open sockets, and a counter of ended ones by close code."""
    # No other test counts this channel's.
    is_open, ended = metrics.SOCKETS_OPEN.labels("counted"), metrics.SOCKETS_ENDED.labels("counted", "4409")
    with stage.open("/counted/client-a") as older:
        older.sees()
        with stage.open("/counted/client-a") as newer:
            newer.sees()
            older.end()
            wait_until(lambda: (is_open._value.get(), ended._value.get()) == (1, 1))

    wait_until(lambda: is_open._value.get() == 0)
