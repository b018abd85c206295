"""`python -m tools.ws`: talk to one of the sockets as a client does, by hand or by a script.

    python -m tools.ws                              chat by hand: a line is a question, /stop and /quit are orders
    python -m tools.ws realtime --send 年假怎么申请？    say this, print what comes, end when it is answered
    python -m tools.ws --send hello --expect '{"role": "assistant", "status": "completed"}'

Prints every frame with the seconds since the connection opened, `>` sent and `<` received. What is a JSON object is
sent as it is. The key comes from --key or LAIBAO_WS_KEY, goes out in a header, is never printed nor taken from --url.
Exit status: 0 all that was expected came, 1 it did not, 2 wrong usage, 3 not connected or refused, 130 interrupted,
141 nobody reads its output any more.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from tools._pipes import until_nobody_reads
from tools._ws_frames import Pattern, Send, Step, frame_of, read_steps
from tools._ws_talk import Keyboard, Printer, Refused, Talk, connected

PATHS = {"chat": "/ws/chat", "realtime": "/ws/realtime-asr"}
#: Seconds a conversation may take that nobody types.
TIMEOUT = 60.0
#: Parameters of an address in which people put a key; there it would be in the logs of every proxy.
KEYS = {"key", "api_key", "apikey", "token", "access_token", "auth", "authorization"}


def main(argv: Sequence[str] | None = None) -> int:
    """Talk until it is over; return the exit status."""
    options = _options(argv)
    try:
        wrong = _talk(options)
    except Refused as exc:
        wrong, status = [str(exc)], 3
    except KeyboardInterrupt:
        return 130
    else:
        status = 1 if wrong else 0
    for line in wrong:
        print(line, file=sys.stderr)
    return status


def _talk(options: argparse.Namespace) -> list[str]:
    with connected(options.url, options.key) as socket:
        talk = Talk(
            socket,
            Printer(as_json=options.json, key=options.key, say=partial(print, flush=True)),
            door=options.door,
            steps=options.steps,
            expected=options.expect,
            rejected=options.reject,
            keyboard=Keyboard(sys.stdin.fileno()) if options.by_hand else None,
            key=options.key,
            timeout=options.timeout,
        )
        try:
            return talk.run()
        except (KeyboardInterrupt, BrokenPipeError):
            # Left by an exception, the library would say that we failed.
            socket.close()
            raise


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        options.by_hand = not (options.send or options.script or options.resume or options.expect)
        options.timeout = options.timeout or (float("inf") if options.by_hand else TIMEOUT)
        options.key = checked_key(options.key or os.environ.get("LAIBAO_WS_KEY", ""))
        options.url = address(options.url, options.door, options.client_id)
        options.steps = list(_steps(options))
    except (OSError, ValueError) as exc:
        parser.error(str(exc))
    return options


def _parser() -> argparse.ArgumentParser:
    status = "exit status: 0 all that was expected came, 1 it did not, 2 wrong usage, 3 not connected or refused"
    parser = argparse.ArgumentParser(prog="python -m tools.ws", description="Talk to a socket.", epilog=status)
    parser.add_argument("door", nargs="?", choices=sorted(PATHS), default="chat")
    parser.add_argument("--url", default="ws://127.0.0.1:5000", help="ws:// or wss://; without a path, the door's own")
    parser.add_argument("--key", default="", help="better in LAIBAO_WS_KEY: a command line can be seen by others")
    parser.add_argument("--client-id", default="", help="chat: the client's own name of this connection")
    parser.add_argument("--resume", default="", metavar="STREAM_ID:CURSOR", help="go on with this answer first")
    parser.add_argument("--send", nargs="+", action="extend", default=[], metavar="TEXT", help="say this")
    parser.add_argument("--script", default="", metavar="FILE", help="JSON lines: frames, sleep and expect")
    parser.add_argument(
        "--expect", type=_pattern, action="append", default=[], metavar="PATTERN", help="JSON or words that must come"
    )
    parser.add_argument(
        "--reject",
        type=_pattern,
        action="append",
        default=[],
        metavar="PATTERN",
        help="JSON or words that end it badly",
    )
    parser.add_argument("--timeout", type=_seconds, help=f"seconds in all: {TIMEOUT:g}, or without end by hand")
    parser.add_argument("--json", action="store_true", help="print one JSON object a frame")
    return parser


def _pattern(text: str) -> Pattern:
    try:
        return Pattern(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"neither a JSON object nor words: {exc}") from exc


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) < float("inf"):
            return seconds
    raise argparse.ArgumentTypeError("expected seconds above 0")


def checked_key(key: str) -> str:
    """Return the key without white space around it.

    Raises:
        ValueError: no header can hold it.
    """
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise ValueError("the key holds characters that no key has")
    return key


def address(url: str, door: str, client_id: str = "") -> str:
    """Return the whole address of a door.

    Raises:
        ValueError: it is no WebSocket's, or a key is in it.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.port == 0:
        raise ValueError("--url: expected ws://host:port or wss://host")
    if "@" in parts.netloc or KEYS & {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}:
        raise ValueError("--url: a key goes into LAIBAO_WS_KEY or --key, never into an address")
    if client_id and door != "chat":
        raise ValueError("--client-id: only chat takes one")
    path = parts.path.rstrip("/") or PATHS[door]
    named = f"{path}/{quote(client_id, safe='')}" if client_id else path
    return urlunsplit((parts.scheme, parts.netloc, named, parts.query, ""))


def _steps(options: argparse.Namespace) -> Iterator[Step]:
    """Yield what is to be sent: the resumed answer first, then --send, then the script."""
    if options.resume:
        stream_id, _, cursor = options.resume.rpartition(":")
        if not stream_id or not cursor.isdecimal():
            raise ValueError("--resume: expected STREAM_ID:CURSOR, the cursor a number")
        yield Send({"type": "resume", "stream_id": stream_id, "cursor": int(cursor)})
    yield from (Send(frame_of(text, options.door)) for text in options.send)
    if options.script:
        lines = sys.stdin if options.script == "-" else Path(options.script).read_text("utf-8").splitlines()
        yield from read_steps(lines)


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
