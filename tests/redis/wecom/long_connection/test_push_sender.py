"""Pushes leave over a real connection to the simulated server: once each, in order, and within WeCom's limits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from demo.wecom.long_connection.faults import Fault
from demo.wecom.long_connection.server import LongConnectionServer
from demo.wecom.long_connection.user import LongConnectionUser
from services import metrics
from services.redis.store import ScriptRunner
from services.wecom.long_connection.allowance_store import AllowanceStore
from services.wecom.long_connection.lease_store import bot_key
from services.wecom.long_connection.link import Link
from services.wecom.long_connection.protocol import INVALID_MEDIA
from services.wecom.long_connection.push_store import PushStore
from services.wecom.long_connection.pushes import PushSender
from services.wecom.long_connection.upload_store import UploadStore
from services.wecom.long_connection.uploads import Uploads
from tests.support.batches.counter import data_of
from tests.support.long_connection.bots import BOT_ID, bot_server
from tests.support.long_connection.leases import hold
from tests.support.long_connection.links import BOT, linked
from tests.support.long_connection.push_client import KEYRING, PushClient
from tests.support.servers.processes import wait_until

SEND = "aibot_send_msg"
#: Seconds that a test waits for something that takes milliseconds on an idle machine.
WIDE = 60.0


@pytest.fixture
def wecom() -> Iterator[LongConnectionServer]:
    with bot_server() as server:
        yield server


@pytest.fixture
def zhangsan(wecom: LongConnectionServer) -> LongConnectionUser:
    """A person who has written to the bot, without which it cannot send."""
    user = wecom.user("zhangsan")
    user.asks("你好")
    return user


class Holder:
    """A replica that holds the bot's connection; its pushes go through the REST endpoints."""

    def __init__(self, runner: ScriptRunner, *, ack_seconds: float = WIDE) -> None:
        rings = {BOT: KEYRING}
        allowance = AllowanceStore(runner, rings)
        uploads = Uploads(UploadStore(runner), allowance, rings)
        self.sender = PushSender(PushStore(runner, rings), allowance, uploads, again=0.1, ack_seconds=ack_seconds)
        self.client = PushClient(runner, wake=self.sender.wake)
        self._runner = runner

    @contextmanager
    def serving(self, wecom: LongConnectionServer, fence: int = 0) -> Iterator[Link]:
        """Serve a connection for the block, as the holder of a new lease or of the one with this fence."""
        with linked(wecom, fence or hold(self._runner, BOT)) as link:
            serving = threading.Thread(target=self.sender.serve, args=(link,))
            serving.start()
            yield link
        self.sender.wake(BOT)
        serving.join(WIDE)
        assert not serving.is_alive()

    def pushes(self, **fields: Any) -> str:
        """Push a text to zhangsan, or what `fields` say; return the id."""
        return str(data_of(self.client.pushes(**fields), 202)["id"])

    def pushes_file(self, name: str, content: bytes = b"content") -> str:
        """Push a file to zhangsan; return the id."""
        return str(data_of(self.client.uploads(name, content), 202)["id"])

    def state(self, push_id: str) -> str:
        """Return the state of a push, with its error if it has one."""
        shown = data_of(self.client.shows(push_id))
        return " ".join(filter(None, (shown["state"], shown.get("error", ""))))

    def ends(self, push_id: str, state: str) -> None:
        """Wait until a push has this state."""
        wait_until(lambda: self.state(push_id) == state, timeout=WIDE)


@pytest.fixture
def holder(runner: ScriptRunner) -> Holder:
    return Holder(runner)


@pytest.fixture
def link(wecom: LongConnectionServer, holder: Holder) -> Iterator[Link]:
    """The holder's connection, served for the test."""
    with holder.serving(wecom) as link:
        yield link


def count(outcome: str) -> float:
    return float(metrics.PUSHES.labels(outcome)._value.get())


def test_a_push_is_sent(wecom: LongConnectionServer, zhangsan: LongConnectionUser, holder: Holder, link: Link) -> None:
    """The person sees the text, the state says sent, and the outcome is counted."""
    before = count("sent")

    push = holder.pushes(markdown="**提醒**：三点开会")

    zhangsan.sees("**提醒**：三点开会", WIDE)
    holder.ends(push, "sent")
    wait_until(lambda: count("sent") == before + 1, timeout=WIDE)
    assert wecom.broken == []


