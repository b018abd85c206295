"""The running step and the suggested questions in Redis: what every replica shows, and what they cost."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence

import pytest
import redis

from services.models import Delta, ProviderEvent, ProviderIds, Query, Replacement, Step, Usage
from services.streams.store import stream_keys
from tests.support.servers.processes import RedisServer, free_port, wait_until
from tests.support.streams.counting_relay import CountingRelay
from tests.support.streams.desk import CALLER, Desk, SlowProvider
from utils.deadline import Deadline

#: The settings of a bot that shows its provider's steps and suggests questions.
EXTRAS = {"WECHAT_PROGRESS": "true", "WECHAT_SUGGESTIONS": "true"}


class Stepper(SlowProvider):
    """A provider that yields what the test gives it, up to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.events: queue.Queue[ProviderEvent | None] = queue.Queue()
        self.suggest = self._suggest
        self.suggested = ["病假呢", "婚假呢"]

    def gives(self, *events: ProviderEvent | None) -> None:
        for event in events:
            self.events.put(event)

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        yield ProviderIds("c1", "m1", "t1")
        while event := self.events.get(timeout=60.0):
            yield event
        yield Usage()

    def _suggest(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Sequence[str]:
        return self.suggested


@pytest.fixture
def provider() -> Iterator[Stepper]:
    provider = Stepper()
    yield provider
    provider.gives(*[None] * 10)


@pytest.fixture
def desk(redis_url: str, provider: Stepper) -> Iterator[Desk]:
    desk = Desk(redis_url, provider, variables=EXTRAS)
    yield desk
    provider.gives(*[None] * 10)
    desk.close()


@pytest.fixture
def other(redis_url: str, provider: Stepper) -> Iterator[Desk]:
    """A second replica on the same Redis."""
    desk = Desk(redis_url, provider, variables=EXTRAS)
    yield desk
    desk.close()


def shows(desk: Desk, stream_id: str) -> tuple[str, str]:
    """Return the text and the note that a poll reads."""
    snapshot = desk.reads(stream_id)
    assert snapshot
    return snapshot.text, snapshot.note


def sees(desk: Desk, stream_id: str, text: str, note: str) -> None:
    wait_until(lambda: shows(desk, stream_id) == (text, note))


def test_every_replica_names_the_step_until_there_is_text(desk: Desk, other: Desk, provider: Stepper) -> None:
    """The step is a field beside the text; blank text and the beginning of thinking are no visible text."""
    stream_id = desk.asks().stream_id

    provider.gives(Step("查知识库"))
    sees(other, stream_id, "", "查知识库")
    sees(desk, stream_id, "", "查知识库")
    provider.gives(Delta("\n <think>"))
    sees(other, stream_id, "\n <think>", "查知识库")
    provider.gives(Replacement("五天"))
    sees(other, stream_id, "五天", "")
    provider.gives(None)

    assert other.sees_end(stream_id).text == "五天"


def test_readers_on_the_web_get_each_step_before_the_text(desk: Desk, other: Desk, provider: Stepper) -> None:
    """On the owner's replica and on another one; a step that runs on beside text is nothing new."""
    stream_id = desk.asks(channel="chat", principal=CALLER.principal).stream_id
    followed = [one.gateway.follow(stream_id, bot="default", principal=CALLER.principal) for one in (desk, other)]
    seen: list[list[tuple[str, str]]] = [[], []]

    def both_see(*expected: tuple[str, str]) -> None:
        """Wait until both readers have seen exactly these steps and texts since the last call."""
        for following, updates in zip(followed, seen, strict=True):
            while len([update for update in updates if any(update)]) < len(expected):
                if update := following.next(60.0):
                    updates.append((update.step, "".join(chunk.content for chunk in update.chunks)))
            assert [update for update in updates if any(update)] == [*expected]
            updates.clear()

    provider.gives(Step("查知识库"))
    both_see(("查知识库", ""))
    provider.gives(Delta("五天"))
    both_see(("", "五天"))
    provider.gives(Step("撰写回答"), Delta("。"))
    both_see(("", "。"))


def test_every_replica_lists_the_suggestions_with_the_end(desk: Desk, other: Desk, provider: Stepper) -> None:
    """They are written together with the end, and are no text; a redelivery shows the same."""
    asked = desk.asks()
    provider.gives(Delta("五天"), None)

    first = other.sees_end(asked.stream_id)

    assert (first.text, first.note) == ("五天", "病假呢\n婚假呢")
    assert shows(desk, asked.stream_id) == shows(other, asked.stream_id) == ("五天", "病假呢\n婚假呢")
    again = other.asks()
    assert (again.stream_id, again.text, again.note) == (asked.stream_id, "五天", "病假呢\n婚假呢")
    whole = other.streams.full_answer(asked.stream_id)
    assert whole
    assert whole.text == "五天"


def test_an_app_without_suggestions_stores_none(desk: Desk, provider: Stepper, redis_client_of: redis.Redis) -> None:
    """There is no field, and a poll's reply is as short as ever."""
    provider.suggested = []
    asked = desk.asks()
    provider.gives(Delta("五天"), None)

    assert desk.sees_end(asked.stream_id).note == ""
    assert not {"step", "suggested"} & set(redis_client_of.hgetall(stream_keys(asked.stream_id).hash))


@pytest.fixture
def redis_client_of(redis_server: RedisServer, desk: Desk) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


def test_a_new_owner_shows_the_stored_step_until_it_knows_another(
    redis_url: str, other: Desk, provider: Stepper, redis_client_of: redis.Redis
) -> None:
    """After a takeover the step is that of the lost run, then that of the question's second run."""
    lost = Desk(redis_url, provider, variables=EXTRAS)
    try:
        stream_id = lost.asks().stream_id
        provider.gives(Step("查知识库"))
        sees(other, stream_id, "", "查知识库")
        lost.dies()
        # The lost producer takes one more event, as it still waits for the next one.
        provider.gives(None)
        wait_until(provider.events.empty)
        redis_client_of.hset(stream_keys(stream_id).hash, mapping={"lease": "1", "suspect": "1"})
        seen = set()

        def taken_over() -> bool:
            seen.add(shows(other, stream_id))
            return redis_client_of.hget(stream_keys(stream_id).hash, "asks") == "2"

        wait_until(taken_over, timeout=60.0)
        provider.gives(Step("撰写回答"))
        sees(other, stream_id, "", "撰写回答")
        provider.gives(Delta("五天"), None)
        ended = other.sees_end(stream_id)
    finally:
        lost.close()

    assert seen <= {("", "查知识库"), ("", "")}
    assert (ended.text, ended.note) == ("五天", "病假呢\n婚假呢")


def test_many_steps_a_second_cost_few_writes(redis_server: RedisServer, redis_url: str, provider: Stepper) -> None:
    """The last of them is written with the text at the latest; a bot without WECHAT_PROGRESS writes none."""
    counts: list[int] = []
    nothing: dict[str, str] = {}
    for extras in (EXTRAS, nothing):
        with CountingRelay(redis_server.port) as relay:
            desk = Desk(relay.url, provider, lease=1000.0, variables=extras)
            try:
                stream_id = desk.asks(msgid=f"m{len(counts)}").stream_id
                owned = desk.manager.owned(stream_id)
                assert owned
                wait_until(lambda: owned.field("task_id"))  # noqa: B023 - called here
                owned.wait_stored()
                relay.forget()
                provider.gives(*(Step(f"步骤 {number}") for number in range(500)))
                wait_until(provider.events.empty)
                provider.gives(Delta("五天"))
                wait_until(lambda: shows(desk, stream_id)[0] == "五天")  # noqa: B023 - called here
                counts.append(relay.names.count(("append",)))
                with redis_server.client(db=0) as client:
                    step = client.hget(stream_keys(stream_id).hash, "step")
                provider.gives(None)
                desk.sees_end(stream_id)
            finally:
                desk.close()
        assert step == ("步骤 499" if extras else None)

    # One for the first step and one for the text; on a machine that stands still for a second, one more.
    assert counts[0] <= 10
    assert counts[1] <= 2


def test_the_owner_names_the_step_while_redis_is_away(provider: Stepper) -> None:
    """A poll at the owner shows what it showed before."""
    with RedisServer(port=free_port()) as server:
        desk = Desk(server.url(), provider, lease=300.0, variables=EXTRAS)
        try:
            stream_id = desk.asks().stream_id
            provider.gives(Step("查知识库"))
            sees(desk, stream_id, "", "查知识库")
            server.kill()

            assert shows(desk, stream_id) == ("", "查知识库")
        finally:
            desk.dies()
            desk.close()
