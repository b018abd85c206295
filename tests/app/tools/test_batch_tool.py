"""`python -m tools.batch`: from a file of questions to a file of answers, through outages, and the worker process."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from werkzeug.serving import make_server

from demo.mocks.dify.server import MockDify
from tests.support.replicas import ADMIN_TOKEN, AppServer, Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import FakeClock, RedisServer, free_port, wait_until
from tests.support.servers.raw_server import RawServer
from tests.unit.questions.test_question_files import workbook
from tools import batch as tool
from tools._batch.api import Api, Away, Failed, retried
from tools._batch.progress import Lines, duration, sentence
from tools._batch.questions import json_questions
from tools._page import printer_on

ROOT = Path(__file__).parents[3]
KEY = "obviously-fake-api-key"
QUESTIONS = ["年假有几天？", "How?", "怎么报销？"]
UNKNOWN_TASK = "11111111-2222-4333-8444-555555555555"
Printed = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def app() -> Iterator[MockDify]:
    """The Dify that the app server asks."""
    with MockDify(slow=0.04) as mock:
        yield mock


@pytest.fixture(scope="module")
def shared_app_server(
    redis_server: RedisServer, app: MockDify, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AppServer]:
    """A replica that requires a key, with its own Redis database and tasks."""
    database = str(tmp_path_factory.mktemp("app_server") / "laibao.db")
    settings = {"DATABASE_PATH": database, "WEBSOCKET_AUTH": "key", "API_KEYS": KEY}
    limits = {"RATE_LIMIT_IP": "off", "RATE_LIMIT_USER": "off"}
    with AppServer(redis_server.url(2), **settings, **limits, **dify_settings(app.base_url)) as app_server:
        yield app_server


@pytest.fixture
def app_server(shared_app_server: AppServer, monkeypatch: pytest.MonkeyPatch) -> AppServer:
    """Put the replica's address and key into the environment; the tool polls its tasks often."""
    monkeypatch.setenv("LAIBAO_URL", shared_app_server.url)
    monkeypatch.setenv("LAIBAO_KEY", KEY)
    monkeypatch.setattr("tools._batch.client.LOOK", 0.1)
    return shared_app_server


def run(*argv: object) -> int:
    """Run the tool in this process and return its status, also after a usage error."""
    try:
        return tool.main([str(arg) for arg in argv])
    except SystemExit as exc:
        return int(exc.code or 0)


def written(folder: Path, name: str, questions: list[str]) -> Path:
    """Write questions into a file of the type its suffix names."""
    path = folder / name
    contents = {
        ".txt": "\n".join(questions).encode(),
        ".csv": b"id,question\n" + b"".join(f"{n},{text}\n".encode() for n, text in enumerate(questions)),
        ".xlsx": workbook([["id", "问题"], *([n, text] for n, text in enumerate(questions))]),
        ".jsonl": "".join(f"{json.dumps({'query': text})}\n" for text in questions).encode(),
    }
    path.write_bytes(contents[path.suffix])
    return path


def tasks_of(app_server: AppServer) -> list[dict[str, Any]]:
    headers = {"X-API-Key": KEY}
    reply = requests.get(f"{app_server.url}/api/batch/tasks", headers=headers, timeout=30)
    tasks: list[dict[str, Any]] = reply.json()["data"]["tasks"]
    return tasks


# Runs


@pytest.mark.parametrize("kind", [".txt", ".csv", ".xlsx", ".jsonl"])
def test_a_file_of_questions_comes_back_as_answers(
    kind: str, app_server: AppServer, app: MockDify, tmp_path: Path, capsys: Printed
) -> None:
    """For every file type: JSONL with all questions and answers in their order, status 0, and lines of progress.

    Progress is on standard error; the file is the answer, so standard output stays empty.
    """
    file, out = written(tmp_path, f"常见问题{kind}", QUESTIONS), tmp_path / "answers.jsonl"

    status = run("run", file, "--out", out)

    items = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    printed = capsys.readouterr()
    assert status == 0, printed
    assert [(item["text"], item["content"]) for item in items] == [(q, app.expected_answer(q)) for q in QUESTIONS]
    assert tasks_of(app_server)[0]["name"] == "常见问题"
    lines = printed.err.splitlines()
    assert re.fullmatch("task [0-9a-f-]{36}", lines[0])
    assert lines[-2].startswith("completed: 3/3 done")
    assert lines[-1] == f"results in {out}"
    assert "\x1b" not in printed.err
    assert printed.out == ""
    assert not list(tmp_path.glob(".*part"))


