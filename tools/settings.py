"""`python -m tools.settings`: prints docs/settings.md, the table of all settings with default and meaning.

The Markdown is generated from `config`. `python -m tools.settings > docs/settings.md` updates the page; a test compares
the two. `--json` prints an array of `{name, section, default, meaning, reserved}` instead.
"""

from __future__ import annotations

import argparse
import html
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel, Secret, SecretStr
from pydantic.fields import FieldInfo

from config import groups, rules
from config.provider_group import ProviderSettings
from config.settings import Settings
from tools._pipes import until_nobody_reads

HEAD = """# Settings

Every setting, from the environment or `.env`; the environment wins, and an empty value counts as not set. `demo.env`
has all of them in the same order. A wrong or missing value stops the start with one line that names the variable.
Variables marked ◌ are checked and otherwise have no effect in this version.

This page is made by `python -m tools.settings > docs/settings.md`. [中文](settings.zh-CN.md)
"""
TABLE = "| Variable | Default | Meaning |\n|---|---|---|"
#: The settings that nearly every deployment sets.
COMMON = (
    "wechat_token", "wechat_encoding_aes_key", "dify_base_url", "dify_api_key", "redis_host", "redis_password",
    "auth_mode", "auth_allowlist", "secret_key", "api_keys", "admin_token", "port", "workers", "trusted_proxies",
    "public_origins",
)  # fmt: skip
SECTIONS: dict[str, tuple[type[BaseModel], ...]] = {
    "Server": (groups.ServerSettings,),
    "WeCom": (groups.WeComSettings, groups.MoreWeComSettings),
    "Redis": (groups.RedisSettings,),
    "SQL": (groups.SqlSettings,),
    "Authentication": (groups.AuthSettings,),
    "Who answers": (ProviderSettings, groups.HttpSettings),
    "Streams": (groups.StreamSettings,),
    "Sockets and limits": (groups.SocketSettings,),
    "Batch": (groups.BatchSettings,),
    "Logs": (groups.LogSettings,),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the page, or the JSON; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.settings", description="Print all settings.")
    parser.add_argument("--json", action="store_true", help="print a JSON array instead of Markdown")
    options = parser.parse_args(argv)
    sys.stdout.write(json.dumps(list(described()), ensure_ascii=False, indent=2) + "\n" if options.json else page())
    return 0


def described() -> Iterator[dict[str, Any]]:
    """Yield each setting as a JSON object; `reserved` ones have no effect in this version."""
    for section_name, classes in SECTIONS.items():
        for name in (name for group in classes for name in group.__annotations__):
            field = Settings.model_fields[name]
            yield {
                "name": name.upper(),
                "section": section_name,
                "default": shown(name, field),
                "meaning": field.description,
                "reserved": name in rules.LATER,
            }


def page() -> str:
    """Return the whole page."""
    parts = [HEAD, section("The fifteen that nearly every deployment sets", COMMON)]
    for title, classes in SECTIONS.items():
        parts.append(section(title, [name for group in classes for name in group.__annotations__]))
    return "\n".join(parts)


def section(title: str, names: Iterable[str]) -> str:
    return "\n".join([f"## {title}", "", TABLE, *rows(names), ""])


def rows(names: Iterable[str]) -> Iterator[str]:
    """Yield a row of the table for each setting."""
    for name in names:
        field = Settings.model_fields[name]
        mark = " ◌" if name in rules.LATER else ""
        default = shown(name, field)
        meaning = html.escape(str(field.description), quote=False).replace("|", "\\|")
        yield f"| `{name.upper()}`{mark} | {f'`{default}`' if default else ''} | {meaning} |"


def shown(name: str, field: FieldInfo) -> str:
    """Return a default as it is written in `.env`; "" for none."""
    if name == "workers":
        return "CPUs, ≤ 4"
    default: Any = field.default
    if isinstance(default, (Secret, SecretStr)):
        default = default.get_secret_value()
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, dict):
        return json.dumps(default, ensure_ascii=False) if default else ""
    if isinstance(default, tuple):
        return ",".join(default)
    return "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
