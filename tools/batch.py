"""`python -m tools.batch`: sends a file of questions to a running service and saves the answers.

    python -m tools.batch run questions.xlsx --out answers.csv    submit, watch, save; questions .txt .csv .xlsx .jsonl
    python -m tools.batch submit questions.txt                    only submit; prints the task's id
    python -m tools.batch results ID --out answers.jsonl          wait for a submitted task, and save
    python -m tools.batch status [ID] | list | pause ID | resume ID | cancel ID | retry ID | purge ID
    python -m tools.batch work                                    process batches, for BATCH_WORKER=external

Standard output has what was asked for alone, with --json as JSON lines; progress and errors are on standard error. The
key comes from LAIBAO_KEY, else from a hidden prompt if the service requires one; `--key -` reads it from standard
input. The service is that of LAIBAO_URL or --url, else the one at PORT of `.env`. During an outage calls are retried; a
submission that is sent again creates no second task. A service that never answered is not waited for.
Exit status: 0 done, with every question of a task answered; 1 not; 2 wrong usage; 3 some failed, or all; 130
interrupted, after a line on how to continue; 141 the reader of the output closed the pipe.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tools._batch.client import BatchClient
from tools._batch.questions import submission
from tools._command import LOCAL, api_key, json_object, local_url, run, seconds_or_none, service_url
from tools._pipes import until_nobody_reads

#: Seconds calls are retried during an outage.
OUTAGE_TIMEOUT = 600.0
FORMATS = ("csv", "jsonl", "xlsx")
STATUSES = ("pending", "running", "paused", "completed", "failed", "cancelled")
PRIORITIES = ("low", "normal", "high")
#: Tasks shown by `list`.
LISTED = 100
#: The exit status for a task of which some questions failed, or all.
SOME_FAILED = 3
STATUS = (
    "Exit status: 0 done, and every question of the task answered; 1 not; 2 wrong usage; 3 some failed; "
    "130 interrupted."
)

_TASK_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _task_id(text: str) -> str:
    if not _TASK_ID.fullmatch(text):
        raise ValueError("expected a task's id such as 3f0c1c9e-5d5b-4c43-9d0a-2f6f6d1f2a34")
    return text


def _output(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        raise ValueError("expected a name that ends in .csv, .jsonl or .xlsx")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {path.absolute().parent}")
    return path


def _many(*options: Callable[..., Any]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return a decorator that gives a command these options."""
    return lambda command: functools.reduce(lambda made, option: option(made), reversed(options), command)


_of_server = _many(
    click.option("--url", type=service_url, default=local_url, envvar="LAIBAO_URL", metavar="URL", show_default=LOCAL),
    click.option("--key", type=api_key, default="", metavar="-", help="Read it from standard input; else LAIBAO_KEY."),
    click.option("--json", "as_json", is_flag=True, help="Print what the service says as JSON, an object a line."),
    click.option(
        "--patience",
        "outage_timeout",
        type=seconds_or_none,
        default=OUTAGE_TIMEOUT,
        help=f"Seconds an outage may last: {OUTAGE_TIMEOUT:g}.",
        metavar="S",
    ),
)
_of_file = _many(
    click.argument("file", type=Path),
    click.option("--name", default="", help="The task's name; else the file's."),
    click.option("--description", default=""),
    click.option("--column", default="", help="The column's name or number; else a column with a usual name."),
    click.option("--id-column", default="", help="The column with your own ids, by name or number."),
    click.option("--sheet", default="", help="The sheet of a workbook."),
    click.option("--inputs", type=json_object, metavar="JSON", help="The app's variables, an object."),
    click.option("--max-attempts", type=int, metavar="N", help="Attempts per question."),
    click.option("--max-concurrent", type=int, metavar="N", help="Questions of this task at once."),
    click.option("--priority", type=click.Choice(PRIORITIES), help="Before or after other tasks that wait."),
    click.option("--id", "submission_id", default="", help="Your own id of this submission: twice is one task."),
)
_out = click.option("--out", type=_output, metavar="FILE", help="A .csv, .jsonl or .xlsx; else JSONL on stdout.")
_one = click.argument("task_id", type=_task_id, metavar="ID")


