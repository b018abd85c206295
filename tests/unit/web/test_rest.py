"""The common parts of all REST addresses: reading requests, authenticating callers, error replies, compression."""

from __future__ import annotations

import gzip
import json
import logging
from types import SimpleNamespace
from typing import Annotated, Any
from uuid import UUID

import brotli  # type: ignore[import-untyped]
import pytest
from flask import Blueprint, Flask, Response, abort, request
from flask.testing import FlaskClient
from pydantic import BaseModel, Field, field_validator
from werkzeug.test import EnvironBuilder, TestResponse

from channels.web.compression import MIN_BYTES, SLICE, compress_answers
from channels.web.errors import register_rest_errors
from channels.web.rest import CODES, MAX_ERRORS, RestError, RestModel, body, caller, envelope, params, raw_body
from config.errors import LaibaoError
from config.texts import EN, Texts
from services.errors import (
    AuthError,
    BatchConflict,
    BatchFinished,
    BatchQueueFull,
    BatchUnknown,
    ProviderError,
    StoreUnavailable,
)
from services.identity.callers import Callers

SECRET = "obviously-fake-api-key"
MAX_BODY = 2000


class Submission(RestModel):
    name: Annotated[str, Field(min_length=1, max_length=10)]
    texts: list[Annotated[str, Field(max_length=5)]] = Field(default_factory=list)
    inputs: dict[str, int] = Field(default_factory=dict)
    task: UUID | None = None

    @field_validator("name")
    @classmethod
    def check_name(cls, name: str) -> str:
        if name == "taken":
            raise ValueError("is another's")
        return name


class Page(BaseModel):
    page: Annotated[int, Field(ge=1)] = 1
    status: str | None = None


class UnavailableCallers:
    """Redis is down, so a valid token cannot be errors_shown from a wrong one."""

    def program(self, secret: str | None) -> Any:
        raise StoreUnavailable("redis: TimeoutError: 10.0.0.7:6379")


ERRORS: dict[str, Exception] = {
    "rest": RestError(409, "Busy.", reason="busy", data={"after": 3}, headers={"Retry-After": "3"}),
    "silent": RestError(429),
    "store": StoreUnavailable("redis: TimeoutError: 10.0.0.7:6379"),
    "full": BatchQueueFull("secret detail"),
    "conflict": BatchConflict("secret detail"),
    "finished": BatchFinished("secret detail"),
    "unknown-task": BatchUnknown("secret detail"),
    "provider": ProviderError("secret detail"),
    "provider-timeout": ProviderError("secret detail", code="provider_timeout"),
    "draining": LaibaoError("secret detail", code="draining"),
    "auth": AuthError("secret detail", code="not_allowed"),
    "ours": LaibaoError("secret detail", code="seal_failed"),
    "nobody's": ValueError("secret detail"),
}


@pytest.fixture
def client() -> FlaskClient:
    """A client of an application that is built from the common parts."""
    app = Flask(__name__, static_folder=None)
    routes = Blueprint("t", __name__)
    keys = Callers("key", api_keys=[SECRET])

    routes.add_url_rule("/t/submit", view_func=_submit, methods=["POST"])
    routes.add_url_rule("/t/raw", view_func=_raw, methods=["POST"])
    routes.add_url_rule("/t/page", view_func=lambda: envelope(params(Page).model_dump()), endpoint="page")
    routes.add_url_rule("/t/me", view_func=lambda: envelope(caller(keys, request).principal), endpoint="me")
    routes.add_url_rule("/t/away", view_func=lambda: envelope(caller(UnavailableCallers(), request)), endpoint="away")
    routes.add_url_rule("/t/errors/<name>", view_func=_fails)
    routes.add_url_rule("/wechat/errors/<name>", view_func=_fails, endpoint="wecom")
    routes.add_url_rule("/t/sent/<kind>", view_func=_sent)
    routes.add_url_rule("/wechat/sent/<kind>", view_func=_sent, endpoint="wecom-sent")
    routes.add_url_rule("/health", view_func=lambda: abort(404), endpoint="health")
    app.register_blueprint(routes)
    register_rest_errors(app, Texts("en"))
    compress_answers(app)
    return app.test_client()


