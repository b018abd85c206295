"""Pages of other origins at REST addresses: CORS for `PUBLIC_ORIGINS`; and the ids by which requests are followed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests
from websockets.sync.client import connect

from tests.support.replicas import AppServer
from tests.support.servers.processes import RedisServer

KEY = "not-a-real-key"
PAGE = "https://portal.example"
FOREIGN = "https://evil.example"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
#: What OpenAI's package for browsers asks for.
ASKED = "authorization,content-type,x-stainless-lang"
REST = ("/api/chat", "/v1/chat/completions", "/api/batch/tasks", "/api/none")


@pytest.fixture(scope="module")
def app(redis_server: RedisServer) -> Iterator[AppServer]:
    limits = {"RATE_LIMIT_USER": "off", "RATE_LIMIT_IP": "off"}
    with AppServer(redis_server.url(), API_KEYS=KEY, PUBLIC_ORIGINS=PAGE, **limits) as app:
        yield app


def preflight(app: AppServer, path: str, origin: str, headers: str = ASKED) -> requests.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": headers}
    return requests.options(app.url + path, headers=asked, timeout=30)


def allowed(reply: requests.Response) -> dict[str, str]:
    """Return the CORS headers of a reply."""
    return {name.lower(): value for name, value in reply.headers.items() if name.lower().startswith("access-control-")}


@pytest.mark.parametrize("path", REST)
def test_a_page_of_an_allowed_origin_may_ask(app: AppServer, path: str) -> None:
    """With the headers it needs, and without cookies; the preflight needs no key."""
    reply = preflight(app, path, PAGE)

    assert (reply.status_code, reply.content) == (204, b"")
    given = allowed(reply)
    assert (given["access-control-allow-origin"], given["access-control-allow-headers"]) == (PAGE, ASKED)
    assert {"GET", "POST", "DELETE"} <= set(given["access-control-allow-methods"].split(", "))
    assert "access-control-allow-credentials" not in given
    assert "Origin" in reply.headers["Vary"]


@pytest.mark.parametrize("path", REST)
@pytest.mark.parametrize("origin", [FOREIGN, "null", f"{PAGE}.evil.example", "http://portal.example", f"{PAGE}:444"])
def test_a_page_of_another_origin_may_not(app: AppServer, path: str, origin: str) -> None:
    """Neither the preflight nor the request allows it anything."""
    for reply in (preflight(app, path, origin), requests.post(app.url + path, headers={"Origin": origin}, timeout=30)):
        assert reply.status_code == 403
        assert allowed(reply) == {}
        assert "Origin" in reply.headers["Vary"]


@pytest.mark.parametrize(("path", "status"), [("/api/chat", 401), ("/v1/models", 401), ("/api/none", 404)])
def test_a_page_reads_errors_too(app: AppServer, path: str, status: int) -> None:
    """With their headers, such as when to ask again."""
    reply = requests.post(app.url + path, headers={"Origin": PAGE}, timeout=30)
    if path == "/v1/models":
        reply = requests.get(app.url + path, headers={"Origin": PAGE}, timeout=30)

    assert reply.status_code == status
    assert allowed(reply)["access-control-allow-origin"] == PAGE
    assert {"X-Request-Id", "Retry-After"} <= set(allowed(reply)["access-control-expose-headers"].split(", "))


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/wechat/callback", "/chat", "/"])
def test_only_rest_is_shared(app: AppServer, path: str) -> None:
    """Pages, health and metrics are for this origin alone."""
    assert allowed(preflight(app, path, PAGE)) == {}
    assert allowed(requests.get(app.url + path, headers={"Origin": PAGE}, timeout=30)) == {}


@pytest.mark.parametrize("headers", ["a\tb", "x" * 1001, "é"])
def test_odd_header_names_are_not_repeated(app: AppServer, headers: str) -> None:
    assert "access-control-allow-headers" not in allowed(preflight(app, "/api/chat", PAGE, headers))


def test_programs_get_no_cors(app: AppServer) -> None:
    assert allowed(requests.get(f"{app.url}/v1/models", timeout=30)) == {}


@pytest.mark.parametrize("path", ["/api/chat/none", "/v1/models", "/healthz", "/none"])
def test_every_reply_repeats_the_ids(app: AppServer, path: str) -> None:
    """Also an error; a request without an id gets one, a malformed one is replaced."""
    ids = {"X-Request-Id": "order-7", "traceparent": TRACEPARENT}
    reply = requests.get(app.url + path, headers=ids, timeout=30)
    other = requests.get(app.url + path, headers={"X-Request-Id": "a b", "traceparent": "00-1"}, timeout=30)

    assert {name: reply.headers[name] for name in ids} == ids
    assert re.fullmatch("[0-9a-f]{32}", other.headers["X-Request-Id"])
    assert "traceparent" not in other.headers


def test_a_handshake_repeats_the_ids(app: AppServer) -> None:
    """One that opens a socket; its questions have the ids too."""
    headers = {"Authorization": f"Bearer {KEY}", "X-Request-Id": "socket-7", "traceparent": TRACEPARENT}
    with connect(app.url.replace("http", "ws") + "/ws/chat", additional_headers=headers) as socket:
        assert socket.response
        assert socket.response.headers["X-Request-Id"] == "socket-7"
        assert socket.response.headers["traceparent"] == TRACEPARENT


def test_callbacks_of_wecom_have_no_ids(app: AppServer) -> None:
    """They are answered before, at no cost."""
    reply = requests.post(f"{app.url}/wechat/callback", headers={"X-Request-Id": "order-7"}, timeout=30)

    assert "X-Request-Id" not in reply.headers
