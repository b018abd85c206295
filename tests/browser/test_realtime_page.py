"""The realtime page in a real Chromium, before real gunicorn: what is said, what is answered, what survives a cut."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, Locator, Page, WebSocketRoute, expect

from config.texts import ZH
from demo.mock_dify import MockDify
from tests.browser.stage import PATIENCE, PHONE, chromium, screenshot, tab
from tests.house import Replica, dify_settings, replicas, settings_for
from tests.servers import RedisServer, wait_until

__all__ = ["chromium"]

pytestmark = [pytest.mark.browser, pytest.mark.scenario]

#: Recognition and synthesis for a browser that has no microphone; see its first lines for what `theatre` can do.
FAKE_SPEECH = Path(__file__).parent / "fake_speech.js"
NO_RECOGNISER = "window.SpeechRecognition = window.webkitSpeechRecognition = undefined"
KEY = "key-for-tests-not-secret"
SIZE = (1200, 800)


@pytest.fixture(scope="module")
def mock_dify() -> Iterator[MockDify]:
    """A Dify whose answers take two or three seconds."""
    with MockDify(delay=0.08) as dify:
        yield dify


@pytest.fixture(scope="module")
def env(redis_server: RedisServer, mock_dify: MockDify) -> dict[str, str]:
    """The environment of a replica that asks that Dify, and is open to everybody."""
    return settings_for(
        redis_server.url(),
        **dify_settings(mock_dify.base_url),
        WEBSOCKET_AUTH="none",
        RATE_LIMIT_USER="off",
        RATE_LIMIT_IP="off",
        STREAM_LEASE="2",
    )


@pytest.fixture(scope="module")
def replica(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """The product, for the tests that leave it whole."""
    with replicas(1, env, tmp_path_factory.mktemp("realtime")) as (replica,):
        yield replica


@pytest.fixture
def own_env(env: dict[str, str], redis_server: RedisServer) -> dict[str, str]:
    """The environment of a replica of the test's own: it shares no streams with the one that is left whole."""
    return {**env, "REDIS_URL": redis_server.url(2)}


class Visitor:
    """Somebody at the page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def sees(self, css: str) -> Locator:
        return self.page.locator(css)

    def presses(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def types(self, text: str) -> None:
        self.sees("#line").fill(text)
        self.page.keyboard.press("Enter")

    def hears(self, script: str) -> Any:
        """Ask the fake of recognition and voice something."""
        return self.page.evaluate(f"() => {script}")

    def says(self, words: str, *, final: bool = True) -> None:
        """Say something as soon as the recogniser listens."""
        script = "([words, final]) => theatre.hear(words, final)"
        wait_until(lambda: self.page.evaluate(script, [words, final]), timeout=PATIENCE / 1000)

    def waits_for(self, script: str) -> None:
        """Wait until something is so of recognition or voice; the page's policy forbids waiting within it."""
        wait_until(lambda: self.hears(script), timeout=PATIENCE / 1000)

    def listens_to_the_end(self) -> list[str]:
        """Let the voice say all it has to say; return the pieces."""
        self.waits_for("theatre.saying !== null && (theatre.endOfPiece(), true)")
        self.waits_for("theatre.saying ? (theatre.endOfPiece(), false) : theatre.running !== null")
        return [piece["text"] for piece in self.hears("theatre.spoken")]

    @property
    def connected(self) -> Locator:
        return self.sees("#badge[data-state=open]")

    @property
    def turns(self) -> Locator:
        return self.sees(".turn")

    @property
    def counters(self) -> tuple[str, str]:
        """How many questions and answers the page has counted."""
        return self.sees("#questions").inner_text(), self.sees("#answers").inner_text()

    def stands_at(self, stage: str) -> None:
        expect(self.sees("#stages [aria-current=step]")).to_have_attribute("data-stage", stage, timeout=PATIENCE)

    def sees_answer(self, number: int, state: str = "finished") -> str:
        """Wait until the answer of a turn has come to a state; return its text, byte for byte."""
        expect(self.turns.nth(number).locator(".theirs")).to_have_attribute("data-state", state, timeout=PATIENCE)
        return self.turns.nth(number).locator(".theirs .text").text_content() or ""

    def sees_it_grow(self, number: int = 0) -> None:
        expect(self.turns.nth(number).locator(".theirs .text")).to_have_text(re.compile(r"\S{8}"), timeout=PATIENCE)