def test_results_are_csv_if_the_file_name_says_so(app_server: AppServer, tmp_path: Path) -> None:
    """The chosen column, inputs and other options reach the task."""
    file, out = tmp_path / "q.csv", tmp_path / "a.csv"
    file.write_text("city,ask\nBerlin,How?\n", "utf-8")
    chosen = ["--column", "ask", "--inputs", '{"city": "上海"}', "--max-attempts", 1, "--priority", "low"]

    assert run("run", file, "--out", out, *chosen) == 0

    (row,) = csv.DictReader(io.StringIO(out.read_text("utf-8-sig"), newline=""))
    assert (row["text"], row["status"]) == ("How?", "completed")
    options = tasks_of(app_server)[0]["options"]
    assert (options["inputs"], options["max_attempts"], options["priority"]) == ({"city": "上海"}, 1, "low")


def test_without_a_file_results_are_on_standard_output(app_server: AppServer, tmp_path: Path, capsys: Printed) -> None:
    """Results are JSONL on standard output; progress is printed on standard error."""
    assert run("run", written(tmp_path, "q.txt", QUESTIONS)) == 0

    printed = capsys.readouterr()
    assert [json.loads(line)["text"] for line in printed.out.splitlines()] == QUESTIONS
    assert "completed: 3/3 done" in printed.err


def test_what_the_service_says_is_printed_as_json(app_server: AppServer, tmp_path: Path, capsysbinary: Any) -> None:
    """An object a line: the submission, the task, the list, and the state of all batches."""
    file = written(tmp_path, "q.txt", QUESTIONS)

    assert run("submit", file, "--json") == 0
    (submitted,) = map(json.loads, capsysbinary.readouterr().out.splitlines())
    assert run("results", submitted["task_id"], "--out", tmp_path / "a.csv", "--json") == 0
    (ended,) = map(json.loads, capsysbinary.readouterr().out.splitlines())
    assert (ended["task_id"], ended["status"]) == (submitted["task_id"], "completed")
    assert [run(*words, "--json") for words in (["status", submitted["task_id"]], ["status"], ["list"])] == [0, 0, 0]

    task, status, *listed = map(json.loads, capsysbinary.readouterr().out.splitlines())
    assert (task["task_id"], task["progress"]["total"]) == (submitted["task_id"], len(QUESTIONS))
    assert "running_items" in status
    assert submitted["task_id"] in [one["task_id"] for one in listed]


@pytest.mark.parametrize("answered", [["一"], []], ids=["some", "none"])
def test_a_question_that_failed_is_status_3(answered: list[str], app_server: AppServer, tmp_path: Path) -> None:
    """Status 3 if some or all failed; the results have the error of each."""
    out = tmp_path / "a.jsonl"

    assert run("run", written(tmp_path, "q.txt", [*answered, "[[400-invalid_param]] 二"]), "--out", out) == 3

    items = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert items[-1]["status"] == "failed"
    assert items[-1]["error"]["code"] == "provider_rejected"


# Single commands


def test_a_task_is_controlled_by_its_id(app_server: AppServer, tmp_path: Path, capsys: Printed) -> None:
    """Submit prints only the id; results of a cancelled task give status 1, and a second cancel is an error."""
    assert run("submit", written(tmp_path, "q.txt", ["[[silent]] 年假"] * 40), "--max-concurrent", 1) == 0
    task_id = capsys.readouterr().out.strip()
    assert re.fullmatch("[0-9a-f-]{36}", task_id)

    outputs = []
    for argv in (["pause", task_id], ["status", task_id], ["list", "--status", "paused"], ["resume", task_id]):
        assert run(*argv) == 0
        outputs.append(capsys.readouterr().out)
    assert run("results", task_id, "--now", "--out", tmp_path / "part.jsonl") == 0
    assert run("cancel", task_id) == 0
    capsys.readouterr()

    assert all(line.startswith(f"{task_id}  20") for line in outputs)
    assert ["paused: " in line for line in outputs] == [True, True, True, False]
    assert len((tmp_path / "part.jsonl").read_text("utf-8").splitlines()) == 40
    assert run("results", task_id, "--out", tmp_path / "end.csv") == 1
    assert "cancelled: 0/40 done, 40 cancelled" in capsys.readouterr().err
    assert run("cancel", task_id) == 1
    assert "任务已经结束，不能再更改。 (HTTP 409)" in capsys.readouterr().err


