"""Command line parsing and serving shared by the `python -m demo.mock_*` commands."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterable
from contextlib import suppress


def mock_arguments(prog: str, description: str, *, port: int) -> argparse.ArgumentParser:
    """Return a parser with the options that every mock command has."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=port)
    return parser


def answering_arguments(prog: str, description: str, *, port: int, scripts: Iterable[str]) -> argparse.ArgumentParser:
    """Return a parser with the options of a mock whose answers follow scripts."""
    parser = mock_arguments(prog, description, port=port)
    parser.add_argument("--default", choices=sorted(scripts), default="normal", help="what an ordinary question gets")
    parser.add_argument("--delay", type=float, default=0.06, help="seconds between two pieces of an answer")
    return parser


def serve_until_interrupted(greeting: str, scripts: Iterable[str] = ()) -> None:
    """Print the greeting and the scripts' names, then wait for Ctrl-C. The mock serves in its own threads."""
    names = " ".join(sorted(scripts))
    print(f"{greeting}; scripts: {names}" if names else greeting, flush=True)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
