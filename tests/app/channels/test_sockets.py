"""Who may open a socket, which one of a client's stays, and how a replica's sockets end."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from websockets.exceptions import InvalidStatus
from werkzeug.middleware.proxy_fix import ProxyFix

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
    """Two replicas."""
    with Stage(redis_url, replica="one") as one, Stage(redis_url, replica="two") as two:
        yield one, two


def carried(secret: str) -> str:
    """Return the subprotocol that carries a credential."""
    return "bearer." + base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")


def by(way: str, secret: str) -> dict[str, Any]:
    """Return what a client does to show a credential in one of the ways."""
    match way:
        case "bearer":
            return {"headers": {"Authorization": f"Bearer {secret}"}}
        case "lower":
            return {"headers": {"Authorization": f"bearer  {secret} "}}
        case "x-api-key":
            return {"headers": {"X-API-Key": secret}}
        case _:
            return {"subprotocols": ["wechatlaibao", carried(secret)]}


WAYS = ("bearer", "lower", "x-api-key", "subprotocol")


@pytest.mark.parametrize("way", WAYS)
def test_a_credential_opens_a_socket(stage: Stage, way: str) -> None:
    """By each of the ways the endpoint learns who is there, and of a subprotocol ours is the one that is selected."""
    with stage.open(key=None, **by(way, API_KEY)) as client:
        hello = client.sees()

        assert hello["hello"] == "client-a"
        assert hello["principal"].startswith("key:")
        assert client.connection.subprotocol == ("wechatlaibao" if way == "subprotocol" else None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("secret", ["wrong", ""])
def test_a_wrong_credential_is_refused(stage: Stage, way: str, secret: str) -> None:
    """The same envelope each time, and nobody's endpoint."""
    status, reply = stage.refuses(key=None, **by(way, secret))

    assert (status, reply["code"], reply["data"]) == (401, 401, None)
    assert stage.endpoints == []


@pytest.mark.parametrize("offered", ["bearer.%%%", "bearer.", "bearer._-8"])
def test_what_no_credential_can_be_read_from_is_refused(stage: Stage, offered: str) -> None:
    """Neither bad base64 nor bytes that are no text are taken for no credential at all."""
    headers = {"Sec-WebSocket-Protocol": f"wechatlaibao, {offered}"}

    assert stage.refuses(key=None, headers=headers)[0] == 401


def test_another_subprotocol_is_not_selected(stage: Stage) -> None:
    """A client that offers protocols of its own gets none of them."""
    with stage.open(subprotocols=["graphql-ws"]) as client:
        assert client.connection.subprotocol is None


def test_another_scheme_is_no_credential(stage: Stage) -> None:
    """What a proxy's own password check leaves in the header hides no key, and is none."""
    basic = {"Authorization": "Basic b2J2aW91c2x5OmZha2U="}

    with stage.open(headers=basic) as client:
        assert client.sees()["hello"] == "client-a"
    with stage.open(key=None, headers=basic) as client:
        assert client.sees() == {"type": "auth_required"}


@pytest.mark.parametrize("query", [f"?token={API_KEY}", f"?api_key={API_KEY}", f"?access_token={API_KEY}"])
def test_no_credential_is_taken_from_the_address(stage: Stage, query: str) -> None:
    """Addresses are logged by everybody on the way."""
    with stage.open(f"/chat/client-a{query}", key=None) as client:
        assert client.sees() == {"type": "auth_required"}


def test_the_first_frame_may_show_the_credential(stage: Stage) -> None:
    """Who shows nothing is asked, and the endpoint opens when they do."""
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
    """4401, and the endpoint never heard of it."""
    with stage.open(key=None) as client:
        client.sees()
        client.says(first)

        assert client.end().code == 4401
    assert stage.endpoints == []


def test_who_never_shows_a_credential_is_closed(redis_url: str) -> None:
    """Waiting has an end, and the place is free again."""
    with Stage(redis_url, auth_seconds=0.2) as stage, stage.open(key=None) as client:
        client.sees()

        assert client.end().code == 4401
        wait_until(lambda: stage.sockets.count == 0)


def test_who_showed_a_credential_is_not_closed_for_it_later(redis_url: str) -> None:
    """The time for the first frame is over with it."""
    with (
        Stage(redis_url, auth_seconds=0.5) as stage,
        stage.open("/chat/early") as early,
        stage.open("/chat/asked", key=None) as asked,
    ):
        asked.sees()
        asked.says({"type": "auth", "token": API_KEY})
        assert early.sees()["hello"] == "early"
        assert asked.sees()["hello"] == "asked"

        with stage.open("/chat/silent", key=None) as silent:
            silent.sees()
            assert silent.end().code == 4401

        assert early.asks("x") == asked.asks("x") == {"echo": "x"}


