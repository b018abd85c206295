"""A link: acknowledgements, their order and absence, pings, its end, and the threads for what it receives."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

import pytest

import services.wecom.long_connection.link as link_module
from channels.wecom.link_socket import PROBES, open_socket
from demo.wecom.long_connection.faults import Fault
from demo.wecom.long_connection.server import LongConnectionServer
from services.http.tunnel import ConnectFailed
from services.metrics import LATE_ACKS
from services.wecom.long_connection.link import Arrivals, Link, LinkHandlers
from services.wecom.long_connection.protocol import (
    ACK_SECONDS,
    MESSAGE,
    NOT_SUBSCRIBED,
    PING,
    PING_SECONDS,
    SEND,
    SUBSCRIBE,
    UPLOAD_INIT,
    WRONG_SECRET,
    AckMissing,
    LinkLost,
)
from tests.support.long_connection.bots import BOT_ID, SECRET, bot_server
from tests.support.servers.processes import FakeClock, wait_until
from tests.support.servers.raw_server import RawServer
from tests.support.sockets.far_end import in_thread


class OpenLink:
    """A link to the server with its reader in a thread; `arrived` records what it passes on."""

    def __init__(self, wecom: LongConnectionServer, clock: FakeClock) -> None:
        self.arrived: list[tuple[str, str, Mapping[str, Any]]] = []
        self.link = Link(open_socket(wecom.url), "hr", 7, arrived=self._note, clock=clock)
        self._reader = threading.Thread(target=self.link.run, daemon=True)
        self._reader.start()

    def _note(self, link: Link, cmd: str, req_id: str, body: Mapping[str, Any]) -> None:
        self.arrived.append((cmd, req_id, body))

    def subscribe(self, secret: str = SECRET) -> int:
        """Subscribe and return the errcode."""
        return self.link.request(SUBSCRIBE, {"bot_id": BOT_ID, "secret": secret}).errcode

    def end(self) -> None:
        self.link.drop("ended")
        self._reader.join(30)
        assert not self._reader.is_alive()


@pytest.fixture
def wecom() -> Iterator[LongConnectionServer]:
    with bot_server() as wecom:
        yield wecom


@pytest.fixture
def opened(wecom: LongConnectionServer, clock: FakeClock) -> Iterator[OpenLink]:
    opened = OpenLink(wecom, clock)
    yield opened
    opened.end()


@pytest.fixture
def link(opened: OpenLink) -> Link:
    """A subscribed link."""
    assert opened.subscribe() == 0
    return opened.link


def push(content: str = "你好") -> dict[str, Any]:
    return {"chatid": "zhangsan", "chat_type": 1, "msgtype": "markdown", "markdown": {"content": content}}


def req_ids(wecom: LongConnectionServer) -> list[str]:
    """Return the req_ids of the messages that the server has received."""
    return [handled.frame.req_id for handled in wecom.frames if handled.frame.cmd == SEND]


def test_an_ack_has_the_code_and_the_body(wecom: LongConnectionServer, opened: OpenLink) -> None:
    """An errcode is no exception: the sender decides what it means."""
    assert opened.subscribe("another secret") == WRONG_SECRET
    assert not opened.link.lost.is_set()
    assert opened.subscribe() == 0

    upload = {"type": "file", "filename": "a.txt", "total_size": 1, "total_chunks": 1}
    assert opened.link.request(UPLOAD_INIT, upload).body["upload_id"]
    assert opened.link.request(SEND, push()).errcode != 0
    assert opened.link.request(SEND, push()).body == {}


def test_messages_and_events_are_passed_on(wecom: LongConnectionServer, opened: OpenLink) -> None:
    """With the command, the req_id and the body, in the order of their arrival."""
    opened.subscribe()
    asked = wecom.user("zhangsan").asks("年假怎么申请")
    entered = wecom.user("zhangsan").sends_event("enter_chat")

    wait_until(lambda: len(opened.arrived) == 2)

    assert opened.arrived == [
        ("aibot_msg_callback", asked.req_id, asked.body),
        ("aibot_event_callback", entered.req_id, entered.body),
    ]


def acknowledges(wecom: LongConnectionServer, req_id: str) -> None:
    """Send the ack that a fault has kept back."""
    (connection,) = wecom.connections.values()
    connection.put({"headers": {"req_id": req_id}, "errcode": 0, "errmsg": "ok"})


def test_frames_of_one_req_id_are_serial(wecom: LongConnectionServer, link: Link) -> None:
    """The second frame leaves when the first is acknowledged; frames of other req_ids do not wait."""
    wecom.faults.add(Fault(SEND, ack_seconds=None, times=1))
    first = in_thread(lambda: link.request(SEND, push(), req_id="r1", seconds=60.0))
    wait_until(lambda: req_ids(wecom) == ["r1"])
    second = in_thread(lambda: link.request(SEND, push("再见"), req_id="r1"))

    assert link.request(SEND, push(), req_id="r2")
    assert req_ids(wecom) == ["r1", "r2"]
    acknowledges(wecom, "r1")
    assert first()
    assert second()

    assert req_ids(wecom) == ["r1", "r2", "r1"]
    assert wecom.broken == [broken for broken in wecom.broken if "serial" not in broken]


def test_a_frame_waits_for_its_turn_within_a_limit(wecom: LongConnectionServer, link: Link) -> None:
    """Beyond it the connection is given up: the frame before has no end, and this one has not left."""
    wecom.faults.add(Fault(SEND, ack_seconds=None, times=1))
    first = in_thread(lambda: link.request(SEND, push(), req_id="r1", seconds=60.0))
    wait_until(lambda: req_ids(wecom) == ["r1"])

    with pytest.raises(LinkLost) as lost:
        link.request(SEND, push("再见"), req_id="r1", seconds=0.05)

    assert (lost.value.sent, link.reason, req_ids(wecom)) == (False, "stalled", ["r1"])
    with suppress(LinkLost):
        acknowledges(wecom, "r1")
        first()


def test_a_missing_ack_is_told(wecom: LongConnectionServer, link: Link) -> None:
    """The frame has left. A late ack is counted, and none of the next frame's is taken for it."""
    wecom.faults.add(Fault(SEND, ack_seconds=None, times=1))
    before = LATE_ACKS.labels("hr")._value.get()

    with pytest.raises(AckMissing):
        link.request(SEND, push(), req_id="r1", seconds=0.05)

    acknowledges(wecom, "r1")
    wait_until(lambda: LATE_ACKS.labels("hr")._value.get() == before + 1)


