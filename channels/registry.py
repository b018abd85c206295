"""All channels of the product. A new channel is one more line here and a blueprint in `app.py`."""

from __future__ import annotations

from channels.batch.rules import BATCH
from channels.chat.rules import CHAT
from channels.http_chat.rules import HTTP
from channels.openai.rules import OPENAI
from channels.realtime.rules import REALTIME
from channels.wecom.rules import WECOM
from services.channels import Channel

CHANNELS: tuple[Channel, ...] = (WECOM, CHAT, REALTIME, HTTP, OPENAI, BATCH)
