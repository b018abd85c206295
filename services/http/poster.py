"""Posts a message to an address from a request, such as a webhook.

The address follows `AddressRules`; redirects are not followed. Addresses may hold a credential, so they are in no log
line and in no error.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.http.addresses import AddressRules
from services.http.connections import RequestRoute
from services.http.fetcher import CONNECT_SECONDS
from services.http.service import HTTPService
from utils.deadline import Deadline


class Poster:
    """Posts JSON by one set of rules. Thread-safe; close it at the end."""

    def __init__(self, rules: AddressRules) -> None:
        self._rules = rules
        self._http = HTTPService(pool_size=2, connect_timeout=CONNECT_SECONDS, keeps_connections=False)

    def check(self, url: str) -> None:
        """Raise `FetchError` if the rules do not allow the address now, or its name cannot be resolved."""
        self._rules.allowed(url)

    def post(self, url: str, body: bytes, headers: Mapping[str, str], *, timeout: float) -> int:
        """Post JSON and return the status of the reply, which has `timeout` seconds; resolving the name comes before.

        Raises:
            FetchError: as `check`.
            ProviderError: no reply came; the message may have arrived.
        """
        target = self._rules.allowed(url)
        deadline = Deadline(timeout)

        def send(route: RequestRoute) -> int:
            left, sent = max(0.001, deadline.remaining()), ("application/json", body)
            with self._http.exchange(
                "POST", target.url, deadline=deadline, timeout=left, headers=headers, body=sent, route=route
            ) as reply:
                return reply.status

        return self._http.reach(target, send)

    def close(self) -> None:
        self._http.close()
