"""A process that has imported the modules of the product's gunicorn, and forks a gunicorn for each request.

A gunicorn started by itself spends 2.5 seconds of CPU on imports, one that is forked here 0.4. The child has its own
session, folder, environment, arguments and log, and runs gunicorn's entry point; the only difference from `python -m
gunicorn` is that most modules are loaded already. `prometheus_client` and gunicorn are not imported here, because they
read the environment or the current folder at import.

Requests and replies are lines of JSON on stdin and stdout; `tests/support/servers/forked_process.py` is the client.
"""

from gevent import monkey

monkey.patch_all()

# Nothing may be imported before the patch, as in gunicorn.conf.py.
# ruff: noqa: E402, F401
import json
import os
import runpy
import sys
from typing import Any

import gevent

import config.logging
import config.settings
import services.models
import utils.markdown.blocks
import utils.questions.files.process
import utils.sealed
from server import libraries

#: The functions before gevent's patch: gevent's own watch children with its event loop, which does not run here.
_fork = monkey.get_original("os", "fork")
_waitpid = monkey.get_original("os", "waitpid")


def serve() -> None:
    """Answer requests until stdin ends. In a child that is to become a gunicorn, return."""
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "poll" in request:
            reply = {"code": _exit_code(request["poll"])}
        elif child := _fork():
            reply = {"pid": child}
        else:
            _become(request)
            return
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
    os._exit(0)


def _exit_code(pid: int) -> int | None:
    found, status = _waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _become(request: dict[str, Any]) -> None:
    """Take on the session, folder, environment, arguments and log of the requested process."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    sys.argv = ["gunicorn", *request["arguments"]]
    gevent.reinit()


if __name__ == "__main__":
    libraries.share()
    if early := {"gunicorn", "prometheus_client"} & sys.modules.keys():
        sys.exit(f"the fork server imports what each gunicorn must import by itself: {', '.join(sorted(early))}")
    serve()
    runpy.run_module("gunicorn", run_name="__main__", alter_sys=True)
