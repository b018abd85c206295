"""`python -m tools.admin`: administrators' tokens, and the audit of what administrators did.

    python -m tools.admin token create NAME viewer|operator|admin [--setting]
    python -m tools.admin token list
    python -m tools.admin token revoke NAME
    python -m tools.admin audit [--since TIME] [--until TIME] [--name NAME] [--action ACTION]
                                 [--object OBJECT] [--limit N]

A created token is printed once; the database keeps its digest, and every replica accepts it at once. A revoked one is
refused within five seconds. --setting stores nothing and prints an entry of ADMIN_TOKENS instead, with the digest. The
audit is printed newest first. --json prints an object a line, the audit also goes by --csv and --xlsx.
Exit status: 0 done; 1 not; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any

from config.checks import HASHED
from config.errors import LaibaoError, SettingsError
from config.settings import Settings, load_settings
from services.admin.sql_store import Act, AdminStore, AuditFilter
from services.admin.tokens import ROLES, digest_of, new_token
from tools._log import output
from tools._log.times import moment, now_in
from tools._pipes import until_nobody_reads

#: Rows of the audit without --limit.
SHOWN = 50
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def main(argv: Sequence[str] | None = None, *, load: Callable[[], Settings] = load_settings) -> int:
    """Run one command; return the exit status."""
    options = _options(argv)
    try:
        if options.command == "create" and options.setting:
            token = new_token()
            _print(options, token=token, entry=f"{options.name}:{options.role}:{HASHED}{digest_of(token)}")
            return 0
        settings = load()
        if settings.sql_url is None:
            raise SettingsError("tokens and audit need a database: set MYSQL_HOST or DATABASE_PATH")
        with closing(AdminStore(settings.sql_url.get_secret_value())) as store:
            run = {"create": _create, "list": _list, "revoke": _revoke, "audit": _audit}[options.command]
            return run(store, settings, options)
    except (LaibaoError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.admin", description="Administrators' tokens, and the audit.")
    subjects = parser.add_subparsers(required=True, metavar="token | audit")
    token = subjects.add_parser("token", help="create, list and revoke tokens")
    tokens = token.add_subparsers(required=True, metavar="create | list | revoke", dest="command")
    create = tokens.add_parser("create", help="make a token and print it once")
    create.add_argument("name", type=_name, help="who gets it; it is in the audit")
    create.add_argument("role", choices=ROLES)
    create.add_argument("--setting", action="store_true", help="store nothing, print an entry of ADMIN_TOKENS")
    revoke = tokens.add_parser("revoke", help="make a token invalid")
    revoke.add_argument("name", type=_name)
    for command in (create, revoke, tokens.add_parser("list", help="list the tokens of the database")):
        command.add_argument("--json", action="store_true", help="print an object a line")
    audit = subjects.add_parser("audit", help="what administrators did, newest first")
    audit.set_defaults(command="audit")
    audit.add_argument("--since", default="", metavar="TIME", help="2026-11-24, 2026-11-24T08:00, or a span (7d)")
    audit.add_argument("--until", default="", metavar="TIME")
    audit.add_argument("--name", default="", help="only what this one did")
    audit.add_argument("--action", default="", help="only this, such as socket.disconnect")
    audit.add_argument("--object", default="", help="only what was done to this, such as a stream's id")
    audit.add_argument("--limit", type=int, default=SHOWN, metavar="N", help=f"rows ({SHOWN}); 0 is all")
    output.add_formats(audit)
    return parser.parse_args(argv)


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("expected 1 to 64 letters, digits, dots, hyphens and underscores")
    return text


def _create(store: AdminStore, settings: Settings, options: argparse.Namespace) -> int:
    token = new_token()
    by = act_of("tools.admin", "token.create", options.name, options.role)
    if not store.create(options.name, options.role, digest_of(token), by=by):
        print(f"{options.name} has a token already: revoke it first", file=sys.stderr)
        return 1
    _print(options, token=token)
    if not settings.administrators:
        print("Administration is off until ADMIN_TOKEN or ADMIN_TOKENS is set", file=sys.stderr)
    return 0


def _revoke(store: AdminStore, _settings: Settings, options: argparse.Namespace) -> int:
    if not store.revoke(options.name, by=act_of("tools.admin", "token.revoke", options.name)):
        print(f"{options.name} has no token: python -m tools.admin token list", file=sys.stderr)
        return 1
    _print(options, revoked=options.name)
    return 0


def _list(store: AdminStore, settings: Settings, options: argparse.Namespace) -> int:
    names = ("name", "role", "created_at", "created_by", "revoked_at")
    rows = (dict(zip(names, token, strict=True)) for token in store.tokens())
    output.write(_local(rows, settings), "json" if options.json else "", output="", names=names)
    return 0


def _audit(store: AdminStore, settings: Settings, options: argparse.Namespace) -> int:
    now = now_in(settings.report_zone)
    try:
        since = moment(options.since, now) if options.since else None
        until = moment(options.until, now, end=True) if options.until else None
    except ValueError as exc:
        raise SettingsError(f"--since or --until: {exc}") from exc
    rows = store.audit(AuditFilter(since, until, options.name, options.action, options.object))
    found = ({"time": row.time, **row.act._asdict()} for row in rows)
    names = ("time", *Act._fields)
    output.write(
        output.first(_local(found, settings), options.limit), options.form or "", output=options.output, names=names
    )
    return 0


def act_of(tool: str, action: str, object: str, after: str | None = None) -> Act:
    """Return the row of the audit for what this machine's user does with a tool."""
    return Act(f"{tool} ({_user()})", "admin", "", action, object, None, after)


def _user() -> str:
    """Return the name of the machine's user, or its number: a container may run as one that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _local(rows: Iterator[dict[str, Any]], settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the rows with their times in the zone of REPORT_TZ."""

    def local(value: Any) -> Any:
        is_time = isinstance(value, datetime)
        return value.astimezone(settings.report_zone).isoformat(timespec="seconds") if is_time else value

    return ({name: local(value) for name, value in row.items()} for row in rows)


def _print(options: argparse.Namespace, **members: str) -> None:
    print(json.dumps(members) if options.json else "\n".join(members.values()))


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
