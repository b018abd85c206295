"""How questions over plain HTTP differ from those of other channels."""

from __future__ import annotations

from dataclasses import replace

from config.settings import Settings
from services.channels import Channel, ChannelRules, client_rules


def _rules(settings: Settings) -> dict[str, ChannelRules]:
    """Return the rules of clients that send a refused question again under the same id."""
    return {bot: replace(rules, keeps_refusals=False) for bot, rules in client_rules(settings).items()}


HTTP = Channel("http", rules=_rules, accepts_api_keys=True)