def test_a_cancelled_push_is_not_sent(
    wecom: LongConnectionServer, zhangsan: LongConnectionUser, holder: Holder, redis_client: redis.Redis
) -> None:
    """The next one of the chat is; a message that was not sent does not count for WeCom's limits."""
    before = count("cancelled")
    first, second = holder.pushes(markdown="错的"), holder.pushes(markdown="对的")
    inbox = holder.client.inbox
    assert inbox.cancel(inbox.look(BOT, first.partition(".")[2])).state == "cancelled"
    with holder.serving(wecom):
        zhangsan.sees("对的", WIDE)
        holder.ends(second, "sent")

    assert holder.state(first) == "cancelled"
    assert count("cancelled") == before + 1
    chat = holder.client.allowance.chat(BOT, "zhangsan")
    assert redis_client.zcard(bot_key(BOT, f"sent:{chat}")) == 1
    assert all(message.content != "错的" for message in zhangsan.chat.messages)


def test_a_file_is_uploaded_and_sent(
    wecom: LongConnectionServer, zhangsan: LongConnectionUser, holder: Holder, link: Link
) -> None:
    """A file of several parts comes out of Redis and arrives whole, under its name."""
    content = bytes(range(256)) * 4096
    push = holder.pushes_file("报告.pdf", content)

    holder.ends(push, "sent")
    (message,) = zhangsan.chat.messages
    assert message.file
    assert (message.file.kind, message.file.name, message.file.content) == ("file", "报告.pdf", content)
    assert wecom.broken == []


def test_a_file_that_wecom_deleted_is_uploaded_again(
    wecom: LongConnectionServer, zhangsan: LongConnectionUser, holder: Holder, link: Link
) -> None:
    """Its media_id was kept for later pushes: the one that WeCom refuses is sent with a new one."""
    holder.ends(holder.pushes_file("报告.pdf"), "sent")
    wecom.bots[BOT_ID].uploads.delete_all()

    holder.ends(holder.pushes_file("报告.pdf"), "sent")

    assert [message.file.name for message in zhangsan.chat.messages if message.file] == ["报告.pdf"] * 2
    assert len(wecom.bots[BOT_ID].uploads.uploads) == 2
    assert wecom.broken == []


def test_a_new_upload_that_wecom_refuses_has_failed(
    wecom: LongConnectionServer, zhangsan: LongConnectionUser, holder: Holder, link: Link
) -> None:
    """A media_id that was never used cannot be too old: the file is not uploaded for ever."""
    wecom.faults.add(Fault(SEND, errcode=INVALID_MEDIA))

    holder.ends(holder.pushes_file("报告.pdf"), "failed 40007")

    holder.ends(holder.pushes_file("报告.pdf"), "failed 40007")
    assert len(wecom.bots[BOT_ID].uploads.uploads) == 2


def test_a_group_gets_a_push(wecom: LongConnectionServer, holder: Holder, link: Link) -> None:
    """A chatid is a group's."""
    group = wecom.user("lisi", "wrGROUP")
    group.asks("@Bot 你好")

    push = holder.pushes(userid=None, chatid="wrGROUP", markdown="大家好")

    group.sees("大家好", WIDE)
    holder.ends(push, "sent")


def test_what_wecom_refuses_has_failed_with_its_code(holder: Holder, link: Link) -> None:
    """The bot cannot send into a chat in which nobody has written to it."""
    push = holder.pushes(userid="wangwu")

    holder.ends(push, "failed 93006")


def test_a_push_without_an_ack_is_unknown_and_not_sent_again(
    wecom: LongConnectionServer, zhangsan: LongConnectionUser, runner: ScriptRunner, holder: Holder
) -> None:
    """WeCom has shown it, or has not: another message would perhaps be its second. The next push is sent."""
    wecom.faults.add(Fault(SEND, ack_seconds=None, times=1))
    hurried = Holder(runner, ack_seconds=0.3)
    with hurried.serving(wecom):
        hurried.ends(hurried.pushes(markdown="one"), "unknown")

    with holder.serving(wecom):
        holder.ends(holder.pushes(markdown="two"), "sent")

    assert zhangsan.sees_messages(2) == ["one", "two"]


@pytest.mark.parametrize("code", [-1, 846609])
def test_what_wecom_has_certainly_not_shown_is_sent_again(
    wecom: LongConnectionServer, zhangsan: LongConnectionUser, holder: Holder, code: int
) -> None:
    """A busy system, a connection that is not subscribed any more: the push is again the first one."""
    fault = wecom.faults.add(Fault(SEND, errcode=code, times=1))
    with holder.serving(wecom) as link:
        first, second = holder.pushes(markdown="one"), holder.pushes(markdown="two")
        wait_until(lambda: bool(fault.met), timeout=WIDE)
        if code == 846609:
            assert link.lost.wait(WIDE)
            with holder.serving(wecom):
                holder.ends(second, "sent")
        holder.ends(second, "sent")

    assert holder.state(first) == "sent"
    assert zhangsan.chat.texts == ["one", "two"]