class Enter(Protocol):
    def __call__(self, home: str, *, speech: bool = False, outages: bool = False) -> Visitor: ...


@pytest.fixture
def enter(chromium: Browser) -> Iterator[Enter]:
    """Opens the page of a server for a visitor, with a recogniser and a voice or without; it must stay clean."""
    with ExitStack() as tabs:

        def enter(home: str, *, speech: bool = False, outages: bool = False) -> Visitor:
            page, watch = tabs.enter_context(tab(chromium, home, size=SIZE, scripts=(FAKE_SPEECH,) if speech else ()))
            tabs.callback(watch.assert_clean, outages=outages)
            if not speech:
                page.add_init_script(NO_RECOGNISER)
            page.goto(f"{home}/realtime")
            return Visitor(page)

        yield enter


@pytest.fixture
def writer(enter: Enter, replica: Replica) -> Visitor:
    """Somebody whose browser has no recogniser, connected."""
    visitor = enter(replica.url)
    expect(visitor.connected).to_be_visible()
    return visitor


@pytest.fixture
def speaker(enter: Enter, replica: Replica) -> Visitor:
    """Somebody whose browser recognises speech and reads aloud, connected and listening."""
    visitor = enter(replica.url, speech=True)
    expect(visitor.connected).to_be_visible()
    visitor.presses("开始说话")
    return visitor


def test_a_spoken_question_is_transcribed_and_answered(speaker: Visitor, mock_dify: MockDify) -> None:
    """What is being said is grey, what was said is black, and the question in it gets its answer."""
    speaker.says("年假", final=False)
    expect(speaker.sees("#interim")).to_have_text("年假")
    speaker.says("年假怎么申请？")

    assert speaker.sees_answer(0) == mock_dify.expected_answer("年假怎么申请？")
    expect(speaker.sees("#interim")).to_have_text("")
    expect(speaker.sees(".said span").first).to_have_text("年假怎么申请？")
    expect(speaker.turns.locator(".mine")).to_have_text(["年假怎么申请？"])
    assert _colour(speaker, "#interim") != _colour(speaker, ".said")
    speaker.stands_at("idle")


def _colour(visitor: Visitor, css: str) -> str:
    return str(visitor.sees(css).first.evaluate("one => getComputedStyle(one).color"))


def test_an_answer_is_one_bubble_and_one_count_however_many_frames_bring_it(speaker: Visitor) -> None:
    """The counters count questions and answers, not frames."""
    speaker.says("年假怎么申请？")
    speaker.sees_it_grow()
    assert speaker.counters == ("1", "1")

    speaker.sees_answer(0)

    expect(speaker.sees(".bubble.theirs")).to_have_count(1)
    assert speaker.counters == ("1", "1")


def test_an_answer_is_read_aloud_while_recognition_rests(speaker: Visitor) -> None:
    """Only the answer's words are read, without its marks, and no recogniser runs meanwhile."""
    speaker.sees("#aloud").check()
    speaker.says("年假怎么申请？")
    speaker.waits_for("theatre.saying !== null")

    assert speaker.hears("theatre.running === null")
    expect(speaker.sees("#mic-word")).to_have_text("朗读中，暂不收听")
    speaker.sees_answer(0)
    pieces = speaker.listens_to_the_end()

    assert pieces[0] == "年假申请分四步，全部在线完成："
    assert pieces[-1] == "还需要我帮你查一下剩余天数吗？"
    assert not re.search(r"[*>✅]|怎么申请", "".join(pieces))
    assert len(pieces) == len(set(pieces))
    assert speaker.hears("theatre.overheard") == []
    expect(speaker.sees("#mic-word")).to_have_text("停止收听")


def test_reading_can_be_stopped_and_listening_goes_on(speaker: Visitor) -> None:
    """The rest of that answer is not read."""
    speaker.sees("#aloud").check()
    speaker.says("年假怎么申请？")
    speaker.waits_for("theatre.saying !== null")

    speaker.presses("停止朗读")
    speaker.sees_answer(0)
    speaker.waits_for("theatre.running !== null")

    assert len(speaker.hears("theatre.spoken")) == 1


