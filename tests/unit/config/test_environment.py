"""The environment: which values count as set, which variables are ignored, and the number of usable CPUs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from config.environment import available_cpus, read_environment
from config.errors import SettingsError
from tests.support.settings_values import settings


@pytest.mark.parametrize(
    ("content", "environ", "found"),
    [
        (
            b'PORT=1\nHOST="here"  # a comment\nDIFY_INPUTS={"a": "b"}\n',
            *({"PORT": "2"}, {"PORT": "2", "HOST": "here", "DIFY_INPUTS": '{"a": "b"}'}),
        ),
        # Compose and Kubernetes pass empty values on.
        (b"PORT=1\nHOST=\nLOCALE\n", {"PORT": "", "LOG_DIR": "  "}, {"PORT": "1"}),
        # A Kubernetes Secret often ends in a newline; a container usually has no file.
        (None, {"WECHAT_TOKEN": "fake\n"}, {"WECHAT_TOKEN": "fake"}),
        # Windows Notepad begins UTF-8 files with a byte order mark.
        ("APP_NAME=来宝\n".encode("utf-8-sig"), {}, {"APP_NAME": "来宝"}),
        # No variable is replaced: a password may contain its form.
        (b"PORT=1\nREDIS_PASSWORD=a${PORT}b$PORT\n", {}, {"PORT": "1", "REDIS_PASSWORD": "a${PORT}b$PORT"}),
    ],
    ids=["both", "empty", "no file", "BOM", "dollar"],
)
def test_the_environment_overrides_the_file(
    tmp_path: Path, content: bytes | None, environ: dict[str, str], found: dict[str, str]
) -> None:
    """`.env` supplies only the variables that the environment lacks; an empty value is unset, others are stripped."""
    file = tmp_path / ".env"
    if content is not None:
        file.write_bytes(content)

    assert read_environment(environ, str(file)) == found


def test_a_file_in_another_encoding_stops_the_start(tmp_path: Path) -> None:
    """The error says that a UTF-8 file is expected."""
    file = tmp_path / ".env"
    file.write_text("APP_NAME=来宝\n", encoding="gbk")

    with pytest.raises(SettingsError, match="UTF-8 file of NAME=value lines"):
        read_environment({}, str(file))


KUBERNETES = {
    "REDIS_PORT": "tcp://10.0.0.1:6379",
    "REDIS_PORT_6379_TCP": "tcp://10.0.0.1:6379",
    "REDIS_PORT_6379_TCP_ADDR": "10.0.0.1",
    "REDIS_PORT_6379_TCP_PORT": "6379",
    "REDIS_PORT_6379_TCP_PROTO": "tcp",
    "REDIS_SERVICE_HOST": "10.0.0.1",
    "REDIS_SERVICE_PORT": "tcp://10.0.0.2:6379",
    "REDIS_SERVICE_PORT_REDIS": "6379",
    "REDIS_SERVICE_SERVICE_HOST": "10.0.0.2",
    "MYSQL_SERVICE_SERVICE_PORT": "3306",
    "MYSQL_PORT": "tcp://10.0.0.3:3306",
}


def test_kubernetes_service_variables_are_ignored() -> None:
    """A Service named redis sets REDIS_PORT to an address, which causes neither an error nor a warning."""
    found = settings(**KUBERNETES)

    assert (found.redis_port, found.mysql_port, found.warnings) == (6379, 3306, ())


def test_an_unknown_name_with_our_prefix_warns() -> None:
    """The warning suggests a similar setting if there is one; names without our prefixes are ignored."""
    found = settings(STREAM_TLL="1", WECHAT_CORP="x", OTHER_NAME="y", WORKRES="3")

    assert found.warnings == (
        "STREAM_TLL is not a setting and has no effect; did you mean STREAM_TTL?",
        "WECHAT_CORP is not a setting and has no effect",
    )


@pytest.mark.parametrize(
    ("files", "usable", "cpus"),
    [
        ({}, 2, 2),
        ({}, 64, 4),
        ({"cpu.max": "max 100000\n"}, 3, 3),
        ({"cpu.max": "100000 100000\n"}, 8, 1),
        ({"cpu.max": "150000 100000\n"}, 8, 2),
        ({"cpu.max": "20000 100000\n"}, 8, 1),
        ({"cpu.max": "800000 100000\n"}, 3, 3),
        ({"cpu.max": "800000 100000\n"}, 16, 4),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3, 3),
        ({"cpu/cpu.cfs_quota_us": "200000\n"}, 3, 3),
        ({"cpu.max": "nonsense\n"}, 3, 3),
        ({"cpu.max": "100000 0\n"}, 3, 3),
    ],
)
def test_workers_follow_the_containers_cpu_limit(tmp_path: Path, files: dict[str, str], usable: int, cpus: int) -> None:
    """The smaller of the cgroup's quota (version 2 or 1) and the usable CPUs counts, at least 1 and at most 4."""
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)

    assert available_cpus(tmp_path, usable=usable) == cpus


def test_without_a_quota_the_affinity_mask_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process bound to one CPU gets one worker; on systems without affinity masks the machine's CPUs count."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert available_cpus(tmp_path) == 1

    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert available_cpus(tmp_path) == 3


def test_workers_overrides_the_number_of_cpus() -> None:
    """Without WORKERS the number of workers is between 1 and 4."""
    assert settings(WORKERS="7").workers == 7
    assert 1 <= settings().workers <= 4
