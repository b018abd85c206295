"""How far a task is, for whoever waits: a bar at a terminal, a line now and then where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tools._dify_page import Page

#: Seconds between two lines about the same task, unless its status changes.
EVERY = 5.0

Task = Mapping[str, Any]


class View(Protocol):
    """What somebody who waits looks at."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def show(self, task: Task) -> None:
        """Tell how the task is now."""

    def note(self, words: str) -> None:
        """Say something else."""


def view_on(out: TextIO, key: str) -> View:
    """Return what suits where it is shown."""
    return Bar(out, key) if out.isatty() else Lines(out, key)


class Lines:
    """A line when the status changes, and every few seconds in between."""

    def __init__(self, out: TextIO, key: str = "", *, clock: Callable[[], float] = time.monotonic) -> None:
        self._page = Page(lambda text: print(text, end="", flush=True, file=out), key=key)
        self._clock = clock
        self._shown: tuple[str, int] | None = None
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def show(self, task: Task) -> None:
        now, seen = self._clock(), (task["status"], _done(task))
        changed = self._shown is None or seen[0] != self._shown[0]
        if changed or (seen != self._shown and now >= self._next):
            self._page.line(sentence(task))
            self._shown, self._next = seen, now + EVERY

    def note(self, words: str) -> None:
        self._page.line(words)


class Bar:
    """A bar that grows, with the counts, the rate and the time that is left."""

    def __init__(self, out: TextIO, key: str = "") -> None:
        console = Console(file=out, markup=False, highlight=False, emoji=False)
        words = "{task.fields[words]}"
        columns = (TextColumn("{task.fields[status]}", markup=False), BarColumn(), TextColumn(words, markup=False))
        self._progress = Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False)
        self._bar = self._progress.add_task("", total=None, status="", words="")
        self._page = Page(lambda text: console.print(text, end="", soft_wrap=True), key=key)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, task: Task) -> None:
        status, _, words = sentence(task).partition(": ")
        total = task["progress"]["total"]
        self._progress.update(self._bar, total=total, completed=_done(task), status=status, words=words)

    def note(self, words: str) -> None:
        self._page.line(words)


def sentence(task: Task) -> str:
    """Return a task in one line: its status, what is done and what failed, how fast, how long it will take."""
    progress = task["progress"]
    words = [f"{task['status']}: {_done(task)}/{progress['total']} done"]
    words += [f"{progress[name]} {name}" for name in ("failed", "cancelled") if progress[name]]
    words += [f"{progress['running']} running"] if progress["running"] else []
    if progress["rate"] and _done(task):
        words.append(f"{progress['rate']:.3g}/s")
    if task["status"] == "running" and progress["rate"]:
        words.append(f"{duration((progress['total'] - _done(task)) / progress['rate'])} left")
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
    progress = task["progress"]
    return int(progress["completed"]) + int(progress["failed"])
