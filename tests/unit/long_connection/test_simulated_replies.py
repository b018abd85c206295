"""What the simulated long connection accepts of a bot's frames, and what people see of them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from demo.wecom.card_clicks import click_event
from demo.wecom.long_connection.commands import UPLOAD_CHUNK
from demo.wecom.long_connection.faults import Fault
from demo.wecom.long_connection.server import LongConnectionServer
from demo.wecom.long_connection.user import LongConnectionUser
from demo.wecom.media_store import MediaStore
from tests.support.long_connection.bots import BOT_ID, SECRET
from tests.support.long_connection.raw_bot import CHUNK, RawBot, UploadRefused
from tests.support.pictures import PDF, png
from tests.support.servers.processes import FakeClock

CARD = {
    "card_type": "button_interaction",
    "main_title": {"title": "Approve?"},
    "button_list": [{"text": "Yes", "key": "yes"}],
    "task_id": "task-1",
}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def wecom(clock: FakeClock) -> Iterator[LongConnectionServer]:
    with LongConnectionServer({BOT_ID: SECRET}, clock=clock) as server:
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


def test_finish_frame_may_be_repeated(bot: RawBot, wecom: LongConnectionServer, alice: LongConnectionUser) -> None:
    """The same last frame changes nothing; another one is refused and breaks a rule."""
    asked = alice.asks("hello")
    req_id = bot.next_req_id()
    bot.streams(req_id, "all of it", finish=True)

    assert bot.streams(req_id, "all of it", finish=True)["errcode"] == 0
    assert wecom.broken == []
    assert bot.streams(req_id, "something else", finish=True)["errcode"] == 846608
    assert alice.chat.texts == ["all of it"]
    assert asked.finish
    assert wecom.broken == ["aibot_respond_msg: the frame changed after finish"]


def test_second_stream_of_a_message_breaks_a_rule(
    bot: RawBot, wecom: LongConnectionServer, alice: LongConnectionUser
) -> None:
    """All frames of an answer have one stream.id: another one makes a second bubble."""
    alice.asks("hello")
    req_id = bot.next_req_id()
    bot.streams(req_id, "one")
    bot.streams(req_id, "two", stream_id="s2")

    assert alice.chat.texts == ["one", "two"]
    assert wecom.broken == ["aibot_respond_msg: a second stream for one req_id"]


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


def test_unknown_req_id_is_refused(bot: RawBot, wecom: LongConnectionServer) -> None:
    assert bot.streams("never-sent", "x")["errcode"] == 846605
    assert wecom.broken == ["aibot_respond_msg: aibot_respond_msg with an unknown req_id"]


def test_push_needs_a_chat_in_which_somebody_wrote(
    bot: RawBot, wecom: LongConnectionServer, alice: LongConnectionUser
) -> None:
    """A push goes to a person (1), a group (2) or either (0), and keeps the chatid's case; entering is not writing."""
    group = wecom.user("alice", "wrGROUP")
    wecom.user("bob").sends_event("enter_chat")
    bot.next_callback()
    for chat in (alice, group):
        chat.asks("hello")
        bot.next_callback()

    def push(chatid: str, **members: Any) -> int:
        return int(bot.request("aibot_send_msg", markdown("news", chatid=chatid, **members))["errcode"])

    assert [push("alice", chat_type=1), push("wrGROUP", chat_type=2), push("wrGROUP")] == [0, 0, 0]
    assert [push("bob", chat_type=1), push("wrGROUP", chat_type=1), push("wrgroup")] == [93006, 93006, 93006]
    assert (alice.chat.texts, group.chat.texts) == (["news"], ["news", "news"])


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


@pytest.mark.parametrize("first", [0, 1])
def test_file_is_uploaded_in_chunks_and_sent(bot: RawBot, alice: LongConnectionUser, first: int) -> None:
    """Chunks may come in any order, and count from 0 or 1; the message names the media_id."""
    content = PDF + b"\0" * (2 * CHUNK)
    alice.asks("the report?")
    req_id = bot.next_req_id()

    media = {"msgtype": "file", "file": {"media_id": bot.uploads("file", content, first=first)}}
    assert bot.request("aibot_respond_msg", media, req_id)["errcode"] == 0

    file = alice.chat.messages[0].file
    assert file is not None
    assert (file.name, file.content) == ("a.bin", content)


