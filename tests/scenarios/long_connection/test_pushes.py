"""Pushes over three replicas: any of them takes one, the holder sends it, and no outage sends it twice."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import requests

from demo.wecom.long_connection.account import ReceivedFrame
from demo.wecom.long_connection.user import LongConnectionUser
from tests.scenarios.stage.chaos_fleet import fleet
from tests.scenarios.stage.subscribed_fleet import SubscribedFleet
from tests.support.long_connection.bots import BOT_ID, bot_server, websocket_settings
from tests.support.replicas import Replica, settings_for
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(300)]

KEY = "obviously-fake-api-key"
SEND, CHUNK = "aibot_send_msg", "aibot_upload_media_chunk"
#: Seconds within which another replica has subscribed, and a lost claim is noted, on a busy machine.
TIMEOUT = 120.0


@dataclass
class PushStage(SubscribedFleet):
    """Three replicas with one bot, and a person who has written to it."""

    server: RedisServer
    userid: str = ""

    def begin(self) -> LongConnectionUser:
        """Have three replicas, one of which is subscribed; return a person of this test."""
        self.wecom.before_ack = lambda frame: None
        self.replicas.complete(3)
        self.wecom.wait_until(lambda: self.wecom.subscribed(BOT_ID) > 0, TIMEOUT)
        self.userid = f"user-{os.urandom(4).hex()}"
        person = self.wecom.user(self.userid)
        person.asks("你好")
        person.sees("你好", TIMEOUT)
        return person

    def others(self) -> list[Replica]:
        """Return the replicas that do not hold the connection."""
        return [member for member in self.replicas.members if member is not self.holder()]

    def push(self, replica: Replica, person: LongConnectionUser, text: str, content: bytes = b"") -> requests.Response:
        """Push a text to a person, or with `content` the file that is named by `text`."""
        address, shown = f"{replica.url}/api/push", {"X-API-Key": KEY}
        if content:
            form = {"file": (text, content)}
            return requests.post(address, data={"userid": person.userid}, files=form, headers=shown, timeout=60)
        return requests.post(address, json={"userid": person.userid, "markdown": text}, headers=shown, timeout=60)

    def taken(self, replica: Replica, person: LongConnectionUser, text: str, content: bytes = b"") -> str:
        """Push, and return the id of the accepted push."""
        reply = self.push(replica, person, text, content)
        assert reply.status_code == 202, reply.text
        return str(reply.json()["data"]["id"])

    def state(self, push_id: str) -> str:
        """Return a push's state, as any replica tells it; "" where that one is being killed."""
        replica = next(member for member in self.replicas.members if member.process.poll() is None)
        try:
            reply = requests.get(f"{replica.url}/api/push/{push_id}", headers={"X-API-Key": KEY}, timeout=60)
        except requests.ConnectionError:
            return ""
        return str(reply.json()["data"]["state"]) if reply.ok else ""

    def ends(self, push_id: str, state: str) -> None:
        wait_until(lambda: self.state(push_id) == state, timeout=TIMEOUT)

    def shown(self, person: LongConnectionUser) -> list[str]:
        """Return what a person was shown besides answers, with the name of each file."""
        messages = person.chat.messages
        return [message.file.name if message.file else message.content for message in messages]

    def when(self, cmd: str, number: int, act: Callable[[], None]) -> threading.Event:
        """Call `act` once, after this test's frame of this number had its effect and before its ack."""
        done, seen = threading.Event(), []

        def look(frame: ReceivedFrame) -> None:
            # A frame that was refused had no effect; one to another person is left over from an earlier test.
            taken = any(one.frame.req_id == frame.req_id and not one.errcode for one in list(self.wecom.frames))
            ours = frame.body.get("chatid", self.userid) == self.userid
            seen.extend([frame] if frame.cmd == cmd and taken and ours else [])
            if len(seen) >= number and not done.is_set():
                done.set()
                act()

        self.wecom.before_ack = look
        return done


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PushStage]:
    with RedisServer(aof=True) as server, server.client() as client, bot_server() as wecom:
        env = settings_for(server.url(), **websocket_settings(wecom, API_KEYS=KEY))
        with fleet(0, env, tmp_path_factory.mktemp("replicas")) as members:
            yield PushStage(client, wecom, members, server)
        assert wecom.broken == []


def test_any_replica_takes_a_push_and_the_holder_sends_it(stage: PushStage) -> None:
    """Texts and a file that two other replicas took arrive, each once, until WeCom's limit for a chat is reached."""
    person = stage.begin()
    one, other = stage.others()
    content = os.urandom(3_000_000)

    ids = [stage.taken(replica, person, f"text {number}") for number, replica in enumerate([one, other] * 10)]
    ids.append(stage.taken(one, person, "报告.pdf", content))
    for push in ids:
        stage.ends(push, "sent")

    assert stage.shown(person) == [*(f"text {number}" for number in range(20)), "报告.pdf"]
    assert [message.file.content for message in person.chat.messages if message.file] == [content]
    replies = (stage.push(other, person, "more") for _ in range(100))
    refused = next(reply for reply in replies if reply.status_code != 202)
    assert (refused.status_code, refused.json()["data"]["reason"]) == (429, "push_limited")
    assert 0 < int(refused.headers["Retry-After"]) <= 62


@pytest.mark.full
def test_a_holder_killed_between_claim_and_ack_sends_nothing_twice(stage: PushStage) -> None:
    """The person has the message; its state is unknown, because nobody can tell. The next one is the successor's."""
    person = stage.begin()
    holder = stage.holder()
    (one, _) = stage.others()
    killed = stage.when(SEND, 1, holder.kill)

    first = stage.taken(one, person, "first")
    assert killed.wait(TIMEOUT)
    second = stage.taken(one, person, "second")

    stage.ends(second, "sent")
    stage.ends(first, "unknown")
    assert stage.shown(person) == ["first", "second"]


@pytest.mark.full
def test_an_upload_goes_on_after_its_holder_was_killed(stage: PushStage) -> None:
    """The successor sends the parts that WeCom has not acknowledged, and the message once."""
    person = stage.begin()
    holder = stage.holder()
    (one, _) = stage.others()
    content = os.urandom(8_000_000)
    killed = stage.when(CHUNK, 12, holder.kill)

    push = stage.taken(one, person, "large.bin", content)
    assert killed.wait(TIMEOUT)

    stage.ends(push, "sent")
    assert [message.file.content for message in person.chat.messages if message.file] == [content]
    (upload,) = [each for each in stage.wecom.bots[BOT_ID].uploads.uploads.values() if each.name == "large.bin"]
    assert sum(upload.received.values()) <= upload.total_chunks + 3


@pytest.mark.full
def test_an_outage_of_redis_loses_and_doubles_no_push(stage: PushStage) -> None:
    """The ack comes while Redis is away: the state is stored when it is back. Meanwhile nothing is taken."""
    person = stage.begin()
    one = stage.holder()
    waiting = stage.taken(one, person, "before")
    stage.ends(waiting, "sent")
    paused = stage.when(SEND, 1, stage.server.pause)

    push = stage.taken(one, person, "during")
    try:
        assert paused.wait(TIMEOUT)
        refused = stage.push(one, person, "refused")
    finally:
        stage.server.resume()
    assert (refused.status_code, refused.json()["data"]["reason"]) == (503, "store_unavailable")
    assert refused.headers["Retry-After"]

    stage.ends(push, "sent")
    stage.ends(stage.taken(one, person, "after"), "sent")
    assert stage.shown(person) == ["before", "during", "after"]
