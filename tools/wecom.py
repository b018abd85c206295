"""`python -m tools.wecom`: sends a bot's callback what WeCom sends, and prints what it answers.

    python -m tools.wecom https://laibao.example.com/wechat/callback 年假怎么申请    one line per poll, then the answer
    python -m tools.wecom URL '@Bot hello' --group wrTEST --quote 'an older message'
    python -m tools.wecom URL --event enter_chat
    python -m tools.wecom URL 这是什么 --image photo.jpg          a mixed message; --file and --video go without words
    python -m tools.wecom URL --raw '{"msgtype": "location"}'
    python -m tools.wecom URL --check                                           what WeCom needs, one line each
    python -m tools.wecom create               create a bot for the long connection by a QR code, and write it to .env
    python -m tools.wecom resume [BOT]         subscribe a bot again that another program had taken over

Standard output has the answer, the check or the bot, with --json as JSON; all else is on standard error. Token and
EncodingAESKey come from WECHAT_TOKEN and WECHAT_ENCODING_AES_KEY, those of another bot from WECHAT_BOTS by --bot; both
are also read from `.env`, and never printed. Exit status: 0 answered, 1 not, or a rule of WeCom is broken; 2 wrong
usage or no keys; 130 interrupted; 141 the reader of the output closed the pipe.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import click

from config.bots import DEFAULT_BOT, BotSettings
from config.errors import SettingsError
from demo.wecom.simulator import CallbackFailed, RuleBroken, SimulatedBot, WeComUser
from tools._command import checked_address, json_object, run, seconds
from tools._page import Printer, printer_on
from tools._pipes import until_nobody_reads
from tools._wecom.bots import bot_of, callback_address
from tools._wecom.check import CheckWords, Conformance
from tools._wecom.create import create
from tools._wecom.media import media_of, spoken
from tools._wecom.resume import resume
from tools._wecom.talk import EVERY, WeComTalk, message_of

#: The question of --check without one.
HELLO = "你好"
#: Seconds for which WeCom polls an answer, and seconds to wait for one reply: longer than WeCom waits.
LONGEST, REPLY = 360.0, 10.0
STATUS = "Exit status: 0 answered, 1 not or a rule is broken, 2 wrong usage or no keys, 130 interrupted."


def _address(url: str) -> str:
    return checked_address(url, "https", "http")


@click.command("wecom", help="Send a callback what WeCom sends.", epilog=STATUS)
@click.argument("url", type=_address)
@click.argument("question", default="")
@click.option("--bot", "bot_name", default=DEFAULT_BOT, help="The bot of WECHAT_BOTS whose keys to use.")
@click.option("--as", "userid", default="test-user", metavar="USERID", show_default=True, help="Who asks.")
@click.option("--group", default="", metavar="CHATID", help="Ask in this group.")
@click.option("--quote", default="", metavar="TEXT", help="Quote this text.")
@click.option("--image", default="", metavar="FILE", help="Send this picture, with the question if there is one.")
@click.option("--file", default="", metavar="FILE", help="Send this file.")
@click.option("--video", default="", metavar="FILE", help="Send this video.")
@click.option("--voice", is_flag=True, help="Send the question as a voice message that WeCom transcribed.")
@click.option(
    "--media-url",
    default="",
    metavar="URL",
    help="Where a store has the file, encrypted; by default the tool serves it on this machine.",
)
@click.option("--event", default="", metavar="NAME", help="Send this event, such as enter_chat.")
@click.option("--raw", type=json_object, default="{}", metavar="JSON", help="Members to add to the message or replace.")
@click.option("--msgid", default="", help="The message's id; the same one again is a redelivery.")
@click.option("--timeout", type=seconds, default=LONGEST, metavar="SECONDS", help="For the whole answer.")
@click.option("--every", type=seconds, default=EVERY, metavar="SECONDS", help="Between two polls.")
@click.option("--check", is_flag=True, help="Check the bot; asks two real questions.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per reply; for --check one in all.")
def talk(url: str, question: str, bot_name: str, userid: str, group: str, check: bool, **options: Any) -> int:
    try:
        bot = bot_of(os.environ, bot_name)
    except SettingsError as exc:
        raise click.UsageError(str(exc)) from exc
    page, errors = printer_on(key=bot.aes_keys[0]), printer_on(sys.stderr, key=bot.aes_keys[0])
    address = callback_address(url, bot_name)
    if check:
        words = CheckWords(question or HELLO, bot.bot_name or "Bot")
        return _check(page, errors, bot, address, userid, words, options)
    media = media_of(options, question, bot.aes_keys[0])
    shown = media.message(question) if media else spoken(question) if options["voice"] else {}
    message = message_of("" if shown else question, options["quote"], options["event"], {**shown, **options["raw"]})
    if "msgtype" not in message:
        raise click.UsageError("nothing to send: give a question, a file, --event, --raw with a msgtype, or --check")
    message.setdefault("msgid", options["msgid"] or secrets.token_hex(16))
    with media.serving if media else nullcontext(), closing(_user(bot, address, userid, group)) as user:
        if media and media.is_served:
            errors.line(f"serves the file at {urlsplit(media.url).netloc}: the bot needs 127.0.0.1 in MEDIA_HOSTS")
        teller = WeComTalk(user, page, errors, as_json=options["as_json"], every=options["every"])
        return _send(teller, errors, message, options["timeout"])


def _send(teller: WeComTalk, errors: Printer, message: dict[str, Any], timeout: float) -> int:
    try:
        finished = teller.send(message, timeout)
    except (CallbackFailed, RuleBroken) as exc:
        errors.line(str(exc))
        return 1
    if not finished:
        errors.line(f"the answer is not finished after {timeout:g} s")
    if teller.broken:
        errors.line(f"{len(teller.broken)} replies break a rule of WeCom")
    return 0 if finished and not teller.broken else 1


def _user(bot: BotSettings, address: str, userid: str, group: str = "", *, ahead: float = 0.0) -> WeComUser:
    """Return a user whose clock is `ahead` seconds fast, and who accepts broken rules to report them."""
    local = urlsplit(address).hostname in ("127.0.0.1", "::1", "localhost")
    return WeComUser(
        address,
        SimulatedBot(bot.tokens[0], bot.aes_keys[0], bot.bot_id or "aibDEMO", bot.receive_id),
        userid,
        group,
        strict=False,
        timeout=REPLY,
        clock=lambda: time.time() + ahead,
        proxies=not local,
    )


def _check(
    page: Printer,
    errors: Printer,
    bot: BotSettings,
    address: str,
    userid: str,
    words: CheckWords,
    options: dict[str, Any],
) -> int:
    """Check a deployed bot; print one line per check, or one JSON object."""
    errors.line(f"asks {address} two real questions as {userid}: {words.question} (--as names another person)")
    found = []
    with ExitStack() as stack:

        def make(group: str = "", ahead: float = 0.0) -> WeComUser:
            return stack.enter_context(_user(bot, address, userid, group, ahead=ahead))

        for finding in Conformance(make, words, timeout=options["timeout"], every=options["every"]).findings():
            found.append(finding)
            if not options["as_json"]:
                page.line(str(finding))
    failed = [finding for finding in found if finding.outcome == "failed"]
    if options["as_json"]:
        page.line(json.dumps({"ok": not failed, "findings": [asdict(each) for each in found]}, ensure_ascii=False))
    else:
        counts = Counter(finding.outcome for finding in found)
        page.line(f"{len(found)} checks: {counts['ok']} ok, {counts['warning']} to look at, {counts['failed']} failed")
    return 1 if failed else 0


#: Commands that take no address, by their first word.
COMMANDS = {"create": create, "resume": resume}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = COMMANDS.get(words[0]) if words else None
    return run(command, words[1:]) if command else run(talk, words)


if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
