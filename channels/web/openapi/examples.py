"""Makes an example of an answer from its JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from channels.web.openapi.models import COMPONENT, JsonObject

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
