"""How questions from the chat WebSocket differ from those of other channels."""

from __future__ import annotations

from services.channels import Channel

CHAT = Channel("chat", mock_language="en", sockets=True)
