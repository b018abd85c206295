"""The REST addresses' own documentation: valid, whole, and made of the models that requests are read by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import pytest
from flask import Blueprint, Flask
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import Field

from channels.batch import operations as batch_operations
from channels.http_chat import endpoints as http_chat
from channels.sockets import connections
from channels.web.openapi.document import document
from channels.web.pages import index
from channels.web.pages.docs import docs_blueprint, operations_of
from channels.web.rest import Operation, RestModel
from tests.support.replicas import AppServer

#: Addresses that are not REST: WeCom's own, the sockets' endpoints, and what browsers open.
NOT_REST = ("/wechat/", "/ws/", "/docs")
PAGES = ("/chat", "/realtime", "/batch")


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Wanted(RestModel):
    page: Annotated[int, Field(ge=1, description="From 1.")] = 1
    colour: Colour | None = None
    name: str


class Sent(RestModel):
    """What is sent."""

    texts: list[str]


class Upload(RestModel):
    file: str


class Stored(RestModel):
    task_id: str
    colour: Colour = Colour.RED


class Half(RestModel):
    content: str


OPERATIONS = (
    Operation("GET", "/api/things", "all of them", "things", query=Wanted, answers={200: Stored}),
    Operation(
        "POST",
        "/api/things/{thing_id}/parts/{part}",
        "a part",
        "things",
        body=Sent,
        forms={"multipart/form-data": Upload},
        answers={201: Stored, 204: None, 409: None, 502: Half},
        media={201: ("text/event-stream", "text/csv")},
        headers={"Idempotency-Key": "Once.", "Last-Event-ID": {"pattern": "^[0-9]+$", "description": "From there."}},
        description="More.",
    ),
    Operation("DELETE", "/api/things", "none of them", "things", auth="admin", answers={200: None}),
    Operation("GET", "/state", "how it is", "operations", auth="none", answers={200: Half}, bare=True),
    Operation("GET", "/page", "a text", "operations", auth="none", answers={200: None}, media={200: "text/plain"}),
)


@pytest.fixture
def made() -> Any:
    return document(OPERATIONS, name="来宝", version="1.2.3")


def schema_of(made: Any, path: str, method: str, status: str, media: str = "application/json") -> Any:
    """Return a validator of that answer, its references those of the document."""
    schema = made["paths"][path][method]["responses"][status]["content"][media]["schema"]
    return Draft202012Validator({**schema, "components": made["components"]})


def reply(data: Any, code: int = 200) -> Mapping[str, Any]:
    return {"code": code, "message": "m", "data": data}


def test_the_document_is_valid(made: Any) -> None:
    """By the official schema of OpenAPI 3.1, and every reference leads somewhere."""
    OpenAPIV31SpecValidator(json.loads(json.dumps(made))).validate()

    assert made["openapi"].startswith("3.1.")
    assert made["info"]["title"] == "来宝"
    assert set(made["paths"]) == {operation.path for operation in OPERATIONS}


def test_parameters_come_from_path_query_and_headers(made: Any) -> None:
    """A query's are those of its model, each with its limits, and none of them may be null."""
    query = {one["name"]: one for one in made["paths"]["/api/things"]["get"]["parameters"]}
    others = made["paths"]["/api/things/{thing_id}/parts/{part}"]["post"]["parameters"]

    assert {name: one["required"] for name, one in query.items()} == {"page": False, "colour": False, "name": True}
    assert query["page"]["schema"] == {
        "default": 1,
        "description": "From 1.",
        "minimum": 1,
        "title": "Page",
        "type": "integer",
    }
    assert query["page"]["description"] == "From 1."
    assert query["colour"]["schema"] == {"$ref": "#/components/schemas/Colour"}
    assert [(one["name"], one["in"], one["required"]) for one in others] == [
        ("thing_id", "path", True),
        ("part", "path", True),
        ("Idempotency-Key", "header", False),
        ("Last-Event-ID", "header", False),
    ]
    assert others[3]["schema"]["pattern"] == "^[0-9]+$"


