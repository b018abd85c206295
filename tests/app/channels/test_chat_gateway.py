"""The chat channel on the real gateway: answers grow, and a client resumes them on any replica."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services.errors import ProviderError
from services.identity.callers import Caller
from services.models import Delta, ProviderEvent, ProviderIds, Query, Replacement
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.sockets.chat_room import WIDE, ChatClient
from tests.support.streams.desk import CALLER, Desk, SlowProvider
from utils.deadline import Deadline

OTHER_CALLER = Caller("key:0000000000000000")


class ScriptedProvider(SlowProvider):
    """A provider that sends what the test puts into its queue."""

    def __init__(self) -> None:
        super().__init__()
        self.coming: queue.Queue[ProviderEvent | ProviderError | None] = queue.Queue()
        self.stopped = threading.Event()

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        self.asked.append(query.text)
        self.conversations.append(query.conversation_id)
        yield ProviderIds("conversation-1", "m1", "t1")
        try:
            while (coming := self._next()) is not None:
                if isinstance(coming, ProviderError):
                    raise coming
                yield coming
        except GeneratorExit:
            self.stopped.set()
            raise

    def _next(self) -> ProviderEvent | ProviderError | None:
        return self.coming.get(timeout=WIDE)

    def sends(self, *pieces: str) -> None:
        for piece in pieces:
            self.coming.put(Delta(piece))

    def ends(self, *pieces: str) -> None:
        self.sends(*pieces)
        self.coming.put(None)


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider()


OpenDesk = Callable[..., Desk]


@pytest.fixture
def open_desk(provider: ScriptedProvider) -> Iterator[OpenDesk]:
    """Return a function that makes desks; all are closed after the test, whatever is still running."""
    desks: list[Desk] = []

    def open_desk(url: str, **changes: Any) -> Desk:
        desks.append(Desk(url, provider, **changes))
        return desks[-1]

    yield open_desk
    for _ in range(20):
        provider.coming.put(None)
    for desk in desks:
        desk.close()


@pytest.fixture
def desk(any_redis_url: str, open_desk: OpenDesk) -> Desk:
    return open_desk(any_redis_url)


@pytest.fixture
def other_desk(any_redis_url: str, open_desk: OpenDesk) -> Desk:
    """A second replica on the same Redis."""
    return open_desk(any_redis_url)


@pytest.fixture
def open_client() -> Iterator[Callable[..., ChatClient]]:
    clients: list[ChatClient] = []

    def open_client(desk: Desk, **who: Any) -> ChatClient:
        clients.append(ChatClient(desk.gateway, **{"caller": CALLER, **who}))
        return clients[-1]

    yield open_client
    for client in clients:
        client.leaves()
        assert client.unknown() == []


OpenClient = Callable[..., ChatClient]


def test_an_answer_arrives_in_deltas(desk: Desk, provider: ScriptedProvider, open_client: OpenClient) -> None:
    """DA7: deltas arrive before the answer is complete; joined they are the answer, byte by byte."""
    client = open_client(desk)
    stream_id = client.asks("年假几天？", id="q1")
    provider.sends("五天", "，")
    wait_until(lambda: client.text(stream_id) == "五天，", WIDE)

    provider.ends("👍🏽 Ünïcode\r\n")
    frames = client.sees_end(stream_id)

    assert client.text(stream_id) == frames[-2]["content"] == "五天，👍🏽 Ünïcode\r\n"
    assert (frames[-2]["status"], frames[-2]["cursor"]) == ("completed", client.cursor(stream_id))
    assert [frame["type"] for frame in frames[-2:]] == ["chat", "typing"]


def test_a_client_that_resumes_on_another_replica_misses_nothing(
    desk: Desk, other_desk: Desk, provider: ScriptedProvider, open_client: OpenClient
) -> None:
    """A client that resumes from its cursor on another replica gets the rest of the text, and nothing twice."""
    before = open_client(desk)
    stream_id = before.asks("年假几天？", id="q1")
    provider.sends("一", "二")
    wait_until(lambda: before.text(stream_id) == "一二", WIDE)
    before.leaves()
    provider.sends("三")

    after = open_client(other_desk)
    after.says(type="resume", stream_id=stream_id, cursor=before.cursor(stream_id))
    wait_until(lambda: after.text(stream_id) == "三", WIDE)
    provider.ends("四")
    frames = after.sees_end(stream_id)

    assert before.text(stream_id) + after.text(stream_id) == frames[-2]["content"] == "一二三四"
    assert "reset" not in [frame["type"] for frame in frames]
    assert provider.asked == ["年假几天？"]


def test_an_ended_answer_is_resumed(
    desk: Desk, other_desk: Desk, provider: ScriptedProvider, open_client: OpenClient
) -> None:
    """A client with the whole text gets only its end; a client without a cursor gets everything."""
    client = open_client(desk)
    stream_id = client.asks("年假几天？")
    provider.ends("一", "二")
    cursor = client.sees_end(stream_id)[-2]["cursor"]

    with_cursor, without_cursor = open_client(other_desk), open_client(other_desk)
    with_cursor.says(type="resume", stream_id=stream_id, cursor=cursor)
    without_cursor.says(type="resume", stream_id=stream_id)

    assert [frame["type"] for frame in with_cursor.sees_end(stream_id)] == ["typing", "chat", "typing"]
    assert without_cursor.sees_end(stream_id)[-2]["content"] == without_cursor.text(stream_id) == "一二"


def test_the_same_question_on_two_replicas_is_asked_once(
    desk: Desk, other_desk: Desk, provider: ScriptedProvider, open_client: OpenClient
) -> None:
    """The id finds its stream on the other replica; both sockets get the whole answer."""
    first_client, second_client = open_client(desk), open_client(other_desk)

    ids = {first_client.asks("年假几天？", id="q1"), second_client.asks("年假几天？", id="q1")}
    provider.ends("五天")

    (stream_id,) = ids
    assert first_client.sees_end(stream_id)[-2]["content"] == second_client.sees_end(stream_id)[-2]["content"] == "五天"
    assert provider.asked == ["年假几天？"]


def test_a_client_that_resumes_after_a_replacement_gets_a_reset(
    desk: Desk, other_desk: Desk, provider: ScriptedProvider, open_client: OpenClient
) -> None:
    """Its cursor lies before the beginning of the new text, so it gets a reset."""
    before = open_client(desk)
    stream_id = before.asks("年假几天？")
    provider.sends("不知道")
    wait_until(lambda: before.text(stream_id) == "不知道", WIDE)
    before.leaves()
    provider.coming.put(Replacement("五天"))
    provider.ends("。")

    after = open_client(other_desk)
    after.says(type="resume", stream_id=stream_id, cursor=before.cursor(stream_id))
    frames = after.sees_end(stream_id)

    assert [frame["type"] for frame in frames][:2] == ["typing", "reset"]
    assert after.text(stream_id) == frames[-2]["content"] == "五天。"


@pytest.mark.parametrize("where", ["here", "there"])
def test_stop_reaches_the_provider(
    desk: Desk, other_desk: Desk, provider: ScriptedProvider, open_client: OpenClient, where: str
) -> None:
    """On either replica, the provider's run is closed; the text so far is the answer, with status cancelled."""
    client = open_client(desk)
    stream_id = client.asks("年假几天？")
    provider.sends("五")
    wait_until(lambda: client.text(stream_id) == "五", WIDE)

    (client if where == "here" else open_client(other_desk)).says(type="stop", stream_id=stream_id)
    frames = client.sees_end(stream_id)
    provider.sends("天")

    assert (frames[-2]["content"], frames[-2]["status"], frames[-2]["code"]) == ("五", "cancelled", "CANCELLED")
    assert provider.stopped.wait(WIDE)


@pytest.mark.full
def test_a_running_answer_survives_an_outage_of_redis(
    provider: ScriptedProvider, open_desk: OpenDesk, open_client: OpenClient
) -> None:
    """During an outage a new question gets an error; a running answer on another replica arrives whole afterwards."""
    with RedisServer() as server:
        desk, other = open_desk(server.url()), open_desk(server.url())
        client = open_client(desk)
        stream_id = client.asks("年假几天？")
        provider.sends("五")
        wait_until(lambda: client.text(stream_id) == "五", WIDE)
        reader = open_client(other)
        reader.says(type="resume", stream_id=stream_id)
        wait_until(lambda: reader.text(stream_id) == "五", WIDE)

        server.pause()
        reader.says(type="chat", content="还有吗？", id="q2")
        refused = reader.frames[-1]
        server.resume()
        provider.ends("天")

        assert (refused["code"], refused["id"]) == ("SERVICE_UNAVAILABLE", "q2")
        assert reader.sees_end(stream_id)[-2]["content"] == reader.text(stream_id) == "五天"
        assert client.sees_end(stream_id)[-2]["content"] == client.text(stream_id) == "五天"
