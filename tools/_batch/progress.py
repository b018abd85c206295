"""Shows the progress of a task: as a bar at a terminal, otherwise as a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from tools._page import Printer, printer_on

if TYPE_CHECKING:
    from rich.progress import Progress

#: Seconds between two lines about the same task, unless its status changes.
EVERY = 5.0

TaskJson = Mapping[str, Any]


class Lines:
    """Print a line when the status changes, and every `EVERY` seconds while counts change."""

    def __init__(self, page: Printer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._page = page
        self._clock = clock
        self._shown: tuple[str, int] | None = None
        self._next = 0.0

    def show(self, task: TaskJson) -> None:
        now, seen = self._clock(), (task["status"], _done(task))
        changed = self._shown is None or seen[0] != self._shown[0]
        if changed or (seen != self._shown and now >= self._next):
            self.note(sentence(task))
            self._shown, self._next = seen, now + EVERY

    def note(self, words: str) -> None:
        """Print another line."""
        self._page.line(words)


class ProgressBar(Lines):
    """Show a progress bar with counts, rate and remaining time."""

    def __init__(self, page: Printer, progress: Progress) -> None:
        super().__init__(page)
        self._progress = progress
        self._bar = progress.add_task("", total=None, status="", words="")

    def show(self, task: TaskJson) -> None:
        status, _, words = sentence(task).partition(": ")
        total = task["progress"]["total"]
        self._progress.update(self._bar, total=total, completed=_done(task), status=status, words=words)


@contextmanager
def view_on(out: TextIO, key: str) -> Iterator[Lines]:
    """Yield a bar for a terminal, else lines. The key is masked in both."""
    if not out.isatty():
        yield Lines(printer_on(out, key=key))
        return
    # Imported here because only a terminal needs it, and it takes as long to load as everything else together.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(file=out, markup=False, highlight=False, emoji=False)
    status, words = (TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("status", "words"))
    with Progress(status, BarColumn(), words, console=console, redirect_stdout=False, redirect_stderr=False) as bar:
        yield ProgressBar(Printer(lambda text: console.print(text, end="", soft_wrap=True), key=key), bar)


def sentence(task: TaskJson) -> str:
    """Describe a task in one line: status, counts, rate and remaining time."""
    progress, done = task["progress"], _done(task)
    words = [f"{task['status']}: {done}/{progress['total']} done"]
    words += [f"{progress[name]} {name}" for name in ("failed", "cancelled", "running") if progress[name]]
    if progress["rate"] and done:
        words.append(f"{progress['rate']:.3g}/s")
    if task["status"] == "running" and progress["rate"]:
        words.append(f"{duration((progress['total'] - done) / progress['rate'])} left")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """Format seconds: 1 h 05 min, 2 min 10 s, 9 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _done(task: TaskJson) -> int:
    return int(task["progress"]["completed"]) + int(task["progress"]["failed"])
