"""docs/backup.md: its commands, run as they are on real servers, bring the data back."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.servers.processes import RedisServer, free_port, require_binary

BACKUP = Path(__file__).parents[2] / "docs" / "backup.md"


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


def run(script: str, folder: Path) -> None:
    """Run the commands of a block of the document, with its backups in `folder`."""
    command = ["bash", "-ec", script.replace("/var/backups", str(folder))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