def _submit() -> Response:
    return envelope(body(Submission, max_bytes=MAX_BODY).model_dump(), status=201)


def _raw() -> Response:
    return envelope(len(raw_body(max_bytes=MAX_BODY)))


def _fails(name: str) -> Response:
    if name.isdecimal():
        abort(int(name))
    raise ERRORS[name]


LONG = json.dumps({"words": ["来宝", *map(str, range(2 * SLICE // 7))]}, ensure_ascii=False)
SHORT = json.dumps({"words": "x" * (MIN_BYTES // 2)})


def _sent(kind: str) -> Response:
    match kind:
        case "events":
            return Response(iter([f"data: {'x' * MIN_BYTES}\n\n"]), mimetype="text/event-stream")
        case "rows":
            return Response(iter(["a,b\n"] * MIN_BYTES), mimetype="text/csv")
        case "tagged":
            reply = Response(LONG, mimetype="application/json")
            reply.set_etag("tag")
            return reply
    content = {"long": LONG, "short": SHORT, "page": "x" * MIN_BYTES * 2}[kind]
    return Response(content, mimetype="text/html" if kind == "page" else "application/json")


def shape(reply: TestResponse) -> tuple[int, int, Any]:
    """Return HTTP status, code and data of an envelope."""
    assert set(reply.json or {}) == {"code", "message", "data"}
    return reply.status_code, reply.json["code"], reply.json["data"]  # type: ignore[index]


# Reading requests


def test_a_valid_body_is_read(client: FlaskClient) -> None:
    """The model reads it; the envelope's code is 200 for every 2xx status."""
    reply = client.post("/t/submit", json={"name": "七", "texts": ["a"]})

    assert shape(reply) == (201, 200, {"name": "七", "texts": ["a"], "inputs": {}, "task": None})


@pytest.mark.parametrize(
    ("sent", "errors"),
    [
        ({}, [("name", "Field required")]),
        ({"name": ""}, [("name", "String should have at least 1 character")]),
        ({"name": "taken"}, [("name", "Value error, is another's")]),
        ({"name": "a", "texts": ["", "hunter2"]}, [("texts.1", "String should have at most 5 characters")]),
        ({"name": "a", "passwort": "hunter2"}, [("passwort", "Extra inputs are not permitted")]),
        ({"name": "a", "sk-hunter2": 1}, [("?", "Extra inputs are not permitted")]),
        ({"name": "a", "inputs": {"hunter2 hunter2": "7"}}, [("inputs.?", "Input should be a valid integer")]),
        # pydantic's own message would quote the wrong letter.
        ({"name": "a", "task": "hunter2"}, [("task", "Input is not valid")]),
        ([], [("", "Input should be an object")]),
        ("hunter2", [("", "Input should be an object")]),
    ],
)
def test_wrong_fields_are_named_and_not_quoted(client: FlaskClient, sent: Any, errors: list[tuple[str, str]]) -> None:
    """The error has field and problem for programs, and nothing of the sent values."""
    reply = client.post("/t/submit", json=sent)

    errors_shown = [{"field": name, "problem": problem} for name, problem in errors]
    assert shape(reply) == (422, 10000, {"reason": "invalid_fields", "errors": errors_shown})
    assert b"hunter2" not in reply.data


def test_the_number_of_errors_in_a_reply_is_bounded(client: FlaskClient) -> None:
    """The number of errors in a reply is bounded."""
    _, _, data = shape(client.post("/t/submit", json={"name": "a", "inputs": {f"k{i}": "" for i in range(100)}}))

    assert len(data["errors"]) == MAX_ERRORS


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="half"),
        pytest.param(b'{"name": "\xff"}', id="no UTF-8"),
        pytest.param(b'{"name": "\\ud800"}', id="half a character"),
        pytest.param(b'{"name": NaN}', id="a number that is none"),
        pytest.param(b"[" * 1500, id="too deep"),
    ],
)
def test_invalid_json_is_a_client_error(client: FlaskClient, sent: bytes) -> None:
    """The reply is an invalid_json or invalid_fields error, never a 500."""
    reply = client.post("/t/submit", data=sent, content_type="application/json; charset=utf-8")

    status, code, data = shape(reply)
    assert (status, code) in [(400, 10000), (422, 10000)]
    assert data["reason"] in ("invalid_json", "invalid_fields")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None, "jsonish"])
def test_a_body_without_a_json_type_is_a_415(client: FlaskClient, kind: str | None) -> None:
    """A form on another website cannot send application/json without a CORS preflight."""
    reply = client.post("/t/submit", data=b'{"name": "a"}', content_type=kind)

    assert shape(reply) == (415, 10000, {"reason": "not_json"})


@pytest.mark.parametrize("path", ["/t/submit", "/t/raw"])
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_has_a_limit(client: FlaskClient, path: str, announced: bool) -> None:
    """The limit is in bytes, with or without a Content-Length."""

    def sends(size: int) -> TestResponse:
        content = json.dumps({"name": "a"}).encode()
        builder = EnvironBuilder(path, method="POST", data=content.ljust(size), content_type="application/json")
        environ = builder.get_environ()
        if not announced:
            environ["wsgi.input_terminated"] = True
            del environ["CONTENT_LENGTH"]
        return client.open(environ)

    assert sends(MAX_BODY).status_code in (200, 201)
    assert shape(sends(MAX_BODY + 1)) == (413, 10000, {"reason": "too_large", "max_bytes": MAX_BODY})


@pytest.mark.parametrize(
    ("query", "name"),
    [("page=0", "page"), ("page=x", "page"), ("pgae=1", "pgae"), ("page=1&page=2", "page"), ("a%20b=1", "?")],
)
def test_a_query_string_is_read_by_its_model(client: FlaskClient, query: str, name: str) -> None:
    """Unknown and repeated parameters are errors, because a misspelt one would have no effect."""
    status, code, data = shape(client.get(f"/t/page?{query}"))

    assert (status, code, [error["field"] for error in data["errors"]]) == (422, 10000, [name])
    assert shape(client.get("/t/page?page=2")) == (200, 200, {"page": 2, "status": None})


# Authenticating callers


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {SECRET}"}, {"Authorization": f"bearer  {SECRET} "}, {"X-API-Key": SECRET}],
)
def test_a_key_is_read_from_two_headers(client: FlaskClient, headers: dict[str, str]) -> None:
    """As a bearer token or as X-API-Key."""
    status, _, principal = shape(client.get("/t/me", headers=headers))

    assert (status, principal.partition(":")[0]) == (200, "key")


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "auth_required"),
        ({"Authorization": f"Basic {SECRET}"}, "auth_required"),
        ({"Authorization": "Bearer wrong"}, "auth_failed"),
        ({"X-API-Key": ""}, "auth_failed"),
    ],
)
def test_a_missing_or_wrong_key_is_a_401(client: FlaskClient, headers: dict[str, str], reason: str) -> None:
    """401, with the scheme in WWW-Authenticate; a key in the query does not count."""
    reply = client.get("/t/me", headers=headers)

    assert shape(reply) == (401, 401, {"reason": reason})
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert client.get(f"/t/me?api_key={SECRET}").status_code == 401


