"""What arrives on the long connection: mentions, quotes, files with their keys, events, and what is none of these."""

from __future__ import annotations

import logging

import pytest

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from demo.wecom.feedback import rates
from demo.wecom.long_connection.server import LongConnectionServer
from demo.wecom.long_connection.user import LongConnectionUser
from demo.wecom.media_messages import text_message
from demo.wecom.media_store import StoreFaults
from tests.support.pictures import PDF, png
from tests.support.replicas import AppServer
from tests.support.servers.processes import wait_until

QUESTION = "这张图里是什么"


def test_the_first_message_of_a_day_is_welcomed(alice: LongConnectionUser, wecom: LongConnectionServer) -> None:
    """The welcome answers the event's own req_id."""
    assert alice.enters() == ZH["welcome"]
    assert wecom.broken == []


def test_a_person_rates_an_answer(alice: LongConnectionUser, dify: MockDify, wecom: LongConnectionServer) -> None:
    """A command's sentence has no thumbs; the event gets no reply."""
    bubble = alice.says("年假怎么申请")
    alice.sees_finish(bubble)
    sent = len(wecom.frames)
    rates(alice, bubble, "accurate")
    wait_until(lambda: dify.ratings != [], 30.0)

    assert dify.ratings[-1][1] == "like"
    assert len(wecom.frames) == sent
    command = alice.says("/help")
    assert "feedback" not in command.frames[0].raw


def test_a_click_on_a_card_continues_the_run(alice: LongConnectionUser, wecom: LongConnectionServer) -> None:
    """The card comes below the answer, says at once that it was clicked, and the answer is a message to the chat."""
    alice.sees_finish(alice.says("报销要什么材料 [[form]]"))
    alice.sees_messages(1)
    card = alice.chat.messages[0].card
    assert card

    click = alice.clicks(card, "同意")
    again = alice.clicks(card, "同意", click.msgid)
    alice.sees_messages(2)

    assert [click.says, again.says] == [ZH["card_clicked"]] * 2
    answer = alice.chat.messages[1]
    assert (answer.msgtype, answer.req_id) == ("markdown", "")
    assert "同意" in answer.content
    assert len(alice.chat.messages) == 2
    assert wecom.broken == []


def test_an_apps_card_is_a_message_and_in_a_group_its_words(
    alice: LongConnectionUser, wecom: LongConnectionServer, dify: MockDify
) -> None:
    """The answer to a click has its card too: nobody sees the block that the app wrote."""
    dify.default = "card"
    alice.sees_finish(alice.says("常见问题"))
    alice.sees_messages(1)
    card = alice.chat.messages[0].card
    assert card

    alice.clicks(card, "年假")
    alice.sees_messages(3)
    assert [message.msgtype for message in alice.chat.messages] == ["template_card", "markdown", "template_card"]

    member = wecom.user("lisi", "wrGROUP")
    shown = member.sees_finish(member.says("@Help Bot 常见问题"))
    (words,) = member.sees_messages(1)
    assert "- 年假: 年假怎么申请" in words
    assert not [text for text in (shown, words, *alice.chat.texts) if "card_type" in text]
    assert wecom.broken == []


def test_a_group_mentions_the_bot_by_its_name(bot: AppServer, wecom: LongConnectionServer, dify: MockDify) -> None:
    """The name has a space; a quote comes before the question, as in callbacks."""
    member = wecom.user("lisi", "wrGROUP")
    quote = {"quote": text_message("出差怎么报销")}
    member.sees_finish(member.shows({**text_message("@Help Bot 这是什么意思"), **quote}))

    assert dify.requests[-1].body["query"] == "> 出差怎么报销\n\n这是什么意思"


def test_pictures_and_files_are_decrypted_with_their_own_keys(alice: LongConnectionUser, dify: MockDify) -> None:
    """Each address comes with a key; the bot has none."""
    picture = png(40, 30)
    for bubble in (alice.sends_image(picture), alice.sends_file("年假.pdf", PDF)):
        alice.sees_finish(bubble)

    # Two questions at once: either file may be uploaded first.
    assert sorted((upload.mime, upload.content) for upload in dify.uploads) == [
        ("application/pdf", PDF),
        ("image/png", picture),
    ]


def test_a_file_of_a_wrong_key_is_not_passed_on(alice: LongConnectionUser, dify: MockDify) -> None:
    """The person reads what to do."""
    bubble = alice.sends_image(png(), faults=StoreFaults(wrong_key=True))

    # One padding in 256 is valid by chance: then it is no picture.
    assert alice.sees_finish(bubble) in (ZH["media_undecryptable"], ZH["media_wrong_type"])
    assert dify.uploads == []


@pytest.mark.parametrize("body", [{"msgtype": "text"}, {"msgtype": "text", "text": 7}, {"msgtype": "stream"}])
def test_a_message_without_its_content_is_dropped(
    alice: LongConnectionUser, body: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """The connection goes on, and the log has none of it."""
    with caplog.at_level(logging.INFO):
        assert alice.posts(body).bubbles == []
        alice.sees_finish(alice.says("年假怎么申请"))

    assert len([record for record in caplog.records if record.message == "message not understood"]) == 1


def test_nothing_secret_is_logged(
    alice: LongConnectionUser, wecom: LongConnectionServer, caplog: pytest.LogCaptureFixture
) -> None:
    """No words, no req_id, no address, no key; the person is a pseudonym."""
    with caplog.at_level(logging.DEBUG):
        alice.sees_finish(alice.says(QUESTION))
        alice.sees_finish(alice.sends_file("年假.pdf", PDF))

    said = "\n".join(str(vars(record)) for record in caplog.records if record.name.startswith(("channels", "services")))
    req_ids = {handled.frame.req_id for handled in wecom.frames if handled.frame.cmd == "aibot_respond_msg"}
    assert req_ids
    assert not [secret for secret in (QUESTION, "zhangsan", "sign=", *req_ids) if secret in said]
