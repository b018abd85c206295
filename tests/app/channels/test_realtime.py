"""The realtime channel on a fake gateway: frames, their order across two threads, outages of Redis and slow clients."""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import pytest
from flask import Flask, Response

from channels.realtime.channel import MOST_BYTES, MOST_FRAMES, Goodbye, Outbox, RealtimeChannel, realtime_blueprint
from channels.sockets.peer import Closed
from services.errors import StoreUnavailable, StreamUnknown
from services.identity.callers import Caller
from services.models import Question
from services.realtime.answers import MOST as MOST_ANSWERS
from services.streams.following import Update
from services.streams.long_text import FullAnswer
from services.streams.records import Chunk, Snapshot
from tests.app.channels.test_chat import rejected_count
from tests.support.servers.processes import wait_until
from tests.support.sockets.chat_room import Limit
from tests.support.sockets.realtime_desk import detect, html_of, options_for, stages
from tests.support.streams.told_stream import Stream
from utils.questions.detection import Detection

#: Seconds to wait for a frame or a thread: wide, for a busy machine.
WIDE = 30.0


def update(start: int, *pieces: str, **known: Any) -> Update:
    chunks = tuple(Chunk(piece, "2026-11-21T03:56:57.133+00:00") for piece in pieces)
    return Update(start + len(chunks), chunks, start, **known)


def end(start: int = 1, **known: Any) -> Update:
    return update(start, ended=True, **{"status": "completed", **known})


class TestSocket:
    """A socket whose client reads only while `reads` is set."""

    __test__ = False

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.heartbeat: Mapping[str, Any] = {}
        self.lost = False
        self.reads = threading.Event()
        self.reads.set()
        #: Names of the threads that called `send`.
        self.senders: list[str] = []

    @property
    def closing(self) -> bool:
        return self.lost or self.closed is not None

    def send(self, frame: Mapping[str, Any]) -> bool:
        self.senders.append(threading.current_thread().name)
        assert self.reads.wait(WIDE)
        if self.closing:
            return False
        self.sent.append(dict(frame))
        return True

    def close(self, code: int, reason: str = "") -> None:
        self.closed = (code, reason)


