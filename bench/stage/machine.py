"""Describes the machine of a benchmark: what the figures depend on, and the core of each process."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: Packages whose versions affect the figures most; the version is "" if one is not installed.
PACKAGES = ("gunicorn", "gunicorn_h1c", "gevent", "flask", "redis", "hiredis", "cryptography", "orjson", "urllib3")
ONE_CORE = ("one core: servers, load generator, Redis and mock Dify share it",)
#: Which process runs on which core, on a machine with two or more.
CORES = (
    "polls, questions, growth.length, growth.live, sockets: one worker, of the floor as of the product, on core 0; "
    "load generator, Redis and mock Dify on core 1",
    "streams, first_word, scale: one replica of two workers; growth.replicas: 1, 2 and 4 replicas of one worker; "
    "these, load generators, Redis and mock Dify on all cores; what they take of them are rows of the table",
    "start: one worker, on any core",
)


def describe(scale: float) -> dict[str, Any]:
    """Return the machine's description for results.json; `scale` is the factor of all durations."""
    redis_version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=False).stdout
    return {
        "scale": scale,
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        "cpu": _first(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()),
        "memory_gib": round(int(_first(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())) / 1024**2),
        "kernel": f"{platform.system()} {platform.release()}",
        "busy_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "redis_server": _first(r"v=(\S+)", redis_version),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def head(machine: Mapping[str, Any]) -> list[str]:
    """Return the lines above the table: the machine, its software, and the core of each process."""
    software = {"Python": machine["python"], "redis-server": machine["redis_server"], **machine["packages"]}
    versions = ", ".join(f"{name} {number or 'not installed'}" for name, number in software.items())
    hardware = f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, {machine['kernel']}"
    trial = f"; a trial of {machine['scale']:g} of the usual size, not to go by" if machine["scale"] != 1 else ""
    run = f"{machine['busy_before']:g} processes busy before; measured {machine['measured']}{trial}"
    return [f"{hardware}; {run}", versions, *(CORES if machine["cores"] > 1 else ONE_CORE)]


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1].strip() if found else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
