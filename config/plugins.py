"""Check the names in `RAG_PROVIDER` and `SEARCH_PROVIDER` without importing any provider's code."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from importlib.util import find_spec

#: Entry point group in which installed packages register their providers.
GROUP = "wechatlaibao.providers"
RAG_PROVIDERS = ("context", "custom", "dify", "mock", "openai")
SEARCH_PROVIDERS = ("serper",)


def is_provider(name: str, built_in: Iterable[str]) -> bool:
    """Return whether `name` is built in, an entry point, or an import path whose top-level package exists."""
    module, _, attribute = name.partition(":")
    if not attribute:
        return name in built_in or bool(entry_points(group=GROUP, name=name))
    try:
        # Only the top-level package: finding a submodule would import its parent.
        return find_spec(module.partition(".")[0]) is not None
    except ValueError:
        # find_spec raises it for an imported module without a spec, such as __main__; the module exists.
        return True


def expected_providers(built_in: Iterable[str]) -> str:
    """Return the valid names as text for an error message, including those of installed packages."""
    installed = sorted({entry.name for entry in entry_points(group=GROUP)} - set(built_in))
    names = ", ".join([*built_in, *installed])
    return f"{names}, the name of an installed provider, or package.module:Class of a module that can be imported"
