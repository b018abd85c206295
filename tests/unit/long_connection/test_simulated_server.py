"""The simulator's long-connection server: who gets a message, what people see, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus

from demo.wecom.long_connection.faults import Fault
from demo.wecom.long_connection.server import LongConnectionServer
from demo.wecom.long_connection.user import LongConnectionUser
from tests.support.long_connection.bots import BOT_ID, SECRET, bot_server
from tests.support.long_connection.raw_bot import RawBot
from tests.support.servers.processes import wait_until


@pytest.fixture
def wecom() -> Iterator[LongConnectionServer]:
    with bot_server(evicted_seconds=0.0) as server:
        yield server


@pytest.fixture
def bot(wecom: LongConnectionServer) -> Iterator[RawBot]:
    with RawBot(wecom.url, BOT_ID, SECRET) as bot:
        yield bot


@pytest.fixture
def alice(wecom: LongConnectionServer) -> LongConnectionUser:
    return wecom.user("alice")


def test_person_sees_the_bubble_grow(wecom: LongConnectionServer, bot: RawBot, alice: LongConnectionUser) -> None:
    """Frames of one stream replace the content of one bubble; the last one ends it."""
    asked = alice.asks("你好")
    callback = bot.next_callback()

    assert callback["cmd"] == "aibot_msg_callback"
    assert callback["body"]["text"] == {"content": "你好"}
    assert callback["body"]["from"] == {"userid": "alice"}
    req_id = callback["headers"]["req_id"]
    assert bot.streams(req_id, "你") == {"headers": {"req_id": req_id}, "errcode": 0, "errmsg": "ok"}
    assert bot.streams(req_id, "你好", finish=True)["errcode"] == 0

    assert alice.sees_finish(asked.bubbles[0]) == "你好"
    assert [frame.content for frame in asked.bubbles[0].frames] == ["你", "你好"]
    assert alice.chat.texts == ["你好"]
    assert wecom.broken == []


def test_message_without_subscriber_is_dropped(wecom: LongConnectionServer, alice: LongConnectionUser) -> None:
    """A message that nobody is subscribed for is lost and counted; it does not come later."""
    lost = alice.asks("one")
    with RawBot(wecom.url, BOT_ID, SECRET) as bot:
        alice.asks("two")

        assert bot.next_callback()["body"]["text"] == {"content": "two"}
    assert wecom.dropped == [lost]


def test_newer_connection_evicts_the_older(wecom: LongConnectionServer, bot: RawBot, alice: LongConnectionUser) -> None:
    """The older connection gets `disconnected_event` and is closed; messages go to the newer one."""
    with RawBot(wecom.url, BOT_ID, SECRET) as newer:
        event = bot.next_callback()
        asked = alice.asks("who")

        assert event["cmd"] == "aibot_event_callback"
        assert event["body"]["event"] == {"eventtype": "disconnected_event"}
        assert newer.next_req_id() == asked.req_id
        assert bot.closed.wait(30)
        assert wecom.bots[BOT_ID].evictions == 1
        assert wecom.subscribed(BOT_ID) == 2


def test_subscribe_needs_the_secret(wecom: LongConnectionServer) -> None:
    """A wrong Secret or BotID is 853000; the connection stays open, and its frames are refused as not subscribed."""
    with RawBot(wecom.url) as bot:
        assert bot.request("aibot_subscribe", {"bot_id": BOT_ID, "secret": "wrong"})["errcode"] == 853000
        assert bot.request("aibot_subscribe", {"bot_id": "other", "secret": SECRET})["errcode"] == 853000
        assert bot.streams("R1", "x")["errcode"] == 846609
        assert bot.request("ping")["errcode"] == 0


def test_lost_connection_ends_the_subscription(wecom: LongConnectionServer, alice: LongConnectionUser) -> None:
    with RawBot(wecom.url, BOT_ID, SECRET) as bot:
        wecom.disconnect()
        assert bot.closed.wait(30)
    wecom.wait_until(lambda: not wecom.subscribed(BOT_ID))

    assert alice.asks("anybody").dropped


def test_missing_ack(bot: RawBot, wecom: LongConnectionServer, alice: LongConnectionUser) -> None:
    """A frame whose ack never comes has its effect; one that is sent before an ack breaks the rule of serial frames."""
    missing = wecom.faults.add(Fault("aibot_respond_msg", ack_seconds=None, times=1))
    asked = alice.asks("hello")
    req_id = bot.next_req_id()
    stream = {"id": "s1", "finish": False, "content": "a"}

    bot.send("aibot_respond_msg", {"msgtype": "stream", "stream": stream}, req_id)
    alice.sees("a")
    assert bot.streams(req_id, "ab")["errcode"] == 0

    assert missing.met == 1
    assert asked.content == "ab"
    assert ["before the ack" in rule for rule in wecom.broken] == [True]


def test_acks_out_of_order(bot: RawBot, wecom: LongConnectionServer) -> None:
    """A late ack comes after those of later frames."""
    wecom.faults.add(Fault("ping", ack_seconds=1.0, times=1))

    first, second = bot.send("ping"), bot.send("ping")
    wecom.wait_until(lambda: len(wecom.frames) == 3)
    wait_until(lambda: len(bot.acked) == 3)

    assert bot.acked[1:] == [second, first]


def test_event_takes_no_stream(bot: RawBot, wecom: LongConnectionServer, alice: LongConnectionUser) -> None:
    """The req_id of enter_chat takes a welcome, and no stream."""
    entered = alice.sends_event("enter_chat")
    req_id = bot.next_req_id()

    assert bot.streams(req_id, "x")["errcode"] == 846605
    welcome = {"msgtype": "text", "text": {"content": "Welcome"}}
    assert bot.request("aibot_respond_welcome_msg", welcome, req_id)["errcode"] == 0
    assert [message.content for message in entered.messages] == ["Welcome"]


def test_forced_eviction_leaves_nobody_subscribed(
    bot: RawBot, wecom: LongConnectionServer, alice: LongConnectionUser
) -> None:
    """The connection is told; a message is dropped until somebody subscribes."""
    wecom.evict(BOT_ID)
    lost = alice.asks("anybody?")

    assert bot.next_callback()["body"]["event"]["eventtype"] == "disconnected_event"
    assert (wecom.dropped, wecom.bots[BOT_ID].evictions) == ([lost], 1)


def test_evicted_connection_is_closed_later() -> None:
    """Until then its frames are refused as not subscribed."""
    with bot_server(evicted_seconds=1.0) as wecom, RawBot(wecom.url, BOT_ID, SECRET) as bot:
        wecom.evict(BOT_ID)
        bot.next_callback()

        assert bot.streams("R1", "x")["errcode"] == 846609
        assert bot.closed.wait(30)


def test_silent_connection_is_dropped() -> None:
    """A client that sends nothing, not even a ping, loses its connection."""
    with bot_server(silence_seconds=1.0) as wecom, RawBot(wecom.url, BOT_ID, SECRET) as bot:
        assert bot.closed.wait(30)
        wecom.wait_until(lambda: not wecom.connections)


def test_connections_are_refused(wecom: LongConnectionServer) -> None:
    wecom.refuse_status = 503

    with pytest.raises(InvalidStatus, match="503"), RawBot(wecom.url, BOT_ID, SECRET):
        pass


def test_frequent_subscriptions_are_refused(wecom: LongConnectionServer) -> None:
    with RawBot(wecom.url, BOT_ID, SECRET) as bot:
        acks = [bot.subscribe()["errcode"] for _ in range(30)]

    assert (set(acks[:-1]), acks[-1]) == ({0}, 45009)
    assert wecom.broken == ["aibot_subscribe: too many subscriptions"]


def test_unknown_commands_and_text_break_a_rule(bot: RawBot, wecom: LongConnectionServer) -> None:
    assert bot.request("aibot_sing")["errcode"] == 40008
    assert wecom.broken == ["aibot_sing: aibot_sing is no command"]


def test_refused_and_lost_frames_have_no_effect(
    bot: RawBot, wecom: LongConnectionServer, alice: LongConnectionUser
) -> None:
    """A fault may refuse a frame with an errcode, or lose it before it has an effect."""
    alice.asks("hello")
    req_id = bot.next_req_id()
    refused = wecom.faults.add(Fault("aibot_respond_msg", errcode=6000, times=1))
    assert bot.streams(req_id, "one")["errcode"] == 6000
    lost = wecom.faults.add(Fault("aibot_respond_msg", lost=True, times=1))
    bot.send("aibot_respond_msg", {"msgtype": "stream", "stream": {"id": "s1", "content": "two"}}, req_id)
    assert bot.request("ping")["errcode"] == 0

    assert (refused.met, lost.met, alice.chat.shown) == (1, 1, [])


def test_connection_closes_instead_of_an_ack(
    bot: RawBot, wecom: LongConnectionServer, alice: LongConnectionUser
) -> None:
    """The frame has its effect; the client cannot know."""
    wecom.faults.add(Fault("aibot_respond_msg", closes=True))
    asked = alice.asks("hello")
    bot.send("aibot_respond_msg", {"msgtype": "stream", "stream": {"id": "s1", "content": "x"}}, bot.next_req_id())

    assert bot.closed.wait(30)
    assert asked.content == "x"
