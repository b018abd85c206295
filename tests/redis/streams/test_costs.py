"""Costs, counted and never timed: round trips to Redis, its commands, bytes on the wire, memory.

A change that adds a round trip, a command or a kilobyte to a step that runs a thousand times a second fails here. The
figures are in one table: to change one of them is a decision.
"""

from __future__ import annotations

import re
import socket
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import ResponseServer
from services.answers.forms.form_store import FormStore
from services.feedback.records import Rating
from services.forms import FormChoice, PendingForm
from services.models import ProviderEvent, Query, Question
from services.providers.base import BaseForms
from services.streams.access import Access
from services.streams.owned_stream import OwnedStream
from services.streams.polls import SharedReads
from services.streams.records import NewStream
from services.streams.store import READ_BYTES, stream_keys
from tests.support.replicas import ROOT, AppServer, dify_settings
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.streams.counting_relay import CountingRelay, Names, commands
from tests.support.streams.desk import CALLER, Desk
from tests.support.streams.talker import Talker, answered, running, said
from utils.deadline import Deadline

#: Commands of a poll (lua/read.lua): they read the clock, the fields, the list's length, and the text.
POLL = {"evalsha": 1, "time": 1, "hmget": 1, "llen": 1, "getrange": 1}
#: If the list has grown since the last poll, one more command stores how far it was read.
POLL_WITH_NEWS = {**POLL, "hset": 1}
#: Bytes of a poll's request: the script's digest, three keys of a stream whose id has 32 characters, two arguments.
POLL_SENT = 259
#: Maximal bytes of a poll's reply beside the text: a dozen short members, the longest of them the owner's name, which
#: begins with the machine's.
POLL_FRAME = 153 + len(socket.gethostname())

#: Calls of a new question's round trip: the person's slot, the note for commands about the question, the
#: conversation's turn with its memory, the stream, and the index of running streams. Where there are several bots, one
#: more looks for the conversation under the key of an earlier version.
ASKING: Names = ("enter", "asked", "turn", "open", "running")
#: Maximal writes before the provider is asked: the user, and the mark that it is asked, often in one write.
WRITES_BEFORE = 2
#: Round trips after that: the conversation, once the provider has named it; the run's ids; the answer with its end, in
#: one write if Redis is slow enough; the release of slot, turn and index entry, with the note for ratings.
RELEASE: Names = ("ZREM", "LREM", "feedback_note", "ZREM")
AFTER: list[Names] = [("remember",), ("append",), ("append",), RELEASE]

#: 1,000 deltas that arrive while Redis is busy: the first is written alone, all others together.
DELTAS = 1000
APPENDS: list[Names] = [("append",), ("append",)]
#: Commands of the two writes (lua/append.lua): read fence, list and text; push an entry and add to the text; renew the
#: lease. The first write gives each of the two new keys a TTL: PTTL, PEXPIRE.
APPENDS_COMMANDS = {
    **{"evalsha": 2, "time": 2, "hmget": 2, "llen": 2, "exists": 2},
    **{"rpush": 2, "append": 2, "hset": 2, "pttl": 2, "pexpire": 2},
}
#: Maximal bytes of both writes beside the text, which is sent twice: in the list's entry, and for the text's key.
APPENDS_FRAME = 1000

#: Maximal bytes of memory for a running stream beside its text.
STREAM_MEMORY = 6 * 1024
#: Scripts that run independently of callbacks: the sweep for streams without an owner, the renewal of sockets, the note
#: of the replica, and the looks for ratings to deliver and for answers to count.
BACKGROUND = {"lapsed", "sockets_renew", "replicas_note", "feedback_claim", "usage_claim"}


