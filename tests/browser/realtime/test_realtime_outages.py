"""The realtime page when its server is killed, away, requires a key, or closes the session."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import WebSocketRoute, expect

from demo.mocks.dify.server import MockDify
from tests.browser.realtime.realtime_visitor import (
    Enter,
    Visitor,
    enter,
    mock_dify,
    own_env,
    replica,
    speaker,
    writer,
)
from tests.browser.stage import TIMEOUT
from tests.support.replicas import Replica, replicas

__all__ = ["enter", "mock_dify", "own_env", "replica", "speaker", "writer"]

pytestmark = [pytest.mark.browser, pytest.mark.scenario]


def test_an_answer_continues_after_its_server_was_killed(enter: Enter, own_env: dict[str, str], tmp_path: Path) -> None:
    """It continues in the same bubble and session, byte for byte; a queued question is answered too."""
    with (
        MockDify(delay=0.03, limit=120.0) as dify,
        replicas(1, {**own_env, "DIFY_BASE_URL": dify.base_url}, tmp_path) as (replica,),
    ):
        dify.holds_at = 8
        visitor = enter(replica.url, speech=True, outages=True)
        expect(visitor.connected).to_be_visible()
        session = visitor.sees("#session").get_attribute("title")
        visitor.presses("开始说话")
        visitor.says("年假怎么申请？")
        visitor.sees_it_grow()
        visitor.says("报销需要哪些材料？")
        expect(visitor.sees(".sentence small").last).to_have_text("排队中")

        killed_and_restarted(replica, visitor)
        dify.holds_at = None

        assert visitor.sees_answer(0) == dify.expected_answer("年假怎么申请？")
        assert visitor.sees_answer(1) == dify.expected_answer("报销需要哪些材料？")
        expect(visitor.turns.locator(".mine")).to_have_text(["年假怎么申请？", "报销需要哪些材料？"])
        expect(visitor.sees(".sentence small")).to_have_text(["", ""])
        assert visitor.counters == ("2", "2")
        assert visitor.sees("#session").get_attribute("title") == session
        assert [len(dify.asked(question)) for question in ("年假怎么申请？", "报销需要哪些材料？")] == [1, 1]


def killed_and_restarted(replica: Replica, visitor: Visitor) -> None:
    """Kill the page's server, and start it at the same address once the page has noticed."""
    replica.kill()
    expect(visitor.connected).to_have_count(0)
    replica.process = replica._launch()
    replica.wait_ready()


def test_a_sentence_typed_during_an_outage_is_asked_after_it(
    enter: Enter, own_env: dict[str, str], tmp_path: Path
) -> None:
    """It is marked as waiting for the connection until then."""
    with replicas(1, own_env, tmp_path) as (replica,):
        visitor = enter(replica.url, outages=True)
        expect(visitor.connected).to_be_visible()
        replica.kill()
        expect(visitor.connected).to_have_count(0)
        visitor.types("营业时间是什么？")
        expect(visitor.sees(".sentence small")).to_have_text("等待连接")

        replica.process = replica._launch()

        assert visitor.sees_answer(0).startswith("周一至周五")
        expect(visitor.sees(".sentence small")).to_have_text("")
        assert visitor.counters == ("1", "1")


def test_a_sentence_lost_with_its_connection_can_be_sent_again(writer: Visitor) -> None:
    """The server may or may not have received it: the page marks it, and the person decides to send it again."""
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
    expect(writer.sees(".sentence small")).to_contain_text("可能没有送达")
    assert writer.counters == ("0", "0")

    writer.presses("重发")

    assert writer.sees_answer(0).startswith("周一至周五")
    expect(writer.sees(".sentence small")).to_have_text("")


def test_a_pause_survives_a_restart_of_the_server(enter: Enter, own_env: dict[str, str], tmp_path: Path) -> None:
    """After the reconnect the session is still paused and does not process sentences."""
    with replicas(1, own_env, tmp_path) as (replica,):
        visitor = enter(replica.url, outages=True)
        expect(visitor.connected).to_be_visible()
        visitor.presses("暂停")
        visitor.stands_at("paused")

        killed_and_restarted(replica, visitor)
        expect(visitor.connected).to_be_visible(timeout=TIMEOUT)
        visitor.stands_at("paused")
        visitor.types("营业时间是什么？")

        expect(visitor.sees(".sentence small")).to_contain_text("已暂停，没有处理")
        assert visitor.counters == ("0", "0")


def test_after_a_stop_that_closes_the_page_waits_for_a_click(
    enter: Enter, own_env: dict[str, str], tmp_path: Path
) -> None:
    """With REALTIME_STOP=close the page does not reconnect by itself; its button begins a new session."""
    with replicas(1, {**own_env, "REALTIME_STOP": "close"}, tmp_path) as (replica,):
        visitor = enter(replica.url)
        expect(visitor.connected).to_be_visible()
        session = visitor.sees("#session").text_content()
        visitor.types("年假怎么申请？[[slow]]")
        visitor.sees_it_grow()

        visitor.presses("停止")
        expect(visitor.sees("#talk .event")).to_have_text("会话已结束，连接已关闭。")
        visitor.stands_at("closed")
        visitor.presses("连接")

        expect(visitor.connected).to_be_visible()
        expect(visitor.sees("#session")).not_to_have_text(session or "")
