"""`python -m demo`: run the whole product on one machine, with a page (or the terminal) in place of WeCom.

The page is on PORT, the gateway on PORT + 1; PORT redirects to the gateway's own pages.

Exit status: 0 stopped normally; 1 no answer, or the gateway does not run; 2 wrong settings; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

from flask import Flask

from demo.console import ask
from demo.gateway_process import GatewayFailed
from demo.page.cast import DIFY_MODES, PEOPLE
from demo.page.conversations import Conversations
from demo.page.server import PageServer, create_page
from demo.stage import AES_KEY, API_KEY, BOT_ID, TOKEN, CannotBegin, Stage, real_dify, running_stage, websocket_chosen
from demo.wecom.simulator import CallbackFailed, RuleBroken
from tools._pipes import until_nobody_reads

PORT = "8080"
HIGHEST = 65535
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the demo until it is interrupted, or until the question of `--ask` is answered."""
    options = _options(argv, environ)
    try:
        with _ending_on_signals(), tempfile.TemporaryDirectory(prefix="laibao-demo-") as folder:
            return _answer(options, Path(folder), environ) if options.ask else _serve(Path(folder), environ)
    except KeyboardInterrupt:
        return 130 if options.ask else 0
    except CannotBegin as exc:
        print(exc, file=sys.stderr)
        return 2
    except (GatewayFailed, CallbackFailed, RuleBroken) as exc:
        print(exc, file=sys.stderr)
        return 1


def _options(argv: Sequence[str] | None, environ: Mapping[str, str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description="The whole product with a simulated WeCom.")
    parser.add_argument("--ask", metavar="TEXT", default=environ.get("ASK", ""), help="ask here and end; or ASK=TEXT")
    parser.add_argument("--user", default="zhangsan", choices=[person.id for person in PEOPLE], help="who asks")
    parser.add_argument("--dify", default="normal", choices=[mode.id for mode in DIFY_MODES], help="what Dify does")
    return parser.parse_args(argv)


def _answer(options: argparse.Namespace, folder: Path, environ: Mapping[str, str]) -> int:
    websocket = websocket_chosen(environ)
    with (
        running_stage(folder, real_dify(environ), websocket=websocket) as stage,
        closing(stage.user(options.user)) as user,
    ):
        if stage.set_mode:
            stage.set_mode(options.dify)
        if ask(user, options.ask, show=_say):
            return 0
        print(stage.gateway.last_warning(), file=sys.stderr)
        return 1


def _serve(folder: Path, environ: Mapping[str, str]) -> int:
    settings, websocket = real_dify(environ), websocket_chosen(environ)
    port = _port(environ.get("PORT") or PORT)
    with (
        _listener(port) as listener,
        running_stage(folder, settings, port=_gateway_port(port), websocket=websocket) as stage,
    ):
        with closing(Conversations(stage.user)) as talks, PageServer(_page(talks, stage), listener) as page:
            _say(_addresses(page.url, stage))
            while stage.gateway.running:
                time.sleep(0.2)
        raise stage.gateway.failure()


def _page(talks: Conversations, stage: Stage) -> Flask:
    return create_page(talks, stage.set_mode, gateway=stage.gateway.url, push=stage.push)


def _addresses(page: str, stage: Stage) -> str:
    callback = {"callback": stage.callback_url, "token": TOKEN, "AES key": AES_KEY}
    bot = {"WeCom": stage.long_connection.url, "bot": BOT_ID} if stage.long_connection else callback
    lines = {
        "page": page,
        "chat": f"{stage.gateway.url}/chat",
        "realtime": f"{stage.gateway.url}/realtime",
        "batch": f"{stage.gateway.url}/batch",
        "docs": f"{stage.gateway.url}/docs",
        "API key": API_KEY,
        **bot,
        "log": str(stage.gateway.log),
        "Dify": "simulated" if stage.set_mode else "real",
    }
    return "\n".join([*(f"{name:>9}  {value}" for name, value in lines.items()), "Ctrl-C ends all of it."])


def _port(given: str) -> int:
    """Parse the page's port. The gateway uses the next one; with 0 both use any free port."""
    if not given.isdecimal() or int(given) >= HIGHEST:
        raise CannotBegin(
            f"PORT={given} is not a port: a number from 0 to {HIGHEST - 1}, as the next one is needed too."
        )
    return int(given)


def _gateway_port(port: int) -> int:
    """Return the gateway's port after checking that it is free, before the gateway is started."""
    if port:
        _listener(port + 1, of=port).close()
    return port + 1 if port else 0


def _listener(port: int, *, of: int | None = None) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=64)
    except OSError as exc:
        use = "" if of is None else f", which the gateway needs with PORT={of}"
        other = 8090 if (of or port) < 8090 else (of or port) + 10
        raise CannotBegin(f"Port {port} is not free ({exc.strerror}){use}: try PORT={other}.") from None


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Turn the first signal of `ENDINGS` into KeyboardInterrupt and ignore later ones, so that cleanup completes."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        for ending in ENDINGS:
            signal.signal(ending, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {ending: signal.signal(ending, interrupt) for ending in ENDINGS}
    try:
        yield
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
