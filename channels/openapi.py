"""The REST addresses as OpenAPI 3.1, made from the same models that read requests and shape answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from channels.envelope import CODES
from channels.rest import Operation

Json = dict[str, Any]

JSON = "application/json"
COMPONENT = "#/components/schemas/"
#: What follows from how an operation is asked; any other status is the `default`.
OF_BODY, OF_QUERY, OF_KEY = (400, 413, 415, 422), (422,), (401, 503)

_PARAMETER = re.compile(r"{(\w+)}")
_SECURITY: Mapping[str, list[Json]] = {
    "key": [{"bearer": []}, {"apiKey": []}],
    "admin": [{"administrator": []}],
    "none": [],
}
_BEARER = {"type": "http", "scheme": "bearer"}
_SCHEMES: Mapping[str, Json] = {
    "bearer": {**_BEARER, "description": "One of `API_KEYS`; with `WEBSOCKET_AUTH=token` also a user's token."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same in its own header."},
    "administrator": {**_BEARER, "description": "`ADMIN_TOKEN`. Where there is none, neither is the address."},
}
_TEXT: Json = {"type": "string"}
_NULL: Json = {"type": "null"}
_EVENT = {"type": "object", "description": "One event.", "properties": {"event": _TEXT, "id": _TEXT, "data": _TEXT}}
#: What an answer without the envelope looks like, where it is no text.
_RAW: Mapping[str, Json] = {JSON: {"type": "object"}, "text/event-stream": _EVENT}
_ANY_PROBLEM: list[Json] = [{"$ref": COMPONENT + "Problem"}, _NULL]
_WORD: Json = {"type": "string", "pattern": "^[a-z_]+$"}
_PROBLEM: Json = {
    "type": "object",
    "description": "What a program can tell of an error.",
    "properties": {
        "reason": {**_WORD, "description": "A stable word.", "examples": ["invalid_fields"]},
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


def document(operations: Iterable[Operation], *, name: str, version: str, open_to_all: bool = False) -> Json:
    """Return the document of these operations; `open_to_all`: nobody needs to show a key."""
    listed = tuple(operations)
    models = _Models.of(listed)
    paths: dict[str, Json] = {}
    for operation in listed:
        described = _operation(operation, models, open_to_all)
        for status, links in _links(operation, listed):
            described["responses"][status]["links"] = links
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": version, "description": _introduction()},
        # Relative to where the document lies, so that it is right behind a proxy that adds a prefix.
        "servers": [{"url": ".", "description": "this host"}],
        "paths": paths,
        "components": {"schemas": {**models.schemas, **_errors()}, "securitySchemes": _SCHEMES},
    }


def _introduction() -> str:
    codes = ", ".join(f"{code} {meaning}" for code, meaning in CODES.items())
    return (
        "Every answer is `{code, message, data}` with a fitting HTTP status, those of health and metrics excepted. "
        f"The codes: {codes}."
    )


@dataclass(frozen=True)
class _Models:
    """The JSON Schema of every model that is used."""

    schemas: dict[str, Json]
    refs: Mapping[Any, Json]

    @classmethod
    def of(cls, operations: Iterable[Operation]) -> _Models:
        used = dict.fromkeys(one for operation in operations for one in _used(operation))
        refs, top = models_json_schema(list(used), ref_template=COMPONENT + "{model}")
        return cls(top.get("$defs", {}), refs)

    def sent(self, model: type[BaseModel]) -> Json:
        return self.refs[model, "validation"]

    def answered(self, model: type[BaseModel]) -> Json:
        return self.refs[model, "serialization"]

    def whole(self, model: type[BaseModel]) -> Json:
        """Return the schema itself of a model that is sent."""
        return self.schemas[self.sent(model)["$ref"].removeprefix(COMPONENT)]


def _used(operation: Operation) -> Iterator[tuple[type[BaseModel], JsonSchemaMode]]:
    for sent in (operation.body, operation.query, *operation.forms.values()):
        if sent:
            yield sent, "validation"
    for answered in operation.answers.values():
        if answered:
            yield answered, "serialization"


def _operation(operation: Operation, models: _Models, open_to_all: bool) -> Json:
    security = _SECURITY[operation.auth]
    described: Json = {
        "operationId": _identifier(operation),
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": [*_of_path(operation), *_of_query(operation, models), *_of_headers(operation)],
        "requestBody": _request_body(operation, models),
        "responses": _responses(operation, models),
        "security": [{}, *security] if open_to_all and operation.auth == "key" else security,
    }
    return {name: value for name, value in described.items() if value or name == "security"}


def _identifier(operation: Operation) -> str:
    words = re.findall(r"\w+", operation.path) or ["index"]
    return "_".join((operation.method.lower(), *words))


def _of_path(operation: Operation) -> list[Json]:
    names = _PARAMETER.findall(operation.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _of_query(operation: Operation, models: _Models) -> Iterator[Json]:
    if operation.query is None:
        return
    schema = models.whole(operation.query)
    for name, described in schema.get("properties", {}).items():
        required = name in schema.get("required", ())
        yield {"name": name, "in": "query", "required": required, **_parameter(_without_null(described))}


def _of_headers(operation: Operation) -> Iterator[Json]:
    for name, meaning in operation.headers.items():
        described = {"type": "string", **({"description": meaning} if isinstance(meaning, str) else meaning)}
        yield {"name": name, "in": "header", "required": False, **_parameter(described)}


def _parameter(schema: Json) -> Json:
    description = schema.get("description")
    return {"schema": schema, **({"description": description} if description else {})}


def _without_null(schema: Json) -> Json:
    """Return the schema of a value where there is one: a query string has no way to write null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and not (key == "default" and value is None)}
    if len(kinds) == 1:
        return {**rest, **kinds[0]}
    return {**rest, "anyOf": kinds} if kinds else rest


