"""How far a task is: a bar at a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from tools._page import Page, page_on

if TYPE_CHECKING:
    from rich.progress import Progress

#: Seconds between two lines about the same task, unless its status changes.
EVERY = 5.0

Task = Mapping[str, Any]


class Lines:
    """A line when the status changes, and every few seconds in between."""

    def __init__(self, page: Page, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._page = page
        self._clock = clock
        self._shown: tuple[str, int] | None = None
        self._next = 0.0

    def show(self, task: Task) -> None:
        now, seen = self._clock(), (task["status"], _done(task))
        changed = self._shown is None or seen[0] != self._shown[0]
        if changed or (seen != self._shown and now >= self._next):
            self.note(sentence(task))
            self._shown, self._next = seen, now + EVERY

    def note(self, words: str) -> None:
        """Say something else."""
        self._page.line(words)


class Bar(Lines):
    """A bar that grows, with the counts, the rate and the time that is left."""

    def __init__(self, page: Page, progress: Progress) -> None:
        super().__init__(page)
        self._progress = progress
        self._bar = progress.add_task("", total=None, status="", words="")

    def show(self, task: Task) -> None:
        status, _, words = sentence(task).partition(": ")
        total = task["progress"]["total"]
        self._progress.update(self._bar, total=total, completed=_done(task), status=status, words=words)


@contextmanager
def view_on(out: TextIO, key: str) -> Iterator[Lines]:
    """Give the block what suits where it is shown; nothing on it shows the key."""
    if not out.isatty():
        yield Lines(page_on(out, key=key))
        return
    # Here, and not above: only a terminal needs it, and it takes as long to load as all the rest.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(file=out, markup=False, highlight=False, emoji=False)
    status, words = (TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("status", "words"))
    with Progress(status, BarColumn(), words, console=console, redirect_stdout=False, redirect_stderr=False) as bar:
        yield Bar(Page(lambda text: console.print(text, end="", soft_wrap=True), key=key), bar)


def sentence(task: Task) -> str:
    """Return a task in one line: its status, what is done and what failed, how fast, how long it will take."""
    progress, done = task["progress"], _done(task)
    words = [f"{task['status']}: {done}/{progress['total']} done"]
    words += [f"{progress[name]} {name}" for name in ("failed", "cancelled", "running") if progress[name]]
    if progress["rate"] and done:
        words.append(f"{progress['rate']:.3g}/s")
    if task["status"] == "running" and progress["rate"]:
        words.append(f"{duration((progress['total'] - done) / progress['rate'])} left")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """Return a time as people say it: 1 h 05 min, 2 min 10 s, 9 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _done(task: Task) -> int:
    return int(task["progress"]["completed"]) + int(task["progress"]["failed"])
