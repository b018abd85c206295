"""The chat endpoint on the real gateway: answers grow, and go on wherever their reader comes back."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from config.texts import ZH
from services.errors import ProviderError
from services.identity.callers import Caller
from services.models import Delta, ProviderEvent, ProviderIds, Query, Replacement, Usage
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.sockets.chat_room import WIDE, ChatClient
from tests.support.streams.desk import CALLER, Desk, SlowProvider
from utils.deadline import Deadline

STRANGER = Caller("key:0000000000000000")


class Teller(SlowProvider):
    """Says what the test tells it, piece by piece."""

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

    def tells(self, *pieces: str) -> None:
        for piece in pieces:
            self.coming.put(Delta(piece))

    def ends(self, *pieces: str) -> None:
        self.tells(*pieces)
        self.coming.put(None)


@pytest.fixture
def provider() -> Teller:
    return Teller()


Opens = Callable[..., Desk]


@pytest.fixture
def opens(provider: Teller) -> Iterator[Opens]:
    """Opens a desk; all of them are closed in the end, whatever is still being answered."""
    desks: list[Desk] = []

    def opens(url: str, **changes: Any) -> Desk:
        desks.append(Desk(url, provider, **changes))
        return desks[-1]

    yield opens
    for _ in range(20):
        provider.coming.put(None)
    for desk in desks:
        desk.close()


@pytest.fixture
def desk(any_redis_url: str, opens: Opens) -> Desk:
    return opens(any_redis_url)


@pytest.fixture
def other_desk(any_redis_url: str, opens: Opens) -> Desk:
    """A second replica on the same Redis."""
    return opens(any_redis_url)


@pytest.fixture
def arrives() -> Iterator[Callable[..., ChatClient]]:
    clients: list[ChatClient] = []

    def arrives(desk: Desk, **who: Any) -> ChatClient:
        clients.append(ChatClient(desk.gateway, **{"caller": CALLER, **who}))
        return clients[-1]

    yield arrives
    for client in clients:
        client.leaves()
        assert client.unknown() == []


Arrives = Callable[..., ChatClient]


def test_an_answer_is_seen_growing(desk: Desk, provider: Teller, arrives: Arrives) -> None:
    """DA7: what was said is there before the rest is; the deltas joined are the answer, byte for byte."""
    client = arrives(desk)
    stream_id = client.asks("年假几天？", id="q1")
    provider.tells("五天", "，")
    wait_until(lambda: client.text(stream_id) == "五天，", WIDE)

    provider.ends("👍🏽 Ünïcode\r\n")
    frames = client.sees_end(stream_id)

    assert client.text(stream_id) == frames[-2]["content"] == "五天，👍🏽 Ünïcode\r\n"
    assert (frames[-2]["status"], frames[-2]["cursor"]) == ("completed", client.cursor(stream_id))
    assert [frame["type"] for frame in frames[-2:]] == ["chat", "typing"]


def test_a_client_that_comes_back_elsewhere_misses_nothing(
    desk: Desk, other_desk: Desk, provider: Teller, arrives: Arrives
) -> None:
    """Resumed from its cursor on another replica: what it has and what it gets are the answer, nothing twice."""
    before = arrives(desk)
    stream_id = before.asks("年假几天？", id="q1")
    provider.tells("一", "二")
    wait_until(lambda: before.text(stream_id) == "一二", WIDE)
    before.leaves()
    provider.tells("三")

    after = arrives(other_desk)
    after.says(type="resume", stream_id=stream_id, cursor=before.cursor(stream_id))
    wait_until(lambda: after.text(stream_id) == "三", WIDE)
    provider.ends("四")
    frames = after.sees_end(stream_id)

    assert before.text(stream_id) + after.text(stream_id) == frames[-2]["content"] == "一二三四"
    assert "reset" not in [frame["type"] for frame in frames]
    assert provider.asked == ["年假几天？"]


def test_an_ended_answer_is_resumed(desk: Desk, other_desk: Desk, provider: Teller, arrives: Arrives) -> None:
    """Whoever has all of it gets its end; whoever has nothing gets it all."""
    client = arrives(desk)
    stream_id = client.asks("年假几天？")
    provider.ends("一", "二")
    cursor = client.sees_end(stream_id)[-2]["cursor"]

    knows, knows_nothing = arrives(other_desk), arrives(other_desk)
    knows.says(type="resume", stream_id=stream_id, cursor=cursor)
    knows_nothing.says(type="resume", stream_id=stream_id)

    assert [frame["type"] for frame in knows.sees_end(stream_id)] == ["typing", "chat", "typing"]
    assert knows_nothing.sees_end(stream_id)[-2]["content"] == knows_nothing.text(stream_id) == "一二"


def test_the_same_question_on_two_replicas_is_asked_once(
    desk: Desk, other_desk: Desk, provider: Teller, arrives: Arrives
) -> None:
    """Its id finds its stream wherever it is sent again; both sockets see the whole answer."""
    here, there = arrives(desk), arrives(other_desk)

    ids = {here.asks("年假几天？", id="q1"), there.asks("年假几天？", id="q1")}
    provider.ends("五天")

    (stream_id,) = ids
    assert here.sees_end(stream_id)[-2]["content"] == there.sees_end(stream_id)[-2]["content"] == "五天"
    assert provider.asked == ["年假几天？"]


def test_other_words_under_a_used_id_are_told_so(
    desk: Desk, other_desk: Desk, provider: Teller, arrives: Arrives
) -> None:
    """On the same socket and on another replica's: an error with the id, and the first answer is not shown for them."""
    here, there = arrives(desk), arrives(other_desk)
    stream_id = here.asks("年假几天？", id="q1")

    for client in (here, there):
        client.says(type="chat", content="病假几天？", id="q1")
        assert client.sees(type="error") == {
            "type": "error",
            "code": "ID_CONFLICT",
            "content": ZH["id_conflict"],
            "id": "q1",
        }
    provider.ends("五天")

    assert here.sees_end(stream_id)[-2]["content"] == "五天"
    assert there.of(stream_id) == []
    assert provider.asked == ["年假几天？"]


