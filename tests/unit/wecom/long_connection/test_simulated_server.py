"""The simulated long connection: who gets a message, which frames of a bot it accepts, and what people see of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from demo.wecom.card_clicks import click_event
from demo.wecom.long_connection.commands import UPLOAD_CHUNK
from demo.wecom.long_connection.faults import Fault
from demo.wecom.long_connection.server import LongConnectionServer
from demo.wecom.long_connection.user import LongConnectionUser
from tests.support.long_connection.bots import BOT_ID, SECRET, bot_server
from tests.support.long_connection.raw_bot import RawBot, UploadRefused
from tests.support.pictures import PDF, png
from tests.support.servers.processes import FakeClock

CARD = {
    "card_type": "button_interaction",
    "main_title": {"title": "Approve?"},
    "button_list": [{"text": "Yes", "key": "yes"}],
    "task_id": "task-1",
}


@pytest.fixture
def wecom(clock: FakeClock) -> Iterator[LongConnectionServer]:
    with LongConnectionServer({BOT_ID: SECRET}, clock=clock, evicted_seconds=0.0) as server:
        yield server


@pytest.fixture
def bot(wecom: LongConnectionServer) -> Iterator[RawBot]:
    with RawBot(wecom.url, BOT_ID, SECRET) as bot:
        yield bot


@pytest.fixture
def alice(wecom: LongConnectionServer) -> LongConnectionUser:
    return wecom.user("alice")


def markdown(content: str, **members: Any) -> dict[str, Any]:
    return {"msgtype": "markdown", "markdown": {"content": content}, **members}


def test_message_without_subscriber_is_dropped(wecom: LongConnectionServer, alice: LongConnectionUser) -> None:
    """A message that nobody is subscribed for is lost and counted; it does not come later."""
    lost = alice.asks("one")
    with RawBot(wecom.url, BOT_ID, SECRET) as bot:
        alice.asks("two")

        assert bot.next_callback()["body"]["text"] == {"content": "two"}
    assert wecom.dropped == [lost]


def test_silent_connection_is_dropped() -> None:
    """A client that sends nothing, not even a ping, loses its connection."""
    with bot_server(silence_seconds=0.1) as wecom, RawBot(wecom.url) as bot:
        assert bot.closed.wait(30)
        wecom.wait_until(lambda: not wecom.connections)


def test_commands_that_nobody_may_send_break_a_rule(bot: RawBot, wecom: LongConnectionServer) -> None:
    """Unknown ones, replies to no message, and too frequent subscriptions."""
    codes = [bot.request("aibot_sing")["errcode"], bot.streams("never-sent", "x")["errcode"]]
    acks = [bot.subscribe()["errcode"] for _ in range(30)]

    assert (codes, set(acks[:-1]), acks[-1]) == ([40008, 846605], {0}, 45009)
    assert wecom.broken == [
        "aibot_sing: aibot_sing is no command",
        "aibot_respond_msg: aibot_respond_msg with an unknown req_id",
        "aibot_subscribe: too many subscriptions",
    ]


def test_all_frames_of_an_answer_have_one_stream_that_ends_once(
    bot: RawBot, wecom: LongConnectionServer, alice: LongConnectionUser
) -> None:
    """The last frame may be repeated; another one is refused. A second stream.id makes a second bubble."""
    asked = alice.asks("hello")
    req_id = bot.next_req_id()
    finishes = [bot.streams(req_id, text, finish=True)["errcode"] for text in ("all", "all", "something else")]
    bot.streams(req_id, "two", stream_id="s2")

    assert finishes == [0, 0, 846608]
    assert (asked.finish, alice.chat.texts) == (True, ["all", "two"])
    assert wecom.broken == [
        "aibot_respond_msg: the frame changed after finish",
        "aibot_respond_msg: a second stream for one req_id",
    ]


def test_stream_ends_ten_minutes_after_its_first_frame(
    bot: RawBot, clock: FakeClock, alice: LongConnectionUser
) -> None:
    """A later frame is 846608; a message under the same req_id is shown for a day, and 846605 after it."""
    asked = alice.asks("a long question")
    req_id = bot.next_req_id()
    clock.advance(60)
    bot.streams(req_id, "begun")
    clock.advance(599)
    assert bot.streams(req_id, "begun, going on")["errcode"] == 0
    clock.advance(2)

    assert bot.streams(req_id, "begun, going on, done", finish=True)["errcode"] == 846608
    assert asked.content == "begun, going on"
    assert bot.request("aibot_respond_msg", markdown("the rest"), req_id)["errcode"] == 0
    assert alice.sees_messages(1) == ["the rest"]
    clock.advance(86_400)
    assert bot.request("aibot_respond_msg", markdown("too late"), req_id)["errcode"] == 846605


@pytest.mark.parametrize(
    ("members", "rule"),
    [
        ({"content": "x" * 20_481}, "a frame of more than 20480 bytes: 20481"),
        ({"msg_item": []}, "a stream of the long connection has no msg_item"),
        ({"feedback": {"id": "x" * 257}}, "feedback.id has more than 256 bytes"),
        ({"id": ""}, "the stream has no id"),
    ],
)
def test_frame_that_breaks_a_rule_is_refused(
    bot: RawBot, wecom: LongConnectionServer, alice: LongConnectionUser, members: dict[str, Any], rule: str
) -> None:
    alice.asks("hello")
    stream = {"id": "s1", "finish": True, "content": "x", **members}

    ack = bot.request("aibot_respond_msg", {"msgtype": "stream", "stream": stream}, bot.next_req_id())

    assert ack["errcode"] == 40058
    assert wecom.broken == [f"aibot_respond_msg: {rule}"]
    assert alice.chat.shown == []


def test_chat_takes_thirty_messages_a_minute(
    bot: RawBot, clock: FakeClock, wecom: LongConnectionServer, alice: LongConnectionUser
) -> None:
    """Replies and pushes count together, stream frames do not."""
    alice.asks("hello")
    req_id = bot.next_req_id()
    push = markdown("push", chatid="alice", chat_type=1)
    for _ in range(15):
        assert bot.request("aibot_send_msg", push)["errcode"] == 0
        assert bot.request("aibot_respond_msg", markdown("part"), req_id)["errcode"] == 0

    assert bot.request("aibot_send_msg", push)["errcode"] == 45009
    assert bot.streams(req_id, "text")["errcode"] == 0
    clock.advance(60)
    assert bot.request("aibot_send_msg", push)["errcode"] == 0
    assert ["more than 30 messages a minute" in rule for rule in wecom.broken] == [True]


@pytest.mark.parametrize(
    ("kind", "content", "errcode"),
    [
        ("image", png() + b"\0" * 2 * 2**20, 40006),
        ("image", PDF, 40005),
        ("voice", b"RIFF", 40005),
        ("letter", PDF, 40005),
    ],
)
def test_upload_that_breaks_a_rule_is_refused(
    bot: RawBot, wecom: LongConnectionServer, kind: str, content: bytes, errcode: int
) -> None:
    with pytest.raises(UploadRefused, match=f"^{errcode}$"):
        bot.uploads(kind, content)

    assert len(wecom.broken) == 1


def test_two_chunks_at_a_time(bot: RawBot, wecom: LongConnectionServer) -> None:
    """In an upload of more than ten chunks a third one without an ack is refused."""
    wecom.faults.add(Fault(UPLOAD_CHUNK, ack_seconds=None))
    sizes = {"total_size": 11, "total_chunks": 11}
    begun = bot.request("aibot_upload_media_init", {"type": "file", "filename": "a", **sizes})
    for index in range(3):
        part = {"upload_id": begun["body"]["upload_id"], "chunk_index": index, "base64_data": "eA=="}
        bot.send(UPLOAD_CHUNK, part)
    wecom.wait_until(lambda: len(wecom.frames) == 5)

    assert [handled.errcode for handled in list(wecom.frames)[2:]] == [0, 0, -1]
    assert wecom.broken == ["aibot_upload_media_chunk: more than 2 chunks without an ack"]


@pytest.mark.parametrize(
    ("task_id", "seconds", "errcode"), [("task-1", 0.0, 0), ("other", 0.0, 40058), ("task-1", 5.1, 846605)]
)
def test_click_updates_the_card_within_five_seconds(
    bot: RawBot, clock: FakeClock, alice: LongConnectionUser, task_id: str, seconds: float, errcode: int
) -> None:
    """The update names the task of the click; its req_id takes no stream and no message."""
    clicked = alice.posts(click_event(CARD, "Yes"))
    req_id = bot.next_req_id()
    clock.advance(seconds)
    update = {"response_type": "update_template_card", "template_card": {**CARD, "task_id": task_id}}

    assert bot.request("aibot_respond_msg", markdown("yes"), req_id)["errcode"] == 846605
    assert bot.request("aibot_respond_update_msg", update, req_id)["errcode"] == errcode
    assert (clicked.update is not None) == (errcode == 0)
