"""A replica on the long connection of the simulator: what a person sees of an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from config.texts import ZH
from demo.mocks.dify.answers import answer_to
from demo.mocks.dify.server import MockDify
from demo.wecom.long_connection.account import ReceivedFrame
from demo.wecom.long_connection.faults import Fault
from demo.wecom.long_connection.server import LongConnectionServer
from demo.wecom.long_connection.user import LongConnectionUser
from services import metrics
from services.providers.mock import mock_answer
from services.streams.records import Snapshot
from services.wecom.long_connection import answers
from services.wecom.long_connection.lease_store import bot_key
from services.wecom.long_connection.protocol import (
    BUSY,
    INVALID_MEDIA,
    INVALID_REQ_ID,
    NOT_SUBSCRIBED,
    RESPOND,
    SEND,
    STREAM_EXPIRED,
    UPLOAD_INIT,
)
from services.wecom.long_connection.view import AnswerView
from tests.support.long_connection.bots import BOT_ID, bot_server, websocket_settings
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import wait_until
from tests.support.texts import squeezed
from utils.stream_utils import render_frame

QUESTION = "年假怎么申请"


def whole(question: str) -> str:
    return render_frame(answer_to(question), growing=False)


def test_an_answer_grows_in_one_bubble(alice: LongConnectionUser, wecom: LongConnectionServer) -> None:
    """The first frame comes at once, each shows all of the text so far, and the last one is the answer."""
    bubble = alice.says(QUESTION)

    assert alice.sees_finish(bubble) == whole(QUESTION)
    assert bubble.frames[0].raw["feedback"]["id"] == f"fb-{bubble.stream_id}"
    assert bubble.frames[0].content == ZH["thinking"]
    assert all(later.content.startswith(earlier.content) for earlier, later in pairwise(bubble.frames[1:]))
    assert (wecom.broken, alice.chat.messages) == ([], [])


def test_commands_work_as_in_callbacks(alice: LongConnectionUser) -> None:
    """A command is answered by one finished frame."""
    bubble = alice.says("/reset")

    assert alice.sees_finish(bubble) == ZH["reset_done"]
    assert len(bubble.frames) == 1


def test_a_rule_chooses_the_app(wecom: LongConnectionServer, dify: MockDify, redis_url: str, tmp_path: Path) -> None:
    """As over callbacks; the bot's own app would give another answer."""
    rules = tmp_path / "access.yaml"
    rules.write_text("- {allow: true}\n- {person: zhangsan, allow: true, use: hr-app}\n", "utf-8")
    own = {"APPS": json.dumps({"hr-app": dify_settings(dify.base_url)}), "ACCESS_FILE": str(rules)}
    with AppServer(redis_url, **websocket_settings(wecom), DRAIN_SECONDS="0", **own):
        wecom.wait_until(lambda: wecom.subscribed(BOT_ID) > 0)
        zhangsan, lisi = wecom.user("zhangsan"), wecom.user("lisi")

        shown = [user.sees_finish(user.says(QUESTION)) for user in (zhangsan, lisi)]

    assert shown == [whole(QUESTION), render_frame(mock_answer(QUESTION), growing=False)]


def test_a_redelivered_message_is_answered_once(alice: LongConnectionUser, dify: MockDify) -> None:
    """The same msgid under another req_id is neither asked nor shown again."""
    first = alice.says(QUESTION, "m-1")
    alice.sees_finish(first)
    again = alice.asks(QUESTION, "m-1")
    later = alice.says("病假怎么申请")
    alice.sees_finish(later)

    assert again.bubbles == []
    assert len(alice.chat.bubbles) == 2