@pytest.mark.parametrize(
    ("markdown", "words"),
    [
        ("# 标题\n\n**重点**和`代码`", "标题\n重点和代码"),
        ("见[手册](https://example.test/a_(b))，或 https://example.test/c?d=e。", "见手册，或 。"),
        ("![图](https://example.test/a.png) <b>粗</b> a < b &amp; c", "图 粗 a < b & c"),
        ("- [x] 完成 ✅\n- ~~作废~~ snake_case_name\n> 引用 1️⃣", "完成\n作废 snake_case_name\n引用 1"),
        ("| 假期 | 天数 |\n|---|:-:|\n| 年假 | 5 |", "假期，天数\n年假，5"),
        ("前\n```python\nprint(1)\n```\n后\n---", "前\n后"),
        ("<think>先想想\n再想想</think>答案是 3.14", "答案是 3.14"),
    ],
)
def test_only_words_are_read_aloud(writer: Visitor, markdown: str, words: str) -> None:
    """Marks, code, addresses, emoji and the model's thoughts are not."""
    assert writer.page.evaluate("markdown => plainText(markdown)", markdown) == words


def test_text_made_to_be_slow_to_read_is_not(writer: Visitor) -> None:
    """What is turned into words has no mark whose other end is looked for through all of it."""
    script = "mark => { const began = Date.now(); plainText(mark.repeat(60_000)); return Date.now() - began; }"

    assert all(writer.page.evaluate(script, mark) < 8_000 for mark in ("![](", "_a ", "[a]("))


def test_an_utterance_is_handed_over_once_after_a_silence(enter: Enter, replica: Replica) -> None:
    """With the words that were not final yet, which the recogniser then must not say once more."""
    visitor = enter(replica.url, speech=True)
    visitor.hears(
        "{ window.handed = []; const heard = (words) => handed.push(words);"
        " createSpeech({ language: 'zh-CN', silence: 300, onUtterance: heard }).start(); }"
    )

    visitor.says("年假怎么申请，")
    visitor.says("要几天", final=False)
    visitor.hears("{ window.former = theatre.running; }")
    visitor.waits_for("handed.length === 1")
    visitor.hears("former.put('要几天', true)")
    visitor.says("营业时间")
    visitor.waits_for("handed.length === 2")

    assert visitor.hears("handed") == ["年假怎么申请，要几天", "营业时间"]


def test_voice_and_rate_are_chosen_and_kept(speaker: Visitor) -> None:
    """The rate is 1.25 at first; both are used, and known again after a reload."""
    assert speaker.sees("#rate").input_value() == "1.25"

    speaker.sees("#aloud").check()
    speaker.sees("#voice").select_option(label="Anna (en-US)")
    speaker.sees("#rate").fill("0.5")
    speaker.says("营业时间是什么？")
    speaker.waits_for("theatre.saying !== null")

    assert speaker.hears("[theatre.spoken[0].voice, theatre.spoken[0].rate]") == ["Anna", 0.5]
    speaker.page.reload()
    expect(speaker.sees("#rate-shown")).to_have_text("0.50×")
    expect(speaker.sees("#voice")).to_have_value("urn:test:anna")
    expect(speaker.sees("#aloud")).to_be_checked()


def test_listening_goes_on_when_the_recogniser_ends_by_itself(speaker: Visitor) -> None:
    """Nothing said before is overwritten, not even words that were never called final."""
    speaker.says("大家好。")
    speaker.says("今天我们开会", final=False)
    speaker.hears("theatre.running.end()")
    speaker.waits_for("theatre.runs === 2 && theatre.running !== null")
    speaker.says("请看屏幕。")

    expect(speaker.sees(".said span")).to_have_text(["大家好。", "今天我们开会", "请看屏幕。"])


def test_a_microphone_that_is_refused_is_said_in_words(speaker: Visitor) -> None:
    """Listening ends, and one can type."""
    speaker.hears("theatre.running.fail('not-allowed')")

    expect(speaker.sees("#talk .failure")).to_contain_text("浏览器没有允许使用麦克风")
    expect(speaker.page.get_by_role("button", name="开始说话")).to_have_attribute("aria-pressed", "false")
    speaker.types("营业时间是什么？")
    assert speaker.sees_answer(0).startswith("周一至周五")


def test_typed_text_does_without_a_recogniser(writer: Visitor) -> None:
    """Enter sends a line as a finished sentence; there is no microphone to press, and the page says why."""
    expect(writer.sees("#hint")).to_contain_text("没有语音识别")
    expect(writer.sees("#mic")).to_be_hidden()

    writer.types("大家好，我们开始吧")
    writer.stands_at("waiting_for_question")
    writer.types("营业时间是什么？")

    assert writer.sees_answer(0) == "周一至周五 9:00-18:00 🙂"
    assert writer.counters == ("1", "1")
    expect(writer.sees(".said span")).to_have_text(["大家好，我们开始吧", "营业时间是什么？"])


