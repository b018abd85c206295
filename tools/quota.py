"""`python -m tools.quota`: what is used of the quotas of `QUOTAS_FILE`, else of those that administrators have saved,
and whether a file of them is right.

    show PERSON [--bot NAME] [--channel NAME] [--chat ID] [--department NAME] [--json]
    show --key NAME
    check FILE

PERSON is WeCom's userid, or the user_code of a token. Departments are those of --department, else of
`DEPARTMENTS_FILE`; without either, limits that depend on a department are shown once the person has asked. The key is
one that API_KEYS names, or its fingerprint. `--json` prints one object a line: kind, counts, limit, period, used, left,
running and new (when the limit is new).
Exit status: 1 Redis or the database is away, or there are no quotas, 2 a file or the settings are wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import datetime
from typing import Any

from bootstrap.factories import make_quotas, make_rules_store
from config.bots import DEFAULT_BOT
from config.errors import LaibaoError, SettingsError
from config.settings import Settings, load_settings
from config.texts import Texts
from services.answers.quotas import Quota
from services.identity.keys import Keys
from services.identity.secret_store import SecretStore
from services.redis.store import ScriptRunner, connect
from services.rules.copy_store import RulesCopyStore
from services.rules.departments import parse_departments
from services.rules.quotas import QuotaRules
from services.rules.rules_file import RulesFile, RulesFiles
from services.rules.stored_rules import RulesVersions
from services.rules.visitors import Visitor
from tools._log import output
from tools._pipes import until_nobody_reads

NAMES = ("kind", "counts", "limit", "period", "used", "left", "running", "new")


def main(argv: Sequence[str] | None = None, *, load: Callable[[], Settings] = load_settings) -> int:
    """Run one command; return the exit status."""
    options = _options(argv)
    try:
        options.run(options, load)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    except LaibaoError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.quota", description="The quotas of QUOTAS_FILE.")
    commands = parser.add_subparsers(required=True, metavar="show | check")
    show = commands.add_parser("show", help="say what is used and what is left")
    show.add_argument("person", metavar="PERSON", nargs="?", default="", help="WeCom's userid or a user_code")
    show.add_argument("--bot", default=DEFAULT_BOT, help="the bot that is asked")
    show.add_argument("--channel", default="wecom", help="the channel of the questions")
    show.add_argument("--chat", default="", metavar="ID", help="the group chat in which it is asked")
    show.add_argument("--key", default="", metavar="NAME", help="the API key that asks")
    show.add_argument("--department", action="append", default=[], metavar="NAME", help="a department of the person")
    output.add_formats(show)
    show.set_defaults(run=_show)
    check = commands.add_parser("check", help="read a file that is not in force yet")
    check.add_argument("file", metavar="FILE", help="the file")
    check.set_defaults(run=_check)
    return parser.parse_args(argv)


def _check(options: argparse.Namespace, load: Callable[[], Settings]) -> None:
    rules = RulesFile("QUOTAS_FILE", options.file, QuotaRules.parse).rules
    print(f"{options.file}: {len(rules.rules)} rules")


def _show(options: argparse.Namespace, load: Callable[[], Settings]) -> None:
    settings = load()
    visitor, known = _visitor(options, settings)
    with ExitStack() as closes:
        client = closes.enter_context(
            closing(connect(settings.redis_address.get_secret_value(), pool_size=2, timeout=5.0))
        )
        runner = ScriptRunner(client)
        keys = Keys(settings, SecretStore(runner))
        store = make_rules_store(settings)
        versions = RulesVersions(closes.enter_context(closing(store)), RulesCopyStore(runner)) if store else None
        quotas = make_quotas(settings, runner, keys, RulesFiles(versions), Texts(settings.locale))
        if not (quotas.rules and quotas.rules.rules.rules):
            raise LaibaoError("there are no quotas: QUOTAS_FILE is not set or empty, and none are saved")
        found = quotas.quotas(visitor, departments_known=known)
    output.write(_rows(found, settings), options.form or "", output=options.output, names=NAMES)


def _visitor(options: argparse.Namespace, settings: Settings) -> tuple[Visitor, bool]:
    """Return who asks, and whether the departments are known."""
    file = settings.departments_file
    filed = RulesFile("DEPARTMENTS_FILE", file, parse_departments).rules if file else {}
    departments = options.department or filed.get(options.person, ())
    visitor = Visitor(options.bot, options.channel, options.person, departments, options.chat, options.key)
    return visitor, bool(departments) or not options.person


def _rows(quotas: Sequence[Quota], settings: Settings) -> Iterator[dict[str, Any]]:
    for one in quotas:
        new = datetime.fromtimestamp(one.new_at, settings.report_zone).isoformat()
        values = (one.kind, one.thing, one.limit, one.unit, one.used, one.left, one.running, new)
        yield dict(zip(NAMES, values, strict=True))


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
