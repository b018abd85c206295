"""The realtime endpoint: what its session wants is done, in order, by two threads, whatever Redis and the client do."""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import pytest
from flask import Flask, Response

from channels.realtime.channel import RealtimeChannel, RealtimeOptions, realtime_blueprint
from channels.sockets.outbox import MOST, MOST_BYTES, Goodbye, Outbox
from channels.sockets.peer import Closed
from config.texts import Texts
from services import metrics
from services.errors import StoreUnavailable, StreamUnknown
from services.identity.callers import Caller
from services.models import Question, Usage
from services.realtime.session import MOST as MOST_ANSWERS
from services.streams.following import News
from services.streams.records import Chunk, Snapshot, Whole
from tests.support.servers.processes import wait_until
from tests.support.sockets.realtime_desk import detect, stages
from tests.support.streams.told_stream import Stream
from utils.questions.detection import Detection

#: Seconds in which something must have come: wide, for a busy machine.
WIDE = 30.0


def news(place: int, *pieces: str, **known: Any) -> News:
    chunks = tuple(Chunk(piece, "2026-11-21T03:56:57.133+00:00") for piece in pieces)
    return News(place + len(chunks), chunks, place, **known)


def end(place: int = 1, **known: Any) -> News:
    return news(place, ended=True, **{"status": "completed", **known})


class TestSocket:
    """A socket whose client reads when the test lets it."""

    __test__ = False

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.heartbeat: Mapping[str, Any] = {}
        self.lost = False
        self.reads = threading.Event()
        self.reads.set()
        #: Threads in `send`.
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
    """A stream whose end the test chooses."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.end = Whole("", "completed")

    def whole(self) -> Whole:
        return self.end


class TestGateway:
    """A gateway of the test's own streams; all are named by the order of the questions."""

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
        # A cancelled stream has news for whoever follows it.
        self.streams[stream_id].tells(end(status="cancelled", error_code="cancelled"))
        return "processing"


class TestLimiter:
    __test__ = False

    def __init__(self) -> None:
        self.allows = True
        self.asked: list[tuple[str, str]] = []

    def question(self, principal: str, client_id: str) -> bool:
        self.asked.append((principal, client_id))
        return self.allows


