"""Replicas with one bot on the long connection, and WeCom's side of it."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from demo.wecom.long_connection.server import LongConnectionServer
from services.wecom.long_connection.lease_store import lease_key
from tests.scenarios.stage.chaos_fleet import Fleet
from tests.support.long_connection.bots import BOT_ID
from tests.support.replicas import Replica

#: Seconds within which another replica has subscribed and gone on, on a busy machine.
TIMEOUT = 60.0


@dataclass
class SubscribedFleet:
    """The replicas' default bot is the server's."""

    redis: redis.Redis
    wecom: LongConnectionServer
    replicas: Fleet

    @property
    def lease(self) -> dict[str, str]:
        """The fields of the bot's lease."""
        return dict(self.redis.hgetall(lease_key("default")))  # type: ignore[arg-type]

    @property
    def subscriptions(self) -> int:
        """The number of subscriptions so far."""
        return len(self.wecom.bots[BOT_ID].subscriptions)

    def holder(self) -> Replica:
        """Return the replica that holds the bot's lease."""
        pid = int(self.lease["holder"].split(":")[1])
        return next(member for member in self.replicas.members if pid in member.workers)

    def wait_subscribed(self, count: int = 1) -> None:
        """Wait for subscription number `count`."""
        self.wecom.wait_until(lambda: self.subscriptions >= count and self.wecom.subscribed(BOT_ID) > 0, TIMEOUT)
