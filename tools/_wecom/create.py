"""`python -m tools.wecom create`: creates a bot for the long connection by a QR code, and writes it to `.env`.

    python -m tools.wecom create                      shows the QR code, waits, writes BotID and Secret
    python -m tools.wecom create --env-file prod.env --replace

The Secret goes into the file and nowhere else. Standard output has the bot that was created, with --json as a JSON
object; the QR code and the steps are on standard error. What this asks of WeCom rests on public code, not on a
documented interface. Exit status: 0 created, 1 not, 2 wrong usage or an unusable file, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from io import StringIO

import click
import segno

from tools._command import checked_address, seconds
from tools._page import Printer, printer_on
from tools._wecom.bot_creation import EVERY, LIFE, WECOM, BotCreation, NewBot, NotCreated, QRCode
from tools._wecom.env_file import EnvFile, EnvFileUnusable

MODE, BOT_ID, SECRET = "WECHAT_MODE", "WECHAT_BOT_ID", "WECHAT_BOT_SECRET"
#: A default bot has one of these.
_OF_A_BOT = (BOT_ID, SECRET, "WECHAT_TOKEN", "WECHAT_ENCODING_AES_KEY")
#: White on black, whatever colours the terminal has: the light modules are drawn.
_COLOURS, _RESET = "\033[97;40m", "\033[0m"
STATUS = "Exit status: 0 created, 1 not, 2 wrong usage or an unusable file, 130 interrupted."


def _address(url: str) -> str:
    return checked_address(url, "https", "http")


@click.command("wecom create", help="Create a bot by a QR code and write it to .env.", epilog=STATUS)
@click.option("--env-file", default=".env", show_default=True, metavar="PATH", help="The file to write.")
@click.option("--replace", is_flag=True, help="Put the new bot in the place of the default bot of the file.")
@click.option("--wecom", "url", type=_address, default=WECOM, metavar="URL", help="The web address of a private WeCom.")
@click.option("--timeout", type=seconds, default=LIFE, metavar="SECONDS", help="To wait for the confirmation.")
@click.option("--every", type=seconds, default=EVERY, metavar="SECONDS", help="Between two looks at the result.")
@click.option("--json", "as_json", is_flag=True, help="Print the bot that was created as one JSON object.")
def create(env_file: str, replace: bool, url: str, timeout: float, every: float, as_json: bool) -> int:
    page, errors = printer_on(), printer_on(sys.stderr)
    try:
        _check_nothing_is_lost(EnvFile(env_file), os.environ, replace=replace)
    except EnvFileUnusable as exc:
        raise click.UsageError(str(exc)) from exc
    try:
        with closing(BotCreation(url)) as creation:
            code = creation.begin()
            _show(code, errors, timeout)
            bot = creation.wait(code, timeout=timeout, every=every, tell=errors.line)
    except NotCreated as exc:
        errors.line(f"{exc}. {env_file} is unchanged")
        return 1
    return _save(bot, env_file, page, errors, as_json=as_json)


def _check_nothing_is_lost(file: EnvFile, env: Mapping[str, str], *, replace: bool) -> None:
    """Refuse before a bot is created whose BotID and Secret would replace others, or have no effect.

    Raises:
        click.UsageError: another bot is there already.
    """
    if names := _given((BOT_ID, SECRET), env):
        raise click.UsageError(f"the environment has {names}, which overrides {file.path}: unset it first")
    if not replace and (names := _given(_OF_A_BOT, file.values())):
        raise click.UsageError(
            f"{file.path} has a bot already ({names}): --replace puts the new one in its place, --env-file writes to "
            "another file"
        )


def _given(names: Iterable[str], given: Mapping[str, str]) -> str:
    return ", ".join(name for name in names if given.get(name))


def _show(code: QRCode, notes: Printer, timeout: float) -> None:
    notes.line("This uses an interface of WeCom that is not documented; public code describes it, and it may change.")
    notes.line(f"Scan this with WeCom's app (企业微信) and confirm within {timeout / 60:g} minutes:")
    if sys.stderr.isatty():
        sys.stderr.write(drawn(code.link))
    notes.line(f"or open it there: {code.link}")


def drawn(link: str) -> str:
    """Return the QR code as lines of half blocks."""
    out = StringIO()
    segno.make(link, micro=False).terminal(out, border=2, compact=True)
    return "".join(f"{_COLOURS}{line}{_RESET}\n" for line in out.getvalue().splitlines())


def _save(bot: NewBot, env_file: str, page: Printer, errors: Printer, *, as_json: bool) -> int:
    try:
        # Read again: somebody may have changed it while this waited.
        EnvFile(env_file).save({MODE: "websocket", BOT_ID: bot.bot_id, SECRET: bot.secret})
    except EnvFileUnusable as exc:
        errors.line(f"the bot {bot.bot_id} is created, but {exc}. WeCom's console shows its Secret")
        return 1
    created = f"created: {MODE}=websocket, {BOT_ID}={bot.bot_id} and {SECRET} are in {env_file} (mode 0600)"
    page.line(json.dumps({"bot_id": bot.bot_id, "env_file": env_file}) if as_json else created)
    errors.line("next: start the gateway (gunicorn), then write to the bot in WeCom")
    return 0
