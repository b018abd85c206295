"""`python -m tools.usage`: how much was asked, and what it cost, from the daily sums in SQL.

    python -m tools.usage [--by day,department] [--since DAY] [--until DAY] [--json | --csv | --xlsx]

--by takes any of day, month, bot, provider, model, channel, department, person and outcome; without it there is one
row. --bot, --provider, --model, --channel, --department and --person choose. Days are those of REPORT_TZ, both
included; without --since the last 30 days. Tokens and prices are those that providers reported: unknown_tokens and
unknown_prices count the questions of which they did not, and null is a sum of which nothing is known.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import date, timedelta
from typing import Any

from channels.registry import CHANNELS
from config.errors import LaibaoError, SettingsError
from config.settings import Settings, load_settings
from services.ops.remedies import told
from services.usage.sums_store import BY, CHOSEN_BY, SqlSumsStore, Total
from tools._log import output
from tools._log.times import moment, now_in
from tools._pipes import until_nobody_reads

#: Days without --since, today included.
DAYS = 30
#: The members of a row's JSON object after those of --by; the columns of CSV, XLSX and the table.
SHORT = (
    *("questions", "answers", "failures", "cancelled", "tokens", "price", "currency", "likes", "dislikes", "seconds"),
    *("unknown_tokens", "unknown_prices"),
)
NAMES = (*SHORT, "prompt_tokens", "completion_tokens", "prices", "failures_by_code")


def main(argv: Sequence[str] | None = None, *, load: Callable[[], Settings] = load_settings) -> int:
    """Print the sums; return the exit status."""
    options = _options(argv)
    try:
        settings = load()
        by = _by(options.by)
        totals = _totals(settings, options, by)
        rows = [{**dict(zip(by, _group(key), strict=True)), **total.documented()} for key, total in totals]
        names = (*by, *(NAMES if options.form else SHORT))
        output.write(rows, options.form or "", output=options.output, names=names)
    except (LaibaoError, OSError) as exc:
        print(told(exc), file=sys.stderr)
        return 1
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.usage", description="Add up questions, tokens and prices.")
    parser.add_argument("--by", default="", help=f"comma-separated, of {', '.join(BY)}")
    parser.add_argument("--since", default="", metavar="DAY", help=f"first day, or a span (7d); default {DAYS} days")
    parser.add_argument("--until", default="", metavar="DAY", help="last day")
    for name in CHOSEN_BY:
        known = [one.name for one in CHANNELS] if name == "channel" else None
        parser.add_argument(f"--{name}", default=None, choices=known, help=f"only of this {name}")
    output.add_formats(parser)
    return parser.parse_args(argv)


def _by(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if wrong := [name for name in names if name not in BY]:
        raise SettingsError(f"--by: expected of {', '.join(BY)}, got {wrong[0]!r}")
    return list(dict.fromkeys(names))


def _totals(
    settings: Settings, options: argparse.Namespace, by: Sequence[str]
) -> Sequence[tuple[tuple[Any, ...], Total]]:
    if settings.sql_url is None:
        raise SettingsError("there is no usage without a database: set MYSQL_HOST or DATABASE_PATH")
    since, until = _days(settings, options)
    chosen = {name: given for name in CHOSEN_BY if (given := getattr(options, name)) is not None}
    with closing(SqlSumsStore(settings.sql_url.get_secret_value())) as store:
        return store.totals(since, until, by=by, chosen=chosen) or ([] if by else [((), Total())])


def _days(settings: Settings, options: argparse.Namespace) -> tuple[date, date]:
    now = now_in(settings.report_zone)
    try:
        since = moment(options.since, now).date() if options.since else now.date() - timedelta(days=DAYS - 1)
        until = moment(options.until, now).date() if options.until else now.date()
    except ValueError as exc:
        raise SettingsError(f"--since or --until: {exc}") from exc
    return since, until


def _group(key: Sequence[str]) -> list[str | None]:
    return [value or None for value in key]


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
