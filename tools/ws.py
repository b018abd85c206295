"""`python -m tools.ws`: a client of the WebSocket channels, by hand or with a script.

    python -m tools.ws                              chat by hand: a line is a question, /stop and /quit are orders
    python -m tools.ws realtime --send 年假怎么申请？    send this text, print all frames, end after the answer
    python -m tools.ws --send hello --expect '{"role": "assistant", "status": "completed"}'

Prints every frame with the seconds since the connection opened, `>` sent and `<` received. JSON objects are sent
unchanged. The key comes from --key, LAIBAO_KEY or LAIBAO_WS_KEY and is sent in a header; it is never printed and not
allowed in --url. The service is that of --url or LAIBAO_URL, else the one at PORT of `.env`.
Exit status: 0 all expected frames came, 1 they did not, 2 wrong usage, 3 not connected or refused, 130 interrupted, 141
the reader of the output closed the pipe.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import click

from tools._command import LOCAL, checked_address, checked_key, local_url, run, seconds
from tools._pipes import until_nobody_reads
from tools._ws.frames import Frame, Pattern, ScriptStep, frame_of, read_steps
from tools._ws.talk import NotConnected, Plan, SocketTalk, connected, typed

#: Variables with the key; the second one is that of every tool.
KEYS = ("LAIBAO_WS_KEY", "LAIBAO_KEY")
PATHS = {"chat": "/ws/chat", "realtime": "/ws/realtime-asr"}
#: Seconds a scripted session may take.
TIMEOUT = 60.0
STATUS = "Exit status: 0 all that was expected came, 1 it did not, 2 wrong usage, 3 not connected or refused."


class SeveralTexts(click.Command):
    """A command whose `--send` takes several texts: `--send a b` is `--send a --send b`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_spread(args)))


def _spread(args: Sequence[str]) -> Iterator[str]:
    sending = False
    for before, word in zip(["", *args], args, strict=False):
        if word.startswith("-"):
            sending = word == "--send"
        elif sending and before != "--send":
            yield "--send"
        yield word


def _resumption(text: str) -> Frame:
    stream_id, _, cursor = text.rpartition(":")
    if not stream_id or not cursor.isdecimal():
        raise ValueError("expected STREAM_ID:CURSOR, the cursor a number")
    return {"type": "resume", "stream_id": stream_id, "cursor": int(cursor)}


def _address(url: str) -> str:
    return checked_address(url, "ws", "wss")


@click.command("ws", cls=SeveralTexts, help="Talk to a socket.", epilog=STATUS)
@click.argument("channel", type=click.Choice(sorted(PATHS)), default="chat")
@click.option(
    "--url",
    type=_address,
    default=lambda: f"ws{(os.environ.get('LAIBAO_URL') or local_url())[4:]}",
    metavar="URL",
    show_default=LOCAL,
    help="Default path: the channel's own.",
)
@click.option("--key", type=checked_key, default="", envvar=KEYS, metavar="KEY", help="Better set LAIBAO_KEY.")
@click.option("--client-id", default="", help="Chat only: the client's own id of this connection.")
@click.option("--resume", type=_resumption, metavar="STREAM_ID:CURSOR", help="Resume this answer first.")
@click.option("--send", multiple=True, metavar="TEXT...", help="Send this text.")
@click.option("--script", type=click.File(encoding="utf-8"), help="JSON lines: frames, sleep and expect.")
@click.option("--expect", type=Pattern, multiple=True, metavar="PATTERN", help="JSON or text that must arrive.")
@click.option("--reject", type=Pattern, multiple=True, metavar="PATTERN", help="JSON or text that must not arrive.")
@click.option("--timeout", type=seconds, metavar="SECONDS", help=f"For the whole session: {TIMEOUT:g}, by hand none.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per frame.")
def talk(channel: str, url: str, key: str, client_id: str, timeout: float | None, as_json: bool, **said: Any) -> int:
    by_hand = not (said["send"] or said["script"] or said["resume"] or said["expect"])
    plan = Plan(
        steps=typed(sys.stdin.fileno(), channel) if by_hand else _steps(channel, **said),
        expected=said["expect"],
        rejected=said["reject"],
        by_hand=by_hand,
        as_json=as_json,
        key=key,
        timeout=timeout or (float("inf") if by_hand else TIMEOUT),
    )
    try:
        with closing(connected(address(url, channel, client_id), key)) as socket:
            wrong, status = SocketTalk(socket, plan).run(), 1
    except NotConnected as exc:
        wrong, status = [str(exc)], 3
    for line in wrong:
        print(line, file=sys.stderr)
    return status if wrong else 0


def _steps(
    channel: str, *, send: Sequence[str], script: Iterable[str] | None, resume: Frame | None, **_: Any
) -> list[ScriptStep]:
    """Return the steps: --resume first, then --send, then the script."""
    first = [resume] if resume else []
    try:
        return [*first, *(frame_of(text, channel) for text in send), *read_steps(script or ())]
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


def address(url: str, channel: str, client_id: str = "") -> str:
    """Return the full address of a channel."""
    if client_id and channel != "chat":
        raise click.UsageError("--client-id: only chat takes one")
    parts = urlsplit(url)
    path = parts.path.rstrip("/") or PATHS[channel]
    named = f"{path}/{quote(client_id, safe='')}" if client_id else path
    return urlunsplit((parts.scheme, parts.netloc, named, parts.query, ""))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return run(talk, argv)


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
