"""The gateway and everything below it, without HTTP: each desk is one replica, and several may share a Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from channels.registry import CHANNELS
from services.answers.answer import Answerer, Backend
from services.answers.asked_store import AskedStore
from services.answers.claim_store import ClaimStore
from services.answers.commands import ChatNotes
from services.answers.conversation_memory import MemoryStores
from services.answers.conversation_store import ConversationStore
from services.answers.extras.answer_extras import AnswerExtras
from services.answers.forms.conversation_forms import AnswerForms
from services.answers.forms.form_store import FormStore
from services.answers.gateway import Gateway, ReplicaStreams
from services.answers.takeover import TakeoverManager
from services.channels import ChannelRules, Channels
from services.files.linked import AnswerLinks
from services.files.links import FileLinks
from services.files.store import FileStore
from services.identity.auth_service import AuthService
from services.identity.callers import Callers
from services.identity.name_store import NameStore
from services.media.sent_store import SentFileStore
from services.models import Delta, ProviderEvent, ProviderIds, Query, Question, Usage
from services.providers.base import BaseRAGProvider
from services.redis.store import ScriptRunner, connect
from services.streams.access import Access
from services.streams.manager import StreamLimits, StreamManager
from services.streams.readers import StreamReaders
from services.streams.records import Snapshot
from services.streams.store import OPEN_SECONDS, StreamStore
from tests.support.servers.processes import wait_until
from utils.deadline import Deadline

KEY = b"k" * 32
#: The API key of socket clients.
API_KEY = "not-a-real-key"
RESETS = frozenset({"/reset"})
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
        self.go_on.wait(30.0)
        yield Delta(f"答：{query.text}")
        yield self.usage

    def health_check(self) -> bool:
        return True


class Desk:
    """A replica without HTTP."""

    def __init__(
        self,
        url: str,
        provider: BaseRAGProvider,
        *,
        max_streams: int = 20,
        slots: int = 3,
        lease: float = 60.0,
        extras: AnswerExtras | None = None,
    ) -> None:
        self.client = connect(url, pool_size=30, timeout=5.0)
        self._provider = provider
        self._dead = False
        runner = ScriptRunner(self.client)
        self.streams = StreamStore(runner, lease=lease)
        conversations = ConversationStore(runner, secret=b"s", ttl=100.0)
        backends = {"default": Backend(provider), "hr": Backend(provider)}
        wecom = ChannelRules(slots=slots, frame_seconds=330.0, notes_questions=True, open_timeout=OPEN_SECONDS)
        socket = ChannelRules(resets=RESETS, open_timeout=OPEN_SECONDS, resends=True)
        programs = ChannelRules(open_timeout=OPEN_SECONDS, resends=True, keeps_refusals=False)
        rules = {
            ("wecom", "default"): replace(wecom, resets=RESETS),
            ("wecom", "hr"): wecom,
            ("chat", "default"): replace(socket, compares_ids=True),
            ("realtime", "default"): socket,
            ("http", "default"): replace(programs, compares_ids=True),
            ("batch", "default"): programs,
        }
        channels = Channels(CHANNELS, rules)
        self.forms = FormStore(runner, Access({"default": KEY, "hr": KEY}), clock=time.time)
        answerer = Answerer(
            auth=AuthService("none"),
            backends=backends,
            memory=MemoryStores(conversations),
            streams=self.streams,
            channels=channels,
            forms=AnswerForms(self.forms, lambda key: f"<{key}>"),
            callers=Callers("key", api_keys=[API_KEY]),
            extras=extras,
        )
        self.manager = StreamManager(
            self.streams,
            answerer.answer,
            sentence=lambda c: f"<{c}>",
            limits=StreamLimits(max_streams, max_bytes=100_000),
        )
        self.runner = runner
        takeovers = TakeoverManager(self.streams, self.manager, answerer, ClaimStore(runner, self.streams))
        self.readers = StreamReaders(self.streams, self.manager, attempt=takeovers.attempt)
        self.gateway = Gateway(
            streams=ReplicaStreams(self.streams, self.manager, takeovers, self.readers),
            answerer=answerer,
            conversations=conversations,
            notes=ChatNotes(AskedStore(runner, ttl=1800.0), NameStore(runner)),
            keys={"default": KEY, "hr": KEY},
            channels=channels,
            links=AnswerLinks(FileLinks(KEY), FileStore(runner)),
            sent=SentFileStore(runner, {"default": KEY, "hr": KEY}, ttl=1800.0),
            sentence=lambda key: f"<{key}>",
            promises=lambda url: True,
        )
        self.manager.start()
        self.readers.start()

    def asks(self, text: str = "年假?", msgid: str = "m1", **changes: str) -> Snapshot:
        fields: dict[str, Any] = {"channel": "wecom", "bot": "default", "principal": "zhangsan", **changes}
        return self.gateway.ask(Question(text, msgid=msgid, **fields))

    def reads(self, stream_id: str, **changes: str) -> Snapshot | None:
        return self.gateway.read(stream_id, **{"bot": "default", "principal": "zhangsan", **changes})

    def sees_end(self, stream_id: str, **changes: str) -> Snapshot:
        def ended() -> bool:
            snapshot = self.reads(stream_id, **changes)
            assert snapshot
            return snapshot.status != "processing"

        wait_until(ended)
        snapshot = self.reads(stream_id, **changes)
        assert snapshot
        return snapshot

    def dies(self) -> None:
        """Stop all writes, as a killed process does; `close` then does not wait for the producers."""
        self._dead = True
        self.manager.close()

    def close(self) -> None:
        """Stop every thread: a producer that waits for its turn would stay in the queue during the next test."""
        self.readers.close()
        if isinstance(self._provider, SlowProvider):
            self._provider.go_on.set()
        if not self._dead:
            self.manager.drain(3.0)
            self.manager.close()
        self.client.close()
