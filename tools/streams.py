"""`python -m tools.streams`: what Redis has of an answer, for a person who may see it.

    show ID [--json]   one stream: its state, its question and every chunk; --json prints the documented shape
    list [--limit N]   the streams there are, newest first, without anybody's words

Neither prints the token's fingerprint or where a late answer may go. Exit status: 1 when the stream is unknown or
Redis is away.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import redis

from config.settings import Settings, load_settings
from services.errors import LaibaoError
from services.redis_store import ScriptRunner, connect, redis_errors, servers
from services.stream_store import StreamStore, stream_keys
from tools._pipes import until_nobody_reads

#: Never shown: credentials, and what stands for one.
HIDDEN = ("token", "reply")
LISTED = ("status", "created_time", "error_code", "owner")


def main(argv: Sequence[str] | None = None, *, load: Callable[[], Settings] = load_settings) -> int:
    """Run one command; return the exit status."""
    options = _options(argv)
    try:
        settings = load()
        with closing(connect(settings.redis_address.get_secret_value(), pool_size=2, timeout=5.0)) as client:
            for line in options.run(client, options):
                print(line)
    except LaibaoError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.streams", description="Look at answers in Redis.")
    commands = parser.add_subparsers(required=True, metavar="show | list")
    show = commands.add_parser("show", help="one stream, its words included")
    show.add_argument("id", help="the stream id of a callback's or stream's log line")
    show.add_argument("--json", action="store_true", help="the documented JSON shape")
    show.set_defaults(run=_show)
    listing = commands.add_parser("list", help="the streams there are, newest first")
    listing.add_argument("--limit", type=int, default=50, help="at most so many lines (default 50)")
    listing.set_defaults(run=_list)
    return parser.parse_args(argv)


def _show(client: redis.Redis, options: argparse.Namespace) -> Iterator[str]:
    document = StreamStore(ScriptRunner(client)).document(options.id)
    if document is None:
        raise LaibaoError(f"no stream {options.id}: it never was, or its life (STREAM_TTL) is over")
    shown = {name: value for name, value in document.items() if name not in HIDDEN}
    if options.json:
        yield json.dumps(shown, ensure_ascii=False, indent=2)
    else:
        yield from _described(options.id, shown)


def _described(stream_id: str, document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a stream as lines: its fields, then each chunk with whether somebody has read it."""
    yield f"{'stream':<16} {stream_id}"
    question = json.loads(document.get("question") or "{}")
    for name in ("channel", "bot", "principal", "chat"):
        if question.get(name):
            yield f"{name:<16} {question[name]}"
    for name, value in sorted(document.items()):
        if name not in ("messages", "question") and value != "":
            yield f"{name:<16} {value}"
    for index, message in enumerate(document["messages"]):
        marks = [name.removeprefix("is_") for name in ("is_error", "is_final") if message.get(name)]
        head = " ".join([f"#{index}", message["timestamp"], "read" if message["read"] else "unread", *marks])
        yield f"{head}: {message['content']}"


def _list(client: redis.Redis, options: argparse.Namespace) -> Iterator[str]:
    streams = [stream for server in servers(client) for stream in _streams_of(server)]
    newest_first = sorted(streams, key=lambda stream: stream[0][1] or "", reverse=True)
    for fields, size, stream_id in newest_first[: options.limit]:
        status, created, code, owner = (field or "-" for field in fields)
        yield f"{stream_id}  {created}  {status:<10} {size:>8} bytes  {code}  {owner}"


def _streams_of(server: redis.Redis) -> Iterator[tuple[Any, Any, str]]:
    """Yield the listed fields, the text's size and the id of every stream a server has."""
    with redis_errors():
        ids = [str(key).removeprefix("dify_stream:") for key in server.scan_iter("dify_stream:*", count=1000)]
        with server.pipeline(transaction=False) as pipe:
            for stream_id in ids:
                keys = stream_keys(stream_id)
                pipe.hmget(keys.hash, LISTED)
                pipe.strlen(keys.text)
            replies = pipe.execute()
    yield from zip(replies[::2], replies[1::2], ids, strict=True)


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
