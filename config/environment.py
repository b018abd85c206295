"""Read the process's surroundings: environment variables, the `.env` file, and the number of usable CPUs."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from dotenv import dotenv_values

from config.errors import SettingsError
from config.problems import Invalid, Problem

#: Ending of the variable that names a file with a setting's value.
FILE = "_FILE"
#: Prefixes of the product's variables; an unknown name with one of them is probably a typo.
PREFIXES = (
    "WECHAT_", "DIFY_", "STREAM_", "REDIS_", "MYSQL_", "AUTH_", "BATCH_", "WEBSOCKET_", "LOG_", "RATE_LIMIT_",
    "OPENAI_", "CONTEXT_", "CUSTOM_RAG_", "SERPER_", "HANDOFF_", "ALERT_", "WECOM_", "WEB_", "WEBHOOK_", "BODIES_",
    "UPLOADS_", "MIGRATION_", "QUESTION_", "REPORT_",
)  # fmt: skip
#: Upper limit of the default number of workers. Beyond four processes, more pods scale better than a larger pod.
MOST_WORKERS = 4

#: Variables that Kubernetes injects for each Service: a Service named `redis` sets `REDIS_PORT=tcp://10.0.0.1:6379`.
_SERVICE_NAME = re.compile(r"\w+_SERVICE_(HOST|PORT(_\w+)?)|\w+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def read_environment(env: Mapping[str, str], env_file: str | None) -> dict[str, str]:
    """Return the variables of `.env`, overridden by those of the environment.

    Values are stripped (a Secret made by `echo` ends in a newline). Empty values count as unset, and so do the
    variables that Kubernetes injects for Services, such as `REDIS_PORT=tcp://…`.
    """
    pairs = [*_file_variables(env_file), *env.items()]
    return {name: value.strip() for name, value in pairs if value.strip() and not _is_service_variable(name, value)}


def with_files(given: Mapping[str, str], known: Iterable[str]) -> dict[str, str]:
    """Return the variables, with `NAME_FILE` of each known name replaced by `NAME` and that file's content.

    Contents are stripped as values are, and an empty file counts as not set.

    Raises:
        Invalid: a file cannot be read, or both `NAME` and `NAME_FILE` are set.
    """
    made, problems = dict(given), []
    for name in known:
        path = made.pop(name + FILE, None)
        if path is None:
            continue
        if name in made:
            problems.append(Problem(name + FILE, path, f"nothing, because {name} is set: it is one or the other"))
            continue
        try:
            content = Path(path).read_text(encoding="utf-8-sig").strip()
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or "no UTF-8"
            problems.append(Problem(name + FILE, path, f"a UTF-8 file that holds {name} ({reason})"))
            continue
        if content:
            made[name] = content
    if problems:
        raise Invalid(problems)
    return made


def _file_variables(env_file: str | None) -> Iterator[tuple[str, str]]:
    if env_file is None:
        return
    try:
        # utf-8-sig skips the byte order mark that Windows Notepad writes at the start of a file. A password may contain
        # ${…}: nothing is replaced.
        given = dotenv_values(env_file, encoding="utf-8-sig", interpolate=False)
    except (OSError, UnicodeError) as exc:
        raise SettingsError(f"{env_file} cannot be read: {exc}; expected a UTF-8 file of NAME=value lines") from exc
    yield from ((name, value) for name, value in given.items() if value is not None)


def _is_service_variable(name: str, value: str) -> bool:
    announces = name.endswith("_PORT") and _SERVICE_ADDRESS.match(value)
    return bool(announces or _SERVICE_NAME.fullmatch(name))


def unknown_names(given: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """Yield a warning for every name that has one of our prefixes but is not a setting."""
    names = list(known)
    for name in sorted(set(given) - set(names)):
        if name.startswith(PREFIXES):
            yield f"{name} is not a setting and has no effect{did_you_mean(name, names)}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else ""


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup"), *, usable: int | None = None) -> int:
    """Return the number of workers for the CPUs of this container: at least 1, at most 4.

    `usable` is the number of CPUs in the process's affinity mask; `None` reads it from the system. A cgroup quota of
    1.5 CPUs counts as 2.
    """
    limit = float(usable or _usable_cpus())
    return max(1, min(MOST_WORKERS, math.ceil(min(limit, _quota(cgroup)))))


def _usable_cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # exists on Linux only
        return os.cpu_count() or 1


def _quota(cgroup: Path) -> float:
    """Return the cgroup's quota in CPUs, from the file of version 2 or the two of version 1; without them infinity."""
    try:
        try:
            quota, period = (cgroup / "cpu.max").read_text().split()
        except OSError:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        # "max" (version 2) and -1 (version 1) mean that there is no limit.
        cpus = float("inf" if quota == "max" else quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
    return cpus if cpus > 0 else math.inf
