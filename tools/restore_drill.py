"""`python -m tools.restore_drill`: restores backups on servers of its own, and prints what is back, and after how long.

    python -m tools.restore_drill [--rows N] [--json]

A gateway with MariaDB, Redis (append-only file) and a mock Dify answers questions; backups are made as docs/backup.md
says; two more questions follow; then all processes are killed. Each row of the table is a restore into empty servers:
seconds from the first command until the gateway is ready, and what it finds. All of it runs on 127.0.0.1, at free ports
and in a temporary folder, which is removed. `--rows` fills the question log first. --json prints an object a line.
It needs mariadbd, mariadb-install-db, mariadb, mariadb-dump, redis-server and redis-cli.
Exit status: 0 everything that should be back is; 1 not, or a program is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess  # nosec B404 - starts servers, with fixed arguments
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import pymysql
import redis
import requests

import bootstrap.container  # noqa: F401 - declares the tables of all stores
from services.sql.migrator import printed
from services.sql.schema import HEAD, METADATA, VERSION_TABLE
from tools._pipes import until_nobody_reads

if TYPE_CHECKING:
    from demo.mocks.dify.server import MockDify

ROOT = Path(__file__).parents[1]
PROGRAMS = ("mariadbd", "mariadb-install-db", "mariadb", "mariadb-dump", "redis-server", "redis-cli")
DATABASE = "laibao"
KEY, ADMIN = "drill-key-of-nobody", "drill-token-of-nobody"
HEADERS = {"X-API-Key": KEY}
TABLES = (VERSION_TABLE, *sorted(METADATA.tables))
#: Seconds within which a server or the gateway answers.
START_SECONDS = 120.0
#: Questions before and after the backup, and those of the batch.
BEFORE, AFTER, BATCHED = 3, 2, 2


class Kept(NamedTuple):
    """What a gateway has: rows by table, conversations in Redis, and answers that a program can still read."""

    rows: Mapping[str, int]
    conversations: int
    answers: int


class Restored(NamedTuple):
    """A restore and its outcome; `lost` is what the last moment before the loss had more than this."""

    case: str
    seconds: float
    back: Kept
    lost: Kept
    #: Whether Dify was asked in the conversation from before.
    continued: bool
    #: What should be back and is not.
    missing: tuple[str, ...]


class Backups(NamedTuple):
    """What is left of the lost machine."""

    dump: Path | None = None
    snapshot: Path | None = None
    #: The folder of the machine whose disks survived.
    disks: Path | None = None


NO_BACKUPS = Backups()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the drill; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.restore_drill", description="Restore backups, on trial.")
    parser.add_argument("--rows", type=int, default=10_000, metavar="N", help="rows of the question log (10000)")
    parser.add_argument("--json", action="store_true", help="print an object a line")
    options = parser.parse_args(argv)
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        print(f"missing: {', '.join(missing)} (Debian: mariadb-server, mariadb-client, redis)", file=sys.stderr)
        return 1
    wrong = False
    with TemporaryDirectory(prefix="restore-drill-") as folder:
        for restored in drill(Path(folder), options.rows):
            wrong = wrong or bool(restored.missing)
            print(_as_json(restored) if options.json else _as_text(restored), flush=True)
    return 1 if wrong else 0


def drill(folder: Path, rows: int) -> Iterator[Restored]:
    """Make the data and its backups, and yield each restore."""
    # Imported here: an image of the gateway has neither the mock nor the servers' programs.
    from demo.mocks.dify.server import MockDify

    with MockDify() as dify:
        with Machine(folder / "company", dify) as company:
            company.run_gateway()
            streams = [company.ask() for _ in range(BEFORE)]
            company.rate(streams[0])
            company.run_batch()
            company.name_administrator()
            company.save_rules()
            company.settle(BEFORE + BATCHED)
            company.fill_log(rows)
            company.back_up(folder)
            saved = company.kept(streams)
            streams += [company.ask() for _ in range(AFTER)]
            company.settle(BEFORE + BATCHED + AFTER)
            last = company.kept(streams)
        snapshot, dump = folder / "dump.rdb", folder / "laibao.sql"
        older = saved._replace(rows={name: saved.rows[name] for name in company.older_tables})
        without_redis = saved._replace(conversations=0, answers=0)
        cases = (
            ("the disks: MariaDB's data, Redis's append-only file", last, Backups(disks=company.folder)),
            ("a fresh machine: the dump, Redis's snapshot", saved, Backups(dump, snapshot)),
            ("a fresh machine: the dump, an empty Redis", without_redis, Backups(dump)),
            (
                "a fresh machine: a dump one migration older, the snapshot",
                older,
                Backups(folder / "older.sql", snapshot),
            ),
        )
        for number, (case, expected, backups) in enumerate(cases):
            with Machine(folder / f"restored-{number}", dify) as fresh:
                yield fresh.restored(case, expected, last, backups, streams)


class Machine:
    """MariaDB, Redis and a gateway of their own in a folder. Leaving the block kills them."""

    def __init__(self, folder: Path, dify: MockDify) -> None:
        folder.mkdir()
        self.folder = folder
        #: The tables of the version before the last migration, once `back_up` has made them.
        self.older_tables: list[str] = []
        self._dify = dify
        self._sql_port, self._redis_port, self._port = free_ports(3)
        self._url = f"http://127.0.0.1:{self._port}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._settings = {
            **{"HOST": "127.0.0.1", "PORT": str(self._port), "WORKERS": "1", "AUTH_MODE": "none", "API_KEYS": KEY},
            **{"ADMIN_TOKEN": ADMIN, "SECRET_KEY": "drill-secret-of-nobody", "DIFY_API_KEY": "app-drill"},
            **{"DIFY_BASE_URL": dify.base_url, "REDIS_URL": f"redis://127.0.0.1:{self._redis_port}/1"},
            **{"MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(self._sql_port), "MYSQL_DATABASE": DATABASE},
            **{"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        }

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def run_gateway(self, backups: Backups = NO_BACKUPS) -> float:
        """Bring the servers and then the gateway up, from backups if there are any; return the seconds."""
        began = time.monotonic()
        if backups.disks:
            for name in ("sql", "redis"):
                shutil.copytree(backups.disks / name, self.folder / name, ignore=shutil.ignore_patterns("sock"))
        self._run_sql(backups.dump)
        self._run_redis(backups.snapshot)
        self._start("gunicorn", [sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py")])
        wait_for(lambda: requests.get(f"{self._url}/readyz", timeout=5).ok, "the gateway")
        return time.monotonic() - began

    def _run_sql(self, dump: Path | None) -> None:
        data, root = self.folder / "sql", ["--user=root"] if os.geteuid() == 0 else []
        is_new = not data.exists()
        if is_new:
            run(["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
                 "--skip-test-db", *root])  # fmt: skip
        self._start("mariadbd", ["mariadbd", "--no-defaults", *root, f"--datadir={data}", f"--port={self._sql_port}",
                                 f"--socket={data / 'sock'}", f"--tmpdir={self.folder}", "--bind-address=127.0.0.1",
                                 "--skip-name-resolve"])  # fmt: skip
        wait_for(lambda: self._sql("", "SELECT 1"), "mariadbd")
        if is_new:
            self._sql("", f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
        if dump:
            run(["mariadb", *self._client, DATABASE], given=dump.read_bytes())

    def _run_redis(self, snapshot: Path | None) -> None:
        """Start it with an append-only file; with a snapshot start without, and let Redis write one of it."""
        folder = self.folder / "redis"
        folder.mkdir(exist_ok=True)
        if snapshot:
            shutil.copy(snapshot, folder / "dump.rdb")
        self._start("redis", ["redis-server", "--port", str(self._redis_port), "--bind", "127.0.0.1", "--dir",
                              str(folder), "--save", "", "--appendonly", "no" if snapshot else "yes"])  # fmt: skip
        with redis.Redis(port=self._redis_port) as client:
            wait_for(client.ping, "redis-server")
            if snapshot:
                client.config_set("appendonly", "yes")
                wait_for(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "the append-only file")

    def _start(self, name: str, command: Sequence[str]) -> None:
        # mariadbd and Redis take nothing of these variables.
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self._settings, stdout=log, stderr=log, start_new_session=True
            )  # nosec B603
        self._processes.append(process)

    def restored(self, case: str, expected: Kept, last: Kept, backups: Backups, streams: Sequence[str]) -> Restored:
        """Restore, and compare with what is expected and with the last moment before the loss."""
        seconds = self.run_gateway(backups)
        back, known = self.kept(streams), set(self._dify.conversations)
        self.ask()
        goes_on = self._dify.requests[-1].body.get("conversation_id") in known
        missing = [name for name in expected.rows if back.rows[name] < expected.rows[name]]
        missing += [name for name in ("conversations", "answers") if getattr(back, name) < getattr(expected, name)]
        missing += ["a conversation's memory"] if expected.conversations and not goes_on else []
        revision = self._sql(DATABASE, f"SELECT * FROM {VERSION_TABLE}")  # nosec B608
        missing += ["the migration"] if revision != [(HEAD,)] else []
        return Restored(case, round(seconds, 1), back, lost(last, back), goes_on, tuple(missing))

    def ask(self) -> str:
        """Ask a question in one conversation; return the answer's stream id."""
        body = {"query": "年假怎么申请？", "conversation": "drill"}
        return str(self._call("POST", "/api/chat", body)["stream_id"])

    def rate(self, stream_id: str) -> None:
        self._call("POST", f"/api/chat/{stream_id}/feedback", {"rating": "like"})

    def run_batch(self) -> None:
        """Run a batch of two questions to its end."""
        task = self._call("POST", "/api/batch/tasks", {"name": "drill", "texts": ["一", "二"]})["task_id"]
        wait_for(lambda: self._call("GET", f"/api/batch/tasks/{task}")["status"] == "completed", "the batch")

    def name_administrator(self) -> None:
        """Make a token, which also makes a row of the audit."""
        command = [sys.executable, "-m", "tools.admin", "token", "create", "drill", "viewer"]
        run(command, cwd=self.folder, env=self._settings)

    def save_rules(self) -> None:
        """Save a version of the rules of who may ask."""
        body, headers = {"text": "- {allow: true}", "base": 0}, {"Authorization": f"Bearer {ADMIN}"}
        requests.put(f"{self._url}/api/admin/rules/access", json=body, headers=headers, timeout=60).raise_for_status()

    def settle(self, questions: int) -> None:
        """Wait until SQL has counted these questions, which writes their rows of the log too, and has the rating."""
        least = {"laibao_usage_streams": questions, "laibao_feedback": 1, "laibao_batch_tasks": 1}
        wait_for(lambda: all(self._count(name) >= count for name, count in least.items()), "the log")

    def fill_log(self, rows: int) -> None:
        """Add copies of one row to the question log."""
        names = [column.name for column in METADATA.tables["laibao_question_log"].columns if column.name != "id"]
        copied = ["CONCAT('drill-', seq)" if name == "stream_id" else f"`{name}`" for name in names]
        columns, values = ", ".join(f"`{name}`" for name in names), ", ".join(copied)
        one = f"(SELECT * FROM laibao_question_log LIMIT 1) one JOIN seq_1_to_{rows}"  # nosec B608 - names of columns
        self._sql(DATABASE, f"INSERT INTO laibao_question_log ({columns}) SELECT {values} FROM {one}")  # nosec B608

    def back_up(self, folder: Path) -> None:
        """Make the backups of docs/backup.md, and a dump as the version before the last migration would make it."""
        dump = ["mariadb-dump", *self._client, "--single-transaction"]
        (folder / "laibao.sql").write_bytes(run([*dump, DATABASE, *TABLES]))
        run(["redis-cli", "-p", str(self._redis_port), "--rdb", str(folder / "dump.rdb")])
        self._sql("", "CREATE DATABASE older CHARACTER SET utf8mb4")
        for _, statements in list(printed("mysql", ""))[:-1]:
            self._sql("older", *statements)
        found = [name for (name,) in self._sql("older", "SHOW TABLES")]
        self.older_tables = [name for name in found if name != VERSION_TABLE]
        for name in self.older_tables:
            columns = ", ".join(f"`{row[0]}`" for row in self._sql("older", f"SHOW COLUMNS FROM {name}"))
            self._sql("older", f"INSERT INTO {name} ({columns}) SELECT {columns} FROM {DATABASE}.{name}")  # nosec B608
        (folder / "older.sql").write_bytes(run([*dump, "older", *found]))

    def kept(self, streams: Sequence[str]) -> Kept:
        """Return what this gateway has; `streams` are the answers to look for."""
        with redis.Redis(port=self._redis_port, db=1) as client:
            conversations = sum(1 for _ in client.scan_iter("dify_conversation:*"))
        found = (requests.get(f"{self._url}/api/chat/{one}", headers=HEADERS, timeout=30).ok for one in streams)
        return Kept({name: self._count(name) for name in METADATA.tables}, conversations, sum(found))

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        reply = requests.request(method, f"{self._url}{path}", json=body, headers=HEADERS, timeout=60)
        reply.raise_for_status()
        return reply.json()["data"]

    @property
    def _client(self) -> list[str]:
        return ["--no-defaults", "--host=127.0.0.1", f"--port={self._sql_port}", "--user=root"]

    def _count(self, name: str) -> int:
        return int(self._sql(DATABASE, f"SELECT COUNT(*) FROM {name}")[0][0])  # nosec B608 - a table of ours

    def _sql(self, database: str, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as root over one connection; return the rows of the last one."""
        with (
            closing(
                pymysql.connect(
                    host="127.0.0.1", port=self._sql_port, user="root", database=database or None, autocommit=True
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())


def run(command: Sequence[str], given: bytes = b"", **options: Any) -> bytes:
    """Run a program to its end; return its output."""
    done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=600, **options)  # nosec B603
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stderr.decode(errors='replace')[-500:]}")
    return bytes(done.stdout)


def wait_for(ready: Callable[[], Any], what: str) -> None:
    """Wait until a call returns something true and raises nothing."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with suppress(requests.RequestException, redis.RedisError, pymysql.MySQLError):
            if ready():
                return
        time.sleep(0.05)
    raise SystemExit(f"{what} is not ready after {START_SECONDS:g} s")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def lost(last: Kept, back: Kept) -> Kept:
    """Return what is no longer there."""
    rows = {name: count - back.rows[name] for name, count in last.rows.items() if count > back.rows[name]}
    return Kept(rows, last.conversations - back.conversations, last.answers - back.answers)


def _as_json(restored: Restored) -> str:
    return json.dumps({**restored._asdict(), "back": restored.back._asdict(), "lost": restored.lost._asdict()})


def _as_text(restored: Restored) -> str:
    back, gone = restored.back, restored.lost
    rows = ", ".join(f"{count} of {name}" for name, count in gone.rows.items()) or "none"
    return "\n".join(
        [
            f"{restored.case}: ready after {restored.seconds:g} s ({restored.seconds / 60:.1f} minutes)",
            f"  back: {sum(back.rows.values())} rows, {back.answers} answers; "
            f"the conversation {'goes on' if restored.continued else 'begins anew'}",
            f"  lost: rows: {rows}; answers: {gone.answers}",
            *([f"  MISSING: {', '.join(restored.missing)}"] if restored.missing else []),
        ]
    )


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
