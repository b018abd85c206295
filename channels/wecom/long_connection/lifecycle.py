"""The long connections of a replica start and end with it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from channels.wecom.long_connection.arrivals import Arrivals, LinkHandlers
from channels.wecom.long_connection.subscriber import LOOK, BotAddress, Subscriber
from config.bots import BotSettings
from services.wecom.long_connection.lease_store import LeaseStore

#: Seconds that a leaving replica waits for the handlers of messages that its connections received last.
LAST_SECONDS = 10.0


class LongConnections:
    """One `Subscriber` for each bot in websocket mode. Without such bots it does nothing."""

    def __init__(
        self,
        bots: Mapping[str, BotSettings],
        store: LeaseStore,
        handlers: LinkHandlers,
        *,
        replica: str,
        look: float = LOOK,
    ) -> None:
        """`replica` names this process in the leases; `look` is the number of seconds between two looks at them."""
        self._arrivals = Arrivals(handlers)
        self._subscribers: Sequence[Subscriber] = [
            Subscriber(_address(bot), store, self._arrivals, handlers.serve, replica=replica, look=look)
            for bot in bots.values()
            if bot.mode == "websocket"
        ]

    def start(self) -> None:
        for subscriber in self._subscribers:
            subscriber.start()

    def leave(self) -> None:
        """Begin to hand the connections over to other replicas; what arrives meanwhile is still answered."""
        for subscriber in self._subscribers:
            subscriber.leave()

    def hand_over(self, seconds: float) -> None:
        """Hand the connections over, and wait until that is done, for `seconds` at most."""
        self.leave()
        end = time.monotonic() + seconds
        for subscriber in self._subscribers:
            subscriber.join(max(0.0, end - time.monotonic()))
        if self._subscribers:
            self._arrivals.wait(min(LAST_SECONDS, max(0.0, end - time.monotonic())))

    def close_all(self) -> None:
        """Close what `hand_over` had no time for."""
        for subscriber in self._subscribers:
            subscriber.close()

    def stop(self) -> None:
        """Nothing to stop: the threads end with their connections."""


def _address(bot: BotSettings) -> BotAddress:
    secret = bot.bot_secret.get_secret_value() if bot.bot_secret else ""
    return BotAddress(bot.name, bot.ws_url, bot.bot_id, secret, bot.ws_retry)
