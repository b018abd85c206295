"""What every REST address shares: reading a request, knowing who asks, saying no, and shrinking what is sent."""

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
from channels.web.envelope import CODES, envelope
from channels.web.errors import register_rest_errors
from channels.web.rest import MAX_ERRORS, RestError, RestModel, body, caller, params, raw_body
from config.texts import ZH, Texts
from services.errors import (
    AuthError,
    BatchConflict,
    BatchFinished,
    BatchQueueFull,
    BatchUnknown,
    LaibaoError,
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


class AwayCallers:
    """Redis is away, so a token cannot be told from a wrong one."""

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
    """A client of an application that has what modules of REST are made of."""
    app = Flask(__name__, static_folder=None)
    routes = Blueprint("t", __name__)
    keys = Callers("key", api_keys=[SECRET])

    routes.add_url_rule("/t/submit", view_func=_submit, methods=["POST"])
    routes.add_url_rule("/t/raw", view_func=_raw, methods=["POST"])
    routes.add_url_rule("/t/page", view_func=lambda: envelope(params(Page).model_dump()), endpoint="page")
    routes.add_url_rule("/t/me", view_func=lambda: envelope(caller(keys, request).principal), endpoint="me")
    routes.add_url_rule("/t/away", view_func=lambda: envelope(caller(AwayCallers(), request)), endpoint="away")
    routes.add_url_rule("/t/errors/<name>", view_func=_fails)
    routes.add_url_rule("/wechat/errors/<name>", view_func=_fails, endpoint="wecom")
    routes.add_url_rule("/t/sent/<kind>", view_func=_sent)
    routes.add_url_rule("/wechat/sent/<kind>", view_func=_sent, endpoint="wecom-sent")
    routes.add_url_rule("/health", view_func=lambda: abort(404), endpoint="health")
    app.register_blueprint(routes)
    register_rest_errors(app, Texts().known)
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
    """Return HTTP status, code and data of what must be an envelope."""
    assert set(reply.json or {}) == {"code", "message", "data"}
    return reply.status_code, reply.json["code"], reply.json["data"]  # type: ignore[index]


# Reading a request


def test_a_good_body_is_read(client: FlaskClient) -> None:
    """By the model, into a success with a code of 200 whatever kind of success it is."""
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
        # Of this one pydantic would say which letter is wrong.
        ({"name": "a", "task": "hunter2"}, [("task", "Input is not valid")]),
        ([], [("", "Input should be an object")]),
        ("hunter2", [("", "Input should be an object")]),
    ],
)
def test_wrong_fields_are_named_and_not_quoted(client: FlaskClient, sent: Any, errors: list[tuple[str, str]]) -> None:
    """Where and what, in a shape for programs, and no word of what was sent."""
    reply = client.post("/t/submit", json=sent)

    told = [{"field": name, "problem": problem} for name, problem in errors]
    assert shape(reply) == (422, 10000, {"reason": "invalid_fields", "errors": told})
    assert b"hunter2" not in reply.data


def test_a_thousand_mistakes_are_told_in_a_few(client: FlaskClient) -> None:
    """The reply has a bound, whatever was sent."""
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
def test_what_is_no_json_is_a_400(client: FlaskClient, sent: bytes) -> None:
    """Neither an error of ours nor one of fields."""
    reply = client.post("/t/submit", data=sent, content_type="application/json; charset=utf-8")

    status, code, data = shape(reply)
    assert (status, code) in [(400, 10000), (422, 10000)]
    assert data["reason"] in ("invalid_json", "invalid_fields")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None, "jsonish"])
def test_a_body_that_is_not_called_json_is_a_415(client: FlaskClient, kind: str | None) -> None:
    """A form on somebody's page cannot send application/json without asking the browser first."""
    reply = client.post("/t/submit", data=b'{"name": "a"}', content_type=kind)

    assert shape(reply) == (415, 10000, {"reason": "not_json"})


