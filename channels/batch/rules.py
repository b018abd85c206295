"""How a batch's questions differ from those of other channels."""

from __future__ import annotations

from config.bots import DEFAULT_BOT
from config.settings import Settings
from services.channels import Channel, ChannelRules


def _rules(settings: Settings) -> dict[str, ChannelRules]:
    """Return the rules of items. Their ids are the batch's own, and no text of theirs resets a conversation."""
    return {DEFAULT_BOT: ChannelRules(resends=True, keeps_refusals=False)}


# A busy provider pauses all items of all batches at once (services/batches), so no single item waits for it.
BATCH = Channel("batch", rules=_rules, accepts_api_keys=True, waits_for_provider=False, rated=False)