class TestStream(Stream):
    """A stream whose `whole` the test sets."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.end = FullAnswer("", "completed")

    def full_answer(self) -> FullAnswer:
        return self.end


class TestGateway:
    """A gateway of seven test streams, numbered in the order of the questions."""

    __test__ = False

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.followed: list[tuple[str, int, str, str]] = []
        self.cancelled: list[tuple[str, str]] = []
        self.streams: dict[str, TestStream] = {f"stream{number}": TestStream() for number in range(1, 8)}
        self.error_code = ""
        self.away = False

    def __getitem__(self, number: int) -> TestStream:
        return self.streams[f"stream{number}"]

    def ask(self, question: Question) -> Snapshot:
        self.asked.append(question)
        return Snapshot(f"stream{len(self.asked)}", "processing", self.error_code)

    def follow(self, stream_id: str, cursor: int = 0, *, bot: str, principal: str, text: bool = True) -> Stream:
        self.followed.append((stream_id, cursor, bot, principal))
        return self.streams.get(stream_id) or Stream().tells(StreamUnknown())

    def cancel(self, stream_id: str, *, bot: str, principal: str) -> str:
        if self.away:
            raise StoreUnavailable
        self.cancelled.append((stream_id, principal))
        # Cancelling a stream sends its end to its followers.
        self.streams[stream_id].tells(end(status="cancelled", error_code="cancelled"))
        return "processing"


class Client:
    """A client connected to the realtime channel."""

    def __init__(self, stop: Literal["idle", "close"] = "idle", detect: Callable[[str], Detection] = detect) -> None:
        self.socket, self.gateway, self.limiter = TestSocket(), TestGateway(), Limit()
        self.endpoint = RealtimeChannel(
            self.socket,
            Caller("user:E1001", "sealed-token"),
            "c1",
            gateway=self.gateway,
            limiter=self.limiter,
            options=options_for(detect, stop),
        )
        self.endpoint.opened()

    @property
    def seen(self) -> list[str]:
        return stages(self.socket.sent)

    def sends(self, message: object) -> None:
        self.endpoint.received(json.dumps(message))

    def says(self, text: str, **members: Any) -> None:
        self.sends({"type": "asr_chunk", "text": text, "is_final": True, **members})

    def controls(self, action: str, **members: Any) -> None:
        self.sends({"type": "control", "action": action, **members})

    def leaves(self, code: int = 1000, *, by_peer: bool = True) -> None:
        self.socket.lost = True
        self.endpoint.closed(Closed(code, by_peer=by_peer, clean=True))

    def sees(self, *last: str) -> None:
        """Wait until the last frames are these."""
        wait_until(lambda: self.seen[-len(last) :] == list(last), WIDE)


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.socket.reads.set()
    client.leaves(1006)


def test_a_question_is_answered_with_all_frames(client: Client) -> None:
    """R01–R03, R15, R16: from the greeting to idle; each answer frame has its stream index and cursor."""
    client.says("年假有几天？")
    client.gateway[1].tells(update(0, "五", "天"), update(2, "。"), end(3))
    client.sees("final", "idle")

    question = ["ack", "analyzing", "querying_rag", "五", "天", "。", "final", "idle"]
    assert client.seen == ["ack", "listening", *question]
    assert [(f["stream_index"], f["cursor"]) for f in client.socket.sent if f["type"] == "answer"] == [
        (0, 1), (1, 2), (2, 3), (3, 3),
    ]  # fmt: skip


def test_a_question_is_asked_as_its_caller_in_its_session(client: Client) -> None:
    """R22, DR7: the conversation belongs to the session, the credential to the caller, and frames name the session."""
    client.says("年假有几天？")
    client.says("几天？", session_id="s2")

    first, second = client.gateway.asked
    assert first == Question(
        "年假有几天？", "realtime", "default", "user:E1001", session="c1", credential="sealed-token"
    )
    assert second.session == "s2"
    assert client.limiter.asked == [("user:E1001", "c1")] * 2
    wait_until(lambda: client.gateway.followed[-1:] == [("stream2", 0, "default", "user:E1001")], WIDE)


def test_heartbeats_name_the_current_session(client: Client) -> None:
    """R18: also after the session changes."""
    before = client.socket.heartbeat
    client.sends({"type": "keepalive", "session_id": "s2"})

    assert (before, client.socket.heartbeat) == ({"session_id": "c1"}, {"session_id": "s2"})


def test_an_answer_as_html_has_one_frame_for_the_news(client: Client) -> None:
    """A whole answer is not rendered chunk by chunk: the frame has the cursor after the last chunk."""
    client.sends({"type": "resume", "stream_id": "stream1", "cursor": 2, "render": "html"})
    client.gateway[1].tells(update(0, "**五**", "天", "。"), end(3))

    client.sees("querying_rag", "reset", "**五**天。", "final", "idle")
    assert client.gateway.followed == [("stream1", 0, "default", "user:E1001")]
    assert [(f["stream_index"], f["cursor"]) for f in client.socket.sent if f["type"] == "answer"] == [(0, 3), (1, 3)]
    assert html_of(client.socket.sent) == "<p><strong>五</strong>天。</p>\n"


def test_an_unknown_stream_ends_with_its_error(client: Client) -> None:
    """R17: STREAM_UNKNOWN, the final frame, idle."""
    client.sends({"type": "resume", "stream_id": "whose"})

    client.sees("querying_rag", "STREAM_UNKNOWN", "final STREAM_UNKNOWN", "idle")


def test_stop_cancels_at_the_gateway(client: Client) -> None:
    """R08, R10: the running and the queued answer are cancelled; none of their text is shown afterwards."""
    client.says("年假有几天？")
    client.gateway[1].tells(update(0, "五"))
    client.sees("五")
    client.says("病假呢？")

    client.controls("stop")

    client.sees("queued", "ack", "interrupting", "final CANCELLED", "idle")
    assert client.gateway.cancelled == [("stream1", "user:E1001"), ("stream2", "user:E1001")]
    wait_until(lambda: not client.endpoint.busy, WIDE)
    assert client.seen[-1] == "idle"


def test_stop_closes_after_its_frames() -> None:
    """R08: the stage closed is sent, then the socket is closed with 1000."""
    client = Client("close")
    client.controls("stop")

    assert client.seen[-2:] == ["ack", "closed"]
    assert client.socket.closed == (1000, "stopped")


#: Close code, whether the client closed, and whether that cancels running answers.
ENDS = [
    (1000, True, True),
    (1005, True, True),
    (1001, True, False),
    (1006, True, False),
    (1000, False, False),
    (1012, False, False),
]


@pytest.mark.parametrize(("code", "by_peer", "cancels"), ENDS)
def test_only_a_clients_normal_close_cancels_its_answers(code: int, by_peer: bool, cancels: bool) -> None:
    """DR2: a close by the client with 1000 or no code; a reload, a lost connection and our own close cancel nothing."""
    client = Client()
    client.says("年假有几天？")
    client.says("病假呢？")

    client.leaves(code, by_peer=by_peer)

    assert client.gateway.cancelled == ([("stream1", "user:E1001"), ("stream2", "user:E1001")] if cancels else [])
    assert not client.endpoint.busy


def test_a_question_over_the_rate_limit_is_not_asked(client: Client) -> None:
    """R17: RATE_LIMITED, then idle."""
    client.limiter.allows = False
    counted = rejected_count("rate_limited")
    client.says("年假有几天？")

    assert client.seen[2:] == ["ack", "RATE_LIMITED", "idle"]
    assert client.gateway.asked == []
    assert rejected_count("rate_limited") == counted + 1


def test_a_question_that_was_not_stored_gets_an_error(client: Client) -> None:
    """R17: without Redis there is no stream: SERVICE_UNAVAILABLE, then idle."""
    client.gateway.error_code = "store_unavailable"
    client.says("年假有几天？")

    assert client.seen[2:] == ["ack", "SERVICE_UNAVAILABLE", "idle"]
    assert client.gateway.followed == []


def test_the_stream_of_a_rejected_question_is_shown(client: Client) -> None:
    """A stream that the gateway created finished has a sentence, shown as RAG_ERROR."""
    client.gateway.error_code = "replica_full"
    client.gateway[1].end = FullAnswer("", "error", "replica_full")
    client.says("年假有几天？")
    client.gateway[1].tells(end(status="error", error_code="replica_full", sentence="人太多了。"))

    client.sees("ack", "analyzing", "querying_rag", "RAG_ERROR", "final REPLICA_FULL", "idle")


def test_a_failed_cancellation_is_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """During an outage of Redis the client gets the same frames, and the next question is answered."""
    client.says("年假有几天？")
    client.sees("querying_rag")
    client.gateway.away = True

    with caplog.at_level(logging.WARNING):
        client.controls("stop")

    assert client.seen[-3:] == ["interrupting", "final CANCELLED", "idle"]
    assert [record.message for record in caplog.records] == ["answer not cancelled"]
    client.says("病假呢？")
    client.gateway[2].tells(end())
    client.sees("ack", "analyzing", "querying_rag", "final", "idle")


def test_an_exception_while_asking_fails_one_question(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """SERVER_ERROR without the exception's text, then idle; the session accepts further questions."""

    def breaks(question: Question) -> Snapshot:
        raise ZeroDivisionError("a secret of ours")

    client.gateway.ask = breaks  # type: ignore[method-assign]
    with caplog.at_level(logging.ERROR):
        for _ in range(MOST_ANSWERS + 1):
            client.says("年假有几天？")

    assert client.seen[2:] == ["ack", "SERVER_ERROR", "idle"] * (MOST_ANSWERS + 1)
    assert "secret" not in json.dumps(client.socket.sent)
    assert {record.message for record in caplog.records} == {"realtime question failed"}


