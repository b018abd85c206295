"""The OpenAPI document of the REST addresses: valid, complete, and built from the models that read requests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import Field

from channels.batch import endpoints as batch
from channels.http_chat import endpoints as http_chat
from channels.web.openapi.document import document
from channels.web.pages.docs import operations_of
from channels.web.rest import Operation, RestModel
from tests.support.replicas import AppServer
from tests.support.servers.processes import RedisServer


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class ThingQuery(RestModel):
    page: Annotated[int, Field(ge=1, description="From 1.")] = 1
    colour: Colour | None = None
    name: str


class Sent(RestModel):
    """The body of a POST request."""

    texts: list[str]


class Upload(RestModel):
    file: str


class Stored(RestModel):
    task_id: str
    colour: Colour = Colour.RED


class PartialAnswer(RestModel):
    content: str


OPERATIONS = (
    Operation("GET", "/api/things", "all of them", "things", query=ThingQuery, answers={200: Stored}),
    Operation(
        "POST",
        "/api/things/{thing_id}/parts/{part}",
        "a part",
        "things",
        body=Sent,
        multipart=Upload,
        answers={201: Stored, 204: None, 409: None, 502: PartialAnswer},
        media={201: ("text/event-stream", "text/csv")},
        headers={"Idempotency-Key": "Once.", "Last-Event-ID": {"pattern": "^[0-9]+$", "description": "From there."}},
        description="More.",
    ),
    Operation("DELETE", "/api/things", "none of them", "things", auth="admin", answers={200: None}),
    Operation("GET", "/state", "how it is", "operations", auth="none", answers={200: PartialAnswer}, bare=True),
    Operation("GET", "/page", "a text", "operations", auth="none", answers={200: None}, media={200: "text/plain"}),
)


@pytest.fixture
def spec() -> Any:
    return document(OPERATIONS, name="来宝", version="1.2.3")


def schema_of(spec: Any, path: str, method: str, status: str, media: str = "application/json") -> Any:
    """Return a validator of that response, with the references of the document."""
    schema = spec["paths"][path][method]["responses"][status]["content"][media]["schema"]
    return Draft202012Validator({**schema, "components": spec["components"]})


def reply(data: Any, code: int = 200) -> Mapping[str, Any]:
    return {"code": code, "message": "m", "data": data}


def test_a_document_is_valid(spec: Any) -> None:
    """By the official schema of OpenAPI 3.1, with every reference resolved."""
    OpenAPIV31SpecValidator(json.loads(json.dumps(spec))).validate()

    assert spec["openapi"].startswith("3.1.")
    assert spec["info"]["title"] == "来宝"
    assert set(spec["paths"]) == {operation.path for operation in OPERATIONS}


def test_parameters_come_from_path_query_and_headers(spec: Any) -> None:
    """The query parameters are the fields of the model, with their limits; none may be null."""
    query = {one["name"]: one for one in spec["paths"]["/api/things"]["get"]["parameters"]}
    others = spec["paths"]["/api/things/{thing_id}/parts/{part}"]["post"]["parameters"]

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


def test_a_body_has_all_its_media_types(spec: Any) -> None:
    """JSON, and the other media types of the operation."""
    sent = spec["paths"]["/api/things/{thing_id}/parts/{part}"]["post"]["requestBody"]

    assert {media: one["schema"]["$ref"].rsplit("/", 1)[1] for media, one in sent["content"].items()} == {
        "application/json": "Sent",
        "multipart/form-data": "Upload",
    }
    assert spec["components"]["schemas"]["Sent"]["additionalProperties"] is False


def test_answers_have_the_envelope(spec: Any) -> None:
    """`data` has the model, `code` is 200 for a success, and other members are not allowed."""
    listed = schema_of(spec, "/api/things", "get", "200")
    emptied = schema_of(spec, "/api/things", "delete", "200")

    assert listed.is_valid(reply({"task_id": "a", "colour": "red"}))
    for wrong in ({"task_id": 1}, {"task_id": "a", "colour": "green"}, {"task_id": "a", "more": 1}, None):
        assert not listed.is_valid(reply(wrong))
    assert not listed.is_valid(reply({"task_id": "a"}, code=10000))
    assert not listed.is_valid({**reply({"task_id": "a"}), "more": 1})
    assert emptied.is_valid(reply(None))
    assert not emptied.is_valid(reply({}))


def test_codes_are_whole_numbers_by_type(spec: Any) -> None:
    """Client generators read only the type: without it `code` could be a fraction."""
    answered = spec["paths"]["/api/things"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    components = spec["components"]["schemas"]
    schemas = (components[answered["$ref"].rpartition("/")[2]], components["Error"])

    assert [schema["properties"]["code"].get("type") for schema in schemas] == ["integer", "integer"]


def test_a_response_may_have_other_media_types(spec: Any) -> None:
    """A stream or a file, beside JSON or instead of it; a body without the envelope; or no body."""
    answers = spec["paths"]["/api/things/{thing_id}/parts/{part}"]["post"]["responses"]

    assert set(answers["201"]["content"]) == {"application/json", "text/event-stream", "text/csv"}
    assert set(spec["paths"]["/page"]["get"]["responses"]["200"]["content"]) == {"text/plain"}
    assert schema_of(spec, "/state", "get", "200").is_valid({"content": "x"})
    assert schema_of(spec, "/state", "get", "default").is_valid({"code": "not_found"})
    assert not schema_of(spec, "/state", "get", "default").is_valid(reply(None, 404))
    assert "content" not in answers["204"]


def test_errors_follow_from_body_and_credential(spec: Any) -> None:
    """Operations with a body have 413, 415 and 422, those with a key 401, 429 and 503; all errors share one schema."""
    answers = {
        (path, method): set(one["responses"]) for path, each in spec["paths"].items() for method, one in each.items()
    }

    posted = ("/api/things/{thing_id}/parts/{part}", "post")
    assert answers["/api/things", "get"] == {"200", "401", "422", "429", "503", "default"}
    assert answers[posted] == {"201", "204", "400", "401", "409", "413", "415", "422", "429", "502", "503", "default"}
    assert answers["/state", "get"] == {"200", "default"}
    refused = schema_of(spec, "/api/things", "get", "422")
    assert refused.is_valid(reply({"reason": "invalid_fields", "errors": [{"field": "a", "problem": "b"}]}, 10000))
    assert refused.is_valid(reply(None, 10000))
    for wrong in (reply(None), reply({"reason": "Two words"}, 10000), reply({"errors": [{}]}, 10000), reply(None, 7)):
        assert not refused.is_valid(wrong)
    assert schema_of(spec, *posted, "502").is_valid(reply({"content": "half"}, 30000))
    assert schema_of(spec, *posted, "502").is_valid(reply({"reason": "provider_error"}, 30000))


def test_a_created_resource_links_to_its_operations() -> None:
    """The response to POST links to every operation that has its identifier as a parameter."""
    create = Operation("POST", "/api/things", "make one", "things", body=Sent, answers={201: Stored, 409: None})
    show = Operation("GET", "/api/things/{task_id}", "show it", "things", answers={200: Stored})
    other = Operation("GET", "/api/others/{other_id}", "show another", "things", answers={200: Stored})

    spec = document((create, show, other), name="n", version="1")

    OpenAPIV31SpecValidator(spec).validate()
    assert spec["paths"]["/api/things"]["post"]["responses"]["201"]["links"] == {
        "get_api_things_task_id": {
            "operationId": "get_api_things_task_id",
            "parameters": {"task_id": "$response.body#/data/task_id"},
        }
    }
    assert "links" not in spec["paths"]["/api/things/{task_id}"]["get"]["responses"]["200"]


@pytest.mark.parametrize("open_to_all", [False, True])
def test_the_credentials_of_an_operation_are_documented(open_to_all: bool) -> None:
    """A key in one of two headers, required or not; always the token for administrators; otherwise nothing."""
    spec = document(OPERATIONS, name="n", version="1", open_to_all=open_to_all)
    keys: list[Any] = [{"bearer": []}, {"apiKey": []}]

    things = spec["paths"]["/api/things"]
    assert things["get"]["security"] == ([{}, *keys] if open_to_all else keys)
    assert things["delete"]["security"] == [{"administrator": ["admin"]}]
    assert spec["paths"]["/state"]["get"]["security"] == []


@pytest.fixture(scope="module")
def app_server(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    database = tmp_path_factory.mktemp("openapi") / "laibao.db"
    with AppServer(redis_server.url(), DATABASE_PATH=str(database)) as app_server:
        yield app_server


def test_the_whole_document_is_valid(app_server: AppServer) -> None:
    """By the official schema; each operation has a summary, a listed tag and an identifier of its own."""
    spec = app_server.app.test_client().get("/openapi.json").get_json()
    operations = [operation for each in spec["paths"].values() for operation in each.values()]

    OpenAPIV31SpecValidator(spec).validate()
    assert all(operation["summary"] for operation in operations)
    assert {tag for operation in operations for tag in operation["tags"]} == {tag["name"] for tag in spec["tags"]}
    assert len({operation["operationId"] for operation in operations}) == len(operations)


def test_replies_without_a_key_have_the_documented_schema(app_server: AppServer) -> None:
    """The replies of the index and of the health addresses are valid by the document."""
    client = app_server.app.test_client()
    spec = client.get("/openapi.json").get_json()

    for path in ("/", "/healthz", "/readyz", "/health"):
        answer = client.get(path)
        schema_of(spec, path, "get", str(answer.status_code)).validate(answer.get_json())
    assert client.get("/").get_json() == {
        "code": 200,
        "message": "Success",
        "data": {
            "name": "WechatLaibao",
            "version": spec["info"]["version"],
            "status": "running",
            "docs_url": "/docs",
            "chat_url": "/chat",
            "websocket": "/ws/realtime-asr",
            "health": "/health",
        },
    }


def test_json_is_the_first_media_type_of_every_response() -> None:
    """Client generators use the first media type; and no client sends an example as a real id."""
    described = document((*http_chat.OPERATIONS, *batch.OPERATIONS), name="来宝", version="1.2.3")
    media = [
        (path, method, status, list(answer.get("content", {})))
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        for status, answer in operation["responses"].items()
    ]

    assert [each for each in media if "application/json" in each[3][1:]] == []
    assert "examples" not in described["components"]["schemas"]["ChatQuestion"]["properties"]["id"]


def test_a_body_has_an_example_that_can_be_sent_as_it_is(app_server: AppServer) -> None:
    """Its model takes it, and it has no option that only some bots take, as the examples of single members would."""
    bodies = {(one.method, one.path): one.body for one in operations_of(app_server.app) if one.body}
    schemas = app_server.app.test_client().get("/openapi.json").get_json()["components"]["schemas"]

    examples = {address: schemas[body.__name__].get("examples", [None])[0] for address, body in bodies.items()}
    for address, body in bodies.items():
        body.model_validate(examples[address])
    assert examples["POST", "/api/chat"] == {"query": "年假怎么申请？"}