def test_while_redis_is_down_a_credential_is_a_503(client: FlaskClient) -> None:
    """503, not 401: the same credential may be valid a moment later."""
    reply = client.get("/t/away", headers={"X-API-Key": SECRET})

    assert shape(reply) == (503, 40000, {"reason": "store_unavailable"})
    assert int(reply.headers["Retry-After"]) > 0
    assert b"10.0.0.7" not in reply.data


# Error replies


@pytest.mark.parametrize(
    ("name", "status", "code", "data", "message"),
    [
        ("rest", 409, 20000, {"reason": "busy", "after": 3}, "Busy."),
        ("silent", 429, 20000, None, CODES[20000]),
        ("store", 503, 40000, {"reason": "store_unavailable"}, EN["store_unavailable"]),
        ("full", 429, 20000, {"reason": "batch_queue_full"}, EN["batch_queue_full"]),
        ("conflict", 409, 20000, {"reason": "batch_conflict"}, EN["batch_conflict"]),
        ("finished", 409, 20000, {"reason": "batch_finished"}, EN["batch_finished"]),
        ("unknown-task", 404, 404, {"reason": "batch_unknown"}, EN["batch_unknown"]),
        ("provider", 502, 30000, {"reason": "provider_error"}, EN["provider_error"]),
        ("provider-timeout", 504, 30000, {"reason": "provider_timeout"}, EN["provider_timeout"]),
        ("draining", 503, 503, {"reason": "draining"}, EN["draining"]),
        ("auth", 403, 403, {"reason": "not_allowed"}, EN["not_allowed"]),
        ("ours", 500, 500, {"reason": "seal_failed"}, CODES[500]),
        ("nobody's", 500, 90000, None, CODES[90000]),
        ("400", 400, 400, None, CODES[400]),
        ("413", 413, 10000, None, CODES[10000]),
        ("415", 415, 10000, None, CODES[10000]),
        ("418", 418, 400, None, CODES[400]),
        ("429", 429, 20000, None, CODES[20000]),
        ("503", 503, 503, None, CODES[503]),
    ],
)
def test_every_error_has_the_envelope(
    client: FlaskClient, name: str, status: int, code: int, data: Any, message: str
) -> None:
    """A fitting HTTP status, a code of the table, a reason for programs, a sentence, and nothing of the cause."""
    reply = client.get(f"/t/errors/{name}")

    assert shape(reply) == (status, code, data)
    assert (reply.json or {})["message"] == message
    assert b"secret" not in reply.data
    assert b"10.0.0.7" not in reply.data
    passing = status in (429, 503) and data is not None
    assert reply.headers.get("Retry-After") == ("3" if name == "rest" else "5" if passing else None)


