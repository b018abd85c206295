"""`python -m tools.log`: who asked what, from the question log in SQL (QUESTION_LOG).

    list               questions, newest first: the last 50 as a table, all of them with --json, --csv or --xlsx
    show ID            one question with all that the log has of it
    export             all questions, oldest first, as CSV (or --json, --xlsx)
    gaps               questions that got no good answer, grouped by their words; needs QUESTION_LOG=full
    forget PERSON      delete what the gateway has of a person, with --yes; without it, count it

Questions are chosen by --since, --until (times of REPORT_TZ; a day is included), --bot, --channel, --person,
--department, --outcome (completed, cancelled, an error's code), --rating (like, dislike, none) and --words. Each look
and each export is a row of the administrators' audit first (`python -m tools.admin audit`).
Exit status: 1 if the database or Redis is unreachable, or has no such question.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from channels.registry import CHANNELS
from config.errors import LaibaoError, SettingsError
from config.settings import Settings, load_settings
from services.admin.sql_store import AdminStore
from services.ops.remedies import told
from services.usage.gaps import COLUMNS, REFUSALS, found_gaps, groups
from services.usage.log_store import NAMES, LogFilter, SqlLogStore, documented
from tools._log import output
from tools._log.forget import KINDS, forget
from tools._log.times import moment, now_in
from tools._page import printable_field
from tools._pipes import until_nobody_reads
from tools.admin import act_of

#: The columns of the table.
SHORT = ("time", "channel", "bot", "person", "department", "outcome", "seconds", "tokens", "rating", "question")
#: Rows of the table, unless --limit says otherwise.
TABLE_ROWS = 50
#: The options that choose questions.
FILTERS = ("since", "until", "bot", "channel", "person", "department", "outcome", "rating", "words")


def main(argv: Sequence[str] | None = None, *, load: Callable[[], Settings] = load_settings) -> int:
    """Run one command; return the exit status."""
    options = _options(argv)
    try:
        settings = load()
        return int(options.run(settings, options) or 0)
    except (LaibaoError, OSError) as exc:
        print(told(exc), file=sys.stderr)
        return 1


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.log", description="Look at the question log.")
    commands = parser.add_subparsers(required=True, metavar="list | show | export | gaps | forget")
    listing = commands.add_parser("list", help="questions, newest first")
    export = commands.add_parser("export", help="all questions, oldest first, as CSV, JSON or XLSX")
    for one in (listing, export):
        _add_filters(one)
        output.add_formats(one)
    listing.add_argument("--limit", type=int, default=None, help=f"number of questions (a table: {TABLE_ROWS})")
    listing.set_defaults(run=_list)
    export.set_defaults(run=_export)
    show = commands.add_parser("show", help="one question")
    show.add_argument("id", help="its stream id")
    show.add_argument("--json", action="store_true", help="print one JSON object")
    show.set_defaults(run=_show)
    gaps = commands.add_parser("gaps", help="questions that got no good answer, grouped by their words")
    _add_filters(gaps)
    output.add_formats(gaps)
    gaps.add_argument(
        "--phrases", default="", metavar="FILE", help="phrases of a refusal, one a line, for the own ones"
    )
    gaps.add_argument("--limit", type=int, default=50, help="number of groups (default 50)")
    gaps.set_defaults(run=_gaps)
    gone = commands.add_parser("forget", help="delete what the gateway has of a person")
    gone.add_argument("person", help="WeCom's userid")
    gone.add_argument("--yes", action="store_true", help="delete; without it, count")
    gone.add_argument("--json", action="store_true", help="print one JSON object")
    gone.set_defaults(run=_forget)
    return parser.parse_args(argv)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", default="", metavar="TIME", help="2026-11-24, 2026-11-24T08:00, 12h, 7d")
    parser.add_argument("--until", default="", metavar="TIME", help="the same; a day is included")
    for name, what in (
        ("bot", "name of the bot"),
        ("person", "WeCom's userid"),
        ("department", "name of the main department"),
        ("outcome", "completed, cancelled, or an error's code"),
        ("words", "text in the question or the answer"),
    ):
        parser.add_argument(f"--{name}", default="", help=what)
    parser.add_argument("--channel", default="", choices=[one.name for one in CHANNELS], help="how the question came")
    parser.add_argument("--rating", default="", choices=("like", "dislike", "none"), help="rating of the answer")


def chosen(options: argparse.Namespace, now: datetime) -> LogFilter:
    """Return the filter that the options name.

    Raises:
        SettingsError: --since or --until is no time.
    """
    try:
        since = moment(options.since, now) if options.since else None
        until = moment(options.until, now, end=True) if options.until else None
    except ValueError as exc:
        raise SettingsError(f"--since or --until: {exc}") from exc
    names = ("bot", "channel", "person", "department", "outcome", "rating", "words")
    return LogFilter(since, until, **{name: getattr(options, name) for name in names})


def opened(settings: Settings) -> SqlLogStore:
    """Return the log's store.

    Raises:
        SettingsError: there is no database.
    """
    if settings.sql_url is None:
        raise SettingsError("there is no question log without a database: set MYSQL_HOST or DATABASE_PATH")
    return SqlLogStore(settings.sql_url.get_secret_value())


def _rows(settings: Settings, options: argparse.Namespace, *, oldest_first: bool = False) -> Iterator[dict[str, Any]]:
    zone = settings.report_zone
    with closing(opened(settings)) as store:
        for row, said in store.rows(chosen(options, now_in(zone)), oldest_first=oldest_first):
            yield documented(row, said, zone)


def _audit(settings: Settings, options: argparse.Namespace, action: str, object: str = "") -> None:
    """Write into the audit whose words are about to be looked at: the log may have some, whatever QUESTION_LOG is now.

    Raises:
        SettingsError: --since or --until is no time.
        StoreUnavailable: the database is away, and nothing may be shown.
    """
    if "since" in options:
        chosen(options, now_in(settings.report_zone))
    given = {name: value for name in FILTERS if (value := getattr(options, name, ""))}
    if settings.sql_url is not None:
        with closing(AdminStore(settings.sql_url.get_secret_value())) as store:
            store.record(act_of("tools.log", action, object, urlencode(given) or None))


def _list(settings: Settings, options: argparse.Namespace) -> None:
    _audit(settings, options, "questions.read")
    is_table = options.form is None
    most = options.limit if options.limit is not None else TABLE_ROWS if is_table else 0
    rows = output.first(_rows(settings, options), most)
    output.write(rows, options.form or "", output=options.output, names=SHORT if is_table else NAMES)


def _export(settings: Settings, options: argparse.Namespace) -> None:
    _audit(settings, options, "questions.export")
    rows = _rows(settings, options, oldest_first=True)
    output.write(rows, options.form or "csv", output=options.output, names=NAMES)


def _show(settings: Settings, options: argparse.Namespace) -> None:
    _audit(settings, options, "question.read", options.id)
    with closing(opened(settings)) as store:
        found = store.row(options.id)
    if found is None:
        raise LaibaoError(f"the log has no question {options.id}: it never was, is not written yet, or was deleted")
    row = documented(*found, settings.report_zone)
    if options.json:
        print(output.as_json(row))
        return
    for name, value in row.items():
        if value is not None:
            print(f"{name:<20} {printable_field(str(value))}")


def _gaps(settings: Settings, options: argparse.Namespace) -> None:
    phrases = Path(options.phrases).read_text("utf-8-sig").splitlines() if options.phrases else REFUSALS
    zone = settings.report_zone
    _audit(settings, options, "questions.read")
    with closing(opened(settings)) as store:
        rows = store.rows(chosen(options, now_in(zone)), oldest_first=True)
        found = groups(found_gaps(rows, phrases))
    if not found and settings.question_log != "full":
        raise SettingsError("gaps need the words of questions: QUESTION_LOG=full")
    listed = [group.documented(zone) for group in found[: options.limit]]
    output.write(listed, options.form or "", output=options.output, names=COLUMNS)


def _forget(settings: Settings, options: argparse.Namespace) -> None:
    counts, not_reached = forget(settings, options.person, delete=options.yes)
    if options.json:
        print(output.as_json({"person": options.person, "deleted": options.yes, **counts, "not_reached": not_reached}))
        return
    for kind in KINDS:
        print(f"{kind:<16} {counts[kind]}")
    print("deleted" if options.yes else "nothing was deleted: the same with --yes deletes it")
    for what in not_reached:
        print(f"not reached: {what}")


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
