"""`python -m tools.feedback`: the SQL table of what people say of answers.

    python -m tools.feedback tables [mysql | sqlite]    print the SQL that creates the table

For administrators whose service user may not create tables. mysql is also for MariaDB. With --json the statements are
an array of strings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from services.feedback.sql_store import SCHEMA
from tools._pipes import until_nobody_reads


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.feedback", description="The table of people's ratings.")
    commands = parser.add_subparsers(required=True, metavar="tables")
    tables = commands.add_parser("tables", help="print the SQL that creates the table")
    tables.add_argument("kind", nargs="?", choices=("mysql", "sqlite"), default="mysql")
    tables.add_argument("--json", action="store_true", help="print a JSON array of statements")
    options = parser.parse_args(argv)
    made = SCHEMA.statements(options.kind)
    print(json.dumps(made, indent=2) if options.json else ";\n\n".join(made) + ";")
    return 0


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
