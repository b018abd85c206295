"""ProviderWrapper: every public member of a provider's interface reaches the wrapped provider."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from services.models import ProviderEvent, Query
from services.providers.base import BaseRAGProvider, ProviderWrapper
from utils.deadline import Deadline

#: Members that a wrapper does not forward: those of the answer, which it makes itself, and a constant.
OWN = {"stream_query", "query", "provider_type"}
MEMBERS = {
    name for name in (*BaseRAGProvider.__annotations__, *vars(BaseRAGProvider)) if not name.startswith("_")
} - OWN
METHODS = {name for name in MEMBERS if inspect.isfunction(getattr(BaseRAGProvider, name, None))}

calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []


class Silent:
    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        return iter(())


def recorded(name: str) -> Any:
    """Return a method that records its call, and returns a value of its own."""

    def method(self: object, *args: Any, **named: Any) -> str:
        calls.append((name, args, named))
        return f"result of {name}"

    return method


def wrapped(values: dict[str, str]) -> Any:
    """Return a wrapper around a provider with these values, whose methods record their calls."""
    inner = type("Inner", (Silent, BaseRAGProvider), {**values, **{name: recorded(name) for name in METHODS}})
    return type("Outer", (Silent, ProviderWrapper), {})(inner())


def test_every_attribute_is_the_wrapped_providers() -> None:
    """An attribute that is added to `BaseRAGProvider` has to be added to the wrapper."""
    values = {name: f"value of {name}" for name in MEMBERS - METHODS}
    wrapper = wrapped(values)

    assert {name: getattr(wrapper, name) for name in values} == values


def test_every_method_calls_the_wrapped_provider() -> None:
    """With the same arguments, and it returns the result."""
    wrapper = wrapped({"name": "inner", "app": "inner"})

    for name in sorted(METHODS):
        signature = inspect.signature(getattr(BaseRAGProvider, name))
        _self, *parameters = signature.parameters.values()
        args = tuple(one.name for one in parameters if one.kind is not one.KEYWORD_ONLY)
        named = {one.name: one.name for one in parameters if one.kind is one.KEYWORD_ONLY}

        result = getattr(wrapper, name)(*args, **named)

        assert calls[-1:] == [(name, args, named)]
        assert result == (None if signature.return_annotation == "None" else f"result of {name}")
