"""Checks whether more than one person asks a bot: with some permissions WeCom lets only a bot's creator ask.

Nothing is counted for this. The people are those of the streams in Redis, which are kept for STREAM_TTL, and those
whose names are kept there for seven days.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from bootstrap.container import Container
from channels.registry import WECOM
from config.bots import BotSettings
from services.errors import StoreUnavailable
from services.identity.name_store import EVERY_NAME, bot_and_person
from services.redis.store import redis_errors, servers
from tools._doctor.checks import Finding
from tools._streams_list import rows_of

#: Streams and names that are looked at, at most.
MOST_LOOKED_AT = 20_000
_REMEDY = (
    "let a colleague ask. If only the creator and administrators get answers: remove the bot's extra permissions in "
    "WeCom's console, see that it is visible to the others, and save it again; what others write does not reach us"
)


def check_askers(container: Container, bots: Iterable[BotSettings]) -> Iterator[Finding]:
    """Yield a hint for each bot in callback mode that only one person has asked; nothing for the others."""
    named = {bot.name for bot in bots if bot.mode == "callback"}
    try:
        people = _people(container)
    except StoreUnavailable as exc:
        yield Finding("askers", "warning", f"they cannot be read: {exc}", "see Redis")
        return
    for name in sorted(named):
        askers = people.get(name, set())
        if len(askers) == 1:
            yield Finding(f"askers {name}", "warning", f"only {min(askers)} has asked lately", _REMEDY)


def _people(container: Container) -> dict[str, set[str]]:
    """Return the people who asked each bot over WeCom."""
    people: dict[str, set[str]] = {}
    for server in servers(container.redis):
        rows = rows_of(server, lease=container.settings.stream_lease)
        for row in islice(rows, MOST_LOOKED_AT):
            if row.channel == WECOM.name:
                people.setdefault(row.bot, set()).add(row.person)
        with redis_errors():
            for key in islice(server.scan_iter(EVERY_NAME, count=1000), MOST_LOOKED_AT):
                bot, person = bot_and_person(str(key))
                people.setdefault(bot, set()).add(person)
    return people
