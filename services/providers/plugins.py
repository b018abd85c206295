"""Loads third-party providers by the name of an entry point or by their import path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from config.errors import SettingsError
from config.plugins import GROUP
from config.provider_group import ProviderSettings

T = TypeVar("T")


def load_plugin(variable: str, name: str, base: type[T], settings: ProviderSettings, *, known: Sequence[str]) -> T:
    """Instantiate the class that `name` refers to: an entry point of the group `GROUP`, or `package.module:Class`.

    If the class has `from_settings`, that is called with the bot's settings; otherwise the class is called without
    arguments. Error messages contain `variable`, the setting's name, and `known`, the built-in providers.

    Raises:
        SettingsError: the class cannot be imported, is not a subclass of `base`, or its constructor raises.
    """
    found = _class(variable, name, known)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise SettingsError(f"{variable}: {name} is no {base.__name__}")
    try:
        make: Callable[[ProviderSettings], Any] | None = getattr(found, "from_settings", None)
        made = make(settings) if make else found()
    except SettingsError:
        raise
    except Exception as exc:
        raise SettingsError(f"{variable}: {name} cannot be made: {type(exc).__name__}: {exc}") from exc
    if not isinstance(made, base):
        raise SettingsError(f"{variable}: {name} made no {base.__name__}")
    return made


def _class(variable: str, name: str, known: Sequence[str]) -> Any:
    module, _, attribute = name.partition(":")
    try:
        if attribute:
            return getattr(import_module(module), attribute)
        found = entry_points(group=GROUP, name=name)
        if found:
            return next(iter(found)).load()
    except Exception as exc:
        raise SettingsError(f"{variable}: {name} cannot be imported: {type(exc).__name__}: {exc}") from exc
    others = ", ".join(known)
    raise SettingsError(f"{variable}: {name}, expected {others}, an installed provider's name, or package.module:Class")