def test_an_exception_of_the_detector_fails_one_message(caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the question detector becomes SERVER_ERROR; the next message is processed."""

    def breaks(text: str) -> Detection:
        raise KeyError(text)

    client = Client(detect=breaks)
    with caplog.at_level(logging.ERROR):
        client.says("年假有几天？")
    client.sends({"type": "keepalive"})

    assert client.seen[2:] == ["SERVER_ERROR", "ack"]
    assert [record.message for record in caplog.records] == ["realtime message failed"]


def test_the_channel_is_busy_while_an_answer_is_unfinished(client: Client) -> None:
    """A draining replica waits for a busy channel."""
    assert not client.endpoint.busy
    client.says("年假有几天？")
    assert client.endpoint.busy

    client.gateway[1].tells(end())

    wait_until(lambda: not client.endpoint.busy, WIDE)


def test_no_text_of_users_is_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """DR15: one line per question, with ids and numbers only."""
    with caplog.at_level(logging.DEBUG):
        client.says("我得了流感怎么办？")
        client.gateway[1].tells(end())
        client.sees("final", "idle")

    (line,) = [record for record in caplog.records if record.message == "realtime question"]
    assert (line.__dict__["stream_id"], line.__dict__["outcome"]) == ("stream1", "processing")
    assert all("流感" not in str(record.__dict__) for record in caplog.records)


def test_messages_of_a_client_that_does_not_read_are_processed(client: Client) -> None:
    """DR13: while a send blocks, messages are processed; all frames go out later, in their order."""
    client.says("年假有几天？")
    client.sees("querying_rag")
    client.socket.reads.clear()
    client.gateway[1].tells(update(0, "五"))
    wait_until(lambda: client.socket.senders[-1] == "answers" and len(client.socket.senders) == 6, WIDE)

    client.controls("stop")

    assert client.gateway.cancelled == [("stream1", "user:E1001")]
    client.socket.reads.set()
    client.sees("五", "ack", "interrupting", "final CANCELLED", "idle")


def test_a_step_of_the_session_is_not_interrupted() -> None:
    """DR13: while a text is being classified, an answer's chunks wait, so the frames of one step stay together."""
    judging, judges = threading.Event(), threading.Event()

    def judged(text: str) -> Detection:
        if not text.endswith("？"):
            judging.set()
            assert judges.wait(WIDE)
        return detect(text)

    client = Client(detect=judged)
    client.says("年假有几天？")
    client.sees("querying_rag")
    saying = threading.Thread(target=client.says, args=["今天天气不错。"])
    saying.start()
    assert judging.wait(WIDE)
    client.gateway[1].tells(update(0, "五"))
    wait_until(client.gateway[1].coming.empty, WIDE)
    # Time for a frame that would be sent too early.
    assert not judges.wait(0.2)

    judges.set()

    saying.join(WIDE)
    client.sees("ack", "waiting_for_question", "五")
    client.leaves(1006)


def test_frames_of_several_threads_keep_their_order(client: Client) -> None:
    """DR13: frames put by several threads are sent in order, and none is left when all threads have ended."""
    outbox, lock, socket = Outbox(client.socket), threading.Lock(), client.socket
    socket.sent.clear()
    counter = iter(range(400))

    def say() -> None:
        for _ in range(100):
            with lock:
                outbox.put([{"n": next(counter)}])
            outbox.flush(wait=False)

    threads = [threading.Thread(target=say) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WIDE)

    assert [frame["n"] for frame in socket.sent] == list(range(400))


def test_a_waiting_sender_blocks_until_the_earlier_one_is_done() -> None:
    """A sender with `wait` blocks while another thread sends; one without blocks only when the outbox is full."""
    socket = TestSocket()
    socket.reads.clear()
    outbox, done = Outbox(socket), queue.SimpleQueue[str]()

    def flushed(name: str, frames: int, *, waiting: bool) -> threading.Thread:
        def run() -> None:
            outbox.flush(wait=waiting)
            done.put(name)

        # Here, and not in the threads: they could put them in another order.
        outbox.put([{"of": name}] * frames)
        thread = threading.Thread(target=run)
        thread.start()
        return thread

    first = flushed("first", 1, waiting=False)
    wait_until(lambda: socket.senders, WIDE)
    flushed("hasty", 1, waiting=False).join(WIDE)
    assert done.get(timeout=WIDE) == "hasty"
    waiting = flushed("waiting", 1, waiting=True)
    flood = flushed("flood", MOST_FRAMES, waiting=False)
    assert (first.is_alive(), waiting.is_alive(), flood.is_alive(), done.empty()) == (True, True, True, True)

    socket.reads.set()

    for thread in (first, waiting, flood):
        thread.join(WIDE)
    assert [frame["of"] for frame in socket.sent] == ["first", "hasty", "waiting", *["flood"] * MOST_FRAMES]


def test_the_outbox_is_bounded_in_bytes() -> None:
    """The outbox counts bytes as well as frames; a sender blocks until there is space again."""
    socket = TestSocket()
    socket.reads.clear()
    outbox = Outbox(socket)

    def flushed(text: str) -> threading.Thread:
        outbox.put([{"text": text}])
        thread = threading.Thread(target=outbox.flush, kwargs={"wait": False})
        thread.start()
        return thread

    first = flushed("first")
    wait_until(lambda: socket.senders, WIDE)
    flushed("答" * (MOST_BYTES // 3)).join(WIDE)
    much = flushed("x" * 2)
    much.join(0.2)
    assert much.is_alive()

    socket.reads.set()
    for thread in (first, much):
        thread.join(WIDE)
    assert [len(frame["text"]) for frame in socket.sent] == [5, MOST_BYTES // 3, 2]
    flushed("y" * MOST_BYTES).join(WIDE)


def test_frames_after_the_close_are_dropped() -> None:
    """A socket that is closing sends nothing more, and the outbox drops its frames."""
    socket = TestSocket()
    outbox = Outbox(socket)
    outbox.put([{"n": 1}, Goodbye(1000), {"n": 2}, {"n": 3}])
    outbox.flush(wait=True)

    assert (socket.sent, socket.closed) == ([{"n": 1}], (1000, ""))
    assert len(socket.senders) == 2


def test_the_address_comes_from_the_setting() -> None:
    """R01: WS_PATH is the address, for handshakes and plain requests; the sockets' registry answers both."""
    served: list[tuple[str, str, Callable[..., Any]]] = []

    class Sockets:
        def serve(self, channel: str, client_id: str, open: Callable[..., Any]) -> Response:
            served.append((channel, client_id, open))
            return Response("", 426)

    app, options = Flask(__name__), options_for(detect)
    app.register_blueprint(
        realtime_blueprint(Sockets(), "/live", gateway=TestGateway(), limiter=Limit(), options=options)
    )

    assert app.test_client().get("/live").status_code == 426
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert app.test_client().get("/live", headers=upgrade).status_code == 426
    assert [(endpoint, client_id) for endpoint, client_id, _ in served] == [("realtime", "")] * 2
    assert isinstance(served[0][2](TestSocket(), Caller("anonymous"), "c9"), RealtimeChannel)
