"""`python -m tools.wecom resume`: lets the replicas subscribe a bot again that another program had taken over."""

from __future__ import annotations

import json
import sys
from contextlib import closing

import click

from config.bots import DEFAULT_BOT
from config.errors import LaibaoError
from config.settings import load_settings
from services.redis.store import ScriptRunner, connect
from services.wecom.long_connection.lease_store import LeaseStore
from tools._page import printer_on

STATUS = "Exit status: 0 a replica may subscribe, 1 no such bot, or Redis or the settings are wrong, 2 wrong usage."


@click.command("wecom resume", help="Subscribe a bot again that another program had taken over.", epilog=STATUS)
@click.argument("bot", default=DEFAULT_BOT)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def resume(bot: str, as_json: bool) -> int:
    page, errors = printer_on(), printer_on(sys.stderr)
    try:
        resumed = _resumed(bot)
    except LaibaoError as exc:
        errors.line(str(exc))
        return 1
    again = f"{bot} is subscribed again within seconds, where a replica runs; stop the other program"
    words = again if resumed else f"{bot} was not taken over: nothing to resume"
    page.line(json.dumps({"bot": bot, "resumed": resumed}) if as_json else words)
    return 0


def _resumed(bot: str) -> bool:
    """Let the replicas subscribe a bot again; return False if no other program had taken it over."""
    settings = load_settings()
    names = [name for name, one in settings.bots.items() if one.mode == "websocket"]
    if bot not in names:
        raise LaibaoError(f"no bot {bot} in websocket mode: there is {', '.join(names) or 'none'}")
    with closing(connect(settings.redis_address.get_secret_value(), pool_size=2, timeout=5.0)) as client:
        leases = LeaseStore(ScriptRunner(client))
        if not leases.look(bot).evicted:
            return False
        leases.resume(bot)
    return True
