"""Builds the OpenAPI 3.1 document of the REST addresses from the models that validate requests and shape answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from channels.web.multipart import MULTIPART
from channels.web.openapi.answers import links_of, responses, shared_errors, shared_headers
from channels.web.openapi.models import JSON, JsonObject, Models, identifier, path_names
from channels.web.openapi.reasons import reasons_text
from channels.web.rest import CODES, Operation
from services.admin.tokens import ROLES

_SECURITY: Mapping[str, list[JsonObject]] = {
    "key": [{"bearer": []}, {"apiKey": []}],
    "api_key": [{"bearer": []}, {"apiKey": []}],
    **{role: [{"administrator": [role]}] for role in ROLES},
    "none": [],
}
#: The groups of addresses in the order in which pages show them: what most programs use comes first.
TAGS: Mapping[str, str] = {
    "chat": "Questions and their answers, over plain HTTP",
    "openai": "The same for every client of OpenAI's API",
    "files": "Files for questions, and files of answers",
    "batch": "Many questions at once",
    "push": "Messages that nobody asked for, over WeCom's long connection",
    "administration": "Open sockets; for administrators",
    "operations": "Health, metrics and documents",
}
_BEARER = {"type": "http", "scheme": "bearer"}
_SCHEMES: Mapping[str, JsonObject] = {
    "bearer": {**_BEARER, "description": "One of `API_KEYS`; with `WEBSOCKET_AUTH=token` also a user's token."},
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same as a header.",
    },
    "administrator": {
        **_BEARER,
        "description": "An administrator's token, with the role that an operation names or a higher one: "
        f"{', '.join(ROLES)}. If neither `ADMIN_TOKEN` nor `ADMIN_TOKENS` is set, these addresses answer 404.",
    },
}


def document(operations: Iterable[Operation], *, name: str, version: str, open_to_all: bool = False) -> JsonObject:
    """Return the document of these operations; with `open_to_all` the API key is optional."""
    listed = tuple(operations)
    models = Models.of(listed)
    paths: dict[str, JsonObject] = {}
    for operation in listed:
        described = _operation(operation, models, open_to_all)
        for status, links in links_of(operation, listed):
            described["responses"][status]["links"] = links
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": version, "description": _introduction()},
        # Relative to the document's URL, so that it is also right behind a proxy that adds a prefix.
        "servers": [{"url": ".", "description": "this host"}],
        "tags": [{"name": name, "description": about} for name, about in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {**models.schemas, **shared_errors()},
            "headers": shared_headers(),
            "securitySchemes": _SCHEMES,
        },
    }


def _introduction() -> str:
    codes = ", ".join(f"{code} {meaning}" for code, meaning in CODES.items())
    return (
        "Every answer is `{code, message, data}` with an HTTP status, except those of health and metrics. "
        f"The codes: {codes}.\n\n"
        "Programs tell errors apart by `data.reason`, a stable word; errors of `/v1` have OpenAI's codes. "
        f"All words by HTTP status:\n\n{reasons_text()}"
    )


def _operation(operation: Operation, models: Models, open_to_all: bool) -> JsonObject:
    security = _SECURITY[operation.auth]
    described: JsonObject = {
        "operationId": identifier(operation),
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": [*_of_path(operation), *_of_query(operation, models), *_of_headers(operation)],
        "requestBody": _request_body(operation, models),
        "responses": responses(operation, models),
        "security": [{}, *security] if open_to_all and operation.auth == "key" else security,
    }
    return {name: value for name, value in described.items() if value or name == "security"}


def _of_path(operation: Operation) -> list[JsonObject]:
    names = path_names(operation)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _of_query(operation: Operation, models: Models) -> Iterator[JsonObject]:
    if operation.query is None:
        return
    schema = models.inlined(operation.query)
    for name, described in schema.get("properties", {}).items():
        required = name in schema.get("required", ())
        yield {"name": name, "in": "query", "required": required, **_parameter(_without_null(described))}


def _of_headers(operation: Operation) -> Iterator[JsonObject]:
    for name, meaning in operation.headers.items():
        described = {"type": "string", **({"description": meaning} if isinstance(meaning, str) else meaning)}
        yield {"name": name, "in": "header", "required": False, **_parameter(described)}


def _parameter(schema: JsonObject) -> JsonObject:
    description = schema.get("description")
    return {"schema": schema, **({"description": description} if description else {})}


def _without_null(schema: JsonObject) -> JsonObject:
    """Return a parameter's schema without null, which a query string cannot express."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and not (key == "default" and value is None)}
    if len(kinds) == 1:
        return {**rest, **kinds[0]}
    return {**rest, "anyOf": kinds} if kinds else rest


def _request_body(operation: Operation, models: Models) -> JsonObject | None:
    taken = {JSON: operation.body, MULTIPART: operation.multipart}
    content = {media: {"schema": models.sent(model)} for media, model in taken.items() if model}
    return {"required": True, "content": content} if content else None
