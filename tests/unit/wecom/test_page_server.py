"""The demo page's server: turns requests of the page into callbacks, and reports errors by kind."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import closing

import pytest
import requests

from demo.page.conversations import Conversations
from demo.page.server import SHARED, PageServer, create_page
from demo.wecom.simulator import MediaStore, ResponseServer, SimulatedBot, WeComUser
from tests.support.wecom_stub import AES_KEY, TOKEN, StubCallback, frame


class Browser:
    """Sends the requests of the page's script."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = requests.Session()
        self.http.trust_env = False

    def get(self, path: str) -> requests.Response:
        return self.http.get(self.url + path, timeout=10)

    def post(self, path: str, **body: object) -> requests.Response:
        return self.http.post(self.url + path, json=body, timeout=10)

    def send(self, text: str = "hello", user: str = "zhangsan", mode: str = "normal") -> requests.Response:
        return self.post("/send", text=text, user=user, mode=mode)


@pytest.fixture
def callback() -> Iterator[StubCallback]:
    """A stub callback on a real port."""
    with StubCallback() as stub:
        yield stub


@pytest.fixture
def modes() -> list[str]:
    """The modes that the mock Dify was set to, in order."""
    return []


@pytest.fixture
def responses() -> Iterator[ResponseServer]:
    """WeCom's side of `response_url`."""
    with ResponseServer() as responses:
        yield responses


@pytest.fixture
def browser(callback: StubCallback, modes: list[str], responses: ResponseServer) -> Iterator[Browser]:
    """A browser with the page of a gateway whose mock Dify has modes."""
    bot, store = SimulatedBot(TOKEN, AES_KEY), MediaStore()
    conversations = Conversations(lambda userid: WeComUser(callback.url, bot, userid, responses=responses, store=store))
    with (
        store,
        closing(conversations),
        socket.create_server(("127.0.0.1", 0)) as listener,
        PageServer(create_page(conversations, modes.append), listener) as page,
    ):
        browser = Browser(page.url)
        yield browser
        browser.http.close()


@pytest.mark.parametrize(
    ("kind", "words", "msgtype"),
    [
        ("photo", "什么", "mixed"),
        ("file", "", "file"),
        ("file", "什么", "text"),
        ("voice", "", "voice"),
        ("quote", "", "text"),
    ],
)
def test_a_button_sends_another_kind_of_message(
    callback: StubCallback, browser: Browser, kind: str, words: str, msgtype: str
) -> None:
    """Typed words are part of the message; a file has no words, so a text with the words quotes it."""
    reply = browser.post("/media", kind=kind, text=words, user="zhangsan", mode="normal")

    (message,) = callback.messages
    assert reply.json()["bubble"]
    assert message["msgtype"] == msgtype
    assert ("quote" in message) == (kind == "quote" or bool(words and kind == "file"))
    assert words in str(message)


def test_a_failed_question_is_reported_by_its_kind(callback: StubCallback, browser: Browser) -> None:
    """A 4xx with its status, a reply that breaks a rule with the rule, and a gateway that is down."""
    callback.reply = lambda message: frame("x", stream_id="")
    broken = browser.send().json()
    callback.status = 403
    refused = browser.send()
    callback.server.shutdown()
    callback.server.server_close()

    assert broken == {"error": "rule_broken", "detail": "the stream has no id"}
    assert (refused.status_code, refused.json()["error"], refused.json()["status"]) == (502, "refused", 403)
    assert browser.send().json()["error"] == "unreachable"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": "zhangsan", "mode": "normal"},
        {"user": "zhangsan", "mode": "normal", "text": "  "},
        {"user": "zhangsan", "mode": "normal", "text": 1},
        {"user": "nobody", "mode": "normal", "text": "x"},
        {"user": "zhangsan", "mode": "unheard of", "text": "x"},
    ],
)
def test_an_invalid_request_is_rejected(callback: StubCallback, browser: Browser, body: dict[str, object]) -> None:
    """If a field is missing or unknown the callback is not called."""
    reply = browser.post("/send", **body)

    assert (reply.status_code, reply.json()["error"]) == (400, "bad_request")
    assert callback.messages == []


def test_another_website_cannot_send_a_question(callback: StubCallback, browser: Browser) -> None:
    """Only JSON is accepted, which another website cannot send without a CORS preflight."""
    reply = browser.http.post(browser.url + "/send", data='{"user":"zhangsan","text":"x","mode":"normal"}', timeout=10)

    assert reply.status_code == 415
    assert callback.messages == []


def test_the_oldest_bubbles_are_dropped(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server keeps at most MAX_BUBBLES bubbles."""
    monkeypatch.setattr("demo.page.conversations.MAX_BUBBLES", 2)
    bubbles = [browser.send().json()["bubble"] for _ in range(3)]

    assert [browser.post("/poll", bubble=bubble).status_code for bubble in bubbles] == [404, 200, 200]


def test_the_page_loads_files_from_its_own_server_only(browser: Browser) -> None:
    """Page, script and style come from this server, under a policy that allows nothing else."""
    page = browser.get("/")

    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert policy.endswith("require-trusted-types-for 'script'; trusted-types answers")
    assert "//" not in page.text.replace("<!doctype html>", "")
    for path in ("/app.js", "/style.css", "/icon.svg", *(f"/shared/{name}" for name in SHARED)):
        reply = browser.get(path)
        assert reply.status_code == 200
        assert "https://" not in reply.text
    assert browser.get("/shared/page.html").status_code == 404
    assert browser.get("/shared/..%2fpages.py").status_code == 404


CARD = {
    "card_type": "vote_interaction",
    "main_title": {"title": "投票", "desc": "选一个"},
    "checkbox": {"question_key": "q", "option_list": [{"id": "a", "text": "甲"}, {"id": "b", "text": "乙"}]},
    "submit_button": {"text": "提交", "key": "vote"},
    "task_id": "t-1",
}


def test_a_card_is_shown_and_a_click_on_it_told(browser: Browser, callback: StubCallback) -> None:
    """The click has the selected options; the reply has the updated card, and the rules that it breaks."""
    callback.reply = lambda message: {**frame("好", finish=True), "msgtype": "stream_with_template_card", **_card(CARD)}
    sent = browser.send().json()
    assert sent["frame"]["card"]["buttons"] == ["提交"]
    assert [option["id"] for option in sent["frame"]["card"]["lists"][0]["options"]] == ["a", "b"]

    update = {**CARD, "main_title": {"title": "已收到"}, "task_id": "t-2"}
    callback.reply = lambda message: {"response_type": "update_template_card", **_card(update)}
    clicked = browser.post("/click", bubble=sent["bubble"], button="提交", selected={"q": ["b"]}).json()

    details = callback.messages[-1]["event"]["template_card_event"]
    assert (details["event_key"], details["selected_items"]["selected_item"][0]["option_ids"]) == (
        "vote",
        {"option_id": ["b"]},
    )
    assert clicked["card"]["title"] == "已收到"
    assert ["task_id" in rule for rule in clicked["broken"]] == [True]
    assert browser.post("/late", bubble=clicked["click"]).json() == {"messages": []}
    for click, status in (
        ({"bubble": "unknown", "button": "提交"}, 404),
        ({"bubble": sent["bubble"], "button": "另一个"}, 404),
        ({"bubble": sent["bubble"], "button": "提交", "selected": ["a"]}, 400),
    ):
        assert browser.post("/click", **click).status_code == status


def _card(card: Mapping[str, object]) -> dict[str, object]:
    return {"template_card": card}
