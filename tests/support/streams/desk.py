"""The gateway and everything below it, without HTTP: each desk is one replica, and several may share a Redis."""

from __future__ import annotations

import atexit
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from bootstrap.container import Container
from config.fields import SHORTEST_LEASE
from config.groups import ProviderSettings
from config.texts import ZH
from services.errors import StoreUnavailable
from services.identity.callers import Callers
from services.models import Delta, ProviderEvent, ProviderIds, Query, Question, Usage
from services.providers.base import BaseRAGProvider
from services.streams.records import Snapshot
from tests.support.servers.processes import wait_until
from tests.support.settings_values import OTHER_AES_KEY, settings
from utils.deadline import Deadline

#: The API key of socket clients.
API_KEY = "not-a-real-key"
CALLER = Callers("key", api_keys=[API_KEY]).check(API_KEY)


class SlowProvider(BaseRAGProvider):
    """A provider that answers when the test sets `go_on`, and records its queries."""

    name = "slow"
    app = "app1"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.queries: list[Query] = []
        self.go_on = threading.Event()
        self.conversations: list[str] = []
        self.usage = Usage()

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        self.asked.append(query.text)
        self.queries.append(query)
        self.conversations.append(query.conversation_id)
        yield ProviderIds("c1", "m1", "t1")
        self.go_on.wait(60.0)
        yield Delta(f"答：{query.text}")
        yield self.usage

    def health_check(self) -> bool:
        return True


class Given(BaseRAGProvider):
    """A plug-in whose provider is that of the desk which is being built."""

    provider: ClassVar[BaseRAGProvider]

    @classmethod
    def from_settings(cls, settings: ProviderSettings) -> BaseRAGProvider:
        return cls.provider


@cache
def texts_file() -> str:
    """Return the path of a file in which each sentence is its key in angle brackets."""
    folder = TemporaryDirectory(prefix="laibao-")
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "texts.json"
    path.write_text(json.dumps({key: f"<{key}>" for key in ZH}), "utf-8")
    return str(path)


class Desk:
    """A replica without HTTP: the parts of a container with the test's provider, and without its sweep."""

    def __init__(
        self,
        url: str,
        provider: BaseRAGProvider,
        *,
        max_streams: int = 20,
        slots: int = 3,
        lease: float = 12.0,
        variables: Mapping[str, str] = {},
    ) -> None:
        """Take further settings of the replica by the names in `variables`; it has the bots `default` and `hr`."""
        Given.provider = self._provider = provider
        made = {
            "REDIS_URL": url,
            "REDIS_POOL_SIZE": "31",
            "RAG_PROVIDER": f"{__name__}:{Given.__name__}",
            "WECHAT_BOTS": json.dumps(
                {"hr": {"WECHAT_TOKEN": "fake-token-of-hr", "WECHAT_ENCODING_AES_KEY": OTHER_AES_KEY}}
            ),
            "WECHAT_RESPONSE_HOSTS": "wecom.invalid",
            "API_KEYS": API_KEY,
            "TEXTS_FILE": texts_file(),
            "STREAM_MAX_PER_REPLICA": str(max_streams),
            "STREAM_MAX_PER_USER": str(slots),
            "STREAM_LEASE": str(max(lease, SHORTEST_LEASE)),
            "DRAIN_SECONDS": "3",
        }
        # A busy machine may keep Redis or this process waiting for seconds.
        self.container = container = Container(settings(**{**made, **variables}), redis_timeout=5.0)
        self._dead = False
        self.client, self.runner = container.redis, container.runner
        self.streams, self.manager = container.streams, container.manager
        self.readers, self.gateway = container.readers, container.gateway
        #: By bot, the keys that make stream ids and seal what belongs to a stream.
        self.keys = container.keys.streams()
        self.manager.start()
        self.readers.start()

    def asks(self, text: str = "年假?", msgid: str = "m1", **changes: str) -> Snapshot:
        fields: dict[str, Any] = {"channel": "wecom", "bot": "default", "principal": "zhangsan", **changes}
        return self.gateway.ask(Question(text, msgid=msgid, **fields))

    def reads(self, stream_id: str, **changes: str) -> Snapshot | None:
        return self.gateway.read(stream_id, **{"bot": "default", "principal": "zhangsan", **changes})

    def sees_end(self, stream_id: str, **changes: str) -> Snapshot:
        """Read as a client does: a read that Redis' outage refuses is repeated."""
        seen: list[Snapshot] = []

        def ended() -> bool:
            with suppress(StoreUnavailable):
                snapshot = self.reads(stream_id, **changes)
                assert snapshot
                seen[:] = [snapshot]
            return bool(seen) and seen[0].status != "processing"

        wait_until(ended)
        return seen[0]

    def dies(self) -> None:
        """Stop all writes, as a killed process does; `close` then does not wait for the producers."""
        self._dead = True
        self.manager.close()

    def close(self) -> None:
        """Stop every thread: a producer that waits for its turn would stay in the queue during the next test."""
        if isinstance(self._provider, SlowProvider):
            self._provider.go_on.set()
        if self._dead:
            # Its producers end without a write: they are told to leave, and nothing sends what they say.
            self.manager.drain(0.0)
            self.readers.close()
            self.client.close()
            self.container.redis_of_flusher.close()
        else:
            self.container.close()