@pytest.mark.parametrize("path", ["/t/submit", "/t/raw"])
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_has_a_limit(client: FlaskClient, path: str, announced: bool) -> None:
    """Of its bytes, whether it says its length or just goes on."""

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
    """Unknown and repeated parameters are wrong, for else a misspelt one would have no effect."""
    status, code, data = shape(client.get(f"/t/page?{query}"))

    assert (status, code, [error["field"] for error in data["errors"]]) == (422, 10000, [name])
    assert shape(client.get("/t/page?page=2")) == (200, 200, {"page": 2, "status": None})


# Who asks


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {SECRET}"}, {"Authorization": f"bearer  {SECRET} "}, {"X-API-Key": SECRET}],
)
def test_a_program_shows_its_key(client: FlaskClient, headers: dict[str, str]) -> None:
    """In one of two headers."""
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
def test_who_shows_no_good_key_is_told_what_is_missing(
    client: FlaskClient, headers: dict[str, str], reason: str
) -> None:
    """401, with the scheme that would do."""
    reply = client.get("/t/me", headers=headers)

    assert shape(reply) == (401, 401, {"reason": reason})
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert client.get(f"/t/me?api_key={SECRET}").status_code == 401


def test_while_redis_is_away_nobody_is_turned_down_for_good(client: FlaskClient) -> None:
    """503, not 401: the same credential may count in a moment."""
    reply = client.get("/t/away", headers={"X-API-Key": SECRET})

    assert shape(reply) == (503, 40000, {"reason": "store_unavailable"})
    assert int(reply.headers["Retry-After"]) > 0
    assert b"10.0.0.7" not in reply.data


# Saying no