def test_a_lost_connection_ends_what_waits(wecom: LongConnectionServer, link: Link) -> None:
    """A frame that may have left says so, a later one says that it has not."""
    wecom.faults.add(Fault(SEND, closes=True))

    with pytest.raises(LinkLost) as caught:
        link.request(SEND, push())
    assert caught.value.sent

    with pytest.raises(LinkLost) as caught:
        link.request(SEND, push())
    assert not caught.value.sent
    assert (link.lost.is_set(), link.reason) == (True, "closed")


def test_a_frame_on_a_closing_connection_has_not_left(link: Link) -> None:
    """Its sender may send it again on the next connection."""
    link._socket.close(1000)

    with pytest.raises(LinkLost) as caught:
        link.request(SEND, push())

    assert not caught.value.sent


def test_an_eviction_ends_the_connection(wecom: LongConnectionServer, opened: OpenLink, link: Link) -> None:
    """`disconnected_event` is not passed on; WeCom's own close may come minutes later."""
    wecom.evict(BOT_ID)

    assert link.lost.wait(30)
    assert link.reason == "evicted"
    assert opened.arrived == []


def test_a_subscription_that_wecom_forgot_ends_the_connection(wecom: LongConnectionServer, link: Link) -> None:
    """846609 is returned to the sender, and nothing more is sent."""
    wecom.faults.add(Fault(SEND, errcode=NOT_SUBSCRIBED))

    assert link.request(SEND, push()).errcode == NOT_SUBSCRIBED
    assert (link.lost.is_set(), link.reason) == (True, "unsubscribed")


def test_pings_keep_the_connection(wecom: LongConnectionServer, link: Link, clock: FakeClock) -> None:
    """A ping leaves after 30 s, not before, and an acknowledged one does not count."""
    (connection,) = wecom.connections.values()
    link.beat()
    assert connection.pings == 0

    for count in range(1, 5):
        clock.advance(PING_SECONDS)
        link.beat()
        wecom.wait_until(lambda count=count: connection.pings == count)  # type: ignore[misc]
        # The ack of the ping comes before this one.
        link.request(SEND, push())

    assert not link.lost.is_set()


def silent(wecom: LongConnectionServer) -> None:
    """Let the server take no frame any more, as behind a firewall that lost the connection."""
    wecom.faults.add(Fault(lost=True))


def test_two_missed_pongs_end_the_connection(wecom: LongConnectionServer, link: Link, clock: FakeClock) -> None:
    """The second ping leaves as soon as the first pong is missing. Messages that still arrive prove nothing."""
    silence = wecom.faults.add(Fault(PING, lost=True))
    clock.advance(PING_SECONDS)
    link.beat()
    for _ in range(2):
        wecom.user("zhangsan").asks("年假怎么申请")
        assert not link.lost.is_set()
        clock.advance(ACK_SECONDS)
        link.beat()

    assert link.lost.wait(30)
    assert link.reason == "silent"
    wecom.wait_until(lambda: silence.met == 2)


