"""`python -m tools.settings`: prints docs/settings.md, the table of all settings with default and meaning.

`--write` writes the three documents that list all settings: this page, the Chinese one, and `demo.env`. They are made
of the fields in `config/groups.py`. `--json` prints an array of `{name, section, default, meaning, reserved}` instead.
`--check` checks the environment and `.env` as a start does, without connecting to anything: exit status 1 and one line
for a wrong setting. `--effective` prints the value of each setting here, secrets masked, and where it comes from.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, Secret, SecretStr
from pydantic.fields import FieldInfo

from bootstrap.container import Container
from config import groups, rules
from config.environment import FILE, read_environment
from config.errors import SettingsError
from config.problems import MASK, is_secret
from config.settings import Settings, load_settings
from server.startup import load_checked
from tools._pipes import until_nobody_reads

ROOT = Path(__file__).parents[1]
COMMAND = "python -m tools.settings --write"
HEAD = {
    "en": f"""# Settings

Every setting, from the environment or `.env`; the environment wins, and an empty value counts as not set. `demo.env`
has all of them in the same order. A wrong or missing value stops the start with one line that names the variable.
Each may also be in a file: `ADMIN_TOKEN_FILE=/run/secrets/admin_token` sets `ADMIN_TOKEN` to that file's content,
without white space around it. Both set, or a file that cannot be read, stops the start; an empty file
counts as not set.
Variables marked ◌ are checked and otherwise have no effect in this version.

This page is made by `{COMMAND}`. [中文](settings.zh-CN.md)
""",
    "zh": f"""# 设置

全部设置均来自环境变量或 `.env` 文件；环境变量优先，空值视为未设置。`demo.env` 按相同顺序列出全部变量。
值错误或缺失时，启动会中止，并用一行提示指出相应的变量。每项也可以写在文件里：
`ADMIN_TOKEN_FILE=/run/secrets/admin_token` 表示 `ADMIN_TOKEN` 的值是该文件的内容，首尾空白会去掉。两者同时设置，
或文件无法读取时，启动会中止；空文件视为未设置。标有 ◌ 的变量会被校验，但在当前版本中没有其他作用。

