"""The demo page's server: turns requests of the page into callbacks, and reports errors by kind."""

from __future__ import annotations

import socket
from collections.abc import Iterator
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


def test_another_website_cannot_send_a_question(callback: StubCallback, browser: Browser) -> None:
    """Only JSON is accepted, which another website cannot send without a CORS preflight."""
    reply = browser.http.post(browser.url + "/send", data='{"user":"zhangsan","text":"x","mode":"normal"}', timeout=10)

    assert reply.status_code == 415
    assert callback.messages == []


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