@pytest.mark.parametrize(
    ("name", "status", "code", "data", "message"),
    [
        ("rest", 409, 20000, {"reason": "busy", "after": 3}, "Busy."),
        ("silent", 429, 20000, None, CODES[20000]),
        ("store", 503, 40000, {"reason": "store_unavailable"}, ZH["store_unavailable"]),
        ("full", 429, 20000, {"reason": "batch_queue_full"}, ZH["batch_queue_full"]),
        ("conflict", 409, 20000, {"reason": "batch_conflict"}, ZH["batch_conflict"]),
        ("finished", 409, 20000, {"reason": "batch_finished"}, ZH["batch_finished"]),
        ("unknown-task", 404, 404, {"reason": "batch_unknown"}, ZH["batch_unknown"]),
        ("provider", 502, 30000, {"reason": "provider_error"}, ZH["provider_error"]),
        ("provider-timeout", 504, 30000, {"reason": "provider_timeout"}, ZH["provider_timeout"]),
        ("draining", 503, 503, {"reason": "draining"}, ZH["draining"]),
        ("auth", 403, 403, {"reason": "not_allowed"}, ZH["not_allowed"]),
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
def test_every_error_has_the_one_shape(
    client: FlaskClient, name: str, status: int, code: int, data: Any, message: str
) -> None:
    """A fitting HTTP status, a code of the table, a word for programs, a sentence of ours, and nothing of the cause."""
    reply = client.get(f"/t/errors/{name}")

    assert shape(reply) == (status, code, data)
    assert (reply.json or {})["message"] == message
    assert b"secret" not in reply.data
    assert b"10.0.0.7" not in reply.data
    passing = status in (429, 503) and data is not None
    assert reply.headers.get("Retry-After") == ("3" if name == "rest" else "5" if passing else None)


def test_what_is_not_here_has_the_shape_too(client: FlaskClient) -> None:
    """An address nobody serves, and a method that one does not take: the reply names those that it does."""
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
    """The code alone, as their readers know it."""
    reply = client.get(path)

    assert (reply.status_code, reply.json) == (status, {"code": code})


def test_the_log_has_the_cause(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    """One line for what can happen, the traceback for what nobody expected, none for what the client did wrong."""
    for name in ("store", "nobody's", "rest", "404"):
        client.get(f"/t/errors/{name}")

    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [(line.message, bool(line.exc_info)) for line in lines] == [
        ("request failed", False),
        ("unexpected error", True),
    ]
    assert "10.0.0.7" in vars(lines[0])["cause"]


# Shrinking


def unpacked(reply: TestResponse) -> bytes:
    match reply.headers.get("Content-Encoding"):
        case "br":
            return bytes(brotli.decompress(reply.data))
        case "gzip":
            return bytes(gzip.decompress(reply.data))
    return bytes(reply.data)


@pytest.mark.parametrize("accepted", ["br", "gzip", "gzip, deflate, br, zstd"])
@pytest.mark.parametrize("kind", ["long", "page", "rows", "tagged"])
def test_pages_and_answers_come_compressed(client: FlaskClient, kind: str, accepted: str) -> None:
    """As the client can unpack it, whole, and caches are told that others may want it otherwise."""
    plain = client.get(f"/t/sent/{kind}")
    reply = client.get(f"/t/sent/{kind}", headers={"Accept-Encoding": accepted})

    assert reply.headers["Content-Encoding"] == ("gzip" if accepted == "gzip" else "br")
    assert "Accept-Encoding" in reply.headers["Vary"]
    assert "Accept-Encoding" in plain.headers["Vary"]
    assert "Content-Encoding" not in plain.headers
    assert unpacked(reply) == plain.data
    assert len(reply.data) < len(plain.data) / 2
    assert "Content-Length" not in reply.headers or int(reply.headers["Content-Length"]) == len(reply.data)


@pytest.mark.parametrize("accepted", ["", "identity", "br;q=0, gzip;q=0", "br;q=0, *", "zstd"])
def test_who_cannot_unpack_gets_it_plain(client: FlaskClient, accepted: str) -> None:
    """With its length, so that progress can be shown."""
    reply = client.get("/t/sent/long", headers={"Accept-Encoding": accepted})

    assert reply.get_data(as_text=True) == LONG
    assert "Content-Encoding" not in reply.headers
    assert int(reply.headers["Content-Length"]) == len(LONG.encode())


@pytest.mark.parametrize("path", ["/t/sent/events", "/t/sent/short", "/wechat/sent/long", "/wechat/sent/page"])
def test_streams_callbacks_and_trifles_never_do(client: FlaskClient, path: str) -> None:
    """An event would wait in the compressor, WeCom's servers do not ask for it, and trifles only grow."""
    reply = client.get(path, headers={"Accept-Encoding": "br, gzip"})

    assert reply.status_code == 200
    assert "Content-Encoding" not in reply.headers


def test_a_stream_of_events_is_not_held_back(client: FlaskClient) -> None:
    """Each piece leaves as it came."""
    reply = client.get("/t/sent/events", headers={"Accept-Encoding": "br, gzip"}, buffered=False)

    assert next(iter(reply.response)) == f"data: {'x' * MIN_BYTES}\n\n".encode()


def test_what_the_client_has_already_is_not_sent_again(client: FlaskClient) -> None:
    """A long answer keeps its tag of each encoding."""
    first = client.get("/t/sent/tagged", headers={"Accept-Encoding": "br"})
    tag = first.headers["ETag"]

    again = client.get("/t/sent/tagged", headers={"Accept-Encoding": "br", "If-None-Match": tag})

    assert tag == '"tag:br"'
    assert (again.status_code, again.data) == (304, b"")
    assert "Accept-Encoding" in again.headers["Vary"]


def test_other_things_run_while_a_long_answer_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two slices everybody else has a turn."""
    turns: list[float] = []
    monkeypatch.setattr("channels.web.compression.time", SimpleNamespace(sleep=turns.append))

    app = Flask(__name__)
    app.add_url_rule("/long", view_func=lambda: Response("x" * 5 * SLICE, mimetype="text/html"))
    compress_answers(app)
    app.test_client().get("/long", headers={"Accept-Encoding": "gzip"})

    assert turns == [0] * 5


def test_a_reply_without_a_body_has_none(client: FlaskClient) -> None:
    """HEAD says what GET would, and sends nothing."""
    reply = client.head("/t/sent/long", headers={"Accept-Encoding": "br"})

    assert (reply.status_code, reply.data) == (200, b"")
