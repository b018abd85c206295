"""`python -m demo.check_ws`: start the product with all it needs, talk to both of its sockets, and show what it logged.

The answers are the mock Dify's, or a real one's with DIFY_BASE_URL and DIFY_API_KEY. Nothing of it is left afterwards.
Exit status: 0 both answered; 1 one did not, or the gateway does not run; 2 it could not begin; 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from demo.gateway_process import GatewayFailed
from demo.mocks.dify.server import MockDify
from demo.stage import DIFY_KEY, CannotBegin, Stage, real_dify, running_stage
from tools import ws

#: Its question mark is what the realtime socket waits for.
QUESTION = "年假怎么申请？"
#: What each socket says at the end of a whole answer.
ENDINGS = {
    "chat": '{"type": "chat", "role": "assistant", "status": "completed"}',
    "realtime": '{"type": "answer", "final": true}',
}
#: What either says when there is no answer.
FAILURE = '{"type": "error"}'
#: Seconds an answer may take.
PATIENCE = "120"
#: The exit status of Ctrl-C, which the client has taken.
INTERRUPTED = 130
LOG_LINES = 20


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Do it all; return the exit status."""
    try:
        settings = real_dify(environ)
        with tempfile.TemporaryDirectory(prefix="laibao-check-") as folder, _running(Path(folder), settings) as stage:
            return _talk(stage)
    except KeyboardInterrupt:
        return INTERRUPTED
    except CannotBegin as exc:
        print(exc, file=sys.stderr)
        return 2
    except GatewayFailed as exc:
        print(exc, file=sys.stderr)
        return 1


@contextmanager
def _running(folder: Path, settings: Mapping[str, str]) -> Iterator[Stage]:
    with ExitStack() as afterwards, ExitStack() as stack:
        if not settings:
            dify = stack.enter_context(MockDify())
            settings = {"DIFY_BASE_URL": dify.base_url, "DIFY_API_KEY": DIFY_KEY}
        stage = stack.enter_context(running_stage(folder, {**settings, "LOG_LEVEL": "INFO"}))
        # The gateway's last lines come while it ends; they are shown also when something failed.
        afterwards.callback(_show_log, stage.gateway.log)
        yield stage


def _talk(stage: Stage) -> int:
    url = stage.gateway.url.replace("http://", "ws://")
    failed = []
    for door, ending in ENDINGS.items():
        _say(f"--- {door}: {url}{ws.PATHS[door]}")
        whole = ["--expect", ending, "--reject", FAILURE, "--timeout", PATIENCE]
        status = ws.main([door, "--url", url, "--send", QUESTION, *whole])
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        if status:
            failed.append(door)
    _say(f"--- {'no whole answer from: ' + ', '.join(failed) if failed else 'both sockets answered'}")
    return 1 if failed else 0


def _show_log(log: Path) -> None:
    lines = log.read_text("utf-8", "replace").splitlines()
    _say(f"--- the last of the gateway's {len(lines)} log lines")
    for line in lines[-LOG_LINES:]:
        _say(line)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    # An end from outside is an interruption: whatever was started is ended first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