def _client(command: Callable[..., int]) -> Callable[..., int]:
    """Decorate a command: pass it a client for the server in its options, and return its exit status."""

    @_of_server
    @functools.wraps(command)
    def run_it(url: str, key: str, outage_timeout: float, as_json: bool, **options: Any) -> int:
        return BatchClient(url, key, outage_timeout, as_json=as_json).run(command, **options)

    return run_it


def _body(file: Path, **chosen: Any) -> dict[str, Any]:
    try:
        return submission(file, **chosen)
    except (OSError, ValueError) as exc:
        raise click.UsageError(str(exc)) from exc


# Commands


@click.group("batch", epilog=STATUS)
def batch() -> None:
    """Have a file of questions answered."""


@batch.command("run")
@_of_file
@_out
@_client
def _run(client: BatchClient, submission_id: str, out: Path | None, **chosen: Any) -> int:
    """Submit a file, wait, save the results."""
    body = _body(**chosen)
    with client.view() as view:
        task_id = client.submit(body, submission_id)
        view.note(f"task {task_id}")
        task = client.wait(task_id, view, out)
        client.save(task, out)
    return _status_of(task)


@batch.command("submit")
@_of_file
@_client
def _submit(client: BatchClient, submission_id: str, **chosen: Any) -> int:
    """Submit a file and print the task's id."""
    task_id = client.submit(_body(**chosen), submission_id)
    client.show(task_id, {"task_id": task_id})
    return 0


@batch.command("results")
@_one
@_out
@click.option("--now", is_flag=True, help="Do not wait; save the results so far.")
@_client
def _results(client: BatchClient, task_id: str, out: Path | None, now: bool) -> int:
    """Wait for a task, save its results."""
    with client.view() as view:
        task = client.ask("GET", f"/tasks/{task_id}") if now else client.wait(task_id, view, out)
        client.save(task, out)
    return 0 if now else _status_of(task)


def _status_of(task: Mapping[str, Any]) -> int:
    """Return the exit status for an ended task."""
    if task["status"] == "cancelled":
        return 1
    return SOME_FAILED if task["progress"]["failed"] else 0


@batch.command("status")
@click.argument("task_id", type=_task_id, metavar="[ID]", required=False)
@_client
def _status(client: BatchClient, task_id: str | None) -> int:
    """Print the state of a task, or of all batches."""
    if task_id:
        client.tell(client.ask("GET", f"/tasks/{task_id}"))
        return 0
    status = client.ask("GET", "/status")
    queue = status["queue"]
    client.show(
        f"{status['workers']} workers, {status['running_items']} of {status['max_concurrent']} questions at once; "
        f"tasks: {queue['pending']} pending, {queue['running']} running, {queue['paused']} paused, "
        f"room for {queue['available_slots']} more",
        status,
    )
    return 0


@batch.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only of this status.")
@_client
def _list(client: BatchClient, status: str | None) -> int:
    """Print your tasks, the newest first."""
    found = client.ask("GET", "/tasks", params={"size": LISTED, "status": status})
    for task in found["tasks"]:
        client.tell(task)
    if found["total"] > len(found["tasks"]):
        client.complain(f"the newest {len(found['tasks'])} of {found['total']}")
    return 0


def _change(name: str, method: str, path: str, words: str) -> None:
    """Add a command that changes a task."""

    @batch.command(name, help=words)
    @_one
    @_client
    def change(client: BatchClient, task_id: str) -> int:
        client.tell(client.ask(method, f"/tasks/{task_id}{path}"))
        return 0


_change("pause", "POST", "/pause", "Start no more items of a task.")
_change("resume", "POST", "/resume", "Resume a task.")
_change("cancel", "DELETE", "", "Cancel a task.")
_change("retry", "POST", "/retry", "Ask the failed questions of an ended task again.")


@batch.command("purge")
@_one
@_client
def _purge(client: BatchClient, task_id: str) -> int:
    """Remove an ended task with its results."""
    removed = client.ask("DELETE", f"/tasks/{task_id}", params={"purge": "true"})
    client.show(f"{task_id}  removed", removed)
    return 0


@batch.command("work")
@click.option("--port", type=int, help="For probes and Prometheus; else OPS_PORT, else PORT.")
def _work(port: int | None) -> int:
    """Process batches, for BATCH_WORKER=external; needs no running service."""
    # Imported here because only this command needs the whole product.
    from tools._batch.worker import work

    return work(port)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run(batch, argv)


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