def test_pausing_also_rests_the_microphone(speaker: Visitor) -> None:
    """What is typed meanwhile is marked as not taken; after resuming the microphone is on again."""
    speaker.presses("暂停")
    speaker.stands_at("paused")
    speaker.waits_for("theatre.running === null")
    speaker.types("营业时间是什么？")
    expect(speaker.sees(".said small").first).to_have_text("已暂停，没有处理")

    speaker.presses("继续")
    speaker.stands_at("listening")
    speaker.says("营业时间是什么？")

    assert speaker.sees_answer(0).startswith("周一至周五")
    assert speaker.counters == ("1", "1")


def test_an_instant_query_asks_what_was_no_question(writer: Visitor) -> None:
    """The last sentence is asked as it is; before there is one, the page says in words what is missing."""
    writer.presses("立即提问")
    expect(writer.sees("#talk .failure")).to_have_text(f"{ZH['no_final_asr']} (NO_FINAL_ASR)")

    writer.types("年假申请")
    writer.stands_at("waiting_for_question")
    writer.presses("立即提问")

    assert "年假" in writer.sees_answer(0)
    expect(writer.turns.locator(".mine")).to_have_text(["年假申请"])


def test_an_instant_query_takes_the_place_of_the_running_answer(writer: Visitor) -> None:
    """The first bubble is marked as stopped, the second is answered."""
    writer.types("年假怎么申请？[[slow]]")
    writer.sees_it_grow()
    writer.types("我说的是营业时间")
    writer.stands_at("waiting_for_question")

    writer.presses("立即提问")

    writer.sees_answer(0, "stopped")
    assert writer.sees_answer(1).startswith("周一至周五")
    assert writer.counters == ("2", "2")


def test_stop_ends_the_answer_here_and_at_the_provider(writer: Visitor, mock_dify: MockDify) -> None:
    """What was shown stays, marked as stopped."""
    stopped = len(mock_dify.stops)
    writer.types("年假怎么申请？[[slow]]")
    writer.sees_it_grow()

    writer.presses("停止")

    assert writer.sees_answer(0, "stopped")
    writer.stands_at("idle")
    wait_until(lambda: len(mock_dify.stops) > stopped, timeout=30.0)


def test_a_question_spoken_during_an_answer_is_the_next(speaker: Visitor, mock_dify: MockDify) -> None:
    """Each has its bubble, in the order they were asked."""
    speaker.says("年假怎么申请？")
    speaker.sees_it_grow()
    speaker.says("营业时间是什么？")

    assert speaker.sees_answer(0) == mock_dify.expected_answer("年假怎么申请？")
    assert speaker.sees_answer(1).startswith("周一至周五")
    expect(speaker.turns.locator(".mine")).to_have_text(["年假怎么申请？", "营业时间是什么？"])
    assert speaker.counters == ("2", "2")


def test_an_answer_that_fails_says_so_in_its_bubble(writer: Visitor) -> None:
    """The sentence stands where the answer would, and the session goes on."""
    writer.types("年假怎么申请？[[error]]")

    assert writer.sees_answer(0, "failed") == ""
    expect(writer.turns.locator(".failure")).to_contain_text(ZH["provider_error"])
    writer.stands_at("idle")
    writer.types("营业时间是什么？")
    assert writer.sees_answer(1).startswith("周一至周五")
    assert writer.counters == ("2", "1")


def test_an_answer_that_is_replaced_begins_anew_in_its_bubble(speaker: Visitor, mock_dify: MockDify) -> None:
    """What was shown first is gone, and is not counted twice; the voice goes on with the new words."""
    speaker.sees("#aloud").check()
    question = "年假怎么申请？[[chatflow-moderated]]"
    speaker.says(question)
    speaker.sees_it_grow()

    assert speaker.sees_answer(0) == mock_dify.expected_answer(question)
    assert speaker.counters == ("1", "1")
    assert speaker.listens_to_the_end()[-1] == mock_dify.expected_answer(question)


def test_markup_in_questions_and_answers_stays_text(speaker: Visitor) -> None:
    """Neither what is said nor the answer that repeats it brings an element into the page, nor is it read."""
    attack = "<img src=x onerror=\"document.title='broken into'\"><script>document.title='broken into'</script>怎么办？"
    speaker.sees("#aloud").check()

    speaker.says(attack, final=False)
    speaker.says(attack)

    assert attack in speaker.sees_answer(0)
    expect(speaker.sees(".said span")).to_have_text([attack])
    assert speaker.sees("#talk img, #talk script, #words img, #words script").count() == 0
    assert speaker.page.title() == "WechatLaibao · 实时问答"
    assert "script" not in "".join(speaker.listens_to_the_end())


