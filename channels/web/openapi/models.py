"""The JSON Schemas of the REST addresses' models, and the names of operations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from channels.web.rest import Operation

JsonObject = dict[str, Any]

JSON = "application/json"
COMPONENT = "#/components/schemas/"

_PARAMETER = re.compile(r"{(\w+)}")


@dataclass(frozen=True)
class Models:
    """The JSON Schema of every model in use."""

    schemas: dict[str, JsonObject]
    refs: Mapping[Any, JsonObject]

    @classmethod
    def of(cls, operations: Iterable[Operation]) -> Models:
        used = dict.fromkeys(one for operation in operations for one in _used(operation))
        refs, top = models_json_schema(list(used), ref_template=COMPONENT + "{model}")
        return cls(top.get("$defs", {}), refs)

    def sent(self, model: type[BaseModel]) -> JsonObject:
        return self.refs[model, "validation"]

    def answered(self, model: type[BaseModel]) -> JsonObject:
        return self.refs[model, "serialization"]

    def named(self, name: str, schema: JsonObject) -> JsonObject:
        """Add a schema to the components, and return a reference: client generators name their classes after it."""
        self.schemas[name] = schema
        return {"$ref": COMPONENT + name}

    def inlined(self, model: type[BaseModel]) -> JsonObject:
        """Return the schema of a request model, not a reference to it."""
        return self.schemas[self.sent(model)["$ref"].removeprefix(COMPONENT)]


def _used(operation: Operation) -> Iterator[tuple[type[BaseModel], JsonSchemaMode]]:
    for sent in (operation.body, operation.query, operation.multipart):
        if sent:
            yield sent, "validation"
    for answered in (*operation.answers.values(), *operation.events.values(), operation.error):
        if answered:
            yield answered, "serialization"


def identifier(operation: Operation) -> str:
    words = re.findall(r"\w+", operation.path) or ["index"]
    return "_".join((operation.method.lower(), *words))


def path_names(operation: Operation) -> list[str]:
    """Return the names of the path's parameters."""
    return _PARAMETER.findall(operation.path)
