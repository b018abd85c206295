"""Shared parts of the command lines: running a command, types of options, and reading keys."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import click

from config.addresses import bracketed
from config.environment import read_environment, with_files
from config.errors import SettingsError
from config.settings import Settings

#: Query parameters in which people put keys. An address with one is refused: proxies log addresses.
KEYS = {"key", "api_key", "apikey", "token", "access_token", "auth", "authorization"}
#: PORT, unless it is set.
LOCAL_PORT = Settings.model_fields["port"].default
#: How help shows the default of --url.
LOCAL = "HOST and PORT of .env"
#: What to do where no service is, where it wants a key, and where it refuses the one that was given.
NOT_THERE = "start the service there, or give its address in LAIBAO_URL or --url"
NO_KEY = "set LAIBAO_KEY, or give --key - and the key on standard input"
OTHER_KEY = "LAIBAO_KEY or --key must be one of the service's API_KEYS"
INTERRUPTED = 130
WRONG_USAGE = 2


def run(command: click.Command, argv: Sequence[str] | None) -> int:
    """Run a command and return its exit status, 2 for wrong usage.

    `argv` is without the program's name; None means `sys.argv`.

    Unlike click's `main` it does not catch BrokenPipeError, for which the caller has an exit status of its own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    name = f"python -m tools.{command.name}"
    try:
        with command.make_context(name, words, help_option_names=["-h", "--help"]) as context:
            return int(command.invoke(context) or 0)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.UsageError as exc:
        exc.show()
        return WRONG_USAGE
    except KeyboardInterrupt:
        return INTERRUPTED


def seconds(text: str) -> float:
    """Convert an option to seconds above 0."""
    if value := seconds_or_none(text):
        return value
    raise ValueError("expected seconds above 0")


def seconds_or_none(text: str) -> float:
    """Convert an option to seconds; 0 is allowed."""
    with suppress(ValueError):
        if 0 <= (value := float(text)) < float("inf"):
            return value
    raise ValueError("expected seconds")


def json_object(text: str) -> dict[str, Any]:
    """Convert an option to a JSON object."""
    with suppress(ValueError, RecursionError):
        if isinstance(value := json.loads(text), dict):
            return value
    raise ValueError('expected an object such as {"city": "Berlin"}')


def checked_key(key: str) -> str:
    """Return the key without surrounding white space.

    Raises:
        ValueError: a header cannot hold it.
    """
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise ValueError("the key holds characters that no key has")
    return key


def key_from_stdin(prompt: str = "API key: ") -> str:
    """Return the first line of standard input. At a terminal, prompt and do not echo the input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline()
    with suppress(EOFError):
        return getpass.getpass(prompt)
    return ""


def checked_address(url: str, *schemes: str) -> str:
    """Return the address unchanged.

    Raises:
        ValueError: its scheme is not one of `schemes`, or it contains a key.
    """
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname or parts.port == 0:
        raise ValueError(f"expected {schemes[0]}://host:port or {schemes[-1]}://host")
    if "@" in parts.netloc or KEYS & {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}:
        raise ValueError("a key goes into the environment or --key, never into an address")
    return url


def service_url(url: str) -> str:
    """Convert an option to the address of a running service."""
    parts = urlsplit(checked_address(url, "http", "https"))
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def local_url() -> str:
    """Return the address of the service with this folder's settings: HOST and PORT of the environment or `.env`."""
    with suppress(SettingsError):
        given = with_files(read_environment(os.environ, ".env"), ("HOST", "PORT"))
        host = given.get("HOST", "")
        reached = "127.0.0.1" if host in ("", "0.0.0.0", "::", "[::]") else bracketed(host.strip("[]"))
        return f"http://{reached}:{given.get('PORT', LOCAL_PORT)}"
    return f"http://127.0.0.1:{LOCAL_PORT}"


def api_key(text: str) -> str:
    """Convert the option `--key` to an API key: "-" reads standard input, "" LAIBAO_KEY."""
    if text == "":
        return checked_key(os.environ.get("LAIBAO_KEY", ""))
    if text == "-":
        return checked_key(key_from_stdin())
    # The message does not repeat the value: it is probably a key.
    raise ValueError("expected -, and the key on standard input: others see a command line")
