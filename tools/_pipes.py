"""The end of a program whose output is read no further, as in `… | head -1`: at once, and without a word."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

#: What a shell shows of a program that was ended by SIGPIPE.
NOBODY_READS = 141


def until_nobody_reads(main: Callable[[], int]) -> int:
    """Run a program and return its exit status; `NOBODY_READS` when the reader of its output went away."""
    try:
        try:
            return main()
        finally:
            # What is buffered fails here rather than at the interpreter's end, which would report it.
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
