"""The libraries that the master loads before it forks."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.replicas import ROOT, settings_for

#: Prints what the master has loaded of the product, then the libraries that a worker loads beside those.
PROGRAM = """
from gevent import monkey
monkey.patch_all()
import importlib.metadata, os, sys
import gunicorn.workers.ggevent, config.settings, server.reloads, server.worker
from server import libraries
before = set(sys.modules)
libraries.share()
ours = {"app", "bootstrap", "channels", "config", "server", "services", "utils"}
print(sorted(name for name in set(sys.modules) - before if name.split(".")[0] in ours))
shared = {name.split(".")[0] for name in sys.modules}
from app import create_app
create_app()
installed = set(importlib.metadata.packages_distributions())
print(sorted(({name.split(".")[0] for name in sys.modules} - shared) & installed))
sys.stdout.flush()
os._exit(0)
"""


def test_a_worker_loads_no_library_by_itself() -> None:
    """But prometheus_client, which reads its folder at import. The product's own modules are each worker's."""
    env = {**os.environ, **settings_for("redis://127.0.0.1:1/0"), "PYTHONPATH": str(ROOT)}
    env.pop("PROMETHEUS_MULTIPROC_DIR", None)

    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
    added, apart = [line for line in done.stdout.splitlines() if line.startswith("[")]

    assert added == "[]"
    assert apart == "['prometheus_client']"
