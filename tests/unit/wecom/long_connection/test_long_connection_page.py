"""The demo page's server over the simulated long connection: what it tells the page's script."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from demo.page.conversations import Conversations
from demo.page.server import PageServer, create_page
from demo.wecom.long_connection.server import LongConnectionServer
from tests.support.long_connection.bots import BOT_ID, SECRET, bot_server
from tests.support.long_connection.raw_bot import RawBot
from tests.unit.wecom.test_page_server import Browser


@pytest.fixture
def wecom() -> Iterator[LongConnectionServer]:
    with bot_server() as server:
        yield server


@pytest.fixture
def bot(wecom: LongConnectionServer) -> Iterator[RawBot]:
    with RawBot(wecom.url, BOT_ID, SECRET) as bot:
        yield bot


@pytest.fixture
def browser(wecom: LongConnectionServer) -> Iterator[Browser]:
    with (
        closing(Conversations(wecom.user)) as conversations,
        socket.create_server(("127.0.0.1", 0)) as listener,
        PageServer(
            create_page(conversations, None, push=lambda userid, text: ("failed", f"{userid} {text}")), listener
        ) as page,
    ):
        yield Browser(page.url)


def asks(browser: Browser, bot: RawBot, text: str) -> tuple[str, str]:
    """Ask on the page, answer with one frame, and return the bubble's key and the req_id."""
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(browser.send, text)
        req_id = bot.next_req_id()
        bot.streams(req_id, "好的", finish=True)
        return str(sent.result().json()["bubble"]), req_id


def test_question_that_nobody_is_subscribed_for_is_an_error(browser: Browser) -> None:
    assert browser.get("/choices").json()["connection"] == "websocket"

    reply = browser.send("anybody?")

    assert (reply.status_code, reply.json()["error"]) == (502, "unreachable")


def test_pushes_are_those_of_the_person(browser: Browser, bot: RawBot) -> None:
    """A message that nobody asked for belongs to one person; a wrong `since` is an error of the page."""
    asks(browser, bot, "你好")
    push = {"chatid": "zhangsan", "chat_type": 1, "msgtype": "markdown", "markdown": {"content": "通知"}}
    bot.request("aibot_send_msg", push)

    shown = browser.post("/pushes", user="zhangsan", since=0).json()["messages"]

    assert [message["html"] for message in shown] == ["<p>通知</p>\n"]
    assert browser.post("/pushes", user="zhangsan", since=1).json()["messages"] == []
    assert browser.post("/pushes", user="lisi", since=0).json()["messages"] == []
    assert browser.post("/pushes", user="zhangsan", since="one").status_code == 400
    assert browser.post("/push", user="lisi", text="hello").json() == {"state": "failed", "error": "lisi hello"}


def test_card_of_an_answer_is_clicked(browser: Browser, bot: RawBot) -> None:
    """The card comes as a message below the bubble; a click is an event, and the card becomes its update."""
    card = {
        "card_type": "button_interaction",
        "main_title": {"title": "批准吗"},
        "button_list": [{"text": "批准", "key": "yes"}],
        "task_id": "task-1",
    }
    key, req_id = asks(browser, bot, "请假")
    assert bot.request("aibot_respond_msg", {"msgtype": "template_card", "template_card": card}, req_id)["errcode"] == 0
    assert browser.post("/late", bubble=key).json()["messages"][0]["card"]["buttons"] == ["批准"]

    with ThreadPoolExecutor(1) as threads:
        clicked = threads.submit(browser.post, "/click", bubble=key, button="批准")
        event = bot.next_callback()
        done = {**card, "main_title": {"title": "已批准"}}
        update = {"response_type": "update_template_card", "template_card": done}
        bot.request("aibot_respond_update_msg", update, event["headers"]["req_id"])

    assert event["body"]["event"]["template_card_event"]["event_key"] == "yes"
    assert clicked.result().json()["card"]["title"] == "已批准"
