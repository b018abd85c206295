"""`python -m tools.batch`: have a file of questions answered by a running service.

    python -m tools.batch run questions.xlsx --out answers.csv    submit, watch, save; questions .txt .csv .xlsx .jsonl
    python -m tools.batch submit questions.txt                    only submit; prints the task's id
    python -m tools.batch results ID --out answers.jsonl          go on waiting for a task, and save
    python -m tools.batch status [ID] | list | pause ID | resume ID | cancel ID
    python -m tools.batch work                                    works on batches, as BATCH_WORKER=external wants it
    python -m tools.batch tables [mysql | sqlite]                 prints the SQL that creates the tables

The key comes from LAIBAO_KEY, else from a hidden prompt where one is asked for; `--key -` reads it from standard input.
An outage while it waits is waited out, and a submission that is sent again is one task.
Exit status: 0 done, and of a task every question answered; 2 some failed; 1 anything else; 130 interrupted, and how to
go on is said; 141 nobody reads its output any more.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from tools._batch_api import Api, Data, Failed, Locked, Patience
from tools._batch_options import URL, read_options, typed_key
from tools._batch_progress import View, sentence, view_on
from tools._dify_page import Page
from tools._pipes import until_nobody_reads
from tools.ws import checked_key

#: Seconds between two looks at a task.
LOOK = 1.0
ENDED = ("completed", "failed", "cancelled")
#: Shown of a listing.
LISTED = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the options say; return the exit status."""
    options = read_options(argv)
    if options.command == "work":
        # Only this needs all of the product.
        from tools._batch_worker import work

        return work(options.port)
    if options.command == "tables":
        from tools._batch_tables import print_tables

        return print_tables(options.kind)
    client = Client(options)
    try:
        return client.run()
    except Failed as exc:
        client.complain(str(exc))
        return 1
    except BrokenPipeError:
        raise
    except OSError as exc:
        client.complain(f"{exc.filename}: {exc.strerror}")
        return 1
    except KeyboardInterrupt:
        client.complain(f"interrupted{client.way_on()}")
        return 130
    finally:
        client.close()


class Client:
    """One run of the program."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._api = Api(options.url, options.key)
        self._key: str = options.key
        self._task_id: str = getattr(options, "task_id", None) or ""
        #: The name of a submission: whoever sends it again means the same task.
        self._submission: str = getattr(options, "id", "") or uuid.uuid4().hex

    def run(self) -> int:
        """Do it; return the exit status. Raises `Failed`."""
        commands: dict[str, Callable[[], int]] = {
            "run": self._run,
            "submit": self._submit,
            "results": self._results,
            "status": self._status,
            "list": self._list,
        }
        command = commands.get(self._options.command, self._change)
        try:
            return command()
        except Locked:
            if self._key or not sys.stdin.isatty():
                raise
        # Nobody said before that a key is wanted here.
        self._key = checked_key(typed_key())
        self._api = Api(self._options.url, self._key)
        return command()

    def complain(self, words: str) -> None:
        Page(lambda text: print(text, end="", file=sys.stderr), key=self._key).line(words)

    def way_on(self) -> str:
        """Return how to go on after an interruption, "" where there is nothing to go on with."""
        url = "" if self._options.url == URL else f" --url {self._options.url}"
        command = self._options.command
        if command in ("run", "results") and self._task_id:
            out = f" --out {self._options.out}" if self._options.out else ""
            go_on = f"python -m tools.batch results {self._task_id}{out}{url}"
            return (
                f"; the task goes on. Wait for it: {go_on}; end it: python -m tools.batch cancel {self._task_id}{url}"
            )
        if command in ("run", "submit"):
            return f"; whether the task was taken is not known: with --id {self._submission} it is submitted once"
        return ""

    def close(self) -> None:
        self._api.close()

    def _run(self) -> int:
        with self._view() as view:
            self._take(view)
            view.note(f"task {self._task_id}")
            task = self._wait(view)
            self._save(view)
        return _status_of(task)

    def _submit(self) -> int:
        self._take(self._errors())
        self._say(self._task_id)
        return 0

    def _results(self) -> int:
        with self._view() as view:
            patience = self._patience(view)
            task = patience.ask(lambda: self._api.task(self._task_id)) if self._options.now else self._wait(view)
            self._save(view)
        return 0 if self._options.now else _status_of(task)

    def _status(self) -> int:
        patience = self._patience(self._errors())
        if self._task_id:
            self._tell(patience.ask(lambda: self._api.task(self._task_id)))
            return 0
        status = patience.ask(self._api.status)
        queue = status["queue"]
        self._say(
            f"{status['workers']} workers, {status['running_items']} of {status['max_concurrent']} questions at once; "
            f"tasks: {queue['pending']} pending, {queue['running']} running, {queue['paused']} paused, "
            f"room for {queue['available_slots']} more"
        )
        return 0

    def _list(self) -> int:
        params = {"size": LISTED} | ({"status": self._options.status} if self._options.status else {})
        found = self._patience(self._errors()).ask(lambda: self._api.tasks(**params))
        for task in found["tasks"]:
            self._tell(task)
        if found["total"] > len(found["tasks"]):
            self.complain(f"the newest {len(found['tasks'])} of {found['total']}")
        return 0

    def _change(self) -> int:
        patience = self._patience(self._errors())
        self._tell(patience.ask(lambda: self._api.change(self._task_id, self._options.command)))
        return 0

    def _take(self, view: View) -> None:
        """Have the task taken, once however often it has to be said."""
        taken = self._patience(view).ask(lambda: self._api.submit(self._submission, **self._options.body))
        self._task_id = taken["task_id"]
        if unvalued := taken.get("formulas_without_value"):
            self.complain(f"{unvalued} formulas have no value and are not asked: open and save the file in Excel")

    def _wait(self, view: View) -> Data:
        """Return the task when it has ended."""
        patience = self._patience(view)
        while True:
            task = patience.ask(lambda: self._api.task(self._task_id))
            view.show(task)
            if task["status"] in ENDED:
                return task
            time.sleep(LOOK)

    def _save(self, view: View) -> None:
        """Write the results, whole or not at all where they go into a file."""
        path: Path | None = self._options.out
        if path is None:
            for piece in self._api.results(self._task_id, "jsonl"):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        self._patience(view).ask(lambda: self._download(path))
        view.note(f"results in {path}")

    def _download(self, path: Path) -> None:
        partly = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with partly.open("wb") as file:
                for piece in self._api.results(self._task_id, path.suffix.lower().removeprefix(".")):
                    file.write(piece)
            partly.replace(path)
        finally:
            partly.unlink(missing_ok=True)

    def _view(self) -> View:
        """Return what is looked at meanwhile: not where the results themselves go."""
        return view_on(sys.stdout if self._options.out else sys.stderr, self._key)

    def _errors(self) -> View:
        return view_on(sys.stderr, self._key)

    def _patience(self, view: View) -> Patience:
        return Patience(self._options.patience, view.note)

    def _tell(self, task: Data) -> None:
        self._say(f"{task['task_id']}  {task['created_at']}  {task['name']}  {sentence(task)}")

    def _say(self, words: str) -> None:
        Page(lambda text: print(text, end="", flush=True), key=self._key).line(words)


def _status_of(task: Data) -> int:
    """Return the exit status that a task's end is."""
    if task["status"] == "cancelled":
        return 1
    return 2 if task["progress"]["failed"] else 0


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
