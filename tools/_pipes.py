"""Ends a program silently when the reader of its output has closed the pipe, as in `… | head -1`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

#: The exit status that a shell shows for a program ended by SIGPIPE.
NOBODY_READS = 141


def until_nobody_reads(main: Callable[[], int]) -> int:
    """Run a program and return its exit status; `NOBODY_READS` if the reader of its output closed the pipe."""
    try:
        try:
            return main()
        finally:
            # Buffered output must fail here: at the interpreter's end the failure would be printed.
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
