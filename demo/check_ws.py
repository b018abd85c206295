"""`python -m demo.check_ws`: start the product, ask a question on both WebSocket channels, print the last log lines.

Answers come from the mock Dify, or from a real one if DIFY_BASE_URL and DIFY_API_KEY are set. All processes and files
are removed at the end. Exit status: 0 both channels answered; 1 one did not, or the gateway does not run; 2 wrong
settings; 130 interrupted.
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

#: The realtime channel detects the question by its question mark.
QUESTION = "年假怎么申请？"
#: Channel → the frame that ends a complete answer.
ENDINGS = {
    "chat": '{"type": "chat", "role": "assistant", "status": "completed"}',
    "realtime": '{"type": "answer", "final": true}',
}
#: The frame that either channel sends if there is no answer.
FAILURE = '{"type": "error"}'
#: Timeout of an answer in seconds.
TIMEOUT = "120"
#: Exit status of the client after Ctrl-C.
INTERRUPTED = 130
LOG_LINES = 20


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Run the check and return the exit status."""
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
        # The gateway logs its last lines while it stops. They are printed after a failure too.
        afterwards.callback(_show_log, stage.gateway.log)
        yield stage


def _talk(stage: Stage) -> int:
    url = stage.gateway.url.replace("http://", "ws://")
    failed = []
    for channel, ending in ENDINGS.items():
        _say(f"--- {channel}: {url}{ws.PATHS[channel]}")
        whole = ["--expect", ending, "--reject", FAILURE, "--timeout", TIMEOUT]
        status = ws.main([channel, "--url", url, "--send", QUESTION, *whole])
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        if status:
            failed.append(channel)
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
    # Treat SIGTERM like Ctrl-C, so that every started process is stopped first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