def test_an_answer_that_failed_is_tried_again(alice: LongConnectionUser, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same connection, which may last for weeks, and not at once."""
    read = AnswerView.read
    failed: list[Any] = []

    def fails_once(*args: Any) -> Snapshot | None:
        if not failed:
            failed.append(args)
            raise ValueError("unexpected")
        return read(*args)

    monkeypatch.setattr(AnswerView, "read", fails_once)
    monkeypatch.setattr(answers, "FAILED_SECONDS", 0.1)

    assert alice.sees_finish(alice.says(QUESTION)) == whole(QUESTION)
    assert len(failed) == 1


def answers_cut() -> float:
    """Return how many answers had more parts than are sent."""
    name, labels = "wechatlaibao_long_connection_messages_total", {"bot": "default", "outcome": "cut"}
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


def is_closed(stored: redis.Redis) -> bool:
    """Return whether nothing is left to send."""
    return not stored.keys("{dify_long_connection:*}:open")


def messages_of(stored: redis.Redis) -> str:
    """Return how many further messages of the only answer are claimed, as Redis has it."""
    (key,) = stored.keys("{dify_long_connection:*}:answer:*")
    return str(stored.hget(key, "messages"))


def bubble_req_id(wecom: LongConnectionServer) -> str:
    """Return the req_id of the last finish frame."""
    return next(each.frame.req_id for each in reversed(wecom.frames) if finishes(each.frame.body))


def finishes(body: Mapping[str, Any]) -> bool:
    return bool(body.get("stream", {}).get("finish"))


def test_a_long_answer_goes_out_in_parts(
    alice: LongConnectionUser, wecom: LongConnectionServer, dify: MockDify
) -> None:
    """The frame says that the rest follows; it does, in numbered messages under the same req_id."""
    question = f"{QUESTION} [[longest]]"
    bubble = alice.says(question)
    frame = alice.sees_finish(bubble)
    messages = alice.sees_messages(2)

    assert [message.partition("\n")[0] for message in messages] == ["(2/3)", "(3/3)"]
    told = "".join(message.partition("\n\n")[2] for message in messages)
    shown = frame.removesuffix(ZH["truncated_parts"]) + told
    for chapter in (1, 60, 120):
        assert shown.count(f"## 第 {chapter} 章") == 1
    assert {message.req_id for message in alice.chat.messages} == {wecom.frames[-1].frame.req_id}
    assert wecom.broken == []


def test_an_answer_of_more_parts_than_allowed_ends_with_a_link_to_all_of_it(
    wecom: LongConnectionServer, redis_url: str, dify: MockDify
) -> None:
    """It is counted; the link leads to the whole answer."""
    question = f"{QUESTION} [[longest]]"
    options = {"WECHAT_WS_PARTS": "1", "PUBLIC_URL": "https://chat.example.com", "DRAIN_SECONDS": "0"}
    with AppServer(redis_url, **websocket_settings(wecom, **options), **dify_settings(dify.base_url)) as app:
        wecom.wait_until(lambda: wecom.subscribed(BOT_ID) > 0)
        alice = wecom.user("zhangsan")
        before = answers_cut()
        alice.says(question)
        part, link = alice.sees_messages(2)
        found = re.search(r"https://chat\.example\.com(/files/\S+?)\)", link)
        assert found
        reply = requests.get(app.url + found[1], timeout=10)
        wecom.wait_until(lambda: answers_cut() == before + 1)

    assert (part.partition("\n")[0], link.partition("\n")[0]) == ("(2/3)", "(3/3)")
    assert reply.content.decode() == dify.expected_answer(question)
    assert wecom.broken == []


def test_pictures_and_files_follow_the_answer(alice: LongConnectionUser, wecom: LongConnectionServer) -> None:
    """The frame has words in their places; they come as messages under the same req_id, each uploaded once."""
    bubble = alice.says("画一座房子 [[pictures]]")
    frame = alice.sees_finish(bubble)
    alice.sees_messages(4)

    assert frame.startswith("画好了，这是一座房子：\n\n（图片：房子）")
    assert [message.msgtype for message in alice.chat.messages] == ["image", "image", "image", "file"]
    assert [message.file.name for message in alice.chat.messages if message.file][3] == "年度报告.pdf"
    assert {message.req_id for message in alice.chat.messages} == {bubble_req_id(wecom)}
    assert wecom.broken == []


def test_an_answer_of_a_picture_only_has_words(alice: LongConnectionUser) -> None:
    """A bubble needs a text."""
    bubble = alice.says("画一座房子 [[only-picture]]")

    assert alice.sees_finish(bubble) == ZH["picture_unnamed"]
    alice.sees_messages(1)
    assert [message.msgtype for message in alice.chat.messages] == ["image"]


def test_a_file_that_wecom_refuses_is_a_link(alice: LongConnectionUser, wecom: LongConnectionServer) -> None:
    """Without an address of ours there is no link, and the person reads that."""
    wecom.faults.add(Fault(UPLOAD_INIT, errcode=40005, where=lambda body: body["filename"] == "年度报告.pdf"))

    alice.says("画一座房子 [[pictures]]")
    last = alice.sees_messages(4)[-1]

    assert last == ZH["files_unlinked"].format(names="年度报告.pdf")


def test_a_file_that_wecom_deleted_is_uploaded_again(
    alice: LongConnectionUser, wecom: LongConnectionServer, stored: redis.Redis
) -> None:
    """Its media_id was kept from an earlier answer."""
    question = "画一座房子 [[only-picture]]"
    alice.says(question)
    alice.sees_messages(1)
    wait_until(lambda: is_closed(stored), 30.0)
    wecom.bots[BOT_ID].uploads.delete_all()

    alice.says(question)
    alice.sees_messages(2)

    assert [message.msgtype for message in alice.chat.messages] == ["image", "image"]
    assert wecom.broken == []


def test_a_new_upload_that_wecom_refuses_is_a_link(alice: LongConnectionUser, wecom: LongConnectionServer) -> None:
    """It is not uploaded for ever."""
    wecom.faults.add(Fault(RESPOND, errcode=INVALID_MEDIA, where=lambda body: body["msgtype"] == "image"))

    alice.says("画一座房子 [[only-picture]]")

    assert alice.sees_messages(1)[-1].startswith(ZH["files_unlinked"].partition("{")[0])
    assert len(wecom.bots[BOT_ID].uploads.uploads) == 1


@pytest.mark.full
def test_one_thread_sends_an_answer(alice: LongConnectionUser, wecom: LongConnectionServer) -> None:
    """Looks at the open answers find one that is being sent for seconds, and leave it alone."""
    wecom.faults.add(Fault(RESPOND, ack_seconds=1.5))

    alice.sees_finish(alice.says(f"{QUESTION} [[longest]]"))
    wait_until(lambda: wecom.frames[-1].frame.body["msgtype"] == "markdown", 30.0)
    alice.sees_messages(2)

    assert [message.content[:5] for message in alice.chat.messages] == ["(2/3)", "(3/3)"]


@pytest.mark.full
def test_messages_wait_for_the_limit_of_the_chat(
    alice: LongConnectionUser, wecom: LongConnectionServer, bot: AppServer, stored: redis.Redis
) -> None:
    """Thirty messages were sent to the chat within the last minute; the next one leaves when there is room."""
    seconds, _ = stored.time()
    chat = bot.container.long_stores.allowance.chat("default", "zhangsan")
    stored.zadd(bot_key("default", f"sent:{chat}"), {f"m{number}": seconds - 58.0 for number in range(30)})

    bubble = alice.says(f"{QUESTION} [[longest]]")
    alice.sees_messages(2)

    assert alice.chat.messages[0].at - bubble.last.at > 2.0
    assert wecom.broken == []


@pytest.mark.parametrize("errcode", [STREAM_EXPIRED, INVALID_REQ_ID])
@pytest.mark.parametrize("where", [finishes, lambda body: True], ids=["finish frame", "every frame"])
def test_a_refused_answer_is_sent_as_a_message(
    alice: LongConnectionUser, wecom: LongConnectionServer, errcode: int, where: Callable[[Mapping[str, Any]], bool]
) -> None:
    """It goes to the chat, whole and once."""
    wecom.faults.add(Fault(RESPOND, errcode=errcode, where=where))

    alice.asks(QUESTION)

    assert alice.sees_messages(1) == [whole(QUESTION)]
    assert sum(handled.frame.cmd == SEND for handled in wecom.frames) == 1


def test_a_long_answer_that_was_refused_is_sent_in_parts(
    alice: LongConnectionUser, wecom: LongConnectionServer
) -> None:
    """The parts count from one: nothing of it was shown."""
    wecom.faults.add(Fault(RESPOND, errcode=INVALID_REQ_ID))

    alice.asks(f"{QUESTION} [[longest]]")

    assert [message.partition("\n")[0] for message in alice.sees_messages(3)] == ["(1/3)", "(2/3)", "(3/3)"]


@pytest.mark.parametrize(("errcode", "connections"), [(6000, 1), (NOT_SUBSCRIBED, 2)], ids=["busy", "not subscribed"])
def test_a_finish_frame_without_effect_is_sent_again(
    alice: LongConnectionUser, wecom: LongConnectionServer, errcode: int, connections: int
) -> None:
    """After a version conflict; and over the next connection, where WeCom no longer takes this one as subscribed."""
    fault = wecom.faults.add(Fault(RESPOND, errcode=errcode, times=1, where=finishes))

    bubble = alice.says(QUESTION)

    assert alice.sees_finish(bubble) == whole(QUESTION)
    assert (fault.met, len(wecom.bots[BOT_ID].subscriptions), alice.chat.messages) == (1, connections, [])


def test_the_time_of_a_frame_ends_before_the_answer(wecom: LongConnectionServer, redis_url: str) -> None:
    """The frame says that the rest follows, and it follows when the answer is complete."""
    with MockDify(delay=0.2) as dify:
        env = websocket_settings(wecom, WECHAT_ANSWER_SECONDS="0.4", **dify_settings(dify.base_url), DRAIN_SECONDS="0")
        with AppServer(redis_url, **env):
            wecom.wait_until(lambda: wecom.subscribed(BOT_ID) > 0)
            alice = wecom.user("zhangsan")
            frame = alice.sees_finish(alice.says(QUESTION))
            dify.hurry()
            (message,) = alice.sees_messages(1)

    assert frame.endswith(ZH["frame_ended_parts"])
    shown = frame.removesuffix(ZH["frame_ended_parts"]) + message.removeprefix("(2/2)")
    assert squeezed(whole(QUESTION)) in squeezed(shown)
    assert wecom.broken == []


def test_a_frame_that_wecom_ended_is_followed_by_the_answer(redis_url: str) -> None:
    """WeCom refuses frames after ten minutes, here after a moment: the answer comes as a message when it is whole."""
    with MockDify(delay=0.2) as dify, bot_server(stream_seconds=0.3) as wecom:
        env = websocket_settings(wecom, **dify_settings(dify.base_url), DRAIN_SECONDS="0")
        with AppServer(redis_url, **env):
            wecom.wait_until(lambda: wecom.subscribed(BOT_ID) > 0)
            alice = wecom.user("zhangsan")
            bubble = alice.says(QUESTION)
            wecom.wait_until(lambda: any(handled.errcode == STREAM_EXPIRED for handled in wecom.frames))
            dify.hurry()
            messages = alice.sees_messages(1)

    assert messages == [whole(QUESTION)]
    assert not bubble.finish
    assert wecom.broken == []


def test_an_answer_larger_than_a_minutes_messages_waits(
    alice: LongConnectionUser, wecom: LongConnectionServer, stored: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that WeCom refused because of its limits is sent again; meanwhile it is not claimed."""
    wait = answers.AnswerDelivery._wait
    waits: list[tuple[float, str]] = []

    def waits_briefly(sender: answers.AnswerDelivery, seconds: float) -> None:
        waits.append((seconds, messages_of(stored)))
        wait(sender, min(seconds, 0.2))

    monkeypatch.setattr(answers.AnswerDelivery, "_wait", waits_briefly)
    fault = wecom.faults.add(Fault(RESPOND, errcode=45009, times=1, where=lambda body: body["msgtype"] == "markdown"))

    alice.says(f"{QUESTION} [[longest]]")

    assert [message[:5] for message in alice.sees_messages(2)] == ["(2/3)", "(3/3)"]
    assert (fault.met, [wait for wait in waits if wait[0] > 2.0]) == (1, [(BUSY[45009], "0")])


def test_acks_that_come_twice_or_for_no_frame_change_nothing(
    alice: LongConnectionUser, wecom: LongConnectionServer, stored: redis.Redis
) -> None:
    """One bubble and each part once, in order; what comes next is answered as ever."""

    def acks_more(frame: ReceivedFrame) -> None:
        for req_id in (frame.req_id, "unknown", ""):
            frame.connection.put({"headers": {"req_id": req_id}, "errcode": 0, "errmsg": "ok"})

    wecom.before_ack = acks_more

    long, short = alice.asks(f"{QUESTION} [[longest]]"), alice.asks("病假怎么申请")
    parts = alice.sees_messages(2)
    wait_until(lambda: is_closed(stored), 60.0)

    assert [(len(callback.bubbles), callback.finish) for callback in (long, short)] == [(1, True)] * 2
    assert ([part[:5] for part in parts], len(alice.chat.messages)) == (["(2/3)", "(3/3)"], 2)
    assert (short.content, wecom.broken) == (whole("病假怎么申请"), [])


@pytest.mark.full
def test_a_finish_frame_without_an_ack_is_sent_again(
    alice: LongConnectionUser, wecom: LongConnectionServer, stored: redis.Redis
) -> None:
    """People see one bubble with the same text, and no second message."""
    fault = wecom.faults.add(Fault(RESPOND, ack_seconds=None, times=1, where=finishes))

    bubble = alice.says(QUESTION)
    alice.sees_finish(bubble)
    wait_until(lambda: is_closed(stored), 30.0)

    assert (bubble.content, alice.chat.messages, fault.met) == (whole(QUESTION), [], 1)
    assert sum(finishes(handled.frame.body) for handled in wecom.frames) == 2


@pytest.mark.full
def test_a_refusal_after_a_missing_ack_sends_no_second_answer(
    alice: LongConnectionUser, wecom: LongConnectionServer, stored: redis.Redis
) -> None:
    """The first finish frame was shown, and the second is refused because the bubble's time is over by then."""
    wecom.faults.add(Fault(RESPOND, ack_seconds=None, times=1, where=finishes))
    wecom.faults.add(Fault(RESPOND, errcode=STREAM_EXPIRED, where=finishes))

    bubble = alice.says(QUESTION)
    alice.sees_finish(bubble)
    wait_until(lambda: is_closed(stored), 30.0)

    assert (bubble.content, alice.chat.messages) == (whole(QUESTION), [])


@pytest.mark.full
def test_a_late_ack_of_another_frame_does_not_end_an_answer(
    alice: LongConnectionUser, wecom: LongConnectionServer, stored: redis.Redis
) -> None:
    """The ack of a growing frame comes while the finish frame, which WeCom refuses, waits for its own."""
    wecom.faults.add(Fault(RESPOND, ack_seconds=7.0, times=1))
    wecom.faults.add(Fault(RESPOND, errcode=6000, ack_seconds=3.0, times=1, where=finishes))

    bubble = alice.says(QUESTION)
    wait_until(lambda: is_closed(stored), 60.0)

    assert (bubble.finish, bubble.content, alice.chat.messages) == (True, whole(QUESTION), [])


@pytest.mark.full
def test_a_refusal_is_believed_although_an_earlier_ack_is_missing(
    alice: LongConnectionUser, wecom: LongConnectionServer
) -> None:
    """Whichever frame it belongs to, the bubble's time was over before the finish frame: people have not seen it."""
    wecom.faults.add(Fault(RESPOND, ack_seconds=7.0, times=1))
    wecom.faults.add(Fault(RESPOND, errcode=STREAM_EXPIRED, where=finishes))

    alice.asks(QUESTION)

    assert alice.sees_messages(1) == [whole(QUESTION)]


@pytest.mark.full
def test_a_late_ack_of_a_frame_does_not_repeat_a_message(
    alice: LongConnectionUser, wecom: LongConnectionServer, stored: redis.Redis
) -> None:
    """The refusal of a repeated finish frame comes while a part waits for its own ack."""
    wecom.faults.add(Fault(RESPOND, ack_seconds=7.0, times=1, where=finishes))
    wecom.faults.add(Fault(RESPOND, errcode=STREAM_EXPIRED, ack_seconds=4.0, times=1, where=finishes))
    wecom.faults.add(Fault(RESPOND, ack_seconds=4.0, where=lambda body: body["msgtype"] == "markdown"))

    alice.asks(f"{QUESTION} [[longest]]")
    alice.sees_messages(2)
    wait_until(lambda: is_closed(stored), 60.0)

    assert [message.content[:5] for message in alice.chat.messages] == ["(2/3)", "(3/3)"]
