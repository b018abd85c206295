"""The chat channel on the real gateway: answers grow, and a client resumes them on any replica."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import closing

import pytest

from services.models import Delta, ProviderEvent, Query
from tests.support.servers.processes import wait_until
from tests.support.sockets.chat_room import WIDE, ChatClient
from tests.support.streams.desk import CALLER, Desk, SlowProvider
from utils.deadline import Deadline


class ScriptedProvider(SlowProvider):
    """A provider that sends what the test puts into its queue."""

    def __init__(self) -> None:
        super().__init__()
        self.coming: queue.Queue[str | None] = queue.Queue()

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        self.asked.append(query.text)
        while (piece := self.coming.get(timeout=WIDE)) is not None:
            yield Delta(piece)

    def sends(self, *pieces: str | None) -> None:
        for piece in pieces:
            self.coming.put(piece)


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    provider = ScriptedProvider()
    yield provider
    provider.sends(None)


@pytest.fixture
def desks(any_redis_url: str, provider: ScriptedProvider) -> Iterator[list[Desk]]:
    """Two replicas on the same Redis."""
    with closing(Desk(any_redis_url, provider)) as one, closing(Desk(any_redis_url, provider)) as other:
        yield [one, other]


@pytest.fixture
def clients(desks: list[Desk]) -> Iterator[list[ChatClient]]:
    """A client of each replica."""
    clients = [ChatClient(desk.gateway, caller=CALLER) for desk in desks]
    yield clients
    for client in clients:
        client.leaves()
        assert client.unknown() == []


def test_an_answer_arrives_in_deltas(provider: ScriptedProvider, clients: list[ChatClient]) -> None:
    """Deltas arrive before the answer is complete; joined they are the answer, byte by byte."""
    client, _ = clients
    stream_id = client.asks("年假几天？", id="q1")
    provider.sends("五天", "，")
    wait_until(lambda: client.text(stream_id) == "五天，", WIDE)

    provider.sends("👍🏽 Ünïcode\r\n", None)
    frames = client.sees_end(stream_id)

    assert client.text(stream_id) == frames[-2]["content"] == "五天，👍🏽 Ünïcode\r\n"
    assert (frames[-2]["status"], frames[-2]["cursor"]) == ("completed", client.cursor(stream_id))
    assert [frame["type"] for frame in frames[-2:]] == ["chat", "typing"]


def test_a_client_that_resumes_on_another_replica_misses_nothing(
    provider: ScriptedProvider, clients: list[ChatClient]
) -> None:
    """A client that resumes from its cursor on another replica gets the rest of the text, and nothing twice."""
    before, after = clients
    stream_id = before.asks("年假几天？", id="q1")
    provider.sends("一", "二")
    wait_until(lambda: before.text(stream_id) == "一二", WIDE)
    before.leaves()
    provider.sends("三")

    after.says(type="resume", stream_id=stream_id, cursor=before.cursor(stream_id))
    wait_until(lambda: after.text(stream_id) == "三", WIDE)
    provider.sends("四", None)
    frames = after.sees_end(stream_id)

    assert before.text(stream_id) + after.text(stream_id) == frames[-2]["content"] == "一二三四"
    assert "reset" not in [frame["type"] for frame in frames]
    assert provider.asked == ["年假几天？"]
