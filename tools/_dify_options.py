"""The Dify client's options, and where its key comes from."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from services.dify_urls import DifyUrls
from services.errors import SettingsError
from tools._dify_failures import MISSING_KEY

CLOUD = "https://api.dify.ai/v1"
SEEN_KEY = (
    "warning: a key on the command line is seen by everybody on this machine and kept in the shell's history; "
    "set DIFY_API_KEY instead, or give --api-key - and the key on standard input"
)


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options with the key in `key`; wrong usage, and no key, end the program with 2."""
    parser = _parser()
    options = parser.parse_args(argv)
    if not (options.query or options.list_conversations or options.check):
        parser.error("nothing to ask: give --query, or --list-conversations")
    try:
        options.base_url = _address(options.base_url or os.environ.get("DIFY_BASE_URL") or CLOUD)
        options.key = _key(options.api_key)
    except (SettingsError, ValueError) as exc:
        parser.error(str(exc))
    return options


def _parser() -> argparse.ArgumentParser:
    status = "exit status: 0 answered, 1 not, 2 wrong usage or no key, 130 interrupted"
    parser = argparse.ArgumentParser(prog="python -m tools.dify", description="Ask a Dify app.", epilog=status)
    parser.add_argument("--api-key", default="", metavar="-", help="the key on standard input; else DIFY_API_KEY")
    parser.add_argument("--base-url", default="", help=f"where Dify is, else DIFY_BASE_URL, else {CLOUD}")
    parser.add_argument("-q", "--query", default="", help="the question")
    parser.add_argument("--user", default="test-user", help="who asks: Dify keeps conversations by user")
    parser.add_argument("--inputs", type=_inputs, default={}, metavar="JSON", help="the app's variables, an object")
    parser.add_argument("--blocking", action="store_true", help="the whole answer at once; agent apps refuse this")
    parser.add_argument("--conversation-id", default="", help="go on with this conversation")
    parser.add_argument("--timeout", type=_seconds, default=60.0, help="seconds of silence, or of --blocking in all")
    parser.add_argument("--list-conversations", action="store_true", help="the user's, and nothing is asked")
    parser.add_argument("--files", type=_files, default=[], metavar="JSON", help="a list of file objects as Dify's API")
    parser.add_argument("--no-auto-name", action="store_true", help="no title for the conversation: it costs a call")
    parser.add_argument("--check", action="store_true", help="stream, blocking, two turns and list: a line each")
    return parser


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise argparse.ArgumentTypeError(f"not JSON: {exc}") from exc


def _inputs(text: str) -> dict[str, Any]:
    if isinstance(value := _json(text), dict):
        return value
    raise argparse.ArgumentTypeError('expected an object such as {"city": "Berlin"}')


def _files(text: str) -> list[Any]:
    value = _json(text)
    files = value if isinstance(value, list) else [value]
    if all(isinstance(file, dict) for file in files):
        return files
    example = '[{"type": "image", "transfer_method": "remote_url", "url": "https://..."}]'
    raise argparse.ArgumentTypeError(f"expected a list of objects such as {example}")


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) < float("inf"):
            return seconds
    raise argparse.ArgumentTypeError("expected seconds above 0")


def _address(url: str) -> str:
    DifyUrls.build(url)
    if "@" in urlsplit(url).netloc:
        raise ValueError("--base-url: a password has no place in an address")
    return url


def _key(given: str) -> str:
    """Return the key: from standard input, the environment's first, or typed unseen.

    Raises:
        ValueError: there is none, or it cannot be one.
    """
    if given == "-":
        key = _typed() if sys.stdin.isatty() else sys.stdin.readline()
    elif given:
        print(SEEN_KEY, file=sys.stderr)
        key = given
    else:
        # The product takes a list of keys there, and uses the first.
        key = os.environ.get("DIFY_API_KEY", "").split(",")[0]
        key = key if key.strip() or not sys.stdin.isatty() else _typed()
    if not (key := key.strip()):
        raise ValueError(MISSING_KEY)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the API key holds characters that no key has: copy it once more (app-...)")
    return key


def _typed() -> str:
    try:
        return getpass.getpass("Dify API key: ")
    except EOFError:
        return ""