def test_unknown_addresses_and_methods_have_the_envelope(client: FlaskClient) -> None:
    """For an unknown address and for a wrong method, whose reply lists the allowed ones."""
    missing, other = client.get("/t/nowhere"), client.delete("/t/submit")

    assert shape(missing) == (404, 404, None)
    assert shape(other) == (405, 405, None)
    assert set(other.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/wechat/nowhere", 404, "not_found"),
        ("/health", 404, "not_found"),
        ("/wechat/errors/store", 503, "store_unavailable"),
        ("/wechat/errors/nobody's", 500, "unknown"),
    ],
)
def test_wecom_and_health_keep_their_own_shape(client: FlaskClient, path: str, status: int, code: str) -> None:
    """The code alone, which their clients expect."""
    reply = client.get(path)

    assert (reply.status_code, reply.json) == (status, {"code": code})


def test_the_log_has_the_cause(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    """One line for an expected error, the traceback for an unexpected one, nothing for a client's error."""
    for name in ("store", "nobody's", "rest", "404"):
        client.get(f"/t/errors/{name}")

    warnings = (record for record in caplog.records if record.levelno >= logging.WARNING)
    lines = [record for record in warnings if record.name == "channels.web.errors"]
    assert [(line.message, bool(line.exc_info)) for line in lines] == [
        ("request failed", False),
        ("unexpected error", True),
    ]
    assert "10.0.0.7" in vars(lines[0])["cause"]


# Compression


def decompressed(reply: TestResponse) -> bytes:
    match reply.headers.get("Content-Encoding"):
        case "br":
            return bytes(brotli.decompress(reply.data))
        case "gzip":
            return bytes(gzip.decompress(reply.data))
    return bytes(reply.data)


@pytest.mark.parametrize("accepted", ["br", "gzip", "gzip, deflate, br, zstd"])
@pytest.mark.parametrize("kind", ["long", "page", "rows", "tagged"])
def test_pages_and_replies_are_compressed(client: FlaskClient, kind: str, accepted: str) -> None:
    """In an encoding that the client accepts; Vary tells caches that other clients get another."""
    plain = client.get(f"/t/sent/{kind}")
    reply = client.get(f"/t/sent/{kind}", headers={"Accept-Encoding": accepted})

    assert reply.headers["Content-Encoding"] == ("gzip" if accepted == "gzip" else "br")
    assert "Accept-Encoding" in reply.headers["Vary"]
    assert "Accept-Encoding" in plain.headers["Vary"]
    assert "Content-Encoding" not in plain.headers
    assert decompressed(reply) == plain.data
    assert len(reply.data) < len(plain.data) / 2
    assert "Content-Length" not in reply.headers or int(reply.headers["Content-Length"]) == len(reply.data)


@pytest.mark.parametrize("accepted", ["", "identity", "br;q=0, gzip;q=0", "br;q=0, *", "zstd"])
def test_a_client_without_a_known_encoding_gets_it_plain(client: FlaskClient, accepted: str) -> None:
    """The reply has a Content-Length, so that clients can show progress."""
    reply = client.get("/t/sent/long", headers={"Accept-Encoding": accepted})

    assert reply.get_data(as_text=True) == LONG
    assert "Content-Encoding" not in reply.headers
    assert int(reply.headers["Content-Length"]) == len(LONG.encode())


@pytest.mark.parametrize("path", ["/t/sent/events", "/t/sent/short", "/wechat/sent/long", "/wechat/sent/page"])
def test_streams_callbacks_and_short_replies_are_not_compressed(client: FlaskClient, path: str) -> None:
    """Events would stay in the compressor's buffer, WeCom's servers do not ask for it, short replies would grow."""
    reply = client.get(path, headers={"Accept-Encoding": "br, gzip"})

    assert reply.status_code == 200
    assert "Content-Encoding" not in reply.headers
    if path.endswith("events"):
        # Each piece is sent as it was yielded.
        unbuffered = client.get(path, headers={"Accept-Encoding": "br, gzip"}, buffered=False)
        assert next(iter(unbuffered.response)) == f"data: {'x' * MIN_BYTES}\n\n".encode()


def test_a_cached_reply_is_not_sent_again(client: FlaskClient) -> None:
    """A compressed reply has a tag of its own encoding, and a matching If-None-Match gets 304."""
    first = client.get("/t/sent/tagged", headers={"Accept-Encoding": "br"})
    tag = first.headers["ETag"]

    again = client.get("/t/sent/tagged", headers={"Accept-Encoding": "br", "If-None-Match": tag})

    assert tag == '"tag:br"'
    assert (again.status_code, again.data) == (304, b"")
    assert "Accept-Encoding" in again.headers["Vary"]


def test_compressing_a_long_reply_yields_to_other_greenlets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compressor yields to other greenlets between two slices."""
    sleeps: list[float] = []
    monkeypatch.setattr("channels.web.compression.time", SimpleNamespace(sleep=sleeps.append))

    app = Flask(__name__)
    app.add_url_rule("/long", view_func=lambda: Response("x" * 5 * SLICE, mimetype="text/html"))
    compress_answers(app)
    app.test_client().get("/long", headers={"Accept-Encoding": "gzip"})

    assert sleeps == [0] * 5


@pytest.mark.parametrize("kind", ["page", "tagged"])
def test_a_reply_without_a_body_has_the_same_headers(client: FlaskClient, kind: str) -> None:
    """The reply to HEAD has no body, and encoding, tag and Vary of the reply to GET."""
    replies = [ask(f"/t/sent/{kind}", headers={"Accept-Encoding": "br"}) for ask in (client.head, client.get)]

    head, get = ([each.headers.get(name) for name in ("Content-Encoding", "ETag", "Vary")] for each in replies)
    assert head == get
    assert get[0] == "br"
    assert (replies[0].status_code, replies[0].data) == (200, b"")