def test_a_users_token_opens_a_socket(redis_url: str, runner: ScriptRunner) -> None:
    """In mode token the principal is the user."""
    tokens = TokenStore(runner)
    tokens.save("zhangsan", "", TOKEN, UserInfo("E1001"), 60.0)

    with Stage(redis_url, callers=Callers("token", tokens=tokens, key=bytes(32))) as stage:
        with stage.open(key=TOKEN) as client:
            assert client.sees()["principal"] == "user:E1001"
        assert stage.refuses(key=API_KEY)[0] == 401


def test_without_redis_a_token_opens_nothing_and_a_key_does(redis_url: str) -> None:
    """What cannot be checked is refused for now (503, or 1011 in the first frame), not as wrong."""
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


def test_an_open_endpoint_asks_nobody(redis_url: str) -> None:
    """In mode none everybody is anonymous, but for who shows a key that counts."""
    open_endpoint = Callers("none", api_keys=[API_KEY])
    with Stage(redis_url, callers=open_endpoint) as stage:
        for key, principal in ((None, "anonymous"), ("whatever", "anonymous"), (API_KEY, "key")):
            with stage.open(key=key) as client:
                assert client.sees()["principal"].partition(":")[0] == principal


def test_a_client_without_an_id_gets_one(stage: Stage) -> None:
    """Each socket a name of its own."""
    with stage.open("/chat") as one, stage.open("/chat") as other:
        first, second = one.sees()["hello"], other.sees()["hello"]

    assert len(first) == len(second) == 32
    assert first != second


@pytest.mark.parametrize("client_id", ["a" * 65, "a%20b", "a:b", "%E6%9D%A5%E5%AE%9D", "a%0Ab", "a%0A"])
def test_a_strange_client_id_is_refused(stage: Stage, client_id: str) -> None:
    """Up to 64 letters, digits, dots, underscores and hyphens."""
    assert stage.refuses(f"/chat/{client_id}")[0] == 400


@pytest.mark.parametrize("client_id", ["a" * 64, "A.b_c-9"])
def test_an_ordinary_client_id_is_taken(stage: Stage, client_id: str) -> None:
    """And it is the one the endpoint gets."""
    with stage.open(f"/chat/{client_id}") as client:
        assert client.sees()["hello"] == client_id


def test_a_plain_request_is_told_what_is_spoken_here(stage: Stage) -> None:
    """426 and the Upgrade header, before anything else is looked at."""
    reply = requests.get(f"http://127.0.0.1:{stage.port}/chat/client-a", timeout=TIMEOUT)

    assert (reply.status_code, reply.headers["Upgrade"], reply.json()["code"]) == (426, "websocket", 400)
    assert stage.sockets.count == 0


def test_a_wrong_handshake_leaves_no_place_taken(redis_url: str) -> None:
    """A version nobody speaks is refused, and what it had taken is given back."""
    with Stage(redis_url, max_sockets=1) as stage:
        handshake = {"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket", "Sec-WebSocket-Version": "12"}
        headers = {**handshake, "Sec-WebSocket-Key": "b2J2aW91c2x5IGZha2U=", "X-API-Key": API_KEY}
        reply = requests.get(f"http://127.0.0.1:{stage.port}/chat/client-a", headers=headers, timeout=TIMEOUT)

        assert reply.status_code == 400
        assert stage.sockets.count == 0


def test_a_page_of_this_server_may_open_a_socket_and_another_may_not(redis_url: str) -> None:
    """Without an origin it is no browser; with one it must be ours or a named one."""
    with Stage(redis_url, origins=("https://chat.example.com",)) as stage:
        for origin in (None, f"http://127.0.0.1:{stage.port}", "https://chat.example.com:443"):
            stage.open(origin=origin).close()

        for origin in ("https://evil.example", f"http://localhost:{stage.port}", "null", ""):
            status, reply = stage.refuses(headers={"Origin": origin})
            assert (status, reply["code"]) == (403, 403)


def test_an_address_may_come_so_often(redis_url: str) -> None:
    """One too many is 429; also with a right credential, so that nobody can try keys without end."""
    with Stage(redis_url, ip="3/minute") as stage:
        stage.open().close()
        assert [stage.refuses(key="wrong")[0] for _ in range(3)] == [401, 401, 429]

        status, reply = stage.refuses()
        assert (status, reply["code"]) == (429, 20000)


@pytest.mark.parametrize("trusted", [0, 1])
def test_a_forwarded_address_counts_only_of_a_trusted_proxy(redis_url: str, trusted: int) -> None:
    """Without one, a client cannot choose whom its requests are counted for."""
    with Stage(redis_url, ip="2/minute") as stage:
        if trusted:
            stage.app.wsgi_app = ProxyFix(stage.app.wsgi_app, x_for=trusted)  # type: ignore[method-assign]
        told = []
        for i in range(4):
            try:
                stage.open(headers={"X-Forwarded-For": f"203.0.113.{i}"}).close()
                told.append(101)
            except InvalidStatus as exc:
                told.append(exc.response.status_code)

    assert told == ([101] * 4 if trusted else [101, 101, 429, 429])


