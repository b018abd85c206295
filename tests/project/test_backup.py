"""docs/backup.md: its commands, run as they are on real servers, bring the data back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers.processes import RedisServer, free_port, require_binary
from tools.restore_drill import AFTER, BEFORE, PROGRAMS, TABLES

ROOT = Path(__file__).parents[2]
BACKUP = ROOT / "docs" / "backup.md"


@pytest.mark.full
def test_a_redis_with_append_only_files_is_restored(tmp_path: Path) -> None:
    """The snapshot of a Redis that keeps append-only files is what a Redis with such files has after the restore."""
    require_binary("redis-cli")
    save, restore = re.findall(r"^```sh\n(.*?redis-cli.*?)^```", BACKUP.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    folder, port = tmp_path / "redis", free_port()
    folder.mkdir()

    with RedisServer(aof=True) as first:
        with first.client() as client:
            client.set("conversation", "c1", ex=3600)
        run(save.replace("6379", str(first.port)), tmp_path)
    run(restore.replace("6379", str(port)).replace("/var/lib/redis", str(folder)), tmp_path)
    assert (folder / "appendonlydir").is_dir()
    with RedisServer(aof=True, options=("--dir", str(folder))) as restored, restored.client() as client:
        assert client.get("conversation") == "c1"
        assert 3000 < client.ttl("conversation") <= 3600


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_the_drill_brings_everything_back_that_should_be(tmp_path: Path) -> None:
    """Each restore of the drill ends with a ready gateway that has what its backups had, in docs/backup.md's order."""
    for program in PROGRAMS:
        require_binary(program)

    command = [sys.executable, "-m", "tools.restore_drill", "--rows", "100", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1100)
    restored = [json.loads(line) for line in done.stdout.splitlines()]

    assert done.returncode == 0, done.stdout + done.stderr
    assert [one["missing"] for one in restored] == [[]] * 4
    assert [one["continued"] for one in restored] == [True, True, False, True]
    assert [one["lost"]["answers"] for one in restored] == [0, AFTER, BEFORE + AFTER, AFTER]
    assert restored[0]["lost"]["rows"] == {}
    assert all(f"| {one['case']} |" in BACKUP.read_text("utf-8") for one in restored)


def test_the_documented_dump_has_every_table() -> None:
    """The tables of the dump in docs/backup.md are those of the stores."""
    (dump,) = re.findall(r"^mysqldump .*?> laibao.sql$", BACKUP.read_text("utf-8"), re.MULTILINE | re.DOTALL)

    assert set(re.findall(r"laibao_\w+", dump)) == set(TABLES)


def run(script: str, folder: Path) -> None:
    """Run the commands of a block of the document, with its backups in `folder`."""
    command = ["bash", "-ec", script.replace("/var/backups", str(folder))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
