"""The reasons, events, headers and examples of the OpenAPI document, against the code that makes them."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from channels.http_chat import endpoints
from channels.http_chat import replies as stream
from channels.http_chat.models import ChatAnswered
from channels.web.errors import OF_REASON, STATUS, status_of_code
from channels.web.openapi.document import document
from channels.web.openapi.reasons import OF_REQUESTS, REASONS
from channels.web.pages import docs
from config.errors import LaibaoError
from config.texts import ANSWER_CODES, ZH
from services.errors import AnswerError

ROOT = Path(__file__).parents[3]


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield each call in the channels and the readers of files, with the name that is called."""
    paths = [*(ROOT / "channels").rglob("*.py"), *(ROOT / "utils" / "questions").rglob("*.py")]
    for node in (node for path in paths for node in ast.walk(ast.parse(path.read_text("utf-8")))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node


def literal(node: ast.expr | None) -> Any:
    return node.value if isinstance(node, ast.Constant) else None


def raised() -> Iterator[tuple[str, int | None]]:
    """Yield the reasons that the code names, with the HTTP status where it stands beside."""
    for name, call in calls():
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        if name == "RestError" and (reason := literal(named.get("reason"))):
            yield reason, literal(call.args[0])
        if name == "FileRefused" and (reason := literal(call.args[0] if call.args else None)):
            yield reason, None
        if name == "refusal" and (reason := literal(call.args[0] if call.args else None)):
            yield reason, None


def test_every_reason_of_the_code_is_listed() -> None:
    """With its status: of requests, of files, and of answers."""
    found = set(raised())

    assert len(found) > 20
    assert {reason for reason, _ in found} <= REASONS.keys()
    assert {reason: status for reason, status in found if status} == {
        reason: REASONS[reason] for reason, status in found if status
    }
    assert {code: REASONS[code] for code in STATUS} == STATUS
    assert {code: REASONS[code] for code in ANSWER_CODES if code not in OF_REQUESTS} == {
        code: status_of_code(code) for code in ANSWER_CODES if code not in OF_REQUESTS
    }


def test_every_error_that_is_a_reply_is_listed() -> None:
    """The codes of the tree of errors, with their statuses."""

    def errors(of: type[LaibaoError]) -> Iterator[type[LaibaoError]]:
        yield of
        for below in of.__subclasses__():
            yield from errors(below)

    ours = [error for error in errors(LaibaoError) if error.code in ZH and not issubclass(error, AnswerError)]
    assert len(ours) > 8
    assert {error.code: REASONS.get(error.code) for error in ours} == {
        error.code: OF_REASON.get(error.code, error.status) for error in ours
    }


def test_no_listed_reason_is_unknown_to_the_code() -> None:
    """A word that nothing replies with would mislead."""
    folders = ("bootstrap", "channels", "services", "utils", "config")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if path.name != "reasons.py"]
    sources = [path.read_text("utf-8") for path in paths]
    assert [reason for reason in REASONS if not any(f'"{reason}"' in source for source in sources)] == []


@pytest.fixture(scope="module")
def spec() -> Any:
    operations = (*endpoints.OPERATIONS, *docs.OPERATIONS)
    # As it is served: without Python's own types.
    return json.loads(json.dumps(document(operations, name="x", version="1")))


def checker(spec: Any, schema: Any) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": spec["components"]})


def test_the_reasons_are_in_the_document(spec: Any) -> None:
    """For programs, and as a list for people."""
    assert spec["components"]["schemas"]["Problem"]["properties"]["reason"]["x-status"] == dict(REASONS)
    assert all(f"`{reason}`" in spec["info"]["description"] for reason in REASONS)


def test_each_event_is_described(spec: Any) -> None:
    """With the schema of its data; the event stream's own events fit it."""
    content = spec["paths"]["/api/chat"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    event, schemas = checker(spec, content["schema"]), spec["components"]["schemas"]
    kinds = [schemas[one["$ref"].rpartition("/")[2]] for one in schemas["ChatEvent"]["oneOf"]]
    names = {kind["properties"]["event"]["const"]: kind["properties"]["data"] for kind in kinds}

    assert set(names) == {"start", "delta", "reasoning", "reset", "done", "error"}
    assert names["done"]["contentSchema"] == {"$ref": f"#/components/schemas/{ChatAnswered.__name__}"}
    event.validate({"event": "reset", "id": "0", "data": "{}"})
    lines = stream.event("delta", {"content": "a"}, 7).decode().split("\n")
    fields = dict(line.split(": ", 1) for line in lines if line)
    event.validate(fields)
    checker(spec, names["delta"]["contentSchema"]).validate(json.loads(fields["data"]))
    assert not event.is_valid({"event": "other", "id": "0", "data": "{}"})


def test_every_response_names_its_headers(spec: Any) -> None:
    """The request's id everywhere, and when to ask again where that helps."""
    for path in spec["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                assert "X-Request-Id" in response["headers"]
                assert ("Retry-After" in response["headers"]) is (status in ("429", "503"))
                for header in response["headers"].values():
                    assert header["$ref"].rpartition("/")[2] in spec["components"]["headers"]


def test_examples_fit_their_schemas(spec: Any) -> None:
    """Of answers and of errors; an error's reason has the response's status."""
    shown = 0
    for path in spec["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                for described in response.get("content", {}).values():
                    if "example" in described:
                        shown += 1
                        checker(spec, described["schema"]).validate(described["example"])
                        data = described["example"].get("data") or {}
                        assert "reason" not in data or REASONS[data["reason"]] == int(status)
    assert shown > 10
    answer = spec["paths"]["/api/chat"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    assert answer["data"]["sources"][0]["title"] == "员工手册.md"