本页由 `{COMMAND}` 生成。[English](settings.md)
""",
}
COLUMNS = {"en": "| Variable | Default | Meaning |", "zh": "| 变量 | 默认值 | 含义 |"}
#: The settings that nearly every deployment sets, and the title of their table.
COMMON = (
    "wechat_token", "wechat_encoding_aes_key", "dify_base_url", "dify_api_key", "redis_host", "redis_password",
    "auth_mode", "auth_allowlist", "secret_key", "api_keys", "admin_token", "port", "workers", "trusted_proxies",
    "public_origins",
)  # fmt: skip
COMMON_TITLE = {"en": "The fifteen that nearly every deployment sets", "zh": "多数部署都要配置的十五项"}

DEMO_HEAD = """\
# Every setting with its default. Copy this file to .env, fill in the four lines marked FILL IN, and start.
# An empty value counts as not set. The environment goes before this file. NAME_FILE=PATH reads NAME from a file.
"""
#: The settings that a copy of `demo.env` has to fill in, with an example that is not accepted as a value.
FILL_IN = {
    "wechat_token": "not-a-real-token",
    "wechat_encoding_aes_key": "NotARealEncodingAESKeyxxxxxxxxxxxxxxxxxxxxx",
    "dify_api_key": "app-not-a-real-key",
    "auth_allowlist": "zhangsan,lisi (WeCom's address book shows them as 账号)",
}
#: Values of `demo.env` that are not the defaults: those of one machine. Compose and Kubernetes set their own.
DEMO_VALUES = {"redis_host": "127.0.0.1", "auth_mode": "allowlist", "log_dir": "logs"}


class Section(NamedTuple):
    """A section of the documents: its title in both languages, and the groups of its settings."""

    en: str
    zh: str
    groups: Sequence[type[BaseModel]]

    @property
    def names(self) -> list[str]:
        return [name for group in self.groups for name in group.__annotations__]


SECTIONS = (
    Section("Server", "服务", [groups.ServerSettings]),
    Section("WeCom", "企业微信", [groups.WeComSettings, groups.MoreWeComSettings]),
    Section("Redis", "Redis", [groups.RedisSettings]),
    Section("SQL", "SQL", [groups.SqlSettings]),
    Section("Authentication", "认证", [groups.AuthSettings]),
    Section("Who answers", "问答服务", [groups.ProviderSettings, groups.HttpSettings]),
    Section("Streams", "流", [groups.StreamSettings]),
    Section("Sockets and limits", "WebSocket 与限流", [groups.SocketSettings]),
    Section("Batch", "批量任务", [groups.BatchSettings]),
    Section("Question log and usage", "提问日志与用量", [groups.UsageSettings]),
    Section("Logs and traces", "日志与链路追踪", [groups.LogSettings, groups.TraceSettings]),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the page or the JSON, or write the documents; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.settings", description="Print all settings.")
    parser.add_argument("--json", action="store_true", help="print a JSON array instead of Markdown")
    parser.add_argument("--write", action="store_true", help="write docs/settings*.md and demo.env instead")
    parser.add_argument("--check", action="store_true", help="check the environment and .env as a start does instead")
    parser.add_argument("--effective", action="store_true", help="print each value here, and where it comes from")
    options = parser.parse_args(argv)
    if options.check:
        return check()
    if options.effective:
        return print_effective(as_json=options.json)
    if options.write:
        for path, text in documents().items():
            (ROOT / path).write_text(text, "utf-8")
    else:
        sys.stdout.write(json.dumps(list(described()), ensure_ascii=False, indent=2) + "\n" if options.json else page())
    return 0


def check() -> int:
    """Check the settings and build a replica with them, which connects to nothing; return the exit status."""
    try:
        settings = load_checked()
        Container(settings).close()
    except SettingsError as exc:
        print(f"wechatlaibao: {exc}", file=sys.stderr)
        return 1
    for warning in settings.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print("the settings are right")
    return 0


def print_effective(*, as_json: bool) -> int:
    """Print the settings of this folder and environment; return the exit status."""
    try:
        found = list(effective())
    except SettingsError as exc:
        print(f"wechatlaibao: {exc}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        print("\n".join(f"{one['from']:<11}  {one['name']}={one['value']}" for one in found))
    return 0


def effective() -> Iterator[dict[str, str]]:
    """Yield `{name, value, from}` of each setting; `from` is environment, .env, file or default.

    Raises:
        SettingsError: a value is missing or wrong.
    """
    settings = load_settings()
    given = {"environment": read_environment(os.environ, None), ".env": read_environment({}, ".env")}
    for name in (name for section in SECTIONS for name in section.names):
        value = getattr(settings, name)
        source = next((source for source, names in given.items() if name.upper() in names), "default")
        if any(name.upper() + FILE in names for names in given.values()):
            # An empty file counts as not set.
            source = (
                "default" if value == Settings.model_fields[name].get_default(call_default_factory=True) else "file"
            )
        # Of a secret only whether there is one; a default is no secret.
        masked = is_secret(Settings, name) and source != "default"
        yield {"name": name.upper(), "value": MASK if masked else written(value), "from": source}


def documents() -> Mapping[str, str]:
    """Return the contents of the documents that list all settings, by path."""
    return {"docs/settings.md": page(), "docs/settings.zh-CN.md": page("zh"), "demo.env": demo_env()}


def described() -> Iterator[dict[str, Any]]:
    """Yield each setting as a JSON object; `reserved` ones have no effect in this version."""
    for section in SECTIONS:
        for name in section.names:
            field = Settings.model_fields[name]
            yield {
                "name": name.upper(),
                "section": section.en,
                "default": shown(name, field),
                "meaning": field.description,
                "reserved": name in rules.LATER,
            }


def page(language: str = "en") -> str:
    """Return the whole page in English (`en`) or Chinese (`zh`)."""
    tables = {COMMON_TITLE[language]: COMMON, **{getattr(one, language): one.names for one in SECTIONS}}
    parts = (
        "\n".join([f"## {title}", "", COLUMNS[language], "|---|---|---|", *rows(names, language), ""])
        for title, names in tables.items()
    )
    return "\n".join([HEAD[language], *parts])


def rows(names: Iterable[str], language: str) -> Iterator[str]:
    """Yield a row of the table for each setting."""
    for name in names:
        field = Settings.model_fields[name]
        mark = " ◌" if name in rules.LATER else ""
        default = shown(name, field)
        meaning = html.escape(meaning_of(field, language), quote=False).replace("|", "\\|")
        yield f"| `{name.upper()}`{mark} | {f'`{default}`' if default else ''} | {meaning} |"


def meaning_of(field: FieldInfo, language: str) -> str:
    extra = field.json_schema_extra
    return str(extra["zh"] if language == "zh" and isinstance(extra, dict) else field.description)


def shown(name: str, field: FieldInfo) -> str:
    """Return a default as it is written in `.env`; "" for none."""
    return "CPUs, ≤ 4" if name == "workers" else written(field.default)


def written(value: Any) -> str:
    """Return a value as it is written in `.env`; "" for none."""
    if isinstance(value, (Secret, SecretStr)):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else ""
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def demo_env() -> str:
    """Return the example of a `.env` file: each setting with its meaning above it."""
    lines = [DEMO_HEAD]
    for section in SECTIONS:
        lines += [f"# {section.en}", ""]
        for name in section.names:
            field = Settings.model_fields[name]
            fill_in = f"FILL IN, such as {FILL_IN[name]}: " if name in FILL_IN else ""
            later = "(no effect yet) " if name in rules.LATER else ""
            default = "" if field.default_factory else shown(name, field)
            lines += [f"# {fill_in}{later}{field.description}", f"{name.upper()}={DEMO_VALUES.get(name, default)}"]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
