"""The gateway: a question is asked once, read by its own people only, and refused with a stored sentence."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from services.attachments import MediaFile
from services.errors import StoreUnavailable
from services.models import Question
from services.redis.store import ScriptRunner
from services.streams.access import Access
from services.streams.following import Misses
from services.streams.polls import StreamPolls
from services.streams.store import StreamStore, stream_keys
from tests.support.pictures import png
from tests.support.servers.processes import FakeClock, RedisServer, free_port, wait_until
from tests.support.streams.desk import CALLER, Desk, SlowProvider


def test_a_redelivered_message_finds_its_stream(desk: Desk, provider: SlowProvider) -> None:
    """A running or finished question is not asked a second time."""
    first = desk.asks()
    running = desk.asks()
    provider.go_on.set()
    desk.sees_end(first.stream_id)

    finished = desk.asks()

    assert running.stream_id == finished.stream_id == first.stream_id
    assert (finished.status, finished.text) == ("completed", "答：年假?")
    assert provider.asked == ["年假?"]


def test_twenty_deliveries_at_once_on_two_replicas_ask_once(redis_url: str, provider: SlowProvider) -> None:
    """Concurrent redeliveries have one stream, one producer and one provider call."""
    replicas = [Desk(redis_url, provider), Desk(redis_url, provider)]

    with ThreadPoolExecutor(20) as pool:
        asked = list(pool.map(lambda n: replicas[n % 2].asks(), range(20)))
    provider.go_on.set()
    replicas[0].sees_end(asked[0].stream_id)

    assert len({snapshot.stream_id for snapshot in asked}) == 1
    assert provider.asked == ["年假?"]
    wait_until(lambda: all(desk.manager.running == 0 for desk in replicas))
    for desk in replicas:
        desk.close()


def test_the_stream_id_is_the_same_on_every_process(desk: Desk) -> None:
    """It is a keyed hash of bot, person and message id: every replica computes it, and no client can guess it."""
    asked = desk.asks(msgid="m1")

    assert asked.stream_id == "81ef5c00117f826092f6953671332b4b"
    assert desk.asks(msgid="m1", bot="hr").stream_id != asked.stream_id
    assert desk.asks(msgid="m1", principal="lisi").stream_id != asked.stream_id
    assert desk.asks(msgid="m2").stream_id != asked.stream_id
    assert desk.asks(msgid="").stream_id != desk.asks(msgid="").stream_id, "no message without an id is a redelivery"


def test_the_fourth_question_of_a_person_is_refused_for_good(desk: Desk, provider: SlowProvider) -> None:
    """The refusal is a stored stream, and a redelivery repeats it even when a slot is free again."""
    for number in range(3):
        desk.asks(f"问{number}", msgid=str(number))

    fourth = desk.asks("问3", msgid="3")
    other = desk.asks("别人", msgid="x", principal="lisi")
    provider.go_on.set()
    wait_until(lambda: desk.manager.running == 0)
    again = desk.asks("问3", msgid="3")

    assert (fourth.status, fourth.error_code, other.status) == ("error", "user_full", "processing")
    assert (again.error_code, again.stream_id) == ("user_full", fourth.stream_id)
    assert "问3" not in provider.asked


def test_a_redelivery_takes_no_slot(desk: Desk, provider: SlowProvider, redis_client: redis.Redis) -> None:
    """Neither one of the person's slots nor an entry in the conversation's queue."""
    provider.go_on.set()
    asked = desk.asks()
    desk.sees_end(asked.stream_id)
    wait_until(lambda: desk.manager.running == 0)

    desk.asks()

    assert redis_client.exists("dify_user:default:zhangsan") == 0
    assert redis_client.keys("*:turns") == []


def test_a_late_redelivery_leaves_its_running_stream_in_the_queue(
    desk: Desk, provider: SlowProvider, redis_client: redis.Redis
) -> None:
    """The person's slot has lapsed by then, but not the conversation's turn."""
    asked = desk.asks()
    wait_until(lambda: len(provider.asked) == 1)
    redis_client.delete("dify_user:default:zhangsan")

    desk.asks()

    (queue,) = redis_client.keys("*:turns")
    assert redis_client.lrange(queue, 0, -1) == [asked.stream_id]
    provider.go_on.set()
    wait_until(lambda: desk.manager.running == 0)
    assert redis_client.exists("dify_user:default:zhangsan", queue) == 0, "its end releases slot and turn"


def test_a_full_replica_refuses_questions(any_redis_url: str, provider: SlowProvider) -> None:
    """The refusal is stored; a message that the replica is answering is still found."""
    desk = Desk(any_redis_url, provider, max_streams=1)
    first = desk.asks(msgid="1")

    refused = desk.asks(msgid="2")

    assert (refused.status, refused.error_code) == ("error", "replica_full")
    assert desk.asks(msgid="1").stream_id == first.stream_id
    assert desk.asks(msgid="1").status == "processing"
    provider.go_on.set()
    desk.close()


def test_an_http_question_without_a_slot_may_be_repeated(desk: Desk, provider: SlowProvider) -> None:
    """Its refusal is not stored: the same id, sent again, is asked like any other question."""
    program = {"channel": "http", "principal": CALLER.principal, "msgid": "again"}
    desk.manager.draining = True
    refused = desk.asks(**program)
    desk.manager.draining = False

    taken = desk.asks(**program)

    assert (refused.status, refused.error_code, refused.length) == ("error", "draining", 0)
    assert (taken.stream_id, taken.status) == (refused.stream_id, "processing")
    provider.go_on.set()
    assert desk.sees_end(taken.stream_id, principal=CALLER.principal).status == "completed"


def test_an_http_question_finds_its_stream_on_a_draining_replica(desk: Desk, provider: SlowProvider) -> None:
    """A draining replica refuses new questions, and shows the answers of earlier ones."""
    program = {"channel": "http", "principal": CALLER.principal, "msgid": "again"}
    taken = desk.asks(**program)
    desk.manager.draining = True

    found = desk.asks(**program)

    assert (found.stream_id, found.status) == (taken.stream_id, "processing")
    provider.go_on.set()
    desk.sees_end(taken.stream_id, principal=CALLER.principal)


def test_the_second_question_of_a_conversation_waits(desk: Desk, provider: SlowProvider) -> None:
    """Its first frame already says so, and it continues the conversation of the first question."""
    first = desk.asks("一", msgid="1")
    wait_until(lambda: provider.asked == ["一"])
    second = desk.asks("二", msgid="2")
    other_chat = desk.asks("三", msgid="3", chat="group")

    assert (first.waiting, second.waiting, other_chat.waiting) == (False, True, False)
    wait_until(lambda: bool((s := desk.reads(second.stream_id)) and s.waiting) and "三" in provider.asked)
    assert "二" not in provider.asked
    provider.go_on.set()
    end = desk.sees_end(second.stream_id)
    assert (end.text, end.waiting) == ("答：二", False)
    assert provider.conversations[provider.asked.index("二")] == "c1"


def test_a_full_queue_is_refused(any_redis_url: str, provider: SlowProvider) -> None:
    """At most three questions wait behind a running one."""
    desk = Desk(any_redis_url, provider, slots=10)

    asked = [desk.asks(msgid=str(number)) for number in range(5)]

    assert [snapshot.waiting for snapshot in asked] == [False, True, True, True, True]
    assert desk.sees_end(asked[4].stream_id).error_code == "turns_full"
    provider.go_on.set()
    desk.close()


def test_a_reset_starts_a_new_conversation(desk: Desk, provider: SlowProvider) -> None:
    """The command is not sent to the provider, and the next question is in a new conversation."""
    provider.go_on.set()
    desk.sees_end(desk.asks("一", msgid="1").stream_id)
    wait_until(lambda: desk.manager.running == 0)

    reset = desk.asks(" /reset ", msgid="2")
    desk.sees_end(desk.asks("二", msgid="3").stream_id)

    assert (reset.status, reset.text, reset.error_code) == ("completed", "<reset_done>", "")
    wait_until(lambda: desk.manager.running == 0)
    desk.asks(" /reset ", msgid="2")
    desk.sees_end(desk.asks("三", msgid="4").stream_id)
    assert provider.conversations == ["", "", "c1"], "a redelivered command does not end the new conversation"
    assert provider.asked == ["一", "二", "三"]


@pytest.mark.parametrize("opens", [True, False], ids=["reply lost", "request lost"])
def test_a_lost_opening_releases_slot_and_turn(
    any_redis_url: str, redis_client: redis.Redis, provider: SlowProvider, tmp_path: Path, opens: bool
) -> None:
    """The question was answered with an error; when Redis answers again, the opened stream is ended.

    Only a stream that was opened is queued for the question log: one that Redis never had would count as lost there.
    """
    # An idle replica looks for such streams twelve times in a lease.
    variables = {"DATABASE_PATH": str(tmp_path / "laibao.db")}
    desk = Desk(any_redis_url, provider, lease=2.0, variables=variables)
    run = desk.streams._runner.run_each
    lost: list[bool] = []

    def losing(calls: Any, **options: Any) -> Any:
        replies = run(calls, **options) if lost or opens else []
        if not lost:
            lost.append(True)
            raise StoreUnavailable("the reply is lost")
        return replies

    desk.streams._runner.run_each = losing  # type: ignore[method-assign]

    refused = desk.asks()

    assert (refused.status, refused.error_code) == ("error", "store_unavailable")
    wait_until(lambda: not desk.manager._flusher._late_ends)
    wait_until(lambda: redis_client.keys("*:turns") == [] and not redis_client.exists("dify_user:default:zhangsan"))
    assert redis_client.hget(stream_keys(refused.stream_id).hash, "status") == ("error" if opens else None)
    assert redis_client.zcard("{dify_log}:queue") == opens
    assert provider.asked == []
    desk.close()


def test_a_refusal_that_redis_did_not_store_is_stored_later(
    desk: Desk, redis_client: redis.Redis, provider: SlowProvider
) -> None:
    """The person was refused, so the stream must not stay running and be answered after all."""
    for number in range(3):
        desk.asks(msgid=str(number), chat=f"chat{number}")
    write, lost = desk.streams.write, iter([True])
    refused_id = desk.gateway._access.stream_id(Question("年假?", "wecom", "default", "zhangsan", msgid="one too many"))

    def losing(writes: Any, *others: Any) -> Any:
        if any(one.stream_id == refused_id for one in writes) and next(lost, False):
            return [StoreUnavailable("its node is away")]
        return write(writes, *others)

    desk.streams.write = losing  # type: ignore[method-assign]

    refused = desk.asks(msgid="one too many")

    assert refused.error_code == "user_full"
    wait_until(lambda: redis_client.hget(stream_keys(refused.stream_id).hash, "status") == "error")


def test_an_empty_question_gets_a_sentence(desk: Desk, provider: SlowProvider) -> None:
    """The provider is not asked."""
    assert desk.asks("  \n").error_code == "empty_question"
    assert provider.asked == []


@pytest.mark.parametrize("text", ["x" * 65_537, "字" * 21_846])
def test_a_question_that_is_too_large_gets_a_sentence(
    desk: Desk, provider: SlowProvider, redis_client: redis.Redis, text: str
) -> None:
    """It is never asked, and less than 10,000 characters are stored of it; a question of the maximal size is asked."""
    refused = desk.asks(text, msgid="large")

    assert (refused.status, refused.error_code) == ("error", "question_too_large")
    assert desk.asks(text, msgid="large") == refused
    assert provider.asked == []
    assert sum(len(value) for value in redis_client.hgetall(stream_keys(refused.stream_id).hash).values()) < 10_000
    assert desk.asks("x" * 65_536, msgid="largest").status == "processing"


def test_a_sentence_of_the_product_is_a_finished_stream(desk: Desk) -> None:
    """Each delivery of the message gets the same sentence."""
    question = Question("", "wecom", "default", "zhangsan", msgid="i1")

    first, again = desk.gateway.say(question, "unsupported_message"), desk.gateway.say(question, "welcome")

    assert (first.status, first.text) == ("completed", "<unsupported_message>")
    assert again == first


@pytest.mark.parametrize(
    ("reader", "sees"),
    [
        ({}, True),
        ({"chat": "group"}, True),
        ({"principal": "lisi", "chat": "group"}, True),
        ({"principal": "lisi"}, False),
        ({"principal": "lisi", "chat": "other"}, False),
        ({"bot": "hr"}, False),
    ],
)
def test_a_stream_is_read_by_its_person_and_its_chat(desk: Desk, reader: dict[str, str], sees: bool) -> None:
    """For other readers it does not exist."""
    asked = desk.asks(chat="group")

    assert (desk.reads(asked.stream_id, **reader) is not None) == sees


def test_the_reply_address_is_sealed(desk: Desk, redis_client: redis.Redis) -> None:
    """Redis has the one-time address encrypted under a key that only the replicas have."""
    question = Question("?", "wecom", "default", "z", msgid="1")
    asked = desk.gateway.ask(question, reply="https://wecom.invalid/once")

    sealed = redis_client.hget(stream_keys(asked.stream_id).hash, "reply")

    assert isinstance(sealed, str)
    assert "wecom.invalid" not in sealed
    assert Access(desk.keys).unsealed(question, sealed) == "https://wecom.invalid/once"


def test_readers_are_told_of_a_late_message_with_redis_and_without(desk: Desk) -> None:
    """Frames keep room for the sentence about it, so every source of a snapshot has the mark."""
    asked = desk.gateway.ask(
        Question("?", "wecom", "default", "zhangsan", msgid="1"), reply="https://wecom.invalid/once"
    )

    read, known = desk.reads(asked.stream_id), desk.manager.known(asked.stream_id)

    assert read
    assert known
    assert (asked.late, read.late, known.late) == (True, True, True)


def test_a_poll_takes_over_a_dead_owners_stream(desk: Desk, any_redis_url: str, redis_client: redis.Redis) -> None:
    """The replica whose poll finds it past lease and suspicion has the question answered."""
    asked = desk.asks()
    desk.dies()
    for mark in ("lease", "suspect"):
        redis_client.hset(stream_keys(asked.stream_id).hash, mark, "1")
    reader = Desk(any_redis_url, provider := SlowProvider())
    provider.go_on.set()

    snapshot = reader.reads(asked.stream_id)

    assert snapshot
    assert snapshot.status == "processing"
    end = reader.sees_end(asked.stream_id)
    assert (end.status, end.text, end.epoch) == ("completed", "答：年假?", 2)
    wait_until(lambda: reader.manager.running == 0)
    assert redis_client.exists("dify_user:default:zhangsan") == 0, "the person's slot is free again"
    assert redis_client.keys("*:turns") == []
    reader.close()


def test_a_stream_that_redis_just_lost_is_not_reported_as_expired(
    desk: Desk, any_redis_url: str, redis_client: redis.Redis, provider: SlowProvider
) -> None:
    """Other replicas raise StoreUnavailable until the owner has written it again."""
    reader = Desk(any_redis_url, SlowProvider())
    asked = desk.asks()
    owned = desk.manager.owned(asked.stream_id)
    assert owned
    wait_until(lambda: owned.field("task_id"))
    owned.wait_stored()

    redis_client.delete(*stream_keys(asked.stream_id))
    with pytest.raises(StoreUnavailable):
        reader.reads(asked.stream_id)
    owned.touch()

    wait_until(lambda: settled(reader, asked.stream_id))
    provider.go_on.set()
    assert reader.sees_end(asked.stream_id).text == "答：年假?"
    reader.close()


def test_a_missing_stream_is_unknown_after_a_while(desk: Desk, clock: FakeClock) -> None:
    """Readers of a stream that does not come back wait no longer than its owner would need."""
    desk.gateway._polls.misses = Misses(4.0, clock=clock)
    with pytest.raises(StoreUnavailable):
        desk.reads("unknown")

    clock.advance(4.0)

    assert desk.reads("unknown") is None


def test_a_stream_has_every_field_from_its_beginning(desk: Desk, redis_client: redis.Redis) -> None:
    """The hash has the documented fields; `suspect`, `shown` and `read` are added with their values."""
    asked = desk.asks()

    fields = redis_client.hgetall(stream_keys(asked.stream_id).hash)

    documented = "content token user_info status conversation_id dify_finished created_time"
    ours = "v question auth_state deadline epoch owner lease start frame_deadline error_code reply delivered"
    assert set(f"{documented} {ours} message_id task_id run_id asks".split()) <= set(fields)


def test_without_redis_a_question_gets_a_sentence(provider: SlowProvider) -> None:
    """A question that cannot be stored is not asked."""
    desk = Desk(f"redis://127.0.0.1:{free_port()}/0", provider)

    assert desk.asks().error_code == "store_unavailable"
    assert desk.gateway.say(Question("", "wecom", "default", "z", msgid="1"), "welcome").status == "error"
    assert provider.asked == []
    assert desk.manager.running == 0
    desk.close()


def test_without_redis_the_owner_shows_the_acknowledged_text(provider: SlowProvider) -> None:
    """Only to readers with access; other streams raise StoreUnavailable."""
    with RedisServer() as server:
        desk = Desk(server.url(), provider)
        asked = desk.asks()
        wait_until(lambda: len(provider.asked) == 1)
        server.kill()
        provider.go_on.set()

        known = desk.reads(asked.stream_id)

        assert known
        assert (known.status, known.text) == ("processing", ""), "no more than other replicas may have read"
        assert desk.reads(asked.stream_id, principal="lisi") is None, "access is checked without Redis too"
        with pytest.raises(StoreUnavailable):
            desk.reads("unknown")
        server.start()
        desk.close()


def test_without_redis_only_the_owner_shows_a_running_stream(provider: SlowProvider) -> None:
    """Another replica might show less than was shown before, during the outage and in the first moments after it."""
    with RedisServer(aof=True) as server:
        desk, reader = Desk(server.url(), provider), Desk(server.url(), SlowProvider())
        asked = desk.asks()
        ended = desk.gateway.say(Question("", "wecom", "default", "zhangsan", msgid="2"), "welcome")
        assert reader.reads(asked.stream_id)

        server.kill()

        for stream_id in (asked.stream_id, ended.stream_id):
            with pytest.raises(StoreUnavailable):
                reader.reads(stream_id)
        assert desk.reads(asked.stream_id)
        server.start()
        wait_until(lambda: settled(reader, asked.stream_id) or not reader.streams.away(asked.stream_id))
        assert settled(reader, ended.stream_id), "an ended stream is shown at once"
        wait_until(lambda: settled(reader, asked.stream_id))
        provider.go_on.set()
        reader.close()
        desk.close()


class JustBack(StreamStore):
    """A store whose Redis answers again since a moment ago."""

    def away(self, stream_id: str) -> bool:
        return True


def test_an_empty_refresh_has_its_cause(desk: Desk, any_redis_url: str, runner: ScriptRunner) -> None:
    """Right after an outage Redis answers, but may lack what the owner has shown: that is not an outage of Redis."""
    asked = desk.asks()
    elsewhere = Desk(any_redis_url, SlowProvider())

    with pytest.raises(StoreUnavailable) as refused:
        StreamPolls(JustBack(runner), elsewhere.manager).snapshot(asked.stream_id)

    assert refused.value.code == "owner_only"
    owners = StreamPolls(JustBack(runner), desk.manager).snapshot(asked.stream_id)
    assert owners
    assert owners.status == "processing"
    elsewhere.close()


def settled(desk: Desk, stream_id: str) -> bool:
    """Return whether an existing stream can be shown; it must never be reported as unknown."""
    try:
        snapshot = desk.reads(stream_id)
    except StoreUnavailable:
        return False
    assert snapshot, "reported as unknown"
    return True


def test_a_picture_is_kept_for_the_question_that_began(redis_url: str, provider: SlowProvider) -> None:
    """A redelivered question and a refused one leave no copy, and do not touch that of the one that began."""
    picture = MediaFile("image.png", "image", "image/png", png())
    provider.takes_files = "inline"
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    with client, closing(Desk(redis_url, provider, slots=1)) as desk:

        def kept(msgid: str, principal: str = "zhangsan") -> list[str]:
            question = Question("年假?", "wecom", "default", principal, msgid=msgid)
            desk.gateway.ask(question, media=(picture,))
            return sorted(client.scan_iter("dify_media:*"))

        desk.asks("工资?", msgid="m0", principal="lisi")
        refused, began, again = kept("m1", "lisi"), kept("m1"), kept("m1")
        provider.go_on.set()

    assert (refused, len(began), again) == ([], 1, began)