def test_so_many_sockets_and_no_more(redis_url: str) -> None:
    """One too many is 503, also while those there are have shown nothing yet; a place that is free is taken again."""
    with Stage(redis_url, max_sockets=2) as stage:
        with stage.open("/chat/a"), stage.open("/chat/b", key=None):
            status, reply = stage.refuses("/chat/c")
            assert (status, reply["code"]) == (503, 503)
            assert stage.refuses("/chat/c", key="wrong")[0] == 503

        wait_until(lambda: stage.sockets.count == 0)
        stage.open("/chat/c").close()


@pytest.mark.parametrize("client_id", ["unmakeable", "unopenable", "unclosable"])
def test_a_endpoint_that_fails_costs_no_place(redis_url: str, client_id: str, caplog: pytest.LogCaptureFixture) -> None:
    """An endpoint that raises is told once that its socket ended; the slot is free, and the error is logged."""
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


def test_a_message_that_fails_ends_its_socket(stage: Stage) -> None:
    """1011, and the endpoint hears of it once."""
    with stage.open() as client:
        client.sees()
        client.says("fail")

        assert client.end().code == 1011
    wait_until(lambda: stage.sockets.count == 0)
    assert [[end.code for end in endpoint.ends] for endpoint in stage.endpoints] == [[1011]]


def test_the_newer_socket_of_a_client_stays(stage: Stage) -> None:
    """The older one is closed at once with 4409; the newer one is heard, and known, on."""
    with stage.open() as older:
        older.sees()
        with stage.open() as newer:
            newer.sees()

            assert older.end().code == 4409
            wait_until(lambda: stage.sockets.count == 1)
            assert newer.asks("still here") == {"echo": "still here"}
            wait_until(lambda: [one["client_id"] for one in stage.sockets.connections()] == ["client-a"])


def test_a_client_id_is_no_identity(stage: Stage) -> None:
    """Whoever else uses it, at another endpoint or with another key, closes nobody's socket."""
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


@pytest.mark.parametrize("first", [0, 1])
def test_the_newer_socket_stays_on_whichever_replica(pair: tuple[Stage, Stage], first: int) -> None:
    """The older one is closed with 4409 by its own replica within its next renewals."""
    old, new = pair[first], pair[1 - first]
    with old.open() as older:
        older.sees()
        with new.open() as newer:
            newer.sees()

            assert older.end().code == 4409
            assert newer.asks("still here") == {"echo": "still here"}
            wait_until(lambda: old.sockets.count == 0)
            wait_until(lambda: len(new.sockets.connections()) == 1)
            assert newer.asks("still here") == {"echo": "still here"}


def test_a_client_that_goes_to_and_fro_is_closed_nowhere_but_behind_it(pair: tuple[Stage, Stage]) -> None:
    """However often it changes the replica, its last socket is the one that stays."""
    opened: list[Client] = []
    for i in range(6):
        opened.append(pair[i % 2].open())
        opened[-1].sees()

    assert [client.end().code for client in opened[:-1]] == [4409] * 5
    assert opened[-1].asks("still here") == {"echo": "still here"}
    opened[-1].close()


def test_redis_away_closes_nobody() -> None:
    """Sockets go on and new ones open; when Redis is back, also empty, it knows everybody, and the newer one wins."""
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
            wait_until(lambda: known(one) == ["client-a", "client-b"], timeout=TIMEOUT)
            assert newer.asks("still here") == other.asks("still here") == {"echo": "still here"}


def known(stage: Stage) -> list[str]:
    return sorted(one["client_id"] for one in stage.sockets.connections())


def test_administrators_see_who_is_connected(pair: tuple[Stage, Stage]) -> None:
    """On all replicas, with the endpoint, since when, how long silent, and where; and nobody who has shown nothing."""
    one, two = pair
    with one.open() as client, two.open("/realtime/client-b") as other, two.open("/chat/client-c", key=None) as nobody:
        client.sees(), other.sees(), nobody.sees()

        first, second = two.sockets.connections()

    assert (first["client_id"], first["door"], first["replica"]) == ("client-a", "chat", "one")
    assert (second["client_id"], second["door"], second["replica"]) == ("client-b", "realtime", "two")
    assert first["connected_at"].endswith("Z")
    assert set(first) == {"client_id", "door", "connected_at", "idle_time", "replica"}
    assert 0 <= first["idle_time"] < TIMEOUT


