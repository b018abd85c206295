"""The names that `RAG_PROVIDER` and `SEARCH_PROVIDER` may have, looked up without importing anybody's code."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from importlib.util import find_spec

#: The group of entry points in which packages announce their providers.
GROUP = "wechatlaibao.providers"
RAG_PROVIDERS = ("context", "custom", "dify", "mock", "openai")
SEARCH_PROVIDERS = ("serper",)


def is_provider(name: str, built_in: Iterable[str]) -> bool:
    """Tell whether the name is built in, an installed package's, or an import path whose package can be found."""
    module, _, attribute = name.partition(":")
    if not attribute:
        return name in built_in or bool(entry_points(group=GROUP, name=name))
    try:
        # The outermost package alone: to find what is inside it, it would have to be imported.
        return find_spec(module.partition(".")[0]) is not None
    except ValueError:
        # It is imported already, by a program that has no file.
        return True


def expected_providers(built_in: Iterable[str]) -> str:
    """Return what may be set, the installed names included."""
    installed = sorted({entry.name for entry in entry_points(group=GROUP)} - set(built_in))
    names = ", ".join([*built_in, *installed])
    return f"{names}, the name of an installed provider, or package.module:Class of a module that can be imported"