def test_status_describes_all_batches(app_server: AppServer, capsys: Printed) -> None:
    """Workers, questions at once, tasks by status, and free task slots."""
    expected = "1 workers, 0 of 5 questions at once; tasks: 0 pending, 0 running, 0 paused, room for 1000 more\n"

    # Tasks that other tests cancelled end a moment later.
    wait_until(lambda: run("status") == 0 and capsys.readouterr().out == expected)


def test_a_submission_with_an_id_creates_one_task(app_server: AppServer, tmp_path: Path, capsys: Printed) -> None:
    """The same --id with the same questions returns the existing task; with others it is an error."""
    file, before = written(tmp_path, "q.txt", QUESTIONS), len(tasks_of(app_server))

    assert run("submit", file, "--id", "order-1") == run("submit", file, "--id", "order-1") == 0

    first, second = capsys.readouterr().out.split()
    assert first == second
    assert len(tasks_of(app_server)) == before + 1
    assert run("submit", written(tmp_path, "other.txt", ["What?"]), "--id", "order-1") == 1
    assert "这个幂等键已经用于另一次提交。 (HTTP 409)" in capsys.readouterr().err


# Errors


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run", "q.pdf", "--out", "a.csv"], "q.pdf: expected one of .txt, .csv, .tsv, .xlsx, .jsonl"),
        (["run", "missing.txt"], "No such file or directory: 'missing.txt'"),
        (["run", "q.txt", "--out", "a.xls"], "expected a name that ends in .csv, .jsonl or .xlsx"),
        (["run", "q.txt", "--out", "nowhere/a.csv"], "there is no folder"),
        (["status", "7"], "expected a task's id such as"),
        (["status", "--url", "http://user:secret@host"], "never into an address"),
        (["status", "--url", "http://host/?api_key=secret"], "never into an address"),
        (["status", "--url", "ftp://host"], "expected http://host:port"),
        (["status", "--key", "secret"], "'--key': expected -, and the key on standard input"),
        ([], "Usage: python -m tools.batch [OPTIONS] COMMAND"),
    ],
    ids=str,
)
def test_wrong_usage_is_status_2(argv: list[str], message: str, capsys: Printed) -> None:
    """A sentence on standard error before anything is sent, and status 2."""
    assert run(*argv) == 2

    printed = capsys.readouterr().err
    assert message in printed
    assert "secret" not in printed


def test_errors_of_the_server_are_printed(app_server: AppServer, tmp_path: Path, capsys: Printed) -> None:
    """The message names the field; another client's task is reported as missing."""
    assert run("submit", written(tmp_path, "q.txt", ["x"]), "--max-attempts", 9) == 1
    assert "max_attempts" in capsys.readouterr().err
    assert run("status", UNKNOWN_TASK) == 1
    assert capsys.readouterr().err == "任务不存在 (HTTP 404)\n"


def test_jsonl_of_several_shapes() -> None:
    """A line is a string or an object; blank lines are skipped, a line without a question is named."""
    content = '\ufeff"一"\n\n{"问题": "二"}\n{"id": 1, "text": "三"}\n'.encode()
    assert json_questions(content) == {"texts": ["一", "二", "三"]}
    assert json_questions(b'{"id": 7, "text": "a"}', "id") == {"items": [{"text": "a", "id": "7"}]}
    with pytest.raises(ValueError, match="line 1: expected a text or a whole number as id"):
        json_questions(content, "id")
    for wrong in ("7", "{}", '{"text": 1}', "{"):
        with pytest.raises(ValueError, match="line 2"):
            json_questions(f'"ok"\n{wrong}\n'.encode())


# The key


