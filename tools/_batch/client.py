"""The batch client: retries during an outage, prompts for a missing key, and saves result files atomically."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tools._batch.api import Api, Data, Failed, Locked, retried
from tools._batch.progress import Lines, sentence, view_on
from tools._command import INTERRUPTED, checked_key, key_from_stdin, local_url
from tools._page import printer_on

#: Seconds between two requests for a task's state.
LOOK = 1.0
ENDED = ("completed", "failed", "cancelled")

T = TypeVar("T")


class BatchClient:
    """The operations of the commands on a running service."""

    def __init__(self, url: str, key: str, outage_timeout: float, *, as_json: bool = False) -> None:
        self._url = url
        self._key = key
        self._outage_timeout = outage_timeout
        self._as_json = as_json
        self._api = Api(url, key)
        #: Gets lines about an outage.
        self._note = self.complain
        #: How to continue after an interruption, as the end of a sentence.
        self._next_step = ""

    def run(self, command: Callable[..., int], **options: Any) -> int:
        """Run a command with this client; return the exit status."""
        try:
            return self._unlocked(partial(command, self, **options))
        except Failed as exc:
            self.complain(str(exc))
        except BrokenPipeError:
            raise
        except OSError as exc:
            self.complain(f"{exc.filename}: {exc.strerror}")
        except KeyboardInterrupt:
            self.complain(f"interrupted{self._next_step}")
            return INTERRUPTED
        finally:
            self._api.close()
        return 1

    def _unlocked(self, command: Callable[[], int]) -> int:
        try:
            return command()
        except Locked:
            if self._key or not sys.stdin.isatty():
                raise
        # The server requires a key and none was given: prompt for it, once.
        self._key = checked_key(key_from_stdin())
        self._api = Api(self._url, self._key)
        return command()

    def say(self, words: str) -> None:
        printer_on(key=self._key).line(words)

    def complain(self, words: str) -> None:
        printer_on(sys.stderr, key=self._key).line(words)

    def ask(self, method: str, path: str, **more: Any) -> Data:
        """Call the service, with retries during an outage."""
        return self._retried(lambda: self._api.ask(method, path, **more))

    def _retried(self, call: Callable[[], T]) -> T:
        return retried(call, self._outage_timeout, self._note)

    def submit(self, body: Mapping[str, Any], name: str) -> str:
        """Submit a task and return its id. Retries do not create a second task (Idempotency-Key)."""
        name = name or uuid.uuid4().hex
        self._next_step = f"; whether the task was taken is not known: with --id {name} it is submitted once"
        taken = self.ask("POST", "/tasks", headers={"Idempotency-Key": name}, **body)
        if without := taken.get("formulas_without_value"):
            self.complain(f"{without} formulas have no value and are not asked: open and save the file in Excel")
        return str(taken["task_id"])

    def wait(self, task_id: str, view: Lines, out: Path | None) -> Data:
        """Wait for the end of a task and return it."""
        url = "" if self._url == local_url() else f" --url {self._url}"
        go_on = f"python -m tools.batch results {task_id}{f' --out {out}' if out else ''}{url}"
        end = f"python -m tools.batch cancel {task_id}{url}"
        self._next_step = f"; the task goes on. Wait for it: {go_on}; end it: {end}"
        while True:
            task = self.ask("GET", f"/tasks/{task_id}")
            view.show(task)
            if task["status"] in ENDED:
                return task
            time.sleep(LOOK)

    def save(self, task: Data, out: Path | None) -> None:
        """Write the results to standard output, or to a file, which is replaced only when they are complete.

        With a file and `--json`, standard output gets the task.
        """
        path = f"/tasks/{task['task_id']}/results"
        if out is None:
            for piece in self._api.download(path, format="jsonl"):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return

        def download() -> None:
            with _written_whole(out) as partly, partly.open("wb") as file:
                for piece in self._api.download(path, **_format_of(out)):
                    file.write(piece)

        self._retried(download)
        self._note(f"results in {out}")
        if self._as_json:
            self.tell(task)

    @contextmanager
    def view(self) -> Iterator[Lines]:
        """Show progress on standard error."""
        with view_on(sys.stderr, self._key) as view:
            self._note = view.note
            yield view

    def show(self, words: str, data: Data) -> None:
        """Print words for people, or with `--json` what the service said."""
        self.say(json.dumps(data, ensure_ascii=False) if self._as_json else words)

    def tell(self, task: Data) -> None:
        self.show(f"{task['task_id']}  {task['created_at']}  {task['name']}  {sentence(task)}", task)


def _format_of(out: Path) -> dict[str, str]:
    """Return the parameters of a download: a file's format, and the time zone of this machine for a workbook."""
    name = out.suffix.lower().removeprefix(".")
    offset = datetime.now(UTC).astimezone().utcoffset() or timedelta()
    return {"format": name} | ({"utc_offset": str(int(offset.total_seconds() // 60))} if name == "xlsx" else {})


@contextmanager
def _written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary file, which is renamed to `path` if the block succeeds."""
    partly = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partly
        partly.replace(path)
    finally:
        partly.unlink(missing_ok=True)