def test_ids_are_each_clients_own(desk: Desk, arrives: Arrives) -> None:
    """DA4: the same id of another client, or of another person with the same client id, is another question."""
    mine = arrives(desk).asks("年假几天？", id="q1")

    assert arrives(desk, client_id="c2").asks("年假几天？", id="q1") != mine
    assert arrives(desk, caller=STRANGER).asks("年假几天？", id="q1") != mine


def test_a_stream_is_its_askers_own(desk: Desk, provider: Teller, arrives: Arrives) -> None:
    """Nobody else resumes or stops it, whatever they know of it; they cannot tell it from one that never was."""
    client, stranger = arrives(desk), arrives(desk, caller=STRANGER)
    stream_id = client.asks("年假几天？")
    provider.tells("五")
    wait_until(lambda: client.text(stream_id) == "五", WIDE)

    stranger.says(type="stop", stream_id=stream_id)
    stranger.says(type="resume", stream_id=stream_id)
    stranger.sees_end(stream_id)
    provider.ends("天")

    assert {frame.get("code") for frame in stranger.of(stream_id, "error")} == {"STREAM_UNKNOWN"}
    assert stranger.text(stream_id) == ""
    assert client.sees_end(stream_id)[-2]["content"] == "五天"


def test_a_replaced_answer_begins_anew(desk: Desk, provider: Teller, arrives: Arrives) -> None:
    """The client that follows `reset` has the new text alone."""
    client = arrives(desk)
    stream_id = client.asks("年假几天？")
    provider.tells("不知道")
    wait_until(lambda: client.text(stream_id) == "不知道", WIDE)

    provider.coming.put(Replacement("五天"))
    provider.ends("。")
    frames = client.sees_end(stream_id)

    assert [frame["type"] for frame in frames].count("reset") == 1
    assert client.text(stream_id) == frames[-2]["content"] == "五天。"


def test_one_who_comes_back_after_a_replacement_begins_anew(
    desk: Desk, other_desk: Desk, provider: Teller, arrives: Arrives
) -> None:
    """Its cursor lies before the new text's beginning."""
    before = arrives(desk)
    stream_id = before.asks("年假几天？")
    provider.tells("不知道")
    wait_until(lambda: before.text(stream_id) == "不知道", WIDE)
    before.leaves()
    provider.coming.put(Replacement("五天"))
    provider.ends("。")

    after = arrives(other_desk)
    after.says(type="resume", stream_id=stream_id, cursor=before.cursor(stream_id))
    frames = after.sees_end(stream_id)

    assert [frame["type"] for frame in frames][:2] == ["typing", "reset"]
    assert after.text(stream_id) == frames[-2]["content"] == "五天。"