def test_upload_goes_on_after_a_reconnect(wecom: LongConnectionServer) -> None:
    """An upload belongs to the bot: its chunks may come over two connections, and twice."""
    halves = [b"a" * CHUNK, b"b" * 10]
    sizes = {"total_size": CHUNK + 10, "total_chunks": 2}

    def chunk(bot: RawBot, index: int) -> int:
        data = base64.b64encode(halves[index]).decode()
        said = {"upload_id": upload_id, "chunk_index": index, "base64_data": data}
        return int(bot.request("aibot_upload_media_chunk", said)["errcode"])

    with RawBot(wecom.url, BOT_ID, SECRET) as bot:
        begun = bot.request("aibot_upload_media_init", {"type": "file", "filename": "a", **sizes})
        upload_id = begun["body"]["upload_id"]
        assert chunk(bot, 0) == 0
        assert bot.request("aibot_upload_media_finish", {"upload_id": upload_id})["errcode"] == 40058
    with RawBot(wecom.url, BOT_ID, SECRET) as bot:
        assert [chunk(bot, 0), chunk(bot, 1)] == [0, 0]
        first = bot.request("aibot_upload_media_finish", {"upload_id": upload_id})["body"]["media_id"]
        again = bot.request("aibot_upload_media_finish", {"upload_id": upload_id})["body"]["media_id"]

    assert first == again
    uploaded = wecom.bots[BOT_ID].uploads.uploads[upload_id]
    assert uploaded.content == b"".join(halves)
    assert uploaded.received == {0: 2, 1: 1}


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


def test_media_has_a_key_of_its_own(bot: RawBot, wecom: LongConnectionServer) -> None:
    """Each file's address comes with the 43 characters of its key."""
    with MediaStore() as store:
        carol = wecom.user("carol", store=store)
        carol.posts(carol.file_message("image", png()))
        carol.posts(carol.file_message("image", png()))
        images = [bot.next_callback()["body"]["image"] for _ in range(2)]

    assert [len(image["aeskey"]) for image in images] == [43, 43]
    assert len({image["aeskey"] for image in images}) == 2


def test_welcome_comes_within_five_seconds(bot: RawBot, clock: FakeClock, alice: LongConnectionUser) -> None:
    alice.sends_event("enter_chat")
    req_id = bot.next_req_id()
    clock.advance(5.1)

    welcome = {"msgtype": "text", "text": {"content": "Welcome"}}
    assert bot.request("aibot_respond_welcome_msg", welcome, req_id)["errcode"] == 846605
    assert alice.chat.texts == []


def test_two_chunks_at_a_time(bot: RawBot, wecom: LongConnectionServer) -> None:
    """In an upload of more than ten chunks a third one without an ack is refused."""
    wecom.faults.add(Fault(UPLOAD_CHUNK, ack_seconds=1.0))
    sizes = {"total_size": 11, "total_chunks": 11}
    begun = bot.request("aibot_upload_media_init", {"type": "file", "filename": "a", **sizes})
    for index in range(3):
        said = {"upload_id": begun["body"]["upload_id"], "chunk_index": index, "base64_data": "eA=="}
        bot.send(UPLOAD_CHUNK, said)
    wecom.wait_until(lambda: len(wecom.frames) == 5)

    assert [handled.errcode for handled in list(wecom.frames)[2:]] == [0, 0, -1]
    assert wecom.broken == ["aibot_upload_media_chunk: more than 2 chunks without an ack"]


def test_media_id_is_of_one_type(bot: RawBot, wecom: LongConnectionServer, alice: LongConnectionUser) -> None:
    """A file's media_id is no image."""
    alice.asks("hello")
    req_id, media_id = bot.next_req_id(), bot.uploads("file", PDF)

    image = {"msgtype": "image", "image": {"media_id": media_id}}
    assert bot.request("aibot_respond_msg", image, req_id)["errcode"] == 40007
    assert wecom.broken == ["aibot_respond_msg: the media_id is no image of this bot"]


def test_card_is_shown_in_a_single_chat_only(
    bot: RawBot, wecom: LongConnectionServer, alice: LongConnectionUser
) -> None:
    group = wecom.user("alice", "wrGROUP")

    def sends(chat: LongConnectionUser, card: dict[str, Any]) -> int:
        chat.asks("hello")
        said = {"msgtype": "template_card", "template_card": card}
        return int(bot.request("aibot_respond_msg", said, bot.next_req_id())["errcode"])

    assert sends(alice, CARD) == 0
    assert alice.chat.messages[0].card == CARD
    assert sends(group, CARD) == 40058
    assert sends(alice, {"card_type": "button_interaction"}) == 41016
    assert "aibot_respond_msg: a template_card is allowed in a single chat only" in wecom.broken


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
