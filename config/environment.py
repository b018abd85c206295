"""What the process finds around it: the environment, the `.env` file, and the CPUs it may use."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic_settings import BaseSettings, DotEnvSettingsSource

from services.errors import SettingsError

#: Names that begin like this are ours; an unknown one is most likely a slip of the pen.
PREFIXES = (
    "WECHAT_", "DIFY_", "STREAM_", "REDIS_", "MYSQL_", "AUTH_", "BATCH_", "WEBSOCKET_", "LOG_", "RATE_LIMIT_",
    "OPENAI_", "CONTEXT_", "CUSTOM_RAG_", "SERPER_",
)  # fmt: skip
#: More processes share nothing but the machine; beyond four, more pods serve better.
MOST_WORKERS = 4

#: Kubernetes tells every pod where each Service is. A Service named `redis` arrives as `REDIS_PORT=tcp://10.0.0.1:6379`.
_SERVICE_NAME = re.compile(r"\w+_SERVICE_(HOST|PORT(_\w+)?)|\w+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def read_environment(env: Mapping[str, str], env_file: str | None) -> dict[str, str]:
    """Return the variables of `.env` with those of the environment over them.

    Values are stripped (a Secret made by `echo` ends in a newline). An empty value counts as unset, and so do the
    variables by which Kubernetes announces Services, `REDIS_PORT=tcp://…` among them.
    """
    pairs = [*_file_variables(env_file), *env.items()]
    return {name: value.strip() for name, value in pairs if value.strip() and not _is_service_variable(name, value)}


def _file_variables(env_file: str | None) -> Iterator[tuple[str, str]]:
    try:
        # utf-8-sig: Windows' Notepad begins a file with a byte order mark.
        source = DotEnvSettingsSource(
            BaseSettings, env_file=env_file, env_file_encoding="utf-8-sig", case_sensitive=True
        )
    except (OSError, UnicodeError) as exc:
        raise SettingsError(f"{env_file} cannot be read: {exc}; expected a UTF-8 file of NAME=value lines") from exc
    yield from ((name, value) for name, value in source.env_vars.items() if value is not None)


def _is_service_variable(name: str, value: str) -> bool:
    announces = name.endswith("_PORT") and _SERVICE_ADDRESS.match(value)
    return bool(announces or _SERVICE_NAME.fullmatch(name))


def unknown_names(given: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for every name that begins like ours and is not ours."""
    names = list(known)
    for name in sorted(set(given) - set(names)):
        if name.startswith(PREFIXES):
            yield f"{name} is not a setting and has no effect{did_you_mean(name, names)}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else ""


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup"), *, usable: int | None = None) -> int:
    """Return how many workers fit the CPUs this container may use: at least 1, at most 4.

    `usable` is the number of CPUs the scheduler lets this process use, `None` asks it; a quota of 1.5 CPUs counts as 2.
    """
    limit = float(usable or _usable_cpus())
    return max(1, min(MOST_WORKERS, math.ceil(min(limit, _quota(cgroup)))))


def _usable_cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux tells
        return os.cpu_count() or 1


def _quota(cgroup: Path) -> float:
    """Return the CPU quota in CPUs: version 2's one file, else version 1's two, else no limit."""
    try:
        try:
            quota, period = (cgroup / "cpu.max").read_text().split()
        except OSError:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        # Version 2 says "max" and version 1 says -1 where there is no limit.
        cpus = float("inf" if quota == "max" else quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
    return cpus if cpus > 0 else math.inf