def test_a_missing_ack_is_followed_by_a_ping(wecom: LongConnectionServer, link: Link, clock: FakeClock) -> None:
    """At once, also if no ping is due; its pong keeps the connection."""
    wecom.faults.add(Fault(SEND, ack_seconds=None, times=1))
    (connection,) = wecom.connections.values()

    with pytest.raises(AckMissing):
        link.request(SEND, push(), seconds=0.05)
    wecom.wait_until(lambda: connection.pings == 1)
    # The pong comes before this ack.
    link.request(SEND, push())
    clock.advance(2 * ACK_SECONDS)
    link.beat()

    assert (link.lost.is_set(), connection.pings) == (False, 1)


def test_a_half_open_connection_is_dropped_after_one_ping(
    wecom: LongConnectionServer, link: Link, clock: FakeClock
) -> None:
    """Five seconds for the ack of a frame, and five for the pong; further frames do not prolong them."""
    silent(wecom)
    for _ in range(2):
        with pytest.raises(AckMissing):
            link.request(SEND, push(), seconds=0.05)
    clock.advance(ACK_SECONDS - 0.1)
    link.beat()
    assert not link.lost.is_set()

    clock.advance(0.1)
    link.beat()

    assert (link.lost.is_set(), link.reason) == (True, "silent")


def test_a_ping_behind_a_part_of_a_file_has_that_part_s_time(
    wecom: LongConnectionServer, link: Link, clock: FakeClock
) -> None:
    """On a slow line the part is still being sent; a connection that takes it is not dropped."""

    def send_part() -> None:
        with suppress(LinkLost):
            link.request(SEND, push(), req_id="part", seconds=20.0)

    silent(wecom)
    threading.Thread(target=send_part, daemon=True).start()
    wait_until(lambda: "part" in link._pending)
    with pytest.raises(AckMissing):
        link.request(SEND, push(), seconds=0.05)

    clock.advance(19.0)
    link.beat()
    assert not link.lost.is_set()
    clock.advance(1.0)
    link.beat()

    assert link.reason == "silent"
    link._end()


def test_a_peer_that_is_gone_is_noticed_without_a_frame(link: Link) -> None:
    """A bot that nobody writes to sends a ping twice a minute; TCP probes the peer within seconds."""
    sock = link._socket._sock  # type: ignore[attr-defined]
    idle, interval, count = PROBES

    assert idle + interval * count <= 15
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == idle


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"headers": 1}',
        '{"headers": {"req_id": 1}}',
        '{"errcode": "x"}',
        '{"errcode": 1e999}',
        '{"cmd": "news"}',
    ],
)
def test_a_frame_that_is_not_understood_is_skipped(wecom: LongConnectionServer, link: Link, text: str) -> None:
    """A newer or broken frame does not end the connection."""
    (connection,) = wecom.connections.values()
    connection._websocket.send(text)

    assert link.request(SEND, push())


@pytest.mark.parametrize(
    ("reply", "code"),
    [(b"HTTP/1.1 403 Forbidden\r\n\r\n", "HTTP 403"), (b"SSH-2.0\r\n", "InvalidMessage"), (b"", "InvalidMessage")],
)
def test_an_address_without_a_websocket_is_told(reply: bytes, code: str) -> None:
    """The cause is a status, never what the peer has sent."""
    with RawServer(reply) as server, pytest.raises(ConnectFailed) as caught:
        open_socket(server.url.replace("http", "ws"))

    assert caught.value.code == "handshake_failed"
    assert code in str(caught.value)


def test_a_peer_that_says_nothing_is_given_up() -> None:
    """A server that accepts connections and is silent costs the timeout, not more."""
    with RawServer(b"", hang=True) as server, pytest.raises(ConnectFailed) as caught:
        open_socket(server.url.replace("http", "ws"), timeout=0.2)

    assert caught.value.code == "handshake_failed"


def test_a_dropped_connection_still_gets_the_acks_of_what_was_sent(wecom: LongConnectionServer, link: Link) -> None:
    """So a part of an answer that left just before a handover does not count as lost."""
    wecom.faults.add(Fault(SEND, ack_seconds=None, times=1))
    sent = in_thread(lambda: link.request(SEND, push(), req_id="r1", seconds=60.0))
    wecom.wait_until(lambda: len(wecom.frames) == 2)

    link.drop("ended")

    assert link.lost.is_set()
    with pytest.raises(LinkLost) as caught:
        link.request(SEND, push())
    assert not caught.value.sent
    acknowledges(wecom, "r1")
    assert sent()
    assert link.over.wait(30)


def test_a_thread_that_cannot_start_takes_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may refuse threads for a moment; afterwards as many messages are handled at once as before."""
    monkeypatch.setattr(link_module, "MOST_HANDLED", 1)
    handled: list[str] = []
    handlers = LinkHandlers(on_message=lambda link, req_id, body: handled.append(req_id), on_event=lambda *_: None)
    arrivals, link = Arrivals(handlers), cast(Link, None)

    def refuses(thread: threading.Thread, *args: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuses)
        with pytest.raises(RuntimeError):
            arrivals.take(link, MESSAGE, "r1", {})
    arrivals.take(link, MESSAGE, "r2", {})

    wait_until(lambda: handled == ["r2"])
