"""How questions from the chat WebSocket differ from those of other channels."""

from __future__ import annotations

from services.channels import Channel, api_client_rules
from services.identity.callers import end_user_of

CHAT = Channel(
    "chat",
    rules=api_client_rules,
    end_user=end_user_of,
    mock_language="en",
    sockets=True,
    keeps_files="all",
    suggests=True,
)
