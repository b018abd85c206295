"""The demo page's server turns clicks into callbacks and says clearly what went wrong."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
import requests

from demo.page.server import MAX_BUBBLES, Conversations, PageServer, create_page
from demo.wecom.simulator import SimulatedBot, WeComUser
from tests.support.wecom_stub import AES_KEY, TOKEN, StubCallback, frame


class Browser:
    """What the page's script does, without the script."""

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
    """A callback of our own on a real port."""
    with StubCallback() as stub:
        yield stub


@pytest.fixture
def modes() -> list[str]:
    """What the mock Dify was told to do, in order."""
    return []


@pytest.fixture
def browser(callback: StubCallback, modes: list[str]) -> Iterator[Browser]:
    """A browser in front of a page whose Dify can be told what to do."""
    conversations = Conversations(lambda userid: WeComUser(callback.url, SimulatedBot(TOKEN, AES_KEY), userid))
    with (
        closing(conversations),
        socket.create_server(("127.0.0.1", 0)) as listener,
        PageServer(create_page(conversations, modes.append), listener) as page,
    ):
        browser = Browser(page.url)
        yield browser
        browser.http.close()


def test_a_question_shows_a_bubble_that_grows_with_each_poll(callback: StubCallback, browser: Browser) -> None:
    """Send gives the first frame and a key; each poll with it gives the next frame."""
    callback.grows("thinking", "**年假**", "**年假**十天")

    sent = browser.send("年假").json()
    grown = browser.post("/poll", bubble=sent["bubble"]).json()["frame"]
    last = browser.post("/poll", bubble=sent["bubble"]).json()["frame"]

    assert sent["frame"]["html"] == "<p>thinking</p>\n"
    assert (grown["html"], grown["finish"], grown["bytes"]) == ("<p><strong>年假</strong></p>\n", False, 10)
    assert (last["html"], last["finish"]) == ("<p><strong>年假</strong>十天</p>\n", True)
    assert callback.messages[0]["text"]["content"] == "年假"


def test_the_person_and_the_behaviour_of_dify_are_chosen_with_the_question(
    callback: StubCallback, browser: Browser, modes: list[str]
) -> None:
    """The chosen person asks, after Dify was told what to do."""
    browser.send(user="lisi", mode="silent")

    assert callback.messages[0]["from"] == {"userid": "lisi"}
    assert modes == ["silent"]


def test_entering_shows_the_welcome_as_html(callback: StubCallback, browser: Browser) -> None:
    """The welcome text comes from the gateway."""
    callback.reply = lambda message: {"msgtype": "text", "text": {"content": "您好"}}

    assert browser.post("/enter", user="zhangsan").json() == {"html": "<p>您好</p>\n"}


def test_the_page_lists_people_and_modes(browser: Browser) -> None:
    """The selectors are filled from here, in both languages."""
    choices = browser.get("/choices").json()

    assert [person["id"] for person in choices["people"]] == ["zhangsan", "lisi", "wangwu"]
    assert [mode["id"] for mode in choices["modes"]] == ["normal", "slow", "error", "silent"]
    assert all(entry["zh"] and entry["en"] for entry in choices["people"] + choices["modes"])


def test_with_a_real_dify_there_is_no_behaviour_to_choose(callback: StubCallback) -> None:
    """Without a mock the page has no modes and a question needs none."""
    conversations = Conversations(lambda userid: WeComUser(callback.url, SimulatedBot(TOKEN, AES_KEY), userid))
    with closing(conversations):
        client = create_page(conversations, None).test_client()

        assert client.get("/choices").get_json()["modes"] == []
        assert client.post("/send", json={"user": "zhangsan", "text": "hello", "mode": ""}).status_code == 200


def test_a_gateway_that_refuses_is_shown_as_such(callback: StubCallback, browser: Browser) -> None:
    """A 4xx of the callback is a refusal with its status."""
    callback.status = 403

    reply = browser.send()

    assert reply.status_code == 502
    assert (reply.json()["error"], reply.json()["status"]) == ("refused", 403)


def test_a_reply_wecom_would_not_show_is_named(callback: StubCallback, browser: Browser) -> None:
    """A broken rule is told apart from a refusal."""
    callback.reply = lambda message: frame("x", stream_id="")

    assert browser.send().json() == {"error": "rule_broken", "detail": "the stream has no id"}


def test_a_gateway_that_is_away_is_told_apart(callback: StubCallback, browser: Browser) -> None:
    """No answer at all is another error than a refusal."""
    callback.server.shutdown()
    callback.server.server_close()

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
def test_a_request_that_makes_no_sense_is_refused(
    callback: StubCallback, browser: Browser, body: dict[str, object]
) -> None:
    """Nothing reaches the callback when a field is missing or unknown."""
    reply = browser.post("/send", **body)

    assert (reply.status_code, reply.json()["error"]) == (400, "bad_request")
    assert callback.messages == []


def test_another_site_cannot_make_the_browser_ask(callback: StubCallback, browser: Browser) -> None:
    """Only JSON is taken, which a foreign page cannot send without asking first."""
    reply = browser.http.post(browser.url + "/send", data='{"user":"zhangsan","text":"x","mode":"normal"}', timeout=10)

    assert reply.status_code == 415
    assert callback.messages == []


def test_half_a_surrogate_pair_is_no_reason_to_fail(callback: StubCallback, browser: Browser) -> None:
    """Text that UTF-8 cannot carry is mended before it is encrypted."""
    assert browser.send("a\ud800b").status_code == 200
    assert callback.messages[0]["text"]["content"] == "a?b"


def test_the_oldest_bubbles_are_forgotten(callback: StubCallback, browser: Browser) -> None:
    """A page that is never closed does not collect bubbles for ever."""
    first = browser.send().json()["bubble"]
    for _ in range(MAX_BUBBLES):
        last = browser.send().json()["bubble"]

    assert browser.post("/poll", bubble=first).status_code == 404
    assert browser.post("/poll", bubble=last).status_code == 200


def test_the_page_takes_everything_from_its_own_server(browser: Browser) -> None:
    """Page, script and style are served here, under a policy that allows nothing else."""
    page = browser.get("/")

    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "//" not in page.text.replace("<!doctype html>", "")
    for path in ("/app.js", "/style.css", "/icon.svg"):
        reply = browser.get(path)
        assert reply.status_code == 200
        assert "https://" not in reply.text


def test_a_server_on_a_taken_port_never_begins(browser: Browser) -> None:
    """The port is the caller's to open, so that a taken one is the caller's to report."""
    port = int(browser.url.rpartition(":")[2])

    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))
