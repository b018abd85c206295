"""`python -m tools.streams`: shows answers in Redis to an administrator.

    show ID            one stream: its state, its question and every chunk
    list [--limit N]   all streams, newest first, without texts: user, channel, age and state. Filters: --status,
                       --channel, --bot, --person, --silent and --older-than

--json prints JSON: the documented shape for `show`, an array for `list`.
Neither prints the token's fingerprint or the `response_url`. Exit status: 1 if the stream is unknown or Redis is
unreachable.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import redis

from config.errors import LaibaoError
from config.settings import Settings, load_settings
from services.ops.remedies import told
from services.redis.store import ScriptRunner, connect, servers
from services.streams.listing import StreamRow
from services.streams.store import StreamStore
from tools._page import printable_field
from tools._pipes import until_nobody_reads
from tools._streams_list import STATUSES, rows_of, table
from utils.printable import as_json

#: Fields that are never shown: credentials and fingerprints of credentials.
HIDDEN = ("token", "reply")
CREDENTIAL = "credential"
#: The fields of the hash that contain JSON, and those that contain numbers.
NESTED = ("question", "asker", "user_info", "usage", "sources", "reported")
NUMBERS = ("start", "read", "epoch", "asks", "takeovers", "resets", "lease", "suspect", "deadline", "frame_deadline")


def main(argv: Sequence[str] | None = None, *, load: Callable[[], Settings] = load_settings) -> int:
    """Run one command; return the exit status."""
    options = _options(argv)
    try:
        settings = load()
        with closing(connect(settings.redis_address.get_secret_value(), pool_size=2, timeout=5.0)) as client:
            for line in options.run(client, options, settings):
                print(line)
    except LaibaoError as exc:
        print(told(exc), file=sys.stderr)
        return 1
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.streams", description="Look at answers in Redis.")
    commands = parser.add_subparsers(required=True, metavar="show | list")
    show = commands.add_parser("show", help="one stream with its texts")
    show.add_argument("id", help="the stream id of a callback's or stream's log line")
    show.add_argument("--json", action="store_true", help="the documented JSON shape")
    show.set_defaults(run=_show)
    listing = commands.add_parser("list", help="all streams, newest first")
    listing.add_argument("--limit", type=int, default=50, help="number of streams (default 50)")
    listing.add_argument("--status", choices=STATUSES, default="", help="only of this status")
    listing.add_argument("--channel", default="", help="only of this channel: wecom, chat, realtime, http, batch")
    listing.add_argument("--bot", default="", help="only of this bot")
    listing.add_argument("--person", default="", help="only of this user, as the list shows it")
    listing.add_argument("--silent", action="store_true", help="only streams whose owner's lease has expired")
    listing.add_argument("--older-than", type=float, default=0.0, metavar="SECONDS", help="only older streams")
    listing.add_argument("--json", action="store_true", help="one JSON array")
    listing.set_defaults(run=_list)
    return parser.parse_args(argv)


def _show(client: redis.Redis, options: argparse.Namespace, settings: Settings) -> Iterator[str]:
    document = documented(StreamStore(ScriptRunner(client)), options.id)
    if document is None:
        raise LaibaoError(f"no stream {options.id}: it never was, or its life (STREAM_TTL) is over")
    shown = {name: value for name, value in document.items() if name not in HIDDEN}
    if options.json:
        yield as_json({name: _value(name, value) for name, value in shown.items()}, indent=2)
    else:
        yield from _described(options.id, shown)


def documented(store: StreamStore, stream_id: str) -> dict[str, Any] | None:
    """Return a stream in its documented JSON shape, with every field of its hash; None if there is no such stream."""
    fields, chunks = store.load(stream_id)
    if not fields:
        return None
    read = int(fields.get("read", 0))
    messages = [{**json.loads(chunk.args()[0]), "read": index < read} for index, chunk in enumerate(chunks)]
    return {**fields, "dify_finished": fields["dify_finished"] == "1", "messages": messages}


def _value(name: str, written: Any) -> Any:
    """Return a field's JSON value. Texts stay strings, even if they look like JSON."""
    if name in (*NESTED, *NUMBERS) and isinstance(written, str):
        with suppress(ValueError, RecursionError):
            value = json.loads(written) if written else None
            if name == "question" and isinstance(value, dict):
                value.pop(CREDENTIAL, None)
            return value
    return written


def _described(stream_id: str, document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a stream as lines: its fields, then each chunk, marked read or unread."""
    yield f"{'stream':<16} {stream_id}"
    question = json.loads(document.get("question") or "{}")
    for name in ("channel", "bot", "principal", "chat"):
        if question.get(name):
            yield f"{name:<16} {printable_field(question[name])}"
    for name, value in sorted(document.items()):
        if name not in ("messages", "question") and value != "":
            yield f"{name:<16} {printable_field(str(value))}"
    for index, message in enumerate(document["messages"]):
        marks = [name.removeprefix("is_") for name in ("is_error", "is_final") if message.get(name)]
        head = " ".join([f"#{index}", message["timestamp"], "read" if message["read"] else "unread", *marks])
        yield f"{head}: {printable_field(message['content'])}"


def _list(client: redis.Redis, options: argparse.Namespace, settings: Settings) -> Iterator[str]:
    rows = [row for server in servers(client) for row in rows_of(server, lease=settings.stream_lease)]
    wanted = sorted(filter(partial(_is_wanted, options), rows), key=lambda row: row.created_time, reverse=True)
    if options.json:
        yield as_json([asdict(row) for row in wanted[: options.limit]], indent=2)
        return
    yield from table(wanted[: options.limit])


def _is_wanted(options: argparse.Namespace, row: StreamRow) -> bool:
    chosen = ((options.status, row.status), (options.channel, row.channel), (options.bot, row.bot))
    same = all(value in ("", of_row) for value, of_row in (*chosen, (options.person, row.person)))
    return same and row.age >= options.older_than and (row.silent > 0 or not options.silent)


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
