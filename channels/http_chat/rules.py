"""How questions over plain HTTP differ from those of other channels."""

from __future__ import annotations

from dataclasses import replace

from config.settings import Settings
from services.channels import Channel, ChannelRules, api_client_rules
from services.identity.callers import end_user_of


def _rules(settings: Settings) -> dict[str, ChannelRules]:
    """Return the rules of clients that send a refused question again under the same id, for each bot they may ask."""
    return {bot: replace(rules, keeps_refusals=False) for bot, rules in api_client_rules(settings).items()}


HTTP = Channel("http", rules=_rules, accepts_api_keys=True, end_user=end_user_of, keeps_files="signed", suggests=True)
