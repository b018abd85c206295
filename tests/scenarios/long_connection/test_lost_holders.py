"""The holder of a long connection is killed while it sends answers: another replica goes on with what has left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from demo.wecom.long_connection.account import ReceivedFrame
from demo.wecom.long_connection.faults import Fault
from services.wecom.long_connection.protocol import INVALID_REQ_ID, RESPOND, SEND, STREAM_EXPIRED
from tests.scenarios.stage.chaos_fleet import fleet
from tests.scenarios.stage.subscribed_fleet import TIMEOUT, SubscribedFleet
from tests.support.long_connection.bots import BOT_ID, bot_server, websocket_settings
from tests.support.replicas import dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until
from utils.stream_utils import render_frame

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(180)]


@dataclass
class Stage(SubscribedFleet):
    """Three replicas with one bot, WeCom's side of its connection, and their Dify."""

    dify: MockDify

    def kill_holder(self) -> None:
        self.holder().kill()

    def closed(self) -> bool:
        """Return whether every answer was sent whole."""
        return not self.redis.keys("{dify_long_connection:*}:open")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with (
        RedisServer(aof=True) as server,
        server.client() as client,
        MockDify(slow=0.2, after_disconnect="runs on") as dify,
        bot_server() as wecom,
    ):
        changes = {**websocket_settings(wecom), **dify_settings(dify.base_url), "STREAM_LEASE": "3"}
        with fleet(0, settings_for(server.url(), **changes), tmp_path_factory.mktemp("replicas")) as replicas:
            yield Stage(client, wecom, replicas, dify)


@pytest.fixture
def stage(servers: Stage) -> Stage:
    """The servers with three running replicas, one of which is subscribed."""
    servers.wecom.faults.clear()
    servers.wecom.before_ack = lambda frame: None
    servers.replicas.complete(3)
    servers.wecom.wait_until(lambda: servers.wecom.subscribed(BOT_ID) > 0, TIMEOUT)
    return servers


def kills_at(stage: Stage, reached: Callable[[ReceivedFrame], bool]) -> threading.Event:
    """Kill the holder once, after the first frame that meets the condition has its effect and before its ack."""
    killed = threading.Event()

    def look(frame: ReceivedFrame) -> None:
        if not killed.is_set() and reached(frame):
            killed.set()
            stage.kill_holder()

    stage.wecom.before_ack = look
    return killed


def begins(frame: ReceivedFrame, text: str) -> bool:
    """Return whether a frame is a message that begins with the text."""
    return str(frame.body.get("markdown", {}).get("content", "")).startswith(text)


def is_finish(frame: ReceivedFrame) -> bool:
    return bool(frame.body.get("stream", {}).get("finish"))


def test_a_growing_answer_goes_on_in_its_bubble(stage: Stage) -> None:
    """The answer's owner and the connection's holder are the same replica, and it is killed."""
    alice = stage.wecom.user("grows")
    bubble = alice.says("年假怎么申请 [[slow]]")
    wait_until(lambda: len(bubble.frames) >= 3, TIMEOUT)

    stage.kill_holder()
    answer = alice.sees_finish(bubble, TIMEOUT)

    assert answer == render_frame(stage.dify.expected_answer("年假怎么申请 [[slow]]"), growing=False)
    assert (len(alice.chat.bubbles), alice.chat.messages) == (1, [])
    assert stage.wecom.broken == []


@pytest.mark.full
def test_a_paused_holder_sends_nothing_more(stage: Stage) -> None:
    """Another replica has shown the answer to its end; the one that goes on is refused."""
    alice, question = stage.wecom.user("pauses"), "年假怎么申请 [[slow]]"
    bubble = alice.says(question)
    wait_until(lambda: len(bubble.frames) >= 3, TIMEOUT)

    with stage.replicas.paused(stage.holder()):
        answer = alice.sees_finish(bubble, TIMEOUT)
        wait_until(stage.closed, TIMEOUT)
        frames = len(bubble.frames)
    wait_until(lambda: len(stage.wecom.connections) == 1, TIMEOUT)

    assert answer == render_frame(stage.dify.expected_answer(question), growing=False)
    assert (len(bubble.frames), len(alice.chat.bubbles), alice.chat.messages) == (frames, 1, [])
    assert (stage.wecom.broken, stage.lease["evicted"]) == ([], "")


@pytest.mark.full
@pytest.mark.parametrize(
    "reached", [is_finish, lambda frame: begins(frame, "(2/3)"), lambda frame: begins(frame, "(3/3)")],
    ids=["finish frame", "second part", "last part"],
)  # fmt: skip
def test_no_part_of_a_long_answer_is_sent_twice(stage: Stage, reached: Callable[[ReceivedFrame], bool]) -> None:
    """The holder is killed when WeCom has a frame and before it says so."""
    killed = kills_at(stage, reached)
    alice = stage.wecom.user(f"long{len(stage.wecom.bots[BOT_ID].subscriptions)}")

    bubble = alice.says("年假怎么申请 [[longest]]")
    alice.sees_finish(bubble, TIMEOUT)
    assert killed.wait(TIMEOUT)
    wait_until(stage.closed, TIMEOUT)

    assert [message.content[:5] for message in alice.chat.messages] == ["(2/3)", "(3/3)"]
    assert bubble.content.endswith(ZH["truncated_parts"])
    assert len(alice.chat.bubbles) == 1


@pytest.mark.full
@pytest.mark.parametrize("errcode", [STREAM_EXPIRED, INVALID_REQ_ID])
@pytest.mark.parametrize("cmd", [RESPOND, SEND])
def test_a_refused_answer_is_one_message(stage: Stage, errcode: int, cmd: str) -> None:
    """The holder is killed when a frame was refused, and when the message instead of it was shown."""
    stage.wecom.faults.add(Fault(RESPOND, errcode=errcode))
    killed = kills_at(stage, lambda frame: frame.cmd == cmd)
    question, alice = "年假怎么申请 [[slow]]", stage.wecom.user(f"refused-{cmd}-{errcode}")

    asked = alice.asks(question)
    whole = render_frame(stage.dify.expected_answer(question), growing=False)
    assert alice.sees_messages(1, TIMEOUT) == [whole]
    assert killed.wait(TIMEOUT)
    wait_until(stage.closed, TIMEOUT)

    assert (len(alice.chat.messages), asked.bubbles) == (1, [])


@pytest.mark.full
def test_a_claimed_part_that_never_arrived_is_logged(stage: Stage) -> None:
    """A part that may have left is not sent again: the next holder says so, and goes on with the part after it."""
    lost = Fault(RESPOND, lost=True, where=lambda body: str(body.get("markdown", "")).find("(2/3)") >= 0)
    stage.wecom.faults.add(lost)
    alice = stage.wecom.user("loses")

    bubble = alice.says("年假怎么申请 [[longest]]")
    alice.sees_finish(bubble, TIMEOUT)
    wait_until(lambda: lost.met == 1, TIMEOUT)
    stage.kill_holder()
    wait_until(stage.closed, TIMEOUT)

    assert [message.content[:5] for message in alice.chat.messages] == ["(3/3)"]
    (line,) = [line for line in stage.replicas.logged("message of an answer") if line["stream_id"] == bubble.stream_id]
    assert (line["outcome"], line["messages"]) == ("unknown", 1)
    assert lost.met == 1