class Client:
    """Somebody at the endpoint."""

    def __init__(self, stop: Literal["idle", "close"] = "idle", detect: Callable[[str], Detection] = detect) -> None:
        self.socket, self.gateway, self.limiter = TestSocket(), TestGateway(), TestLimiter()
        self.endpoint = RealtimeChannel(
            self.socket,
            Caller("user:E1001", "sealed-token"),
            "c1",
            gateway=self.gateway,
            limiter=self.limiter,
            options=RealtimeOptions(detect, Texts("zh"), stop),
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
        """Wait until these are the last words of what came."""
        wait_until(lambda: self.seen[-len(last) :] == list(last), WIDE)


def refused(code: str) -> float:
    """Return how many questions were refused for this."""
    return metrics.REGISTRY.get_sample_value("wechatlaibao_questions_refused_total", {"code": code}) or 0.0


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.socket.reads.set()
    client.leaves(1006)


def test_a_question_goes_through_the_endpoint(client: Client) -> None:
    """R01–R03, R15, R16: from the greeting to idle, each frame with its own place."""
    client.says("年假有几天？")
    client.gateway[1].tells(news(0, "五", "天"), news(2, "。"), end(3))
    client.sees("final", "idle")

    question = ["ack", "analyzing", "querying_rag", "五", "天", "。", "final", "idle"]
    assert client.seen == ["ack", "listening", *question]
    assert [(f["stream_index"], f["cursor"]) for f in client.socket.sent if f["type"] == "answer"] == [
        (0, 1), (1, 2), (2, 3), (3, 3),
    ]  # fmt: skip


def test_a_question_is_asked_as_its_caller_in_its_session(client: Client) -> None:
    """R22, DR7: the conversation is the session's, the credential the caller's, and frames have the session's name."""
    client.says("年假有几天？")
    client.says("几天？", session_id="s2")

    first, second = client.gateway.asked
    assert first == Question(
        "年假有几天？", "realtime", "default", "user:E1001", session="c1", credential="sealed-token"
    )
    assert second.session == "s2"
    assert client.limiter.asked == [("user:E1001", "c1")] * 2
    wait_until(lambda: client.gateway.followed[-1:] == [("stream2", 0, "default", "user:E1001")], WIDE)


def test_heartbeats_say_whose_session_it_is(client: Client) -> None:
    """R18: also after another one has begun."""
    before = client.socket.heartbeat
    client.sends({"type": "keepalive", "session_id": "s2"})

    assert (before, client.socket.heartbeat) == ({"session_id": "c1"}, {"session_id": "s2"})


@pytest.mark.parametrize("text", ["", "{", "NaN", '{"type": "ping", "timestamp": Infinity}', "[" * 50_000, "1" * 5_000])
def test_what_is_no_json_is_told_so(client: Client, text: str) -> None:
    """R17: also what Python's reader would take."""
    client.endpoint.received(text)

    assert client.seen[2:] == ["INVALID_JSON"]


def test_the_reader_waits_for_no_answer(client: Client) -> None:
    """DR1: in mid-answer a pause is read, and acknowledged, at once."""
    client.says("年假有几天？")
    client.gateway[1].tells(news(0, "五"))
    client.sees("五")

    client.controls("pause")

    client.sees("ack", "paused")
    client.gateway[1].tells(end())
    client.sees("final", "idle", "paused")


def test_a_question_during_an_answer_is_asked_at_once_and_shown_next(client: Client) -> None:
    """DR5: its stream is there before the first has ended."""
    client.says("年假有几天？")
    client.gateway[1].tells(news(0, "五"))
    client.sees("五")
    client.says("病假呢？")
    client.gateway[2].tells(news(0, "十"), end())
    assert [question.text for question in client.gateway.asked] == ["年假有几天？", "病假呢？"]

    client.gateway[1].tells(end())

    client.sees("ack", "queued", "final", "idle", "analyzing", "querying_rag", "十", "final", "idle")


def test_a_provider_s_failure_is_told_and_over(client: Client) -> None:
    """DR4, DR11: RAG_ERROR with the stream's own sentence, the final frame, idle."""
    client.says("年假有几天？")
    client.gateway[1].end = Whole("五", "error", "provider_timeout")
    client.gateway[1].tells(news(0, "五"), end(status="error", error_code="provider_timeout", sentence="太慢了。"))

    client.sees("五", "RAG_ERROR", "final PROVIDER_TIMEOUT", "idle")
    assert "太慢了。" in client.socket.sent[-3]["message"]


def test_the_mock_s_answer_is_marked(client: Client) -> None:
    """Its final frame says so, and what the answer cost and rests on."""
    client.gateway[1].end = Whole("五", "completed", mock=True, usage=Usage(7), sources=({"title": "手册"},))
    client.says("年假有几天？")
    client.gateway[1].tells(news(0, "五"), end())

    client.sees("五", "final", "idle")
    last = client.socket.sent[-2]
    assert (last["mock"], last["usage"]["total_tokens"], last["sources"]) == (True, 7, [{"title": "手册"}])


def test_a_text_that_begins_anew_goes_through_the_endpoint(client: Client) -> None:
    """R16: reset, then from 0 on, each piece with its own place in the stream."""
    client.says("年假有几天？")
    client.gateway[1].tells(news(0, "四"), news(3, "五", "天", reset=True), end(5))

    client.sees("四", "reset", "五", "天", "final", "idle")
    assert [(f["stream_index"], f["cursor"]) for f in client.socket.sent if f["type"] == "answer"] == [
        (0, 1), (0, 4), (1, 5), (2, 5),
    ]  # fmt: skip


def test_a_stream_is_resumed_at_its_cursor(client: Client) -> None:
    """The rest comes, with the numbers it would have had."""
    client.sends({"type": "resume", "stream_id": "stream1", "cursor": 2})
    client.gateway[1].tells(news(2, "。", first=2), end(3, first=3))

    client.sees("querying_rag", "。", "final", "idle")
    assert client.gateway.followed == [("stream1", 2, "default", "user:E1001")]
    assert [(f["stream_index"], f["cursor"]) for f in client.socket.sent if f["type"] == "answer"] == [(2, 3), (3, 3)]


def test_a_stream_that_is_unknown_ends_under_that_name(client: Client) -> None:
    """R17: STREAM_UNKNOWN, the final frame, idle."""
    client.sends({"type": "resume", "stream_id": "whose"})

    client.sees("querying_rag", "STREAM_UNKNOWN", "final STREAM_UNKNOWN", "idle")


def test_stop_cancels_at_the_gateway(client: Client) -> None:
    """R08, R10: what runs and what waits; nothing more of them is shown."""
    client.says("年假有几天？")
    client.gateway[1].tells(news(0, "五"))
    client.sees("五")
    client.says("病假呢？")

    client.controls("stop")

    client.sees("queued", "ack", "interrupting", "final CANCELLED", "idle")
    assert client.gateway.cancelled == [("stream1", "user:E1001"), ("stream2", "user:E1001")]
    wait_until(lambda: not client.endpoint.busy, WIDE)
    assert client.seen[-1] == "idle"


def test_stop_closes_after_its_frames() -> None:
    """R08: the stage closed is sent, then the close with 1000."""
    client = Client("close")
    client.controls("stop")

    assert client.seen[-2:] == ["ack", "closed"]
    assert client.socket.closed == (1000, "stopped")


def test_an_instant_query_takes_the_place_of_what_runs(client: Client) -> None:
    """R09, R10: the running one is cancelled, then the last text is asked as it is."""
    client.says("年假有几天？")
    client.gateway[1].tells(news(0, "五"))
    client.sees("五")
    client.gateway[2].tells(news(0, "六"), end())

    client.controls("instant_query")

    client.sees("interrupting", "final CANCELLED", "instant_query", "querying_rag", "六", "final", "idle")
    assert client.gateway.cancelled == [("stream1", "user:E1001")]
    assert client.gateway.asked[1].text == "年假有几天？"


#: How a socket ends, and whether that ends what runs.
ENDS = [
    (1000, True, True),
    (1005, True, True),
    (1001, True, False),
    (1006, True, False),
    (1000, False, False),
    (1012, False, False),
]


@pytest.mark.parametrize(("code", "by_peer", "cancels"), ENDS)
def test_only_a_client_that_takes_its_leave_ends_its_answers(code: int, by_peer: bool, cancels: bool) -> None:
    """DR2: it closes with 1000, or without a code; a page that is left, a cut and our own close leave them running."""
    client = Client()
    client.says("年假有几天？")
    client.says("病假呢？")

    client.leaves(code, by_peer=by_peer)

    assert client.gateway.cancelled == ([("stream1", "user:E1001"), ("stream2", "user:E1001")] if cancels else [])
    assert not client.endpoint.busy


def test_a_question_that_comes_too_soon_is_not_asked(client: Client) -> None:
    """R17: RATE_LIMITED, then idle."""
    client.limiter.allows = False
    counted = refused("rate_limited")
    client.says("年假有几天？")

    assert client.seen[2:] == ["ack", "RATE_LIMITED", "idle"]
    assert client.gateway.asked == []
    assert refused("rate_limited") == counted + 1


def test_a_question_that_nobody_kept_is_told_so(client: Client) -> None:
    """R17: Redis is away, there is no stream: SERVICE_UNAVAILABLE, then idle."""
    client.gateway.error_code = "store_unavailable"
    client.says("年假有几天？")

    assert client.seen[2:] == ["ack", "SERVICE_UNAVAILABLE", "idle"]
    assert client.gateway.followed == []


def test_a_refused_question_s_stream_is_shown_like_any_other(client: Client) -> None:
    """A stream born finished has its sentence."""
    client.gateway.error_code = "replica_full"
    client.gateway[1].end = Whole("", "error", "replica_full")
    client.says("年假有几天？")
    client.gateway[1].tells(end(status="error", error_code="replica_full", sentence="人太多了。"))

    client.sees("ack", "analyzing", "querying_rag", "RAG_ERROR", "final REPLICA_FULL", "idle")


def test_what_cannot_be_cancelled_is_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Redis is away: the client is told the same, and the next question is answered."""
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


def test_a_mistake_of_ours_costs_one_question(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """SERVER_ERROR without a word of Python's, then idle; the session is as it was."""

    def breaks(question: Question) -> Snapshot:
        raise ZeroDivisionError("a secret of ours")

    client.gateway.ask = breaks  # type: ignore[method-assign]
    with caplog.at_level(logging.ERROR):
        for _ in range(MOST_ANSWERS + 1):
            client.says("年假有几天？")

    assert client.seen[2:] == ["ack", "SERVER_ERROR", "idle"] * (MOST_ANSWERS + 1)
    assert "secret" not in json.dumps(client.socket.sent)
    assert {record.message for record in caplog.records} == {"realtime question failed"}


def test_a_mistake_of_ours_costs_one_message(caplog: pytest.LogCaptureFixture) -> None:
    """A detector of somebody's own that breaks is told as SERVER_ERROR; the next message is taken."""

    def breaks(text: str) -> Detection:
        raise KeyError(text)

    client = Client(detect=breaks)
    with caplog.at_level(logging.ERROR):
        client.says("年假有几天？")
    client.sends({"type": "keepalive"})

    assert client.seen[2:] == ["SERVER_ERROR", "ack"]
    assert [record.message for record in caplog.records] == ["realtime message failed"]


def test_it_is_busy_while_an_answer_is_unfinished(client: Client) -> None:
    """A replica that leaves waits for it."""
    assert not client.endpoint.busy
    client.says("年假有几天？")
    assert client.endpoint.busy

    client.gateway[1].tells(end())

    wait_until(lambda: not client.endpoint.busy, WIDE)


def test_nothing_people_say_is_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """DR15: one line a question, with names and numbers only."""
    with caplog.at_level(logging.DEBUG):
        client.says("我得了流感怎么办？")
        client.gateway[1].tells(end())
        client.sees("final", "idle")

    (line,) = [record for record in caplog.records if record.message == "realtime question"]
    assert (line.__dict__["stream_id"], line.__dict__["outcome"]) == ("stream1", "processing")
    assert all("流感" not in str(record.__dict__) for record in caplog.records)


def test_a_client_that_does_not_read_is_heard_all_the_same(client: Client) -> None:
    """DR13: while an answer's frame is being sent, messages are taken; all goes out later, in its order."""
    client.says("年假有几天？")
    client.sees("querying_rag")
    client.socket.reads.clear()
    client.gateway[1].tells(news(0, "五"))
    wait_until(lambda: client.socket.senders[-1] == "answers" and len(client.socket.senders) == 6, WIDE)

    client.controls("stop")

    assert client.gateway.cancelled == [("stream1", "user:E1001")]
    client.socket.reads.set()
    client.sees("五", "ack", "interrupting", "final CANCELLED", "idle")


def test_a_step_of_the_session_is_not_disturbed() -> None:
    """DR13: while a text is being judged, what is new of an answer waits; the frames of each come together."""
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
    client.gateway[1].tells(news(0, "五"))
    wait_until(client.gateway[1].coming.empty, WIDE)
    # Time for a frame that would come too soon.
    assert not judges.wait(0.2)

    judges.set()

    saying.join(WIDE)
    client.sees("ack", "waiting_for_question", "五")
    client.leaves(1006)


def test_frames_go_out_in_the_order_they_were_put(client: Client) -> None:
    """DR13: whichever of many threads sends them; none is left behind when all have gone."""
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


def test_a_patient_sender_waits_for_the_one_before() -> None:
    """Whoever shows answers does not pile them up behind a client that reads slowly; nor does anybody without end."""
    socket = TestSocket()
    socket.reads.clear()
    outbox, done = Outbox(socket), queue.SimpleQueue[str]()

    def flushed(name: str, frames: int, *, patient: bool) -> threading.Thread:
        def run() -> None:
            outbox.put([{"of": name}] * frames)
            outbox.flush(wait=patient)
            done.put(name)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    first = flushed("first", 1, patient=False)
    wait_until(lambda: socket.senders, WIDE)
    flushed("hasty", 1, patient=False).join(WIDE)
    assert done.get(timeout=WIDE) == "hasty"
    patient = flushed("patient", 1, patient=True)
    flood = flushed("flood", MOST, patient=False)
    assert (first.is_alive(), patient.is_alive(), flood.is_alive(), done.empty()) == (True, True, True, True)

    socket.reads.set()

    for thread in (first, patient, flood):
        thread.join(WIDE)
    assert [frame["of"] for frame in socket.sent] == ["first", "hasty", "patient", *["flood"] * MOST]


def test_what_waits_has_a_bound_in_bytes() -> None:
    """Few frames may be much; whoever said them waits until there is less."""
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


def test_what_is_said_after_the_end_is_dropped() -> None:
    """A socket that is closing takes nothing more; the queue is empty afterwards."""
    socket = TestSocket()
    outbox = Outbox(socket)
    outbox.put([{"n": 1}, Goodbye(1000), {"n": 2}, {"n": 3}])
    outbox.flush(wait=True)

    assert (socket.sent, socket.closed) == ([{"n": 1}], (1000, ""))
    assert len(socket.senders) == 2


def test_the_endpoint_s_address_is_the_setting_s() -> None:
    """R01: WS_PATH, for handshakes and for plain requests, which get their answer from whoever serves sockets."""
    served: list[tuple[str, str, Callable[..., Any]]] = []

    class Sockets:
        def serve(self, channel: str, client_id: str, open: Callable[..., Any]) -> Response:
            served.append((channel, client_id, open))
            return Response("", 426)

    app, options = Flask(__name__), RealtimeOptions(detect, Texts("zh"))
    app.register_blueprint(
        realtime_blueprint(Sockets(), "/live", gateway=TestGateway(), limiter=TestLimiter(), options=options)
    )

    assert app.test_client().get("/live").status_code == 426
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert app.test_client().get("/live", headers=upgrade).status_code == 426
    assert [(endpoint, client_id) for endpoint, client_id, _ in served] == [("realtime", "")] * 2
    assert isinstance(served[0][2](TestSocket(), Caller("anonymous"), "c9"), RealtimeChannel)