def _request_body(operation: Operation, models: _Models) -> Json | None:
    taken = {JSON: operation.body, **operation.forms}
    content = {media: {"schema": models.sent(model)} for media, model in taken.items() if model}
    return {"required": True, "content": content} if content else None


def _responses(operation: Operation, models: _Models) -> Json:
    implied = (
        *(OF_BODY if operation.body or operation.forms else ()),
        *(OF_QUERY if operation.query else ()),
        *(OF_KEY if operation.auth != "none" else ()),
    )
    answers = {**dict.fromkeys(implied), **operation.answers}
    described = {str(status): _response(operation, status, models) for status in sorted(answers)}
    return {**described, "default": _failure(operation, "Any other error")}


def _response(operation: Operation, status: int, models: _Models) -> Json:
    model = operation.answers.get(status)
    data = models.answered(model) if model else None
    if status >= 400:
        return _failure(operation, HTTPStatus(status).phrase, data)
    content = {one: {"schema": _RAW.get(one, _TEXT)} for one in _named(operation.media.get(status, ()))}
    if model or not content:
        content[JSON] = {"schema": data if data and operation.bare else _envelope(data or _NULL)}
    return {"description": HTTPStatus(status).phrase, **({"content": content} if status != 204 else {})}


def _named(media: str | tuple[str, ...]) -> tuple[str, ...]:
    return (media,) if isinstance(media, str) else media


def _failure(operation: Operation, description: str, data: Json | None = None) -> Json:
    """Return an error with the data of its own model, or with what every error may have."""
    schema: Json = {"$ref": COMPONENT + ("Code" if operation.bare else "Error")}
    if data:
        schema = data if operation.bare else _envelope({"anyOf": [data, *_ANY_PROBLEM]}, failed=True)
    return {"description": description, "content": {JSON: {"schema": schema}}}


def _links(operation: Operation, others: Iterable[Operation]) -> Iterator[tuple[str, Json]]:
    """Yield where one goes on from what this operation makes: to those whose one parameter is in its answer."""
    if operation.method != "POST" or _PARAMETER.search(operation.path):
        return
    for status, model in operation.answers.items():
        if model and status < 300:
            yield (
                str(status),
                {
                    _identifier(other): {
                        "operationId": _identifier(other),
                        "parameters": {name: f"$response.body#/data/{name}"},
                    }
                    for other in others
                    for name in _PARAMETER.findall(other.path)
                    if name in model.model_fields
                },
            )


def _errors() -> dict[str, Json]:
    code = {**_WORD, "examples": ["not_found"]}
    return {
        "Problem": _PROBLEM,
        "Error": _envelope({"anyOf": _ANY_PROBLEM}, failed=True),
        "Code": {"type": "object", "required": ["code"], "properties": {"code": code}, "additionalProperties": False},
    }


def _envelope(data: Json, *, failed: bool = False) -> Json:
    return {
        "type": "object",
        "required": ["code", "message", "data"],
        "properties": {
            "code": {"enum": [code for code in CODES if code != 200]} if failed else {"const": 200},
            "message": {"type": "string"},
            "data": data,
        },
        "additionalProperties": False,
    }
