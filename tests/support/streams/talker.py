"""A provider whose answer goes on step by step when the test says so, and its streams behind a counting relay."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from services.models import Delta, ProviderEvent, ProviderIds, Query, Usage
from services.streams.owned_stream import OwnedStream
from services.streams.records import Chunk
from tests.support.servers.processes import wait_until
from tests.support.streams.counting_relay import CountingRelay
from tests.support.streams.desk import Desk, SlowProvider
from utils.deadline import Deadline


class Talker(SlowProvider):
    """A provider that yields its ids, one delta, the other deltas, and its end, each after an event of the test."""

    def __init__(self) -> None:
        super().__init__()
        self.deltas = ["年假"]
        self.more, self.ends = threading.Event(), threading.Event()

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        yield ProviderIds("c1", "m1", "t1")
        self.go_on.wait(30.0)
        first, *others = map(Delta, self.deltas)
        yield first
        self.more.wait(30.0)
        yield from others
        self.ends.wait(30.0)
        yield Usage()

    def lets_go(self) -> None:
        for gate in (self.go_on, self.more, self.ends):
            gate.set()


def running(relay: CountingRelay, desk: Desk, talker: Talker) -> OwnedStream:
    """Ask, and return the stream once its provider was called and no round trip is under way."""
    owned = desk.manager.owned(desk.asks().stream_id)
    assert owned
    wait_until(lambda: owned.field("task_id"))
    owned.wait_stored()
    wait_until(lambda: not any(trip.owed for trip in relay.trips))
    relay.forget()
    return owned


def said(owned: OwnedStream) -> str:
    """Return the text that Redis has acknowledged, from the owner's memory."""
    chunks: list[Chunk] = []
    while (page := owned.page(len(chunks))) and page.chunks:
        chunks += page.chunks
    return "".join(chunk.content for chunk in chunks)


def answered(relay: CountingRelay, desk: Desk, talker: Talker) -> str:
    """Return the id of a stream with all of its text but no end yet, and no round trip under way."""
    owned = running(relay, desk, talker)
    talker.go_on.set()
    talker.more.set()
    wait_until(lambda: said(owned) == "".join(talker.deltas))
    relay.forget()
    return owned.stream_id