@pytest.fixture
def server(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of an empty Redis, whose traffic is not counted."""
    with redis_server.client(db=0) as client:
        client.flushall()
        yield client


@pytest.fixture
def relay(redis_server: RedisServer, server: redis.Redis) -> Iterator[CountingRelay]:
    with CountingRelay(redis_server.port) as relay:
        yield relay


@pytest.fixture
def talker() -> Talker:
    return Talker()


@pytest.fixture
def desk(relay: CountingRelay, talker: Talker) -> Iterator[Desk]:
    """A replica of one bot, with leases so long that none is renewed during a test."""
    desk = Desk(relay.url, talker, lease=1000.0, variables={"WECHAT_BOTS": ""})
    desk.runner.load()
    relay.forget()
    yield desk
    relay.hold(nothing)
    talker.lets_go()
    desk.close()


class NoForms(BaseForms):
    """Forms that nobody answers."""

    def submit(self, form: PendingForm, choice: FormChoice, query: Query, deadline: Deadline) -> None:
        raise AssertionError("nothing is submitted here")

    def is_open(self, form: PendingForm, query: Query, deadline: Deadline) -> bool:
        raise AssertionError("no form is answered here")

    def resume(self, form: PendingForm, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        raise AssertionError("no run goes on here")


def nothing(names: Names) -> bool:
    return False


def appends(names: Names) -> bool:
    return "append" in names


def test_a_poll_is_one_round_trip(relay: CountingRelay, desk: Desk, talker: Talker, server: redis.Redis) -> None:
    """It has five commands, and one more if the reader gets new chunks."""
    stream_id = answered(relay, desk, talker)
    commands(server)

    polled = []
    for _ in range(2):
        desk.reads(stream_id)
        polled.append(commands(server))

    assert relay.names == [("read",)] * 2
    assert polled == [POLL_WITH_NEWS, POLL]


def test_an_address_for_a_late_message_costs_a_poll_nothing(
    relay: CountingRelay, desk: Desk, talker: Talker, server: redis.Redis
) -> None:
    """The same commands and no byte more: the mark is in a number that was there before."""
    question = Question("年假?", "wecom", "default", "zhangsan", msgid="late")
    stream_id = desk.gateway.ask(question, reply="https://wecom.invalid/once").stream_id
    talker.lets_go()
    desk.sees_end(stream_id)
    wait_until(lambda: desk.manager.running == 0, timeout=30.0)
    relay.forget()
    commands(server)

    snapshot = desk.reads(stream_id)

    assert snapshot
    assert snapshot.late
    assert commands(server) == POLL
    (trip,) = relay.trips
    assert trip.sent == POLL_SENT
    assert trip.received - len(snapshot.text.encode()) <= POLL_FRAME


def test_pictures_cost_the_finished_frame_one_round_trip(relay: CountingRelay) -> None:
    """All pictures come in one; polls before the end, and answers without pictures, cost what they did."""
    with MockDify() as dify:
        dify.held.add("9d1c.png")
        settings = {"STREAM_LEASE": "300", **dify_settings(dify.base_url)}
        with AppServer(relay.url, **settings) as app_server, app_server.user() as user:
            bubble = user.says("画一座房子 [[pictures]]")
            relay.forget()
            user.polls(bubble)
            growing = [names for names in foreground(relay) if "read" in names or "MGET" in names]
            assert not bubble.finish
            dify.held.clear()
            user.sees_finish(bubble, every=0.05)
            wait_until(lambda: app_server.container.manager.running == 0)
            relay.forget()
            user.polls(bubble)
            finished = foreground(relay)

    assert growing == [("read",)]
    assert finished == [("read",), ("HGETALL", "MGET")]
    assert len(bubble.last.pictures) == 3


@pytest.mark.parametrize("field", ["step", "suggested", "choices"])
def test_what_goes_beside_the_text_costs_a_poll_their_bytes(
    field: str, relay: CountingRelay, desk: Desk, talker: Talker, server: redis.Redis
) -> None:
    """No command and no round trip; an answer without them costs no byte more than the test below allows."""
    owned = running(relay, desk, talker)
    words = "查" * 40
    server.hset(stream_keys(owned.stream_id).hash, field, words)
    if field != "step":
        talker.lets_go()
        desk.sees_end(owned.stream_id)
        wait_until(lambda: desk.manager.running == 0)
    relay.forget()
    commands(server)

    snapshot = desk.reads(owned.stream_id)

    assert snapshot
    assert (snapshot.note, snapshot.choices) == (("", words) if field == "choices" else (words, ""))
    assert commands(server) == POLL
    (trip,) = relay.trips
    assert trip.sent == POLL_SENT
    assert trip.received - len(snapshot.text.encode()) - len(words.encode()) <= POLL_FRAME


@pytest.mark.parametrize("size", [1024, 30 * 1024])
def test_a_polls_bytes_are_those_of_its_text_and_a_small_frame(
    size: int, relay: CountingRelay, desk: Desk, talker: Talker
) -> None:
    """A text that is longer than a frame costs the bytes of a frame."""
    talker.deltas = ["a" * size]
    stream_id = answered(relay, desk, talker)

    desk.reads(stream_id)

    (trip,) = relay.trips
    assert trip.sent == POLL_SENT
    assert 0 < trip.received - min(size, READ_BYTES) <= POLL_FRAME


def test_64_polls_at_once_are_two_round_trips(relay: CountingRelay, desk: Desk, talker: Talker) -> None:
    """The first is sent at once, and all that arrive during it share the second."""
    stream_id = answered(relay, desk, talker)
    # The timeout is longer than a callback's: a busy machine needs time to start so many threads.
    reads = desk.gateway._polls._reads = SharedReads(desk.streams, timeout=30.0)
    relay.hold(lambda names: names == ("read",))

    with ThreadPoolExecutor(64) as pool:
        polls = [pool.submit(desk.reads, stream_id)]
        relay.sees_held(("read",))
        polls += [pool.submit(desk.reads, stream_id) for _ in range(63)]
        wait_until(lambda: len(reads._queues[""].waiting) == 63, timeout=30.0)
        relay.hold(nothing)

    assert relay.names == [("read",), ("read",) * 63]
    assert {snapshot.text for poll in polls if (snapshot := poll.result())} == {"年假"}


def test_a_question_costs_a_fixed_number_of_round_trips(relay: CountingRelay, desk: Desk, talker: Talker) -> None:
    """One until it has its stream. Later writes are held until more is pending, so their count does not vary."""
    relay.hold(lambda names: names == ("remember",))
    owned = desk.manager.owned(desk.asks().stream_id)
    assert owned
    relay.sees_held(("remember",))
    before = relay.names
    relay.hold(appends)
    relay.sees_held(("append",))
    talker.lets_go()
    wait_until(lambda: owned.field("status") == "completed")
    relay.hold(nothing)
    wait_until(lambda: desk.manager.running == 0)

    assert before[0] == ASKING
    assert set(before[1:-1]) == {("append",)}
    assert len(before[1:-1]) <= WRITES_BEFORE
    assert relay.names[len(before) - 1 :] == AFTER


def test_the_documented_round_trips_are_those_that_are_counted() -> None:
    """docs/redis.md names every call of this module, and no other."""
    table = (ROOT / "docs" / "redis.md").read_text("utf-8").partition("## Round trips")[2]
    calls = " ".join(line.split("|")[2] for line in table.splitlines() if line.startswith("|"))
    documented = re.findall(r"`(\w+)`", calls)
    counted = {*ASKING, *RELEASE, "append", "remember", "read", "quota_take", "quota_settle", "usage_add"}

    assert {*documented} == {name for name in counted if name.islower()}


def test_with_a_database_the_end_is_queued_in_the_same_round_trip(
    relay: CountingRelay, talker: Talker, tmp_path: Path
) -> None:
    """One call more, of a few hundred bytes: it is counted and logged from there."""
    desk = Desk(relay.url, talker, lease=1000.0, variables={"WECHAT_BOTS": "", "DATABASE_PATH": str(tmp_path / "l.db")})
    desk.runner.load()
    relay.forget()
    answered(relay, desk, talker)
    relay.forget()
    desk.asks(msgid="m2")
    talker.lets_go()
    wait_until(lambda: desk.manager.running == 0, timeout=30.0)
    asked, *_, release = relay.trips

    assert asked.names == ASKING
    assert release.names == (*RELEASE[:-1], "usage_add", RELEASE[-1])
    desk.close()


def test_quotas_are_taken_and_settled_in_the_same_round_trips(
    relay: CountingRelay, talker: Talker, tmp_path: Path
) -> None:
    """Two calls more, one for each quota, where no department is needed; a poll costs what it did."""
    rules = tmp_path / "quotas.yaml"
    rules.write_text("- {questions: 50/day, tokens: 9000/day}\n- {total: true, questions: 999/month}", "utf-8")
    desk = Desk(relay.url, talker, lease=1000.0, variables={"WECHAT_BOTS": "", "QUOTAS_FILE": str(rules)})
    desk.runner.load()
    relay.forget()
    stream_id = answered(relay, desk, talker)
    relay.forget()
    desk.reads(stream_id)
    polled = list(relay.trips)
    desk.asks(msgid="m2")
    talker.lets_go()
    wait_until(lambda: desk.manager.running == 0, timeout=30.0)
    _, asked, *_, release = relay.trips

    assert [(trip.names, trip.sent) for trip in polled] == [(("read",), POLL_SENT)]
    assert asked.names == (*ASKING[:-2], "quota_take", "quota_take", *ASKING[-2:])
    assert release.names == (*RELEASE[:-1], "quota_settle", "quota_settle", RELEASE[-1])
    assert sum("quota_take" in trip.names for trip in relay.trips) == 1
    desk.close()


def test_open_forms_cost_their_conversation_one_round_trip(relay: CountingRelay, desk: Desk, talker: Talker) -> None:
    """The callback costs what it does without; only the producer looks whether the words are a choice."""
    talker.forms = NoForms()
    answered(relay, desk, talker)
    question = Question("年假?", "wecom", "default", "zhangsan")
    key = desk.gateway._answerer.conversation(question)
    forms = FormStore(desk.runner, Access(desk.keys), clock=time.time)
    forms.open(key, question, PendingForm("token", "run"))
    talker.lets_go()
    wait_until(lambda: desk.manager.running == 0, timeout=30.0)
    relay.forget()

    desk.asks(msgid="m2")
    wait_until(lambda: desk.manager.running == 0, timeout=30.0)
    asked = relay.names
    relay.forget()
    desk.asks(msgid="m3", principal="lisi")
    wait_until(lambda: desk.manager.running == 0, timeout=30.0)

    assert asked[0] == ASKING
    assert ("form_look",) in asked
    assert relay.names[0] == ASKING
    assert ("form_look",) not in relay.names


def test_a_redelivered_message_is_one_round_trip(relay: CountingRelay, desk: Desk, talker: Talker) -> None:
    """It has the same calls as the first delivery."""
    answered(relay, desk, talker)

    desk.asks()

    assert relay.names == [ASKING]


def test_an_http_question_is_compared_only_when_it_is_repeated(
    relay: CountingRelay, desk: Desk, talker: Talker
) -> None:
    """The first time it costs what any question does; a repetition reads one field of the stream as well."""
    desk.asks(channel="http", principal=CALLER.principal)
    asked = relay.names[0]
    talker.lets_go()
    wait_until(lambda: desk.manager.running == 0)
    relay.forget()

    again = desk.asks(channel="http", principal=CALLER.principal)

    assert again.status == "completed"
    assert (asked, relay.names) == (("open", "running"), [("open", "running"), ("HMGET",)])


def test_1000_deltas_while_redis_is_busy_are_two_writes(
    relay: CountingRelay, desk: Desk, talker: Talker, server: redis.Redis
) -> None:
    """Deltas that arrive during a write become one chunk, and the bytes sent are those of the text."""
    talker.deltas *= DELTAS
    text = "".join(talker.deltas)
    owned = running(relay, desk, talker)
    commands(server)

    relay.hold(appends)
    talker.go_on.set()
    relay.sees_held(("append",))
    talker.more.set()
    wait_until(lambda: owned.text == text)
    relay.hold(nothing)
    wait_until(lambda: said(owned) == text)

    assert relay.names == APPENDS
    assert commands(server) == APPENDS_COMMANDS
    assert 0 < sum(trip.sent for trip in relay.trips) - 2 * len(text.encode()) <= APPENDS_FRAME


def test_following_a_stream_on_its_owners_replica_costs_no_round_trip(
    relay: CountingRelay, desk: Desk, talker: Talker
) -> None:
    """Sockets and event streams of the owner's replica read the acknowledged chunks from memory."""
    stream_id = answered(relay, desk, talker)

    news = desk.gateway.follow(stream_id, bot="default", principal="zhangsan").next(30.0)

    assert news
    assert [chunk.content for chunk in news.chunks] == ["年假"]
    assert relay.names == []


def test_a_callback_is_one_round_trip(relay: CountingRelay, server: redis.Redis) -> None:
    """From the HTTP request on, routes, limits and metrics add none to the gateway's."""
    with AppServer(relay.url, STREAM_LEASE="300") as app_server, app_server.user() as user:
        relay.forget()
        bubble = user.says("年假怎么申请")
        wait_until(lambda: app_server.container.manager.running == 0)
        asked = foreground(relay)
        relay.forget()
        for _ in range(5):
            user.polls(bubble)
        polled = foreground(relay)

    assert [names for names in asked if not appends(names)] == [ASKING, RELEASE]
    assert polled == [("read",)] * 5
    assert bubble.finish


def test_log_usage_and_rules_cost_callbacks_and_polls_nothing(
    relay: CountingRelay, server: redis.Redis, tmp_path: Path
) -> None:
    """A question and its polls send the same calls and bytes with all of them on; the end sends one call more."""
    for name, text in (("access", "- {allow: true}"), ("words", "mask 密码本"), ("departments", "userid,department\n")):
        (tmp_path / name).write_text(text, "utf-8")
    files = {f"{name.upper()}_FILE": str(tmp_path / name) for name in ("access", "words", "departments")}
    all_on = {"DATABASE_PATH": str(tmp_path / "log.db"), "QUESTION_LOG": "full", **files}
    sent, ends = [], []
    for variables in ({}, all_on):
        server.flushall()
        with AppServer(relay.url, STREAM_LEASE="300", **variables) as app_server, app_server.user() as user:
            relay.forget()
            bubble = user.says("年假怎么申请", msgid="m1")
            wait_until(lambda one=app_server: one.container.manager.running == 0)  # type: ignore[misc]
            asked = [trip for trip in relay.trips if trip.names == ASKING]
            ends += [names for names in foreground(relay) if set(RELEASE) <= set(names)]
            relay.forget()
            user.polls(bubble)
            polled = [trip for trip in relay.trips if "read" in trip.names]
            sent.append([(trip.names, trip.sent) for trip in (*asked, *polled)])

    assert sent[0] == sent[1]
    assert [names for names, _ in sent[0]] == [ASKING, ("read",)]
    assert ends == [RELEASE, (*RELEASE[:-1], "usage_add", RELEASE[-1])]


def test_a_card_costs_a_poll_nothing_and_a_click_one_round_trip(relay: CountingRelay) -> None:
    """A click is asked as a message is."""
    with MockDify() as dify, ResponseServer() as responses:
        settings = {"STREAM_LEASE": "300", "WECHAT_RESPONSE_HOSTS": "127.0.0.1", **dify_settings(dify.base_url)}
        with AppServer(relay.url, **settings) as app_server, app_server.user(responses=responses) as user:
            bubble = user.says("报销 [[form]]")
            user.sees_finish(bubble, every=0.05)
            wait_until(lambda: app_server.container.manager.running == 0)
            relay.forget()
            user.polls(bubble)
            polled = foreground(relay)
            assert bubble.last.card
            relay.forget()
            click = user.clicks(bubble.last.card, "同意")
            wait_until(lambda: user.late(click), timeout=30.0)
            clicked = foreground(relay)

    assert polled == [("read",)]
    assert clicked[0] == ASKING
    assert [names for names in clicked if set(names) & set(ASKING)] == [ASKING]


def test_a_rating_is_two_round_trips(relay: CountingRelay, desk: Desk, talker: Talker) -> None:
    """What is known of the answer, and the rating with its place in the queue; a poll costs what it did."""
    stream_id = answered(relay, desk, talker)

    outcome = desk.container.feedback_inbox.rate(stream_id, Rating("like"), bot="default", principal="zhangsan")

    assert outcome == "taken"
    assert relay.names == [("feedback_note",), ("feedback_add",)]


def foreground(relay: CountingRelay) -> list[Names]:
    """Return the round trips without those of background scripts."""
    return [names for names in relay.names if not set(names) <= BACKGROUND]


def test_a_running_stream_takes_little_memory() -> None:
    """The memory beside the text is bounded, as the mean of a thousand streams of a kilobyte each."""
    piece, count = "a" * 128, 1000
    fields = dict.fromkeys(("status", "content", "question", "access", "created_time", "auth_state", "usage"), "")
    tracemalloc.start()
    try:
        streams = []
        for number in range(count):
            new = NewStream(f"{number:032x}", f"replica:1:{number}", dict(fields), frame_seconds=330.0)
            stream = OwnedStream(new, deadline=Deadline(60.0), changed=lambda stream: None, max_bytes=100_000)
            for _ in range(8):
                stream.emit(piece)
            stream.next_write()
            streams.append(stream)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 0 < kept / count - 8 * len(piece) < STREAM_MEMORY
