"""A Redis that changes: the Sentinels say which server is the master now."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from services.redis_connections import Dialer
from services.redis_routes import Address, Route
from services.redis_waits import Lookup

#: Seconds after which the Sentinels are asked again though nothing is wrong: after a planned failover the master of
#: before goes on taking writes for ten seconds, and then forgets them.
RECHECK_SECONDS = 2.0


class SentinelRoute(Route):
    """Leads to the server that the Sentinels call the master of a service.

    They are asked for each new connection, and now and then. Where none answers, the last known master is tried.
    """

    def __init__(self, sentinels: Sequence[Address], service: str, dialer: Dialer) -> None:
        super().__init__()
        self._sentinels = sentinels
        self._service = service
        self._dialer = dialer
        self._lookup = Lookup(self._find, name=f"sentinels of {service}")

    def target(self, timeout: float) -> Address:
        try:
            address = self._lookup.get(timeout)
        except (redis.RedisError, OSError) as exc:
            raise redis.ConnectionError(f"no sentinel names a master of {self._service}: {exc}") from exc
        self._follow(address)
        return address

    def look(self) -> None:
        if self._lookup.age > RECHECK_SECONDS:
            self._lookup.ask()
        self._follow(self._lookup.last)

    def _follow(self, address: Address | None) -> None:
        if address and address != self._address:
            self._address = address
            self.renew()

    def _find(self) -> Address:
        """Ask all; the answers of a majority are enough, and the latest failover's counts."""
        majority = len(self._sentinels) // 2 + 1
        answers = self._dialer.ask_all(self._sentinels, ("SENTINEL", "MASTER", self._service), enough=majority)
        states = [dict(zip(state[::2], state[1::2], strict=True)) for _, state in answers]
        latest = max(states, key=lambda state: int(state["config-epoch"]))
        return latest["ip"], int(latest["port"])