@pytest.mark.parametrize("where", ["here", "there"])
def test_stop_reaches_the_provider(
    desk: Desk, other_desk: Desk, provider: Teller, arrives: Arrives, where: str
) -> None:
    """On whichever replica it is said, the run is closed; what there was is the answer, cancelled."""
    client = arrives(desk)
    stream_id = client.asks("年假几天？")
    provider.tells("五")
    wait_until(lambda: client.text(stream_id) == "五", WIDE)

    (client if where == "here" else arrives(other_desk)).says(type="stop", stream_id=stream_id)
    frames = client.sees_end(stream_id)
    provider.tells("天")

    assert (frames[-2]["content"], frames[-2]["status"], frames[-2]["code"]) == ("五", "cancelled", "CANCELLED")
    assert provider.stopped.wait(WIDE)


def test_a_stop_that_comes_too_late_is_no_error(desk: Desk, provider: Teller, arrives: Arrives) -> None:
    """The answer was whole a moment before."""
    client = arrives(desk)
    stream_id = client.asks("年假几天？")
    provider.ends("五天")
    client.sees_end(stream_id)

    client.says(type="stop", stream_id=stream_id)

    assert client.of(stream_id, "error") == []


def test_a_failed_answer(desk: Desk, provider: Teller, arrives: Arrives) -> None:
    """Its text, then its error in the sentence that the stream keeps."""
    client = arrives(desk)
    stream_id = client.asks("年假几天？", id="q1")
    provider.tells("五")
    wait_until(lambda: client.text(stream_id) == "五", WIDE)
    provider.coming.put(ProviderError(code="provider_truncated"))

    *_, whole, error, typing = client.sees_end(stream_id)

    assert (whole["content"], whole["status"]) == ("五", "error")
    assert (error["code"], error["content"], error["id"]) == ("PROVIDER_TRUNCATED", "<provider_truncated>", "q1")
    assert typing["status"] is False


def test_where_an_answer_comes_from(desk: Desk, provider: Teller, arrives: Arrives) -> None:
    """The provider's sources go with the whole answer."""
    client = arrives(desk)
    stream_id = client.asks("年假几天？")
    provider.coming.put(Usage(7, sources=({"title": "手册"},)))
    provider.ends("五天")

    assert client.sees_end(stream_id)[-2]["sources"] == [{"title": "手册"}]


def test_questions_stand_for_themselves(desk: Desk, provider: Teller, arrives: Arrives) -> None:
    """A24: nothing is remembered from one to the next, unless the client says that they belong together."""
    client = arrives(desk)
    for number, together in enumerate([False, False, True, True]):
        stream_id = client.asks(f"{number}？", conversation=together)
        provider.ends("好")
        client.sees_end(stream_id)
        wait_until(lambda: desk.manager.running == 0, WIDE)

    assert provider.conversations == ["", "", "", "conversation-1"]


def test_questions_of_a_conversation_wait_for_each_other(desk: Desk, provider: Teller, arrives: Arrives) -> None:
    """The provider is asked the second when the first is answered; other questions wait for nobody."""
    client = arrives(desk)
    first = client.asks("一？", conversation=True)
    second = client.asks("二？", conversation=True)
    wait_until(lambda: provider.asked == ["一？"], WIDE)
    client.asks("三？")
    wait_until(lambda: provider.asked == ["一？", "三？"], WIDE)
    provider.ends("好")
    provider.ends("好")

    client.sees_end(first)
    provider.ends("好")
    client.sees_end(second)

    assert provider.asked == ["一？", "三？", "二？"]


def test_redis_goes_away_and_comes_back(provider: Teller, opens: Opens, arrives: Arrives) -> None:
    """A new question is told so; an answer under way on another replica is waited for, and comes whole."""
    with RedisServer() as server:
        desk, other = opens(server.url()), opens(server.url())
        client = arrives(desk)
        stream_id = client.asks("年假几天？")
        provider.tells("五")
        wait_until(lambda: client.text(stream_id) == "五", WIDE)
        reader = arrives(other)
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
