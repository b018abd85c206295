"""The responses in the OpenAPI document: envelope, other media types, errors and links between operations.

The example of an answer is made from its JSON Schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from channels.web.openapi.models import COMPONENT, JSON, JsonObject, Models, identifier, path_names
from channels.web.openapi.reasons import REASONS
from channels.web.rest import CODES, Operation, enveloped
from services.admin.tokens import ROLES

_BY_TYPE: Mapping[str, Any] = {"string": "…", "integer": 1, "number": 0.5, "boolean": True, "null": None}
_BY_FORMAT = {"date-time": "2026-01-05T09:30:00Z", "uuid": "3f0c1c9e-5d5b-4c43-9d0a-2f6f6d1f2a34"}


def example_of(schema: JsonObject, components: Mapping[str, JsonObject]) -> Any:
    """Return a value that fits the schema: with the fields that are always there or have an example."""
    if "$ref" in schema:
        return example_of(components[schema["$ref"].removeprefix(COMPONENT)], components)
    if "examples" in schema:
        return schema["examples"][0]
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if "enum" in schema:
        return schema["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if name in schema:
            return example_of(schema[name][0], components)
    return _of_type(schema, components)


def _of_type(schema: JsonObject, components: Mapping[str, JsonObject]) -> Any:
    kind = schema.get("type", "object")
    if kind == "array":
        return [example_of(schema["items"], components)] if schema.get("items") else []
    if kind == "object":
        fields = schema.get("properties", {})
        shown = [name for name in fields if name in schema.get("required", ()) or "examples" in fields[name]]
        return {name: example_of(fields[name], components) for name in shown}
    return _BY_FORMAT.get(schema.get("format", ""), schema.get("minimum", _BY_TYPE[kind]))


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
        "reason": {
            **_WORD,
            "description": "A stable word, listed in the introduction. Take an unknown one by its HTTP status.",
            "examples": ["invalid_fields"],
            "x-status": dict(REASONS),
        },
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
        *(OF_BODY if operation.body or operation.multipart else ()),
        *(OF_QUERY if operation.query else ()),
        *(OF_KEY if operation.auth != "none" else ()),
        *((403, 404) if operation.auth in ROLES else ()),
    )
    answers = {**dict.fromkeys(implied), **operation.answers}
    described = {str(status): _response(operation, status, models) for status in sorted(answers)}
    described["default"] = _failure(operation, None, models)
    return {status: {**each, "headers": _headers(status)} for status, each in described.items()}


def _response(operation: Operation, status: int, models: Models) -> JsonObject:
    model = operation.answers.get(status)
    if status >= 400:
        return _failure(operation, HTTPStatus(status), models, model)
    if status == HTTPStatus.NO_CONTENT:
        return {"description": HTTPStatus(status).phrase}
    others = {one: {"schema": _raw(operation, one, models)} for one in _named(operation.media.get(status, ()))}
    content: JsonObject = {}
    if model or not others:
        # Client generators use the first media type, so JSON comes first.
        content[JSON] = _with_example(_answer(operation, models, model), models)
    content |= {one: schema for one, schema in others.items() if one not in content}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _with_example(schema: JsonObject, models: Models) -> JsonObject:
    return {"schema": schema, "example": example_of(schema, models.schemas)}


#: Headers with `quota_used`.
QUOTA_HEADERS = {
    "X-RateLimit-Limit": "Of `quota_used`: the limit that is reached.",
    "X-RateLimit-Remaining": "Of `quota_used`: 0.",
    "X-RateLimit-Reset": "Of `quota_used`: when the limit is new, in seconds since 1970.",
    "RateLimit-Policy": "Of `quota_used`: the limit (`q`), and the seconds of its period (`w`).",
    "RateLimit": "Of `quota_used`: what is left (`r`, 0), and the seconds until the limit is new (`t`).",
}


def _headers(status: str) -> JsonObject:
    """Return the headers of a response with this status, as references to `shared_headers`."""
    names = ["X-Request-Id", "traceparent", *(["Retry-After"] if status in ("429", "503") else [])]
    names += QUOTA_HEADERS if status == "429" else {}
    names += ["WWW-Authenticate"] if status == "401" else []
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def shared_headers() -> dict[str, JsonObject]:
    """Return the components that `headers` of responses refer to."""
    described = {
        "X-Request-Id": "The request's own id, or a new one; it is in the log.",
        "traceparent": "The request's own W3C traceparent, if it was well-formed.",
        "Retry-After": "Seconds after which to ask again.",
        **QUOTA_HEADERS,
        "WWW-Authenticate": "Bearer.",
    }
    return {name: {"description": what, "schema": _TEXT} for name, what in described.items()}


def _raw(operation: Operation, media: str, models: Models) -> JsonObject:
    if media != "text/event-stream" or not operation.events:
        return _RAW.get(media, _TEXT)
    kinds = [_event(name, model, operation, models) for name, model in operation.events.items()]
    return models.named(f"{operation.tag.capitalize()}Event", {"description": "One event.", "oneOf": kinds})


def _event(name: str, model: type[BaseModel] | None, operation: Operation, models: Models) -> JsonObject:
    """Return the schema of one kind of event, whose data is JSON."""
    data: JsonObject = models.answered(model) if model else {"type": "object", "additionalProperties": False}
    if name == "error" and model:
        data = {"$ref": f"{COMPONENT}{model.__name__}Error"}
    json = {**_TEXT, "contentMediaType": JSON, "contentSchema": data}
    event = {
        "type": "object",
        "required": ["event", "id", "data"],
        "properties": {"event": {"const": name}, "id": _TEXT, "data": json},
    }
    return models.named(f"{operation.tag.capitalize()}Event{name.capitalize()}", event)


def _named(media: str | tuple[str, ...]) -> tuple[str, ...]:
    return (media,) if isinstance(media, str) else media


def _answer(operation: Operation, models: Models, model: type[BaseModel] | None) -> JsonObject:
    if model is None:
        return models.named("EmptyReply", _envelope(_NULL))
    data = models.answered(model)
    return data if operation.bare else models.named(f"{model.__name__}Reply", _envelope(data))


def _failure(
    operation: Operation, status: HTTPStatus | None, models: Models, model: type[BaseModel] | None = None
) -> JsonObject:
    """Return an error response with the data of its own model, or with the data common to all errors.

    A status of None stands for all others.
    """
    description = status.phrase if status else "Any other error"
    if operation.error:
        return _described(description, models.answered(operation.error))
    if model is None and operation.bare:
        return _described(description, {"$ref": COMPONENT + "Code"})
    if model is None:
        return _with_reason(status, _described(description, {"$ref": COMPONENT + "Error"}))
    data = models.answered(model)
    if operation.bare:
        return _described(description, data)
    failed = _envelope({"anyOf": [data, *_ANY_PROBLEM]}, failed=True)
    return _described(description, models.named(f"{model.__name__}Error", failed))


def _with_reason(status: HTTPStatus | None, described: JsonObject) -> JsonObject:
    """Add the example of an error, with the first reason that has this status."""
    if reason := next((word for word, of in REASONS.items() if of == status), ""):
        described["content"][JSON]["example"] = enveloped({"reason": reason}, status=REASONS[reason])
    return described


def _described(description: str, schema: JsonObject) -> JsonObject:
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
