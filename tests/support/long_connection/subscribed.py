"""Replicas in this process that only keep a bot subscribed, and note the messages that arrive."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from channels.wecom.link_socket import open_socket
from config.bots import BotSettings
from demo.wecom.long_connection.server import LongConnectionServer
from services.redis.store import ScriptRunner, connect
from services.wecom.long_connection.lease_store import LeaseState, LeaseStore
from services.wecom.long_connection.link import Link, LinkHandlers
from services.wecom.long_connection.subscriber import LongConnections
from tests.support.long_connection.bots import BOT_ID, SECRET
from tests.support.servers.processes import wait_until

#: The bot's name in the settings.
BOT = "hr"


class SubscribedReplica:
    """One replica; leaving the block closes its connection without a handover."""

    def __init__(
        self,
        redis_url: str,
        wecom: LongConnectionServer,
        *,
        secret: str = SECRET,
        retry: float = 0,
        ready_for: float = 30.0,
    ) -> None:
        """`ready_for` are the seconds after its last look in which another replica counts as a successor."""
        self._client = connect(redis_url, pool_size=4, timeout=5.0)
        self.leases = LeaseStore(ScriptRunner(self._client), ready_for=ready_for)
        #: The msgids of what arrived, and the links that were served.
        self.arrived: list[str] = []
        self.links: list[Link] = []
        bot = BotSettings(
            name=BOT, mode="websocket", bot_id=BOT_ID, secrets=(secret,), ws_url=wecom.url, ws_retry=retry
        )
        handlers = LinkHandlers(on_message=self._note, on_event=self._note, serve=(self.links.append,))
        self.connections = LongConnections(
            {BOT: bot}, self.leases, handlers, open_socket=open_socket, replica="test", look=0.1
        )

    def __enter__(self) -> Self:
        self.connections.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.connections.leave()
        self.connections.close_all()
        self._client.close()

    @property
    def lease(self) -> LeaseState:
        return self.leases.look(BOT)

    def link(self, number: int = 0) -> Link:
        """Wait until so many further connections were served after the first one, and return the last of them."""
        wait_until(lambda: len(self.links) > number, 30.0)
        return self.links[number]

    def _note(self, link: Link, req_id: str, body: Mapping[str, Any]) -> None:
        self.arrived.append(body["msgid"])
