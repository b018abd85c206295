"""The product installed as docs/deployment.md says, in a test's folder: the code, `venv` and `.env`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from configparser import RawConfigParser
from pathlib import Path

from tests.support.replicas import ROOT

DEPLOY = ROOT / "deploy"
WEB, BATCH = DEPLOY / "wechatlaibao@.service", DEPLOY / "wechatlaibao-batch.service"
SUPERVISOR = DEPLOY / "supervisor.conf"
#: The installation folder in the files of `deploy/`.
HOME = "/opt/wechatlaibao"
#: The product's files and packages in the project's folder.
FOLDERS = ["bootstrap", "channels", "config", "demo", "docs", "server", "services", "tools", "utils"]
PARTS = ["app.py", "gunicorn.conf.py", *FOLDERS]


def install(home: Path, settings: Mapping[str, str]) -> Path:
    """Create an installation of links to the code and this interpreter's environment, with its own .env; return it."""
    home.mkdir()
    for part in PARTS:
        (home / part).symlink_to(ROOT / part)
    (home / "venv").symlink_to(sys.prefix)
    write_settings(home, settings)
    return home


def write_settings(home: Path, settings: Mapping[str, str]) -> None:
    (home / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))


def unit_lines(unit: Path) -> dict[str, str]:
    """Return a unit's settings by name; of a repeated name the last."""
    lines = [line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def program(name: str) -> dict[str, str]:
    """Return a program of the supervisor file."""
    parser = RawConfigParser()
    parser.read_string(SUPERVISOR.read_text())
    return dict(parser[f"program:{name}"])