def test_a_push_of_a_lost_connection_may_have_left(
    wecom: LongConnectionServer, zhangsan: LongConnectionUser, holder: Holder
) -> None:
    """The connection ends between frame and ack: unknown, and the successor sends only the next one."""
    wecom.faults.add(Fault(SEND, closes=True, times=1))
    with holder.serving(wecom) as link:
        first = holder.pushes(markdown="one")
        assert link.lost.wait(WIDE)
    holder.ends(first, "unknown")

    with holder.serving(wecom):
        holder.ends(holder.pushes(markdown="two"), "sent")

    assert zhangsan.chat.texts == ["one", "two"]


def test_a_former_holder_sends_nothing(
    wecom: LongConnectionServer, zhangsan: LongConnectionUser, runner: ScriptRunner, holder: Holder, link: Link
) -> None:
    """Its fence is not the lease's any more: the push stays queued for the new holder."""
    fence = hold(runner, BOT)
    push = holder.pushes(markdown="one")
    wait_until(lambda: bool(holder.client.store.due(BOT, 5)), timeout=WIDE)
    former = holder.state(push)

    with Holder(runner).serving(wecom, fence):
        holder.ends(push, "sent")
    assert former == "queued"
    assert zhangsan.chat.texts == ["one"]


@pytest.mark.full
def test_pushes_of_a_chat_keep_their_order_and_chats_do_not_wait(
    wecom: LongConnectionServer, holder: Holder, link: Link
) -> None:
    """One chat's message without an ack delays its own next ones only."""
    people = [wecom.user(f"user{number}") for number in range(3)]
    for person in people:
        person.asks("你好")
    wecom.faults.add(Fault(SEND, ack_seconds=3.0, where=lambda body: body["chatid"] == "user0"))

    ids = [holder.pushes(userid=each.userid, markdown=str(number)) for number in range(5) for each in people]
    slow, others = ids[::3], [id for number, id in enumerate(ids) if number % 3]
    for push in others:
        holder.ends(push, "sent")
    assert holder.state(slow[-1]) == "queued"

    wecom.faults.clear()
    holder.ends(slow[-1], "sent")
    assert [person.chat.texts for person in people] == [["0", "1", "2", "3", "4"]] * 3
    assert wecom.broken == []


def test_a_push_waits_for_wecoms_limit_and_other_chats_do_not(
    wecom: LongConnectionServer, zhangsan: LongConnectionUser, runner: ScriptRunner, holder: Holder
) -> None:
    """Parts of answers have filled the minute after the push was taken: it stays queued until there is room."""
    wecom.user("lisi").asks("你好")
    earlier = PushClient(runner, now=str(time.time() - 100.0))
    full, free = str(data_of(earlier.pushes(), 202)["id"]), holder.pushes(userid="lisi")
    for number in range(30):
        assert holder.client.allowance.message(BOT, "zhangsan", f"part {number}") == 0.0

    with holder.serving(wecom):
        holder.ends(free, "sent")
        wait_until(lambda: not holder.client.store.due(BOT, 5), timeout=WIDE)

    assert holder.state(full) == "queued"
    assert zhangsan.chat.texts == []


def test_a_file_that_redis_lost_has_failed(
    redis_client: redis.Redis, wecom: LongConnectionServer, holder: Holder
) -> None:
    """The content expired before its push could leave."""
    push = holder.pushes_file("a.bin")
    redis_client.delete(*redis_client.scan_iter("*:push_file:*"))

    with holder.serving(wecom):
        holder.ends(push, "failed file_lost")


def test_the_log_tells_what_became_of_a_push_and_nothing_of_it(
    zhangsan: LongConnectionUser, holder: Holder, link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    """One line per push with its id, outcome and a hashed chat."""
    with caplog.at_level(logging.DEBUG):
        push = holder.pushes(markdown="secret words")
        holder.ends(push, "sent")
        wait_until(lambda: any(record.message == "push" for record in caplog.records), timeout=WIDE)

    (line,) = [record for record in caplog.records if record.message == "push"]
    assert (line.bot, line.push, line.outcome) == (BOT, push.split(".")[1], "sent")  # type: ignore[attr-defined]
    logged = " ".join(str(vars(record)) for record in caplog.records)
    assert not [word for word in ("zhangsan", "secret words") if word in logged]
