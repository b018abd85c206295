"""A subscribed connection of the bot "default" to the simulated server, without the subscriber."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from channels.wecom.link_socket import open_socket
from demo.wecom.long_connection.server import LongConnectionServer
from services.wecom.long_connection.link import Link
from services.wecom.long_connection.protocol import SUBSCRIBE
from tests.support.long_connection.bots import BOT_ID, SECRET

BOT = "default"


@contextmanager
def linked(wecom: LongConnectionServer, fence: int = 1) -> Iterator[Link]:
    """Connect and subscribe for the block; messages and events that arrive are ignored."""
    link = Link(open_socket(wecom.url), BOT, fence, arrived=lambda *arrived: None)
    reader = threading.Thread(target=link.run)
    reader.start()
    try:
        assert link.request(SUBSCRIBE, {"bot_id": BOT_ID, "secret": SECRET}).errcode == 0
        yield link
    finally:
        link.drop("ended")
        reader.join(30)