def test_a_new_session_begins_a_new_conversation(writer: Visitor, mock_dify: MockDify) -> None:
    """Within a session the provider knows what was said before; in a new one it does not."""
    first = writer.sees("#session").get_attribute("title")
    for number in range(3):
        if number == 2:
            writer.presses("新会话")
            expect(writer.sees("#session")).not_to_have_attribute("title", first or "")
        writer.types(f"第{number}次会议是什么时候？")
        writer.sees_answer(number)

    asked = [mock_dify.asked(f"第{number}次会议是什么时候？")[0].body.get("conversation_id") for number in range(3)]
    assert not asked[0]
    assert asked[1]
    assert not asked[2]


def test_an_answer_goes_on_after_its_server_was_killed(enter: Enter, own_env: dict[str, str], tmp_path: Path) -> None:
    """In the same bubble, byte for byte, nothing twice, in the same session; so does the question that waited."""
    with MockDify(delay=0.25) as dify, replicas(1, {**own_env, "DIFY_BASE_URL": dify.base_url}, tmp_path) as (replica,):
        visitor = enter(replica.url, speech=True, outages=True)
        expect(visitor.connected).to_be_visible()
        session = visitor.sees("#session").get_attribute("title")
        visitor.presses("开始说话")
        visitor.says("年假怎么申请？")
        visitor.sees_it_grow()
        visitor.says("报销需要哪些材料？")
        expect(visitor.sees(".said small").last).to_have_text("排队中")

        killed_and_restarted(replica, visitor)

        assert visitor.sees_answer(0) == dify.expected_answer("年假怎么申请？")
        assert visitor.sees_answer(1) == dify.expected_answer("报销需要哪些材料？")
        expect(visitor.turns.locator(".mine")).to_have_text(["年假怎么申请？", "报销需要哪些材料？"])
        expect(visitor.sees(".said small")).to_have_text(["", ""])
        assert visitor.counters == ("2", "2")
        assert visitor.sees("#session").get_attribute("title") == session
        assert [len(dify.asked(question)) for question in ("年假怎么申请？", "报销需要哪些材料？")] == [1, 1]


def killed_and_restarted(replica: Replica, visitor: Visitor) -> None:
    """Kill the server under a page, and start it at the same address once the page knows."""
    replica.kill()
    expect(visitor.connected).to_have_count(0)
    replica.process = replica._launch()


def test_what_is_said_while_the_server_is_away_is_asked_when_it_is_back(
    enter: Enter, own_env: dict[str, str], tmp_path: Path
) -> None:
    """It is marked as waiting until then."""
    with replicas(1, own_env, tmp_path) as (replica,):
        visitor = enter(replica.url, outages=True)
        expect(visitor.connected).to_be_visible()
        replica.kill()
        expect(visitor.connected).to_have_count(0)
        visitor.types("营业时间是什么？")
        expect(visitor.sees(".said small")).to_have_text("等待连接")

        replica.process = replica._launch()

        assert visitor.sees_answer(0).startswith("周一至周五")
        expect(visitor.sees(".said small")).to_have_text("")
        assert visitor.counters == ("1", "1")