def test_a_body_is_taken_in_every_form(made: Any) -> None:
    """JSON and what else the operation names."""
    sent = made["paths"]["/api/things/{thing_id}/parts/{part}"]["post"]["requestBody"]

    assert {media: one["schema"]["$ref"].rsplit("/", 1)[1] for media, one in sent["content"].items()} == {
        "application/json": "Sent",
        "multipart/form-data": "Upload",
    }
    assert made["components"]["schemas"]["Sent"]["additionalProperties"] is False


def test_answers_have_the_envelope(made: Any) -> None:
    """Its data is the model's, a success says 200, and nothing else is in it."""
    listed = schema_of(made, "/api/things", "get", "200")
    emptied = schema_of(made, "/api/things", "delete", "200")

    assert listed.is_valid(reply({"task_id": "a", "colour": "red"}))
    for wrong in ({"task_id": 1}, {"task_id": "a", "colour": "green"}, {"task_id": "a", "more": 1}, None):
        assert not listed.is_valid(reply(wrong))
    assert not listed.is_valid(reply({"task_id": "a"}, code=10000))
    assert not listed.is_valid({**reply({"task_id": "a"}), "more": 1})
    assert emptied.is_valid(reply(None))
    assert not emptied.is_valid(reply({}))


def test_codes_are_whole_numbers_by_type(made: Any) -> None:
    """Generators of clients take the type alone: without one, `code` may be anything or a fraction."""
    answered = made["paths"]["/api/things"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    schemas = (answered, made["components"]["schemas"]["Error"])

    assert [schema["properties"]["code"].get("type") for schema in schemas] == ["integer", "integer"]


def test_an_answer_may_be_something_else(made: Any) -> None:
    """A stream or a file beside JSON, or instead of it; without the envelope where that is said; or nothing at all."""
    answers = made["paths"]["/api/things/{thing_id}/parts/{part}"]["post"]["responses"]

    assert set(answers["201"]["content"]) == {"application/json", "text/event-stream", "text/csv"}
    assert set(made["paths"]["/page"]["get"]["responses"]["200"]["content"]) == {"text/plain"}
    assert schema_of(made, "/state", "get", "200").is_valid({"content": "x"})
    assert schema_of(made, "/state", "get", "default").is_valid({"code": "not_found"})
    assert not schema_of(made, "/state", "get", "default").is_valid(reply(None, 404))
    assert "content" not in answers["204"]


def test_errors_follow_from_how_an_operation_is_asked(made: Any) -> None:
    """Who reads a body says 413, 415 and 422, who wants a key 401, 429 and 503; all else has the same shape."""
    answers = {
        (path, method): set(one["responses"]) for path, each in made["paths"].items() for method, one in each.items()
    }

    posted = ("/api/things/{thing_id}/parts/{part}", "post")
    assert answers["/api/things", "get"] == {"200", "401", "422", "429", "503", "default"}
    assert answers[posted] == {"201", "204", "400", "401", "409", "413", "415", "422", "429", "502", "503", "default"}
    assert answers["/state", "get"] == {"200", "default"}
    refused = schema_of(made, "/api/things", "get", "422")
    assert refused.is_valid(reply({"reason": "invalid_fields", "errors": [{"field": "a", "problem": "b"}]}, 10000))
    assert refused.is_valid(reply(None, 10000))
    for wrong in (reply(None), reply({"reason": "Two words"}, 10000), reply({"errors": [{}]}, 10000), reply(None, 7)):
        assert not refused.is_valid(wrong)
    assert schema_of(made, *posted, "502").is_valid(reply({"content": "half"}, 30000))
    assert schema_of(made, *posted, "502").is_valid(reply({"reason": "provider_error"}, 30000))


def test_what_was_made_says_where_one_goes_on() -> None:
    """An answer to POST links to every operation that its identifier is a parameter of."""
    makes = Operation("POST", "/api/things", "make one", "things", body=Sent, answers={201: Stored, 409: None})
    shows = Operation("GET", "/api/things/{task_id}", "show it", "things", answers={200: Stored})
    other = Operation("GET", "/api/others/{other_id}", "show another", "things", answers={200: Stored})

    made = document((makes, shows, other), name="n", version="1")

    OpenAPIV31SpecValidator(made).validate()
    assert made["paths"]["/api/things"]["post"]["responses"]["201"]["links"] == {
        "get_api_things_task_id": {
            "operationId": "get_api_things_task_id",
            "parameters": {"task_id": "$response.body#/data/task_id"},
        }
    }
    assert "links" not in made["paths"]["/api/things/{task_id}"]["get"]["responses"]["200"]


@pytest.mark.parametrize("open_to_all", [False, True])
def test_who_may_ask_is_documented(open_to_all: bool) -> None:
    """A key in one of two headers, needed or not; an administrator's token always; nothing for the rest."""
    made = document(OPERATIONS, name="n", version="1", open_to_all=open_to_all)
    keys: list[Any] = [{"bearer": []}, {"apiKey": []}]

    things = made["paths"]["/api/things"]
    assert things["get"]["security"] == ([{}, *keys] if open_to_all else keys)
    assert things["delete"]["security"] == [{"administrator": []}]
    assert made["paths"]["/state"]["get"]["security"] == []


def test_the_operations_of_an_application_are_those_of_its_modules() -> None:
    """Of every module that made one of its blueprints, once."""
    app = Flask("a")
    app.register_blueprint(Blueprint("one", connections.__name__))
    app.register_blueprint(Blueprint("two", connections.__name__))
    app.register_blueprint(Blueprint("three", "channels.web.pages.pages"))
    app.register_blueprint(Blueprint("four", index.__name__))

    assert operations_of(app) == (*connections.OPERATIONS, *index.OPERATIONS)


def test_the_document_is_served() -> None:
    """At /openapi.json, the documentation's own address in it."""
    app = Flask("a")
    app.register_blueprint(docs_blueprint(name="来宝", version="1.2.3", realtime_path="/ws/asr"))

    answer = app.test_client().get("/openapi.json")

    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert list((answer.json or {})["paths"]) == ["/openapi.json"]


@pytest.fixture
def app_server(redis_url: str, tmp_path: Any) -> Any:
    with AppServer(redis_url, DATABASE_PATH=str(tmp_path / "laibao.db")) as app_server:
        yield app_server


def test_every_rest_address_is_documented_and_no_other(app_server: AppServer) -> None:
    """What the application serves and what its modules describe are the same, method by method."""
    served = {
        (method, rule.rule.replace("<", "{").replace(">", "}"))
        for rule in app_server.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not (rule.websocket or rule.rule.startswith(NOT_REST) or rule.rule in PAGES)
    }
    listed = [(operation.method, operation.path) for operation in operations_of(app_server.app)]

    assert sorted(listed) == sorted(served)


def test_the_whole_document_is_valid(app_server: AppServer) -> None:
    """Whatever the modules describe: by the official schema, with a summary and an identifier of its own for each."""
    made = app_server.app.test_client().get("/openapi.json").get_json()
    listed = [operation for each in made["paths"].values() for operation in each.values()]

    OpenAPIV31SpecValidator(made).validate()
    assert all(operation["summary"] and operation["tags"] for operation in listed)
    assert len({operation["operationId"] for operation in listed}) == len(listed)


def test_answers_without_a_key_are_of_the_documented_shape(app_server: AppServer) -> None:
    """The index, health and its like as they are answered here and now."""
    client = app_server.app.test_client()
    made = client.get("/openapi.json").get_json()

    for path in ("/", "/healthz", "/readyz", "/health"):
        answer = client.get(path)
        schema_of(made, path, "get", str(answer.status_code)).validate(answer.get_json())
    assert client.get("/").get_json() == {
        "code": 200,
        "message": "Success",
        "data": {
            "name": "WechatLaibao",
            "version": made["info"]["version"],
            "status": "running",
            "docs_url": "/docs",
            "chat_url": "/chat",
            "websocket": "/ws/realtime-asr",
            "health": "/health",
        },
    }


def test_json_stands_first_in_every_answer() -> None:
    """Generators of clients take the first medium there is; and no example of an id is sent by two people."""
    described = document((*http_chat.OPERATIONS, *batch_operations.OPERATIONS), name="来宝", version="1.2.3")
    media = [
        (path, method, status, list(answer.get("content", {})))
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        for status, answer in operation["responses"].items()
    ]

    assert [each for each in media if "application/json" in each[3][1:]] == []
    assert "examples" not in described["components"]["schemas"]["ChatQuestion"]["properties"]["id"]
