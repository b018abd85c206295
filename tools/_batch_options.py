"""The options of the batch client, and where its key comes from."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl, urlsplit

from tools._batch_questions import SUFFIXES, submission
from tools.ws import KEYS, checked_key

URL = "http://127.0.0.1:5000"
#: Seconds an outage may last before it is given up.
PATIENCE = 600.0
FORMATS = ("csv", "jsonl")

_TASK_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Parser(argparse.ArgumentParser):
    """Wrong usage ends with 1: 2 says that some questions failed."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: error: {message}\n")


def read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, with the key in `key`; wrong usage ends the program with 1."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        if options.command not in ("work", "tables"):
            options.url = _address(options.url or os.environ.get("LAIBAO_URL") or URL)
            options.key = read_key(options.key)
        if "file" in options:
            options.body = submission(options)
    except (OSError, ValueError) as exc:
        parser.error(str(exc))
    return options


def _parser() -> Parser:
    status = (
        "exit status: 0 done, and every question of the task answered; 2 some failed; 1 anything else; 130 interrupted"
    )
    parser = Parser(prog="python -m tools.batch", description="Have a file of questions answered.", epilog=status)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    server, file, out, one = _server(), _file(), _out(), _one()
    commands.add_parser("run", parents=[server, file, out], help="submit a file, wait, save the results")
    commands.add_parser("submit", parents=[server, file], help="submit a file and print the task's id")
    results = commands.add_parser("results", parents=[server, one, out], help="wait for a task, save its results")
    results.add_argument("--now", action="store_true", help="do not wait: what there is")
    commands.add_parser("status", parents=[server], help="a task, or how batches stand").add_argument(
        "task_id", nargs="?", type=_task_id, metavar="ID"
    )
    listing = commands.add_parser("list", parents=[server], help="your tasks, the newest first")
    listing.add_argument("--status", choices=("pending", "running", "paused", "completed", "failed", "cancelled"))
    for name, what in (("pause", "begin no more of it"), ("resume", "go on with it"), ("cancel", "end it now")):
        commands.add_parser(name, parents=[server, one], help=f"a task: {what}")
    work = commands.add_parser("work", help="work on batches, as BATCH_WORKER=external wants it; no client")
    work.add_argument("--port", type=int, help="for probes and Prometheus; else OPS_PORT, else PORT")
    tables = commands.add_parser("tables", help="print the SQL that creates the tables; no client")
    tables.add_argument("kind", nargs="?", choices=("mysql", "sqlite"), default="mysql", help="else mysql, and MariaDB")
    return parser


def _server() -> Parser:
    server = Parser(add_help=False)
    server.add_argument("--url", default="", help=f"the service's address, else LAIBAO_URL, else {URL}")
    server.add_argument("--key", type=_minus, metavar="-", help="the key on standard input; else LAIBAO_KEY")
    server.add_argument("--patience", type=_seconds, default=PATIENCE, help=f"seconds an outage may last: {PATIENCE:g}")
    return server


def _file() -> Parser:
    file = Parser(add_help=False)
    file.add_argument("file", type=Path, metavar="FILE", help=f"questions: {', '.join(SUFFIXES)}")
    file.add_argument("--name", default="", help="of the task, else the file's")
    file.add_argument("--description", default="")
    file.add_argument("--column", default="", help="the column's name or number; else one of a usual name")
    file.add_argument("--sheet", default="", help="of a workbook")
    file.add_argument("--inputs", type=_inputs, metavar="JSON", help="the app's variables, an object")
    file.add_argument("--max-attempts", type=int, metavar="N", help="how often a question is asked at most")
    file.add_argument("--max-concurrent", type=int, metavar="N", help="questions of this task at once")
    file.add_argument("--id", default="", metavar="KEY", help="your own name for this submission: twice is one task")
    return file


def _out() -> Parser:
    out = Parser(add_help=False)
    out.add_argument(
        "--out",
        type=_output,
        default=None,
        metavar="FILE",
        help="a .csv or .jsonl; without it JSONL on standard output",
    )
    return out


def _one() -> Parser:
    one = Parser(add_help=False)
    one.add_argument("task_id", type=_task_id, metavar="ID")
    return one


def read_key(given: str | None) -> str:
    """Return the key: with `-` from standard input, unseen at a terminal; else the environment's, "" for none.

    Raises:
        ValueError: no key has such characters.
    """
    if given == "-":
        return checked_key(typed_key() if sys.stdin.isatty() else sys.stdin.readline())
    return checked_key(os.environ.get("LAIBAO_KEY", ""))


def typed_key() -> str:
    """Ask the person at the terminal."""
    with suppress(EOFError):
        return getpass.getpass("API key: ")
    return ""


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("--url: expected http://host:port or https://host")
    if "@" in parts.netloc or KEYS & {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}:
        raise ValueError("--url: a key goes into LAIBAO_KEY or --key -, never into an address")
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _minus(text: str) -> str:
    if text == "-":
        return text
    # Not repeated: it is a key, most likely.
    raise argparse.ArgumentTypeError("expected -, and the key on standard input: others see a command line")


def _task_id(text: str) -> str:
    if _TASK_ID.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError("expected a task's id such as 3f0c1c9e-5d5b-4c43-9d0a-2f6f6d1f2a34")


def _output(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        raise argparse.ArgumentTypeError("expected a name that ends in .csv or .jsonl")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.absolute().parent}")
    return path


def _inputs(text: str) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        if isinstance(value := json.loads(text), dict):
            return value
    raise argparse.ArgumentTypeError('expected an object such as {"city": "Berlin"}')


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) < float("inf"):
            return seconds
    raise argparse.ArgumentTypeError("expected seconds")