def test_a_key_is_read_from_standard_input_or_the_environment(
    app_server: AppServer, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """Standard input takes precedence; a wrong key gives status 1 and the server's message, and is not shown."""
    monkeypatch.setenv("LAIBAO_KEY", "wrong-key-9")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{KEY}\n"))

    assert run("status", "--key", "-") == 0
    assert run("status") == 1

    printed = capsys.readouterr()
    assert "(HTTP 401)" in printed.err
    assert "API_KEYS" in printed.err
    assert "wrong-key-9" not in printed.out + printed.err


def test_at_a_terminal_the_key_is_read_if_the_server_asks(
    app_server: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is read from a prompt when the server asks for one, and the command continues."""
    monkeypatch.delenv("LAIBAO_KEY")
    terminal, stdin = pty.openpty()
    with program("status", stdin=stdin) as process:
        wait_until(lambda: b"API key: " in read_new(process), timeout=30)
        os.write(terminal, f"{KEY}\n".encode())
        out, err = process.communicate(timeout=60)
    os.close(terminal)
    os.close(stdin)

    assert process.returncode == 0, err
    assert b"questions at once" in out


# Outages


class FlakyCall:
    """A call that fails `away` times and then succeeds, with a fake clock."""

    def __init__(self, away: int, after: float = 0.0) -> None:
        self.clock, self.lines, self.slept = FakeClock(), list[str](), list[float]()
        self._away = [Away("nobody is there", after)] * away

    def retried(self, timeout: float) -> str:
        return retried(self._call, timeout, self.lines.append, clock=self.clock, sleep=self._sleep)

    def _call(self) -> str:
        if self._away:
            raise self._away.pop()
        return "answer"

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)


def test_the_pause_between_tries_grows() -> None:
    """The pause starts at half a second and doubles up to a limit; begin and end of the outage are printed once."""
    call = FlakyCall(8)

    assert call.retried(600) == "answer"

    assert call.slept == [0.5, 1, 2, 4, 8, 15, 15, 15]
    assert call.lines == ["nobody is there; trying again for up to 600 s", "connected again"]


def test_retry_after_is_used_within_bounds() -> None:
    """Retry-After is used up to the longest pause; after the timeout it fails with the reason of the last try."""
    call, later, never = FlakyCall(1, after=3), FlakyCall(1, after=9_999), FlakyCall(100)

    assert call.retried(600) == later.retried(600) == "answer"
    assert (call.slept, later.slept) == ([3], [15])
    with pytest.raises(Failed, match="nobody is there, and did not for 10 s"):
        never.retried(10)
    assert sum(never.slept) <= 10


def test_an_outage_is_reported_after_the_patience(capsys: Printed) -> None:
    """A closed port, and the HTML page of a proxy, whose status and reason are printed."""
    port = free_port()
    assert run("status", "--url", f"http://127.0.0.1:{port}", "--patience", 0) == 1
    assert f"cannot connect to 127.0.0.1:{port}" in capsys.readouterr().err

    with RawServer(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>") as server:
        assert run("status", "--url", server.url, "--patience", 0) == 1
    assert "Bad Gateway (HTTP 502), and did not for 0 s" in capsys.readouterr().err


def test_a_service_without_batches_is_an_error_at_once(redis_url: str, capsys: Printed) -> None:
    """503 of a service without batches is final."""
    with AppServer(redis_url, WEBSOCKET_AUTH="none") as app_server:
        assert run("status", "--url", app_server.url) == 1

    assert capsys.readouterr().err == "批量处理服务不可用 (HTTP 503)\n"


@pytest.mark.full
def test_a_netrc_is_ignored(app_server: AppServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`requests` would send a netrc's credentials for the host instead of the key."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))

    # A netrc's credentials would be rejected with an exception. The processor is counted shortly after the start.
    wait_until(lambda: Api(app_server.url, KEY).ask("GET", "/status")["is_running"] is True)


# Progress


def progress(status: str = "running", **counts: float) -> dict[str, Any]:
    kept = {"total": 10, "completed": 0, "failed": 0, "cancelled": 0, "running": 0, "rate": 0.0}
    return {"status": status, "progress": {**kept, **counts}}


def test_a_task_is_described_in_one_line() -> None:
    """Counts of zero are left out."""
    assert sentence(progress("pending")) == "pending: 0/10 done"
    assert sentence(progress(completed=3, failed=1, running=2, rate=0.5)) == (
        "running: 4/10 done, 1 failed, 2 running, 0.5/s, 12 s left"
    )
    assert [duration(seconds) for seconds in (9.4, 130, 3_900)] == ["9 s", "2 min 10 s", "1 h 05 min"]


def test_without_a_terminal_lines_are_printed_now_and_then(capsys: Printed) -> None:
    """At once when the status changes, otherwise every five seconds if a count changed."""
    clock = FakeClock()
    lines = Lines(printer_on(key=KEY), clock=clock)
    for passes, task in [
        (0, progress("pending")), (1, progress()), (1, progress(completed=1)), (5, progress(completed=2)),
        (9, progress(completed=2)), (0, progress("completed", completed=10)),
    ]:  # fmt: skip
        clock.advance(passes)
        lines.show(task)
    lines.note(f"\x1b[31m{KEY}")

    assert capsys.readouterr().out.splitlines() == [
        "pending: 0/10 done", "running: 0/10 done", "running: 2/10 done", "completed: 10/10 done", "\ufffd[31m***",
    ]  # fmt: skip


def test_at_a_terminal_a_bar_grows(app_server: AppServer, tmp_path: Path) -> None:
    """At a terminal a progress bar with counts is shown until the task ends."""
    terminal, screen = pty.openpty()
    file, out = written(tmp_path, "q.txt", QUESTIONS), tmp_path / "a.csv"
    with program("run", file, "--out", out, stderr=screen, TERM="xterm", COLUMNS="100") as process:
        os.close(screen)
        shown = b""
        # Reading fails once the other end of the terminal is closed.
        with suppress(OSError):
            while piece := os.read(terminal, 65536):
                shown += piece
        assert process.wait(60) == 0
        assert process.stdout.read() == b""
    os.close(terminal)

    assert "━".encode() in shown
    assert b"3/3 done" in shown


# Processes


def program(*argv: object, stdin: int = subprocess.DEVNULL, stderr: int = subprocess.PIPE, **variables: str) -> Any:
    """Start the tool in its own process."""
    process = subprocess.Popen(
        # A background job of a shell ignores SIGINT, and so would its children; `env` restores the default.
        ["env", "--default-signal=INT", sys.executable, "-m", "tools.batch", *map(str, argv)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )
    if process.stderr:
        os.set_blocking(process.stderr.fileno(), False)
    return process


def read_new(process: Any) -> bytes:
    """Return what came on standard error since the last call."""
    return process.stderr.read() or b""


@pytest.mark.full
def test_ctrl_c_prints_the_command_for_the_results(
    app_server: AppServer, app: MockDify, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 130; the task goes on, and the printed command fetches its results."""
    # The answer does not end by itself.
    monkeypatch.setattr(app, "delay", 20.0)
    out, before = tmp_path / "a.jsonl", len(tasks_of(app_server))
    with program("run", written(tmp_path, "q.txt", ["年假"]), "--out", out) as process:
        (task, *_) = wait_until(lambda: (tasks := tasks_of(app_server))[: len(tasks) - before], timeout=60)
        wait_until(lambda: b"running" in read_new(process), timeout=60)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    found = re.search(r"python -m tools\.batch (results .+?); end it: python -m tools\.batch cancel", err.decode())
    assert found, err
    assert b"Traceback" not in err
    assert found[1] == f"results {task['task_id']} --out {out} --url {app_server.url}"
    assert not out.exists()
    for conversation in list(app.conversations):
        for answer in app.runs.turns(conversation):
            answer.stopped = True
    assert run(*found[1].split()) == 0
    assert len(out.read_text("utf-8").splitlines()) == 1


@contextmanager
def served(app_server: AppServer, port: int = 0, *, lost: str = "") -> Iterator[int]:
    """Serve the application on another port, which can be closed while the application runs.

    Requests of the method `lost` have no reply before it is closed.
    """
    closing = threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] == lost:
            closing.wait(60)
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionError
        return app_server.app(environ, start_response)

    server = make_server("127.0.0.1", port, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        closing.set()
        server.server_close()
        thread.join(10)


def test_an_outage_during_a_task_loses_no_answer(
    app_server: AppServer, app: MockDify, tmp_path: Path, capsys: Printed
) -> None:
    """The client waits until it is back and saves every answer; no question is asked twice."""
    out, asked = tmp_path / "a.jsonl", len(app.requests)
    file = written(tmp_path, "q.txt", [f"[[slow]] 年假 {n}" for n in range(4)])
    with ThreadPoolExecutor(1) as client:
        with served(app_server, lost="GET") as port:
            url = f"http://127.0.0.1:{port}"
            status = client.submit(run, "run", file, "--out", out, "--url", url)
            wait_until(lambda: len(app.requests) > asked, timeout=30)
        shown = wait_until(lambda: "".join(re.findall(".*trying again.*", capsys.readouterr().err)), timeout=30)
        with served(app_server, port):
            assert status.result(60) == 0

    assert re.search(f"127.0.0.1:{port}.*; trying again for up to 600 s", shown)
    assert "connected again" in capsys.readouterr().err
    items = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [item["content"] for item in items] == [app.expected_answer(item["text"]) for item in items]
    assert len(items) == len(app.requests) - asked == 4


class Worker(Replica):
    """A process that only works on batches, with the replica's environment."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        super().__init__(env, folder, command=("-m", "tools.batch", "work"))


def replicas_of(replica: Replica) -> list[str]:
    """Return the replicas' names as administrators see them."""
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    reply = requests.get(f"{replica.url}/api/admin/overview", headers=headers, timeout=30)
    return [one["name"] for one in reply.json()["data"]["replicas"]]


@pytest.fixture
def dify() -> Iterator[MockDify]:
    """A Dify that no other test uses."""
    with MockDify(slow=0.04) as mock:
        yield mock


@pytest.mark.full
@pytest.mark.scenario
def test_a_process_of_its_own_works_on_batches(redis_url: str, dify: MockDify, tmp_path: Path) -> None:
    """The web process stores the task; a worker processes it, serves health and metrics, and hands over on SIGTERM.

    Another worker completes the task. Administrators see it among the replicas.
    """
    settings = {"DATABASE_PATH": str(tmp_path / "laibao.db"), "BATCH_WORKER": "external", "BATCH_MAX_CONCURRENT": "2"}
    open_endpoint = {"WEBSOCKET_AUTH": "none", "RATE_LIMIT_IP": "off", "RATE_LIMIT_USER": "off", "DRAIN_SECONDS": "20"}
    env = settings_for(redis_url, **settings, **open_endpoint, **dify_settings(dify.base_url))
    texts = [f"[[slow]] 年假 {n}" for n in range(12)]
    with replicas(1, env, tmp_path) as (web,):
        tasks = f"{web.url}/api/batch/tasks"
        task_id = requests.post(tasks, json={"name": "q", "texts": texts}, timeout=30).json()["data"]["task_id"]
        workers = requests.get(f"{web.url}/api/batch/status", timeout=30).json()["data"]["workers"]
        first = Worker(env, tmp_path)
        try:
            first.wait_ready()
            wait_until(lambda: dify.open_streams, timeout=60)
            shown = wait_until(lambda: names if len(names := replicas_of(web)) == 2 else [], timeout=30)
            health = requests.get(f"{first.url}/healthz", timeout=30)
            counted = requests.get(f"{first.url}/metrics", timeout=30).text
            code = first.stop()
            asked = len(dify.requests)
            second = Worker(env, tmp_path)
            try:
                ended = ("completed", "failed")

                def task() -> Any:
                    reply = requests.get(f"{tasks}/{task_id}", timeout=30).json()["data"]
                    return reply["status"] in ended and reply

                reply = wait_until(task, timeout=120)
            finally:
                second.kill()
        finally:
            first.kill()

    assert (workers, health.text, code) == (0, "ok\n", 0)
    assert any(name.endswith(f":{first.process.pid}") for name in shown)
    assert "wechatlaibao_batch_lanes_busy" in counted
    assert 0 < asked < len(texts)
    assert reply["progress"]["completed"] == len(texts)
    assert len(dify.requests) == len(texts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "they need BATCH_ENABLED, and MYSQL_HOST or DATABASE_PATH"),
        ({"REDIS_URL": "ftp://nowhere"}, "REDIS_URL"),
        ({"DATABASE_PATH": "other.db", "HOST": "127.0.0.1"}, "the table laibao_feedback is of another origin"),
    ],
    ids=["no-sql", "wrong", "no-tables"],
)
def test_a_worker_that_cannot_start_prints_the_reason(
    changes: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """One line on standard error, status 1."""
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("other.db")) as other:
        other.execute("CREATE TABLE laibao_feedback (mood TEXT)")
    for name, value in {**settings_for("redis://127.0.0.1:1/0"), "PORT": str(free_port()), **changes}.items():
        monkeypatch.setenv(name, value)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert run("work") == 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err + printed.out
