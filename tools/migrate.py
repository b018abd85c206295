"""`python -m tools.migrate`: the gateway's tables in SQL.

    python -m tools.migrate [status]                is the database at this version's revision? `head` if it is
    python -m tools.migrate up [--wait SECONDS]     bring it there now; a running gateway may stay
    python -m tools.migrate sql [mysql | sqlite] [--since REVISION]     print the statements instead

A starting gateway migrates by itself. `sql` is for administrators whose gateway user may not create tables; it needs no
database, mysql is also for MariaDB, and what is printed may be run twice. --json prints an object a line.
Exit status: 0 at the head or at a newer revision; 1 not; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from config.errors import LaibaoError, SettingsError
from config.settings import Settings, load_settings
from services.ops.remedies import told
from services.sql.migrator import Migrator, printed, state_of
from services.sql.schema import HEAD
from tools._pipes import until_nobody_reads

#: Seconds for which `up` waits for another process that migrates.
WAIT_SECONDS = 600.0


def main(argv: Sequence[str] | None = None, *, load: Callable[[], Settings] = load_settings) -> int:
    """Run one command; return the exit status."""
    options = _options(argv)
    try:
        if options.command == "sql":
            return _sql(options.kind, options.since, as_json=options.json)
        settings = load()
        if settings.sql_url is None:
            raise SettingsError("there are no tables: neither MYSQL_HOST nor DATABASE_PATH is set")
        with closing(Migrator(settings.sql_url.get_secret_value())) as migrator:
            if options.command == "up":
                return _up(migrator, options.wait, as_json=options.json)
            # Opening a file that does not exist would create it.
            exists = not settings.database_path or Path(settings.database_path).is_file()
            return _status(migrator.revision() if exists else "", as_json=options.json)
    except LaibaoError as exc:
        print(told(exc), file=sys.stderr)
        return 1


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.migrate", description="The gateway's tables in SQL.")
    commands = parser.add_subparsers(required=True, metavar="status | up | sql", dest="command")
    status = commands.add_parser("status", help="is the database at this version's revision?")
    up = commands.add_parser("up", help="bring it there")
    up.add_argument(
        "--wait",
        type=float,
        default=WAIT_SECONDS,
        metavar="SECONDS",
        help=f"for another process that migrates ({WAIT_SECONDS:g})",
    )
    sql = commands.add_parser("sql", help="print the statements")
    sql.add_argument("kind", nargs="?", choices=("mysql", "sqlite"), default="mysql")
    sql.add_argument("--since", default="", metavar="REVISION", help="leave out the migrations up to this one")
    for command in (status, up, sql):
        command.add_argument("--json", action="store_true", help="print an object a line")
    return parser.parse_args((sys.argv[1:] if argv is None else argv) or ["status"])


def _status(revision: str, *, as_json: bool) -> int:
    state = state_of(revision)
    if as_json:
        print(json.dumps({"state": state, "revision": revision or None, "head": HEAD}))
    elif state == "head":
        print("head")
    else:
        print(f"{state}: {revision or 'no tables'}, this version has {HEAD}")
    return 1 if state == "behind" else 0


def _up(migrator: Migrator, wait: float, *, as_json: bool) -> int:
    for revision in migrator.run(wait):
        print(json.dumps({"migrated": revision}) if as_json else f"migrated {revision}")
    return _status(migrator.revision(), as_json=as_json)


def _sql(kind: str, since: str, *, as_json: bool) -> int:
    for revision, statements in printed(kind, since):
        if not as_json:
            print(f"-- {revision}")
        for statement in statements:
            row = {"revision": revision, "statement": statement}
            print(json.dumps(row, ensure_ascii=False) if as_json else f"{statement};\n")
    return 0


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
