"""A long connection that looks open while nothing gets through: the holder leaves it within seconds and subscribes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.chaos_fleet import fleet
from tests.scenarios.stage.subscribed_fleet import TIMEOUT, SubscribedFleet
from tests.support.long_connection.bots import bot_server, websocket_settings
from tests.support.replicas import dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.servers.relay import Relay
from utils.stream_utils import render_frame

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(240)]

#: Its answer is longer than the search for the dead connection takes.
QUESTION = "年假怎么申请 [[slow]]"


def test_a_half_open_connection_is_left_within_seconds(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """As after a firewall lost its state: no frame gets an ack any more. The answer goes on in its bubble."""
    with (
        RedisServer() as server,
        server.client() as client,
        MockDify(slow=0.5) as dify,
        bot_server() as wecom,
        Relay(int(wecom.url.rpartition(":")[2])) as relay,
    ):
        settings = websocket_settings(wecom) | {"WECHAT_WS_URL": f"ws://127.0.0.1:{relay.port}"}
        with fleet(1, settings_for(server.url(), **settings, **dify_settings(dify.base_url)), tmp_path) as replicas:
            stage = SubscribedFleet(client, wecom, replicas)
            stage.wait_subscribed()
            alice = wecom.user("zhangsan")
            bubble = alice.says(QUESTION)
            wait_until(lambda: len(bubble.frames) >= 2, TIMEOUT)

            with relay.silent():
                began = time.monotonic()
            stage.wait_subscribed(2)
            seconds = time.monotonic() - began

            answer = alice.sees_finish(bubble, 2 * TIMEOUT)
            (left,) = replicas.logged("long connection closed")[:1]

    record_property("seconds", f"{seconds:.1f}")
    # Two pings of the usual pace would take a minute.
    assert (left["reason"], seconds < 40.0) == ("silent", True)
    assert answer == render_frame(dify.expected_answer(QUESTION), growing=False)
    assert (len(alice.chat.bubbles), alice.chat.messages) == (1, [])