def test_a_sentence_lost_with_its_connection_can_be_sent_again(writer: Visitor) -> None:
    """The server said nothing of it, so nobody knows whether it came there: the page leaves it to the person."""
    lost: list[str | bytes] = []

    def lose_first_sentence(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            if "is_final" not in str(message) or lost:
                server.send(message)
                return
            lost.append(message)
            server.close()
            socket.close(code=1012)

        socket.on_message(pass_on)

    writer.page.route_web_socket(re.compile("/ws/realtime-asr$"), lose_first_sentence)
    writer.page.reload()
    expect(writer.connected).to_be_visible()
    writer.types("营业时间是什么？")
    expect(writer.sees(".said small")).to_contain_text("可能没有送达")
    assert writer.counters == ("0", "0")

    writer.presses("重发")

    assert writer.sees_answer(0).startswith("周一至周五")
    expect(writer.sees(".said small")).to_have_text("")


def test_a_pause_outlasts_a_restart_of_the_server(enter: Enter, own_env: dict[str, str], tmp_path: Path) -> None:
    """Who has paused is not listened to until they resume."""
    with replicas(1, own_env, tmp_path) as (replica,):
        visitor = enter(replica.url, outages=True)
        expect(visitor.connected).to_be_visible()
        visitor.presses("暂停")
        visitor.stands_at("paused")

        killed_and_restarted(replica, visitor)
        expect(visitor.connected).to_be_visible(timeout=PATIENCE)
        visitor.stands_at("paused")
        visitor.types("营业时间是什么？")

        expect(visitor.sees(".said small")).to_have_text("已暂停，没有处理")
        assert visitor.counters == ("0", "0")


def test_a_key_is_asked_for_where_one_is_wanted(enter: Enter, own_env: dict[str, str], tmp_path: Path) -> None:
    """A wrong one is refused in words; the page speaks the server's language from the start."""
    with replicas(1, {**own_env, "WEBSOCKET_AUTH": "key", "API_KEYS": KEY, "LOCALE": "en"}, tmp_path) as (replica,):
        visitor = enter(replica.url)
        field = visitor.sees("#key-input")
        field.fill("a wrong key")
        field.press("Enter")
        expect(visitor.sees("#key-wrong")).to_have_text("The key is wrong. Please try again.")

        field.fill(KEY)
        field.press("Enter")

        expect(visitor.connected).to_have_text("Connected")
        assert visitor.sees("html").get_attribute("lang") == "en"
        visitor.types("What are the opening hours?")
        assert "What are the opening hours?" in visitor.sees_answer(0)


def test_a_server_that_closes_on_stop_is_left_until_one_connects_again(
    enter: Enter, own_env: dict[str, str], tmp_path: Path
) -> None:
    """The page says so and does not come back by itself; then it has a session of its own."""
    with replicas(1, {**own_env, "REALTIME_STOP": "close"}, tmp_path) as (replica,):
        visitor = enter(replica.url)
        expect(visitor.connected).to_be_visible()
        session = visitor.sees("#session").inner_text()

        visitor.presses("停止")
        expect(visitor.sees("#talk .event")).to_have_text("会话已结束，连接已关闭。")
        visitor.stands_at("closed")
        visitor.presses("连接")

        expect(visitor.connected).to_be_visible()
        expect(visitor.sees("#session")).not_to_have_text(session)


def test_the_page_speaks_english_too(writer: Visitor) -> None:
    """Every label changes with the language, what is on the page already as well, and errors are in its words."""
    writer.types("年假怎么申请？[[slow]]")
    writer.sees_it_grow()
    writer.presses("停止")
    writer.sees_answer(0, "stopped")

    writer.presses("English")

    for name in ("Pause", "Resume", "Stop", "Ask at once", "New session", "Send", "中文"):
        expect(writer.page.get_by_role("button", name=name, exact=True)).to_be_visible()
    expect(writer.page.get_by_role("textbox", name="Type a sentence, press Enter")).to_be_visible()
    expect(writer.page.get_by_role("log", name="Questions and answers")).to_be_visible()
    expect(writer.turns.locator(".note")).to_have_text("stopped")
    writer.presses("Ask at once")
    expect(writer.sees("#talk .failure")).to_contain_text("There is no finished sentence to ask about yet.")
    assert writer.sees("html").get_attribute("lang") == "en"


def test_the_page_is_usable_on_a_phone(writer: Visitor) -> None:
    """Nothing is wider than the screen, and the answer can be read where one types."""
    writer.page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})

    writer.types("报销需要哪些材料？")
    writer.sees_answer(0)

    assert writer.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    expect(writer.turns.locator(".theirs .text")).to_be_in_viewport()
    expect(writer.page.get_by_role("button", name="发送")).to_be_in_viewport()


@pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="SCREENSHOTS=folder takes the README's picture")
def test_the_picture_of_the_readme(speaker: Visitor) -> None:
    """An answer that is finished, one that is growing, and somebody who goes on talking."""
    speaker.says("大家好，我们开始今天的培训。")
    speaker.says("请问营业时间是什么？")
    speaker.sees_answer(0)
    speaker.says("年假怎么申请？")
    expect(speaker.turns.nth(1).locator(".text")).to_contain_text("部门负责人", timeout=PATIENCE)
    speaker.says("下一个话题是报销", final=False)
    expect(speaker.sees("#interim")).to_have_text("下一个话题是报销")

    screenshot(speaker.page, "realtime")
