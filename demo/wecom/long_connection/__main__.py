"""`python -m demo.wecom.long_connection`: serve bots without WeCom; each line of the input is a message of a person.

A gateway subscribes with WECHAT_MODE=websocket, WECHAT_BOT_ID, WECHAT_BOT_SECRET and the printed WECHAT_WS_URL.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from demo.console import ask
from demo.mocks.command import mock_arguments, serve_until_interrupted
from demo.wecom.long_connection.server import LongConnectionServer
from demo.wecom.long_connection.user import LongConnectionUser
from demo.wecom.simulator import CallbackFailed, RuleBroken


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until Ctrl-C; the end of the input ends only the messages."""
    options = _options(argv)
    with LongConnectionServer(
        dict(options.bot), host=options.host, port=options.port, ack_seconds=options.ack
    ) as wecom:
        print(f"WECHAT_WS_URL={wecom.url}", flush=True)
        person = wecom.user(options.user)
        try:
            for line in sys.stdin:
                _ask(person, line.strip())
        except KeyboardInterrupt:
            return
        serve_until_interrupted("no more messages; Ctrl-C ends the server")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = mock_arguments("python -m demo.wecom.long_connection", "WeCom's long connection.", port=5090)
    parser.add_argument("--bot", action="append", required=True, type=_bot, metavar="ID:SECRET", help="may be repeated")
    parser.add_argument("--user", default="zhangsan", help="who writes the messages")
    parser.add_argument("--ack", type=float, default=0.25, help="seconds until each ack, as WeCom's")
    return parser.parse_args(argv)


def _bot(text: str) -> tuple[str, str]:
    bot_id, _, secret = text.partition(":")
    if not (bot_id and secret):
        raise argparse.ArgumentTypeError("a BotID, a colon and a Secret are needed")
    return bot_id, secret


def _ask(person: LongConnectionUser, text: str) -> None:
    if not text:
        return
    try:
        ask(person, text)
    except (CallbackFailed, RuleBroken) as exc:
        print(exc, flush=True)


if __name__ == "__main__":
    main()
