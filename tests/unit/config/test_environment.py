"""The environment: which values count as set, which variables are ignored, and the number of usable CPUs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from config.environment import available_cpus, read_environment, with_files
from config.errors import SettingsError
from config.settings import Settings
from tests.support.settings_values import LEAST, refusal, settings

NAMES = [field.upper() for field in Settings.model_fields]


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


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_read_from_a_file(name: str, tmp_path: Path) -> None:
    """`NAME_FILE` sets `NAME` to the file's content without its last line break; a file and a value are an error."""
    file = tmp_path / "value"
    file.write_bytes(b"the value\r\n")
    named, gone, folder = {f"{name}_FILE": str(file)}, {f"{name}_FILE": str(tmp_path / "gone")}, {f"{name}_FILE": "/"}

    assert f"{name}_FILE" not in NAMES
    assert with_files(named, NAMES) == {name: "the value"}
    assert refusal(**named, **{name: "other"}) == (
        f"{name}_FILE={str(file)!r} is wrong: expected nothing, because {name} is set: it is one or the other"
    ).replace(str(file), shortened(file))
    for wrong, reason in ((gone, "No such file or directory"), (folder, "Is a directory")):
        assert refusal(**{name: ""}, **wrong).endswith(f"is wrong: expected a UTF-8 file that holds {name} ({reason})")


def shortened(path: Path) -> str:
    """Return a path as error lines show it."""
    return str(path) if len(str(path)) <= 80 else str(path)[:80] + "…"


def test_files_work_like_values(tmp_path: Path) -> None:
    """Lists, numbers and a byte order mark are read; an empty file and an empty path count as not set."""
    keys, port, empty = tmp_path / "keys", tmp_path / "port", tmp_path / "empty"
    keys.write_text("one-key,shop=other-key\n")
    port.write_bytes("5005\n".encode("utf-8-sig"))
    empty.write_text("\n")

    found = settings(
        API_KEYS_FILE=str(keys), PORT="", PORT_FILE=str(port), SECRET_KEY_FILE=str(empty), LOCALE="en", LOCALE_FILE=""
    )

    assert [key.get_secret_value() for key in found.api_keys] == ["one-key", "shop=other-key"]
    assert (found.port, found.secret_key, found.locale, found.warnings) == (5005, (), "en", ())


def test_wrong_files_stop_the_start_with_one_line(tmp_path: Path) -> None:
    """The line names each of them, also one that is no text; a required setting's empty file leaves it missing."""
    binary, empty = tmp_path / "b", tmp_path / "e"
    binary.write_bytes(b"\xff\xfe\x00")
    empty.touch()

    assert refusal(ADMIN_TOKEN_FILE="/gone", API_KEYS_FILE=str(binary)) == (
        "ADMIN_TOKEN_FILE='/gone' is wrong: expected a UTF-8 file that holds ADMIN_TOKEN (No such file or directory) "
        "(also: API_KEYS_FILE)"
    )
    assert refusal(API_KEYS_FILE=str(binary)).endswith("a UTF-8 file that holds API_KEYS (no UTF-8)")
    without = {**LEAST, "DIFY_API_KEY": "", "DIFY_API_KEY_FILE": str(empty)}
    assert refusal(**without).startswith("DIFY_API_KEY is missing")


def test_a_misspelt_name_of_a_file_warns() -> None:
    """The name of a file is known for each setting, and for nothing else."""
    assert settings(WECHAT_TOKN_FILE="/gone").warnings == (
        "WECHAT_TOKN_FILE is not a setting and has no effect; did you mean WECHAT_TOKEN_FILE?",
    )


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