def test_who_leaves_is_listed_no_more(pair: tuple[Stage, Stage]) -> None:
    """The other replica knows it too."""
    one, two = pair
    with one.open() as client:
        client.sees()
        assert known(two) == ["client-a"]

    wait_until(lambda: known(two) == [])


def test_administrators_close_a_client_on_every_replica(pair: tuple[Stage, Stage]) -> None:
    """4410, with a system frame before it on the chat endpoint; others stay, and the client may come back."""
    one, two = pair
    with one.open() as chat, two.open("/realtime/client-a") as realtime, two.open("/chat/client-b") as bystander:
        for client in (chat, realtime, bystander):
            client.sees()

        assert one.sockets.disconnect("client-a") == 2

        goodbye = chat.sees()
        assert (goodbye["type"], goodbye["client_id"]) == ("system", "client-a")
        assert goodbye["content"] == "You have been disconnected by the server."
        assert chat.end().code == realtime.end().code == 4410
        wait_until(lambda: known(one) == ["client-b"])
        with one.open() as back:
            assert back.sees()["hello"] == "client-a"
            assert back.asks("x") == bystander.asks("x") == {"echo": "x"}
        assert one.sockets.disconnect("nobody") == 0


def test_a_leaving_replica_closes_who_waits_for_nothing(stage: Stage) -> None:
    """1012 at once, or when the answer is there; new handshakes get 503; the rest when it must end."""
    with (
        stage.open("/chat/idle") as idle,
        stage.open("/chat/soon") as soon,
        stage.open("/chat/long") as long,
        stage.open("/chat/nobody", key=None) as nobody,
    ):
        for client in (idle, soon, long, nobody):
            client.sees()
        assert soon.asks("busy") == long.asks("busy") == {"echo": "busy"}

        stage.sockets.leave()

        assert idle.end().code == nobody.end().code == 1012
        status, reply = stage.refuses("/chat/new")
        assert (status, reply["code"]) == (503, 503)
        assert soon.asks("still here") == {"echo": "still here"}
        assert soon.asks("idle") == {"echo": "idle"}
        assert soon.end().code == 1012
        assert long.asks("still here") == {"echo": "still here"}

        stage.sockets.close_all()

        assert long.end().code == 1012
        wait_until(lambda: stage.sockets.count == 0)


def test_a_replica_that_ended_is_in_nobodys_list(pair: tuple[Stage, Stage]) -> None:
    """What it had open is taken out at its end, not seconds later."""
    one, two = pair
    with two.open() as client:
        client.sees()
        two.sockets.close_all()
        assert client.end().code == 1012

        two.sockets.stop()

        assert one.sockets.connections() == []


def test_a_process_that_is_not_ready_opens_nothing(redis_url: str) -> None:
    """While it starts, another one answers."""
    with Stage(redis_url, ready=lambda: False) as stage:
        assert stage.refuses()[0] == 503


def test_a_socket_is_one_line_in_the_log(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Whose endpoint, which client, how it ended, how long it was and how much came; and nothing secret."""
    with caplog.at_level(logging.INFO, "channels"):
        with stage.open() as client:
            client.sees()
            client.asks("something personal")
            client.close(1001)
        wait_until(lambda: stage.sockets.count == 0)

    (line,) = [record for record in caplog.records if record.name == "channels.sockets.endpoint"]
    assert (line.levelname, line.message) == ("INFO", "socket")
    told = vars(line)
    assert (told["door"], told["client_id"], told["code"]) == ("chat", "client-a", 1001)
    assert (told["received"], told["sent"]) == (1, 2)
    assert (told["by_peer"], told["clean"], told["authenticated"]) == (True, True, True)
    assert told["seconds"] >= 0
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
    """It names the check that failed, and an origin, which an administrator may want to allow; no credential."""
    before = metrics.SOCKETS_REFUSED.labels("chat", check)._value.get()
    stage.refuses(**options)

    (line,) = [record for record in caplog.records if record.name == "channels.sockets.endpoint"]
    assert (line.levelname, vars(line)["check"], vars(line)["door"]) == ("WARNING", check, "chat")
    assert vars(line).get("origin") == options.get("origin")
    assert "obviously-wrong" not in repr(vars(line))
    assert metrics.SOCKETS_REFUSED.labels("chat", check)._value.get() == before + 1


def test_sockets_are_counted(stage: Stage) -> None:
    """Open ones while they are, ended ones by their code."""
    is_open, ended = metrics.SOCKETS_OPEN.labels("chat")._value, metrics.SOCKETS_ENDED.labels("chat", "4409")._value
    before = is_open.get(), ended.get()
    with stage.open() as older:
        older.sees()
        with stage.open() as newer:
            newer.sees()
            older.end()
            wait_until(lambda: (is_open.get(), ended.get()) == (before[0] + 1, before[1] + 1))

    wait_until(lambda: is_open.get() == before[0])
