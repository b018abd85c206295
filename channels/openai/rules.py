"""How questions of OpenAI clients differ from those of other channels."""

from __future__ import annotations

from config.settings import Settings
from services.channels import Channel, ChannelRules, api_bots
from services.identity.callers import end_user_of


def _rules(settings: Settings) -> dict[str, ChannelRules]:
    """Return the rules of each model. No text resets a conversation: a client begins one by leaving messages out."""
    return dict.fromkeys(api_bots(settings), ChannelRules(resends=True, keeps_refusals=False))


OPENAI = Channel("openai", rules=_rules, accepts_api_keys=True, end_user=end_user_of, rated=False)
