"""The apps of `APPS`: provider settings by name, which rules of `ACCESS_FILE` choose with `use`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from config.environment import did_you_mean
from config.fields import Group
from config.groups import MOCK_SWITCHES, ProviderSettings
from config.problems import Problem, validated

#: The name of the app that a bot has of its own; no entry of APPS has it, and none of WECHAT_BOTS.
OWN_APP = "default"

_NAME = re.compile(r"[a-z0-9_-]{1,64}")


def named_provider(where: str, own: Mapping[str, Any], provider: ProviderSettings) -> ProviderSettings:
    """Build the settings of a bot's or an app's provider; what `own` does not set is inherited from `provider`.

    Raises:
        Invalid: a variable has a wrong value; `where` is prepended to its name.
    """
    return validated(ProviderSettings, {**_inherited(provider, own), **given_fields(ProviderSettings, own)}, where)


def named_app(name: str, given: Mapping[str, Any], provider: ProviderSettings) -> ProviderSettings:
    """Build the settings of an app of `APPS`, as `named_provider` does."""
    return named_provider(f"APPS: {name}.", {key.lower(): value for key, value in given.items()}, provider)


def app_problems(name: str, given: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem if the app's name is invalid, and one for each variable that is no provider's."""
    return entry_problems("APPS", "app", name, given, (ProviderSettings,), "provider variables")


def entry_problems(
    variable: str,
    kind: str,
    name: str,
    given: Iterable[str],
    groups: Iterable[type[Group]],
    expected: str,
    others: Iterable[str] = (),
) -> Iterator[Problem]:
    """Yield the problems of an entry of `variable`: its name, and keys that are neither of `groups` nor of `others`."""
    if not _NAME.fullmatch(name) or name == OWN_APP:
        yield Problem(variable, name, f"{kind} names of a-z, 0-9, _ and -, other than {OWN_APP}")
    known = [*others, *(field.upper() for group in groups for field in group.model_fields)]
    for key in given:
        if key not in known:
            yield Problem(variable, f"{name}.{key}", f"{expected}{did_you_mean(key, known)}")


def provider_name(bot: str, app: str) -> str:
    """Return the name of a provider in this replica: the bot's, or `app:` and the name of one of `APPS`."""
    return bot if app in ("", OWN_APP) else f"app:{app}"


def given_fields(group: type[Group], own: Mapping[str, Any]) -> dict[str, Any]:
    return {field: own[field] for field in group.model_fields if own.get(field) not in (None, "")}


def _inherited(provider: ProviderSettings, own: Mapping[str, Any]) -> dict[str, Any]:
    inherited = {field: getattr(provider, field) for field in ProviderSettings.model_fields}
    # Both variables set the same URL, so settings with either must inherit neither.
    if "dify_base_url" in own or "dify_api_url" in own:
        del inherited["dify_base_url"], inherited["dify_api_url"]
    if inherited["rag_provider"] == "mock" and own.keys() & set(MOCK_SWITCHES):
        for name in ("rag_provider", *MOCK_SWITCHES):
            del inherited[name]
    return inherited
