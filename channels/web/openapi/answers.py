"""The responses in the OpenAPI document: envelope, other media types, errors, and links between operations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus

from pydantic import BaseModel

from channels.web.envelope import CODES
from channels.web.openapi.models import COMPONENT, JSON, JsonObject, Models, identifier, path_names
from channels.web.rest import Operation

#: Error statuses that follow from an operation's body, query or authentication; all others are the `default`.
OF_BODY, OF_QUERY, OF_KEY = (400, 413, 415, 422), (422,), (401, 429, 503)

_TEXT: JsonObject = {"type": "string"}
_NULL: JsonObject = {"type": "null"}
_EVENT = {"type": "object", "description": "One event.", "properties": {"event": _TEXT, "id": _TEXT, "data": _TEXT}}
#: The schema of an answer without the envelope by media type; other media types are text.
_RAW: Mapping[str, JsonObject] = {JSON: {"type": "object"}, "text/event-stream": _EVENT}
_ANY_PROBLEM: list[JsonObject] = [{"$ref": COMPONENT + "Problem"}, _NULL]
_WORD: JsonObject = {"type": "string", "pattern": "^[a-z_]+$"}
_PROBLEM: JsonObject = {
    "type": "object",
    "description": "Details of an error for programs.",
    "properties": {
        "reason": {**_WORD, "description": "A stable error code.", "examples": ["invalid_fields"]},
        "errors": {
            "type": "array",
            "description": "The wrong fields of a request.",
            "items": {
                "type": "object",
                "required": ["field", "problem"],
                "properties": {"field": {"type": "string"}, "problem": {"type": "string"}},
            },
        },
    },
}


def responses(operation: Operation, models: Models) -> JsonObject:
    """Return the responses of an operation by status, and the `default` for all others."""
    implied = (
        *(OF_BODY if operation.body or operation.forms else ()),
        *(OF_QUERY if operation.query else ()),
        *(OF_KEY if operation.auth != "none" else ()),
    )
    answers = {**dict.fromkeys(implied), **operation.answers}
    described = {str(status): _response(operation, status, models) for status in sorted(answers)}
    return {**described, "default": _failure(operation, "Any other error")}


def _response(operation: Operation, status: int, models: Models) -> JsonObject:
    model = operation.answers.get(status)
    data = models.answered(model) if model else None
    if status >= 400:
        return _failure(operation, HTTPStatus(status).phrase, data)
    others = {one: {"schema": _RAW.get(one, _TEXT)} for one in _named(operation.media.get(status, ()))}
    content: JsonObject = {}
    if model or not others:
        # Client generators use the first media type, so JSON comes first.
        content[JSON] = {"schema": data if data and operation.bare else _envelope(data or _NULL)}
    content |= {one: schema for one, schema in others.items() if one not in content}
    return {"description": HTTPStatus(status).phrase, **({"content": content} if status != 204 else {})}


def _named(media: str | tuple[str, ...]) -> tuple[str, ...]:
    return (media,) if isinstance(media, str) else media


def _failure(operation: Operation, description: str, data: JsonObject | None = None) -> JsonObject:
    """Return an error response with the data of its own model, or with the data common to all errors."""
    schema: JsonObject = {"$ref": COMPONENT + ("Code" if operation.bare else "Error")}
    if data:
        schema = data if operation.bare else _envelope({"anyOf": [data, *_ANY_PROBLEM]}, failed=True)
    return {"description": description, "content": {JSON: {"schema": schema}}}


def links_of(operation: Operation, others: Iterable[Operation]) -> Iterator[tuple[str, JsonObject]]:
    """Yield, by status, links from a creating operation to those whose path takes the id it returns."""
    if operation.method != "POST" or path_names(operation):
        return
    for status, model in operation.answers.items():
        if model and status < 300:
            yield str(status), dict(_link(other, name) for other in others for name in _wanted(other, model))


def _wanted(operation: Operation, model: type[BaseModel]) -> list[str]:
    return [name for name in path_names(operation) if name in model.model_fields]


def _link(operation: Operation, name: str) -> tuple[str, JsonObject]:
    named = identifier(operation)
    return named, {"operationId": named, "parameters": {name: f"$response.body#/data/{name}"}}


def shared_errors() -> dict[str, JsonObject]:
    """Return the components that error responses refer to."""
    code = {**_WORD, "examples": ["not_found"]}
    return {
        "Problem": _PROBLEM,
        "Error": _envelope({"anyOf": _ANY_PROBLEM}, failed=True),
        "Code": {"type": "object", "required": ["code"], "properties": {"code": code}, "additionalProperties": False},
    }


def _envelope(data: JsonObject, *, failed: bool = False) -> JsonObject:
    codes: JsonObject = {"enum": [code for code in CODES if code != 200]} if failed else {"const": 200}
    return {
        "type": "object",
        "required": ["code", "message", "data"],
        "properties": {
            "code": {"type": "integer", **codes},
            "message": {"type": "string"},
            "data": data,
        },
        "additionalProperties": False,
    }
