"""The chat channel's frames, on a gateway that the test controls."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from flask import Blueprint, Flask, Response

from channels.chat.answers import ChatDisplay
from channels.chat.channel import MOST, ChatChannel, chat_blueprint
from channels.options import AskableBots
from channels.sockets.socket import Closed
from config.texts import ZH, Texts
from services import metrics
from services.attachments import SentFile
from services.errors import StoreUnavailable, StreamUnknown
from services.forms import FormInput, OfferedChoices
from services.identity.callers import Caller
from services.models import Question, Status, Usage
from services.streams.following import Update
from services.streams.long_text import FullAnswer
from services.streams.records import Chunk, Snapshot
from tests.support.servers.processes import wait_until
from tests.support.sockets.chat_room import BOTS, LINES, NO_FILES, ChatClient, Limit, Ratings
from tests.support.streams.told_stream import Stream

#: The id of a form.
FORM = "5f0c3a9b1d7e42886f2a4c1d"
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def grown(cursor: int, *texts: str, **others: Any) -> Update:
    return Update(cursor, tuple(Chunk(text, "2025-01-01T00:00:00.000+00:00") for text in texts), **others)


def ended(cursor: int, status: Status = "completed", **others: Any) -> Update:
    return Update(cursor, ended=True, status=status, **others)


class FakeStream(Stream):
    """A stream whose `whole` the test sets."""

    answer = FullAnswer("", "completed")

    def full_answer(self) -> FullAnswer:
        super().full_answer()
        return self.answer


class FakeGateway:
    """Streams s1, s2, … in the order they are asked; a message id always maps to one stream."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.streams: dict[str, FakeStream] = {}
        self.named: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.running: set[str] = set()
        self.cancelled: list[str] = []
        self.followed: list[tuple[str, int]] = []
        #: The bot and the principal of each stream that was followed or cancelled.
        self.readers: list[tuple[str, str]] = []
        self.fails: Exception | None = None
        self.outcome = ""
        #: Number of chunks that a rejected question's stream has in Redis.
        self.kept = 0

    def ask(self, question: Question, *, media: Sequence[SentFile] = ()) -> Snapshot:
        assert not media
        if self.fails:
            raise self.fails
        self.questions.append(question)
        stream_id = self.named.get(question.msgid, f"s{len(self.streams) + 1}")
        if self.outcome:
            return Snapshot(stream_id, "error", error_code=self.outcome, length=self.kept)
        if self.conflicts(question):
            return Snapshot(stream_id, "error", error_code="id_conflict")
        if question.msgid:
            self.named[question.msgid] = stream_id
        if stream_id not in self.streams:
            self.streams[stream_id] = FakeStream()
            self.running.add(stream_id)
        return Snapshot(stream_id, "processing")

    def person(self, question: Question) -> str:
        return f"who:{question.principal}"

    def find(self, question: Question) -> Snapshot | None:
        stream_id = self.named.get(question.msgid)
        if stream_id and self.conflicts(question):
            return Snapshot(stream_id, "error", error_code="id_conflict")
        return Snapshot(stream_id, "processing") if stream_id else None

    def conflicts(self, question: Question) -> bool:
        """Tell whether the question's id was used for another text."""
        return bool(question.msgid) and self.texts.setdefault(question.msgid, question.text) != question.text

    def follow(self, stream_id: str, cursor: int = 0, *, bot: str, principal: str, text: bool = True) -> FakeStream:
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = FakeStream()
            stream.tells(StreamUnknown(stream_id))
        # Last: a test that waits for it may replace the stream.
        self.readers.append((bot, principal))
        self.followed.append((stream_id, cursor))
        return stream

    def cancel(self, stream_id: str, *, bot: str, principal: str) -> str:
        self.readers.append((bot, principal))
        if self.fails:
            raise self.fails
        if stream_id not in self.running:
            return "completed" if stream_id in self.streams else ""
        self.running.remove(stream_id)
        self.cancelled.append(stream_id)
        self.streams[stream_id].answer = FullAnswer("so far", "cancelled", "cancelled")
        self.streams[stream_id].tells(ended(5, "cancelled", error_code="cancelled"))
        return "processing"

    def answers(self, stream_id: str, *texts: str) -> None:
        """Send these chunks on a stream, then its end."""
        self.streams[stream_id].answer = FullAnswer("".join(texts), "completed")
        for number, text in enumerate(texts, 1):
            self.streams[stream_id].tells(grown(number, text))
        self.streams[stream_id].tells(ended(len(texts)))


def rejected_count(code: str) -> float:
    return metrics.REGISTRY.get_sample_value("wechatlaibao_questions_refused_total", {"code": code}) or 0.0


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def arrives(gateway: FakeGateway) -> Iterator[Callable[..., ChatClient]]:
    """Open a client's socket; all sockets are closed after the test."""
    clients: list[ChatClient] = []

    def arrives(**who: Any) -> ChatClient:
        clients.append(ChatClient(gateway, **who))
        return clients[-1]

    yield arrives
    for client in clients:
        client.leaves()


@pytest.fixture
def client(arrives: Callable[..., ChatClient]) -> ChatClient:
    return arrives()


def untimed(frame: dict[str, Any]) -> dict[str, Any]:
    """Return a frame without its timestamp, whose format is checked."""
    assert ISO.fullmatch(frame["timestamp"])
    return {name: value for name, value in frame.items() if name != "timestamp"}


def test_a_client_is_greeted_once(client: ChatClient) -> None:
    """A07: the system frame has the client's id."""
    assert [untimed(frame) for frame in client.frames] == [
        {"type": "system", "content": "Connected to chat server. Start chatting!", "client_id": "c1"}
    ]


def test_a_question_and_its_answer(client: ChatClient, gateway: FakeGateway) -> None:
    """A03, A26: echo, typing, deltas, the whole answer, typing; each frame names its question."""
    stream_id = client.asks(" 年假几天？ ", id="q1")
    gateway.answers(stream_id, "五", "天")

    client.sees_end(stream_id)

    names = {"stream_id": "s1", "id": "q1"}
    full = {"type": "chat", "role": "assistant", "content": "五天", "cursor": 2, "status": "completed", "sources": []}
    frames = [untimed(frame) if "timestamp" in frame else frame for frame in client.frames[1:]]
    assert frames == [
        {"type": "chat", "role": "user", "content": "年假几天？", "client_id": "c1", **names},
        {"type": "typing", "status": True, **names},
        {"type": "chat_delta", "cursor": 1, "content": "五", **names},
        {"type": "chat_delta", "cursor": 2, "content": "天", **names},
        {**full, "client_id": "c1", **names},
        {"type": "typing", "status": False, **names},
    ]


def test_a_client_of_html_is_told_each_step_before_the_text(client: ChatClient, gateway: FakeGateway) -> None:
    """Once each, also where an update brings nothing else; a client of plain text sees `typing` once, as ever."""
    for render, named in (({"render": "html"}, ["查知识库", "撰写回答"]), ({}, [])):
        stream_id = client.asks("年假几天？", **render)
        steps = (Update(0, step=step) for step in ("查知识库", "查知识库", "撰写回答", ""))
        gateway.streams[stream_id].tells(*steps)
        gateway.answers(stream_id, "五天")

        client.sees_end(stream_id)

        typing = [frame for frame in client.frames if frame["type"] == "typing" and frame["stream_id"] == stream_id]
        assert [frame["status"] for frame in typing] == [True] * (1 + len(named)) + [False]
        assert [frame["step"] for frame in typing if "step" in frame] == named


def test_frames_have_no_id_if_the_question_has_none(client: ChatClient, gateway: FakeGateway) -> None:
    """Without a client's message id, frames have the stream's id alone."""
    stream_id = client.asks("年假？")
    gateway.answers(stream_id, "五天")

    client.sees_end(stream_id)

    assert all("id" not in frame for frame in client.frames)
    assert gateway.questions[0].msgid == ""


def test_a_question_is_asked_as_its_caller(client: ChatClient, gateway: FakeGateway) -> None:
    """A24: no conversation, a message id prefixed with the client's id, and the caller's sealed credential."""
    client.asks("年假？", id="q1")

    assert gateway.questions == [
        Question("年假？", "chat", "default", "anonymous", msgid="c1/q1", credential="sealed-anonymous")
    ]


def test_a_conversation_is_the_clients_own(client: ChatClient, gateway: FakeGateway) -> None:
    """With `conversation`, the question belongs to the client's conversation."""
    client.asks("年假？", conversation=True)

    assert gateway.questions[0].session == "c1"


def test_the_whole_answer_has_sources_mock_and_usage(client: ChatClient, gateway: FakeGateway) -> None:
    """Sources, `mock` and usage come with the whole answer."""
    stream_id = client.asks("年假？")
    gateway.streams[stream_id].answer = FullAnswer(
        "五天", "completed", sources=({"title": "手册"},), mock=True, usage=Usage(7, 3, 4)
    )
    gateway.streams[stream_id].tells(grown(1, "五天"), ended(1))

    full = client.sees(type="chat", role="assistant")

    assert (full["sources"], full["mock"]) == ([{"title": "手册"}], True)
    assert (full["usage"]["total_tokens"], full["usage"]["completion_tokens"]) == (7, 4)


def test_the_choices_of_a_form_come_with_the_whole_answer(client: ChatClient, gateway: FakeGateway) -> None:
    """Each with the name that answers it; the HTML leaves the numbers out. A failed answer has none."""
    text = f"同意吗？\n\n1. 同意\n2. 驳回\n\n{ZH['form_choose']}"
    for status in ("completed", "error"):
        stream_id = client.asks("报销？", render="html", conversation=True)
        answer = FullAnswer(text, status, choices=OfferedChoices(FORM, ("同意", "驳回")).to_json())
        gateway.streams[stream_id].answer = answer
        gateway.streams[stream_id].tells(grown(1, text), ended(1, status))
        client.sees_end(stream_id)

    completed, failed = (frame for frame in client.frames if frame.get("role") == "assistant")
    assert completed["choices"] == [
        {"title": "同意", "choice": f"{FORM} 0"},
        {"title": "驳回", "choice": f"{FORM} 1"},
    ]
    assert completed["content"] == failed["content"] == text
    assert "同意吗？" in completed["html"]
    assert "2. 驳回" not in completed["html"]
    assert "choices" not in failed
    assert "2. 驳回" in failed["html"]


def test_the_texts_that_a_form_asks_for_come_with_its_choices(client: ChatClient, gateway: FakeGateway) -> None:
    """A client gives them as `inputs`."""
    stream_id = client.asks("报销？", conversation=True)
    wanted = (FormInput("comment", "无"), FormInput("priority", options=("low", "high")))
    gateway.streams[stream_id].answer = FullAnswer(
        "同意吗？", "completed", choices=OfferedChoices(FORM, ("同意",), wanted).to_json()
    )
    gateway.streams[stream_id].tells(grown(1, "同意吗？"), ended(1))

    full = client.sees(type="chat", role="assistant")

    assert full["inputs"] == [{"name": "comment", "options": []}, {"name": "priority", "options": ["low", "high"]}]
    assert not client.unknown()


def test_a_choice_is_asked_in_the_conversation_of_its_form(client: ChatClient, gateway: FakeGateway) -> None:
    """Also without `conversation`; another word in its place is refused."""
    client.asks("驳回", choice=f"{FORM} 1")
    client.says(type="chat", content="驳回", choice="1")
    error = client.sees(type="error")

    assert [(question.text, question.choice, question.session) for question in gateway.questions] == [
        ("驳回", f"{FORM} 1", "c1")
    ]
    assert (error["code"], "choice" in error["content"]) == ("INVALID_MESSAGE", True)


def test_two_questions_are_answered_in_order(client: ChatClient, gateway: FakeGateway) -> None:
    """DA6: the second is asked at once and shown after the first; each frame names its question."""
    first = client.asks("一？", id="q1")
    second = client.asks("二？", id="q2")
    gateway.answers(second, "two")
    client.sees(type="typing", stream_id=first)
    asked = [question.text for question in gateway.questions]

    gateway.answers(first, "one")
    client.sees_end(second)

    answers = [frame for frame in client.frames if frame["type"] != "system" and frame.get("role") != "user"]
    assert asked == ["一？", "二？"]
    assert [frame["stream_id"] for frame in answers] == [first] * 4 + [second] * 4


def test_a_failed_answer_without_text(client: ChatClient, gateway: FakeGateway) -> None:
    """A08, DA11: an error with the stream's code and sentence, then typing false; no empty answer."""
    stream_id = client.asks("年假？", id="q1")
    gateway.streams[stream_id].answer = FullAnswer("", "error", "provider_timeout")
    gateway.streams[stream_id].tells(ended(1, "error", error_code="provider_timeout", sentence="太久了"))

    frames = client.sees_end(stream_id)

    names = {"stream_id": stream_id, "id": "q1"}
    assert frames[1:] == [
        {"type": "error", "code": "PROVIDER_TIMEOUT", "content": "太久了", **names},
        {"type": "typing", "status": False, **names},
    ]


def test_a_failed_answer_with_text(client: ChatClient, gateway: FakeGateway) -> None:
    """The text so far comes whole, then the error, then typing false."""
    stream_id = client.asks("年假？")
    gateway.streams[stream_id].answer = FullAnswer("五", "error", "interrupted")
    gateway.streams[stream_id].tells(grown(1, "五"), ended(2, "error", error_code="interrupted"))

    frames = client.sees_end(stream_id)

    assert [frame["type"] for frame in frames] == ["typing", "chat_delta", "chat", "error", "typing"]
    assert (frames[2]["status"], frames[2]["content"], frames[2]["code"]) == ("error", "五", "INTERRUPTED")
    assert frames[3]["content"] == ZH["interrupted"]


def test_an_empty_answer_is_sent(client: ChatClient, gateway: FakeGateway) -> None:
    """A completed answer without text is sent as an empty answer, not as an error."""
    stream_id = client.asks("年假？")
    gateway.answers(stream_id)

    frames = client.sees_end(stream_id)

    assert [(frame["type"], frame.get("content")) for frame in frames[1:]] == [("chat", ""), ("typing", None)]


def test_a_replaced_text_is_sent_after_a_reset(client: ChatClient, gateway: FakeGateway) -> None:
    """`reset` comes before the new text; its cursor is 0, so a resume gets all of it."""
    stream_id = client.asks("年假？")
    gateway.streams[stream_id].tells(grown(1, "no"), grown(3, "yes", reset=True))
    gateway.streams[stream_id].answer = FullAnswer("yes", "completed")
    gateway.streams[stream_id].tells(ended(3))

    frames = client.sees_end(stream_id)

    assert [frame["type"] for frame in frames] == ["typing", "chat_delta", "reset", "chat_delta", "chat", "typing"]
    assert frames[2] == {"type": "reset", "stream_id": stream_id, "cursor": 0}
    assert client.text(stream_id) == "yes"


def test_waiting_in_the_queue_sends_no_delta(client: ChatClient, gateway: FakeGateway) -> None:
    """News without chunks sends no delta."""
    stream_id = client.asks("年假？")
    gateway.streams[stream_id].tells(Update(0, waiting=True))
    gateway.answers(stream_id, "五天")

    frames = client.sees_end(stream_id)

    assert [frame["type"] for frame in frames] == ["typing", "chat_delta", "chat", "typing"]


def test_html_is_sent_block_by_block(client: ChatClient, gateway: FakeGateway) -> None:
    """Each delta has the HTML of its changed blocks; the whole answer is rendered as one."""
    stream_id = client.asks("年假？", render="html")
    gateway.answers(stream_id, "a", "b\nc")

    frames = client.sees_end(stream_id)

    assert [frame.get("html") for frame in frames] == [
        None,
        [{"block": 0, "html": "<p>a</p>"}],
        [{"block": 0, "html": "<p>ab</p>"}, {"block": 1, "html": "<p>c</p>"}],
        "<main>ab\nc</main>",
        None,
    ]


def test_html_restarts_with_a_replaced_text(client: ChatClient, gateway: FakeGateway) -> None:
    """After a reset the earlier blocks are gone."""
    stream_id = client.asks("年假？", render="html")
    gateway.streams[stream_id].tells(grown(1, "no\nno"), grown(3, "yes", reset=True))

    client.sees(type="chat_delta", cursor=3)

    assert client.of(stream_id, "chat_delta")[-1]["html"] == [{"block": 0, "html": "<p>yes</p>"}]


def test_a_stream_is_resumed_from_its_cursor(
    client: ChatClient, gateway: FakeGateway, arrives: Callable[..., ChatClient]
) -> None:
    """The resumed stream's frames have its id and no message id."""
    other = arrives(client_id="c2")
    stream_id = other.asks("年假？", id="q1")
    other.sees(type="typing")

    client.says(type="resume", stream_id=stream_id, cursor=7)
    client.sees(type="typing", status=True)

    assert gateway.followed[-1] == (stream_id, 7)
    assert client.of(stream_id) == [{"type": "typing", "status": True, "stream_id": stream_id}]


def test_html_is_resumed_from_the_beginning(client: ChatClient, gateway: FakeGateway) -> None:
    """A block may begin before the cursor: the client gets a reset and every block."""
    gateway.streams["s1"] = FakeStream()
    gateway.answers("s1", "a", "b")

    client.says(type="resume", stream_id="s1", cursor=1, render="html")
    frames = client.sees_end("s1")

    assert gateway.followed == [("s1", 0)]
    assert [frame["type"] for frame in frames] == ["typing", "reset", "chat_delta", "chat_delta", "chat", "typing"]


def test_html_resumed_from_zero_needs_no_reset(client: ChatClient, gateway: FakeGateway) -> None:
    """A resume from cursor 0 sends no reset."""
    gateway.streams["s1"] = FakeStream()
    gateway.answers("s1", "a")

    client.says(type="resume", stream_id="s1", render="html")

    assert "reset" not in [frame["type"] for frame in client.sees_end("s1")]


def test_an_unknown_stream_is_not_resumed(client: ChatClient) -> None:
    """The error names the stream, and typing ends."""
    client.says(type="resume", stream_id="nowhere", cursor=3)

    frames = client.sees_end("nowhere")

    assert [frame["type"] for frame in frames] == ["typing", "error", "typing"]
    assert (frames[1]["code"], frames[1]["content"]) == ("STREAM_UNKNOWN", ZH["stream_unknown"])


def test_a_question_sent_again_is_shown_once(client: ChatClient, gateway: FakeGateway) -> None:
    """While its answer is being sent, the repeated question gets its echo and nothing else."""
    stream_id = client.asks("年假？", id="q1")
    again = client.asks("年假？", id="q1")
    gateway.answers(stream_id, "五天")

    frames = client.sees_end(stream_id)

    assert (again, len(gateway.questions)) == (stream_id, 1)
    assert len([frame for frame in client.frames if frame.get("role") == "user"]) == 2
    assert [frame["type"] for frame in frames] == ["typing", "chat_delta", "chat", "typing"]


def test_an_answered_question_sent_again_is_shown_again(client: ChatClient, gateway: FakeGateway) -> None:
    """The answer is sent again from its beginning."""
    stream_id = client.asks("年假？", id="q1")
    gateway.answers(stream_id, "五天")
    client.sees_end(stream_id)
    client.frames.clear()
    gateway.answers(stream_id, "五天")

    again = client.asks("年假？", id="q1")
    frames = client.sees_end(stream_id)

    assert again == stream_id
    assert gateway.followed == [(stream_id, 0), (stream_id, 0)]
    assert [frame["type"] for frame in frames] == ["typing", "chat_delta", "chat", "typing"]


@pytest.mark.parametrize("when", ["shown", "answered", "too fast"])
def test_another_text_under_a_used_id_is_rejected(client: ChatClient, gateway: FakeGateway, when: str) -> None:
    """An error with the id, no echo, and nothing of the first question's answer."""
    stream_id = client.asks("年假？", id="q1")
    if when != "shown":
        gateway.answers(stream_id, "五天")
        client.sees_end(stream_id)
    client.limit.allows = when != "too fast"
    before = len(client.frames)

    client.says(type="chat", content="病假？", id="q1")
    replies = client.frames[before:]
    client.limit.allows = True
    other = client.asks("病假？", id="q2")

    assert [frame for frame in replies if frame["type"] not in ("typing", "chat_delta")] == [
        {"type": "error", "code": "ID_CONFLICT", "content": ZH["id_conflict"], "id": "q1"}
    ]
    assert other != stream_id
    assert client.unknown() == []


def test_a_stream_that_is_being_shown_is_not_resumed_beside_it(client: ChatClient, gateway: FakeGateway) -> None:
    """Neither the stream being shown nor a queued one is sent twice."""
    first, second = client.asks("一？"), client.asks("二？")

    client.says(type="resume", stream_id=first)
    client.says(type="resume", stream_id=second)
    gateway.answers(first, "one")
    gateway.answers(second, "two")
    client.sees_end(second)

    assert [frame["type"] for frame in client.of(first)] == ["typing", "chat_delta", "chat", "typing"]
    assert [frame["type"] for frame in client.of(second)] == ["typing", "chat_delta", "chat", "typing"]


def test_asking_again_does_not_show_a_resumed_stream_twice(client: ChatClient, gateway: FakeGateway) -> None:
    """A resume followed by the same question sends one answer."""
    gateway.streams["s1"] = FakeStream()
    gateway.named["c1/q1"] = "s1"
    client.says(type="resume", stream_id="s1")

    again = client.asks("年假？", id="q1")
    gateway.answers("s1", "five")
    frames = client.sees_end("s1")

    assert again == "s1"
    assert [frame["type"] for frame in frames] == ["typing", "chat_delta", "chat", "typing"]


def test_a_stopped_answer_ends_as_cancelled(client: ChatClient, gateway: FakeGateway) -> None:
    """The stream is cancelled; its text so far is the whole answer."""
    stream_id = client.asks("年假？")

    client.says(type="stop", stream_id=stream_id)
    frames = client.sees_end(stream_id)

    assert gateway.cancelled == [stream_id]
    assert [frame["type"] for frame in frames] == ["typing", "chat", "typing"]
    assert (frames[1]["status"], frames[1]["content"], frames[1]["code"]) == ("cancelled", "so far", "CANCELLED")


def test_stop_without_a_stream_stops_all_of_the_socket(
    client: ChatClient, gateway: FakeGateway, arrives: Callable[..., ChatClient]
) -> None:
    """The stream being shown and the queued ones are cancelled, each with its end; other sockets' streams go on."""
    ids = [client.asks(f"{number}？") for number in range(3)]
    other = arrives(client_id="c2").asks("还在？")

    client.says(type="stop")

    for stream_id in ids:
        assert client.sees_end(stream_id)[-2]["status"] == "cancelled"
    assert gateway.cancelled == ids
    assert other in gateway.running


def test_stopping_an_ended_stream_is_no_error(client: ChatClient, gateway: FakeGateway) -> None:
    """Stopping a stream that has ended is no error."""
    stream_id = client.asks("年假？")
    gateway.running.clear()

    client.says(type="stop", stream_id=stream_id)
    gateway.answers(stream_id, "五天")
    client.sees_end(stream_id)
    client.says(type="stop", stream_id=stream_id)
    client.says(type="stop")

    assert client.of(stream_id, "error") == []


def test_an_unknown_stream_is_not_stopped(client: ChatClient) -> None:
    """The error is the same for an unknown stream and for one of another caller."""
    client.says(type="stop", stream_id="nowhere")

    assert client.frames[-1] == {
        "type": "error",
        "code": "STREAM_UNKNOWN",
        "content": ZH["stream_unknown"],
        "stream_id": "nowhere",
    }


def test_a_ping_is_answered(client: ChatClient) -> None:
    """A04: the pong has the client's timestamp and the server's time."""
    client.says(type="ping", timestamp=1700000000123)

    pong = client.frames[-1]
    assert (pong["type"], pong["timestamp"]) == ("pong", 1700000000123)
    assert ISO.fullmatch(pong["server_time"])


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        ("{", "INVALID_JSON", "无效的JSON格式"),
        ("[]", "INVALID_MESSAGE", "消息格式不对：object"),
        ('{"type":"chat","content":" ","id":"q1"}', "MESSAGE_EMPTY", ZH["message_empty"]),
        (f'{{"type":"ping","timestamp":{10**400}}}', "INVALID_MESSAGE", "消息格式不对：timestamp"),
        ('{"type":"dance"}', "UNSUPPORTED_TYPE", "不支持的消息类型: dance"),
        (f'{{"content":"{"字" * 10_001}"}}', "MESSAGE_TOO_LONG", "消息太长，最多 10000 个字。请分几次提问。"),
    ],
)
def test_a_malformed_message_gets_an_error(
    client: ChatClient, gateway: FakeGateway, text: str, code: str, sentence: str
) -> None:
    """A17: a code and a sentence; the socket stays open, nothing is asked."""
    client.endpoint.received(text)

    error = client.frames[-1]
    assert (error["type"], error["code"], error["content"]) == ("error", code, sentence)
    assert (gateway.questions, client.limit.asked) == ([], [])
    assert error.get("id") == ("q1" if "q1" in text else None)


def test_an_ignored_message_type_gets_no_reply(client: ChatClient) -> None:
    """Signalling frames of old clients are ignored."""
    client.says(type="offer", sdp="x")

    assert len(client.frames) == 1


def test_too_many_unanswered_questions(client: ChatClient, gateway: FakeGateway) -> None:
    """A question over the limit is rejected before it is counted or asked; a queued one may be sent again."""
    for number in range(MOST):
        client.asks(f"{number}？", id=f"q{number}")

    client.says(type="chat", content="还有？", id="q9")
    rejected = client.frames[-1]
    client.says(type="resume", stream_id="s99")
    rejected_resume = client.frames[-1]
    client.says(type="chat", content="0？", id="q0")

    assert (rejected["code"], rejected["id"]) == ("TOO_MANY_QUESTIONS", "q9")
    assert (rejected_resume["code"], rejected_resume["stream_id"]) == ("TOO_MANY_QUESTIONS", "s99")
    assert (client.frames[-1]["role"], client.frames[-1]["stream_id"]) == ("user", "s1")
    assert len(gateway.questions) == len(client.limit.asked) == MOST


def test_refused_questions_are_counted(client: ChatClient) -> None:
    """The counter of rejected questions has a label per code."""
    before = {code: rejected_count(code) for code in ("rate_limited", "too_many_questions")}
    client.limit.allows = False
    client.says(type="chat", content="年假？")
    client.limit.allows = True
    for _ in range(MOST + 1):
        client.says(type="chat", content="年假？")

    assert {code: rejected_count(code) - before[code] for code in before} == {
        "rate_limited": 1,
        "too_many_questions": 1,
    }


def test_a_question_over_the_rate_limit_is_not_asked(client: ChatClient, gateway: FakeGateway) -> None:
    """The limiter gets the caller and the client; the gateway gets nothing."""
    client.limit.allows = False

    client.says(type="chat", content="年假？", id="q1")

    assert (client.frames[-1]["code"], client.frames[-1]["id"]) == ("RATE_LIMITED", "q1")
    assert (client.limit.asked, gateway.questions) == ([("anonymous", "c1")], [])


def test_a_question_sent_again_passes_the_rate_limit(
    client: ChatClient, gateway: FakeGateway, arrives: Callable[..., ChatClient]
) -> None:
    """A client whose echo was lost finds its stream, whatever the rate limit, and nothing is asked again."""
    stream_id = client.asks("年假？", id="q1")
    wait_until(lambda: gateway.followed)
    again = arrives()
    again.limit.allows = False
    # News goes to one reader of a fake stream. The first reader follows the old stream by now; this one is for the
    # second.
    gateway.streams[stream_id] = FakeStream()

    again.says(type="chat", content="年假？", id="q1")
    gateway.answers(stream_id, "五天")
    again.sees_end(stream_id)

    assert again.text(stream_id) == "五天"
    assert len(gateway.questions) == 1
    assert [frame["code"] for frame in again.frames if frame["type"] == "error"] == []


def test_a_question_that_was_not_stored_gets_an_error(client: ChatClient, gateway: FakeGateway) -> None:
    """Without Redis the client gets an error with its message id, no echo, and no stream to wait for."""
    gateway.outcome = "store_unavailable"

    client.says(type="chat", content="年假？", id="q1")

    assert client.frames[1:] == [
        {"type": "error", "code": "SERVICE_UNAVAILABLE", "content": ZH["store_unavailable"], "id": "q1"}
    ]
    assert not client.endpoint.busy


@pytest.mark.parametrize(
    ("fails", "code"), [(StoreUnavailable(), "SERVICE_UNAVAILABLE"), (ValueError("secret"), "SERVER_ERROR")]
)
def test_an_error_leaves_the_socket_usable(
    client: ChatClient, gateway: FakeGateway, fails: Exception, code: str
) -> None:
    """DA11: an exception becomes an error frame with a sentence, and the next message is processed."""
    gateway.fails = fails
    client.says(type="chat", content="年假？")
    error = client.frames[-1]
    gateway.fails = None

    client.asks("年假？")

    assert (error["code"], error["content"]) == (code, ZH[code.lower()])


def test_an_outage_while_stopping_is_reported_once(client: ChatClient, gateway: FakeGateway) -> None:
    """One error is sent, however many streams were to be stopped."""
    client.asks("一？")
    client.asks("二？")
    gateway.fails = StoreUnavailable()

    client.says(type="stop")

    assert [frame["code"] for frame in client.frames if frame["type"] == "error"] == ["SERVICE_UNAVAILABLE"]


@pytest.mark.parametrize("code", ["replica_full", "store_unavailable"])
def test_a_question_refused_by_the_gateway_is_a_stream(client: ChatClient, gateway: FakeGateway, code: str) -> None:
    """Its error is shown like that of a failed answer, also if an outage kept the question from being asked."""
    gateway.streams["s1"] = FakeStream()
    gateway.streams["s1"].answer = FullAnswer("", "error", code)
    gateway.named["c1/q1"] = "s1"
    gateway.outcome, gateway.kept = code, 1
    gateway.streams["s1"].tells(ended(1, "error", error_code=code, sentence="不行"))

    client.asks("年假？", id="q1")

    frames = client.sees_end("s1")
    assert [(frame["type"], frame.get("code")) for frame in frames[1:]] == [("error", code.upper()), ("typing", None)]


def test_the_channel_is_busy_while_an_answer_is_running(client: ChatClient, gateway: FakeGateway) -> None:
    """The channel is busy from the question until its answer is sent."""
    before = client.endpoint.busy
    stream_id = client.asks("年假？")
    under_way = client.endpoint.busy
    gateway.answers(stream_id, "五天")
    client.sees_end(stream_id)

    assert (before, under_way) == (False, True)
    client.sees(type="typing", status=False)


def test_the_channel_is_busy_while_a_question_is_asked(gateway: FakeGateway) -> None:
    """A draining replica does not close a socket between its question and the echo."""
    busy: list[bool] = []
    endpoints: list[ChatChannel] = []

    class Watching(Limit):
        def question(self, principal: str, client_id: str) -> bool:
            busy.append(endpoints[0].busy)
            return False

    client = ChatClient(gateway, limit=Watching())
    endpoints.append(client.endpoint)

    client.says(type="chat", content="年假？")

    assert (busy, client.endpoint.busy) == ([True], False)


def test_closing_a_socket_cancels_no_stream(
    client: ChatClient, gateway: FakeGateway, arrives: Callable[..., ChatClient]
) -> None:
    """A16: nothing is cancelled, no more frames are sent, and another socket gets the answer."""
    stream_id = client.asks("年假？", id="q1")
    client.sees(type="typing")
    wait_until(lambda: gateway.followed)
    shown = len(client.frames)

    client.leaves()
    # News goes to one reader of a fake stream, and the first reader waits for some of it until it finds itself closed.
    gateway.streams[stream_id] = FakeStream()
    client.says(type="chat", content="late", id="q2")
    other = arrives()
    other.asks("年假？", id="q1")
    gateway.answers(stream_id, "五天")

    assert other.sees_end(stream_id)[-2]["content"] == "五天"
    assert (len(client.frames), gateway.cancelled) == (shown, [])


RATED = "aa65853a50e4ed54b013b58037014e5b"


@pytest.mark.parametrize("rating", ["like", "dislike", None])
def test_a_rating_is_taken_and_confirmed(client: ChatClient, rating: str | None) -> None:
    """It is the caller's own; a withdrawal has no words."""
    client.says(type="feedback", stream_id=RATED, rating=rating, content="why")

    assert client.frames[-1] == {"type": "feedback", "stream_id": RATED, "rating": rating}
    assert client.ratings.taken == [(RATED, rating or "", "why" if rating else "", "anonymous")]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("unknown", "STREAM_UNKNOWN"),
        ("running", "ANSWER_RUNNING"),
        ("no_answer", "NOT_RATEABLE"),
        ("full", "FEEDBACK_FULL"),
        (StoreUnavailable("away"), "SERVICE_UNAVAILABLE"),
    ],
)
def test_a_rating_that_is_not_taken_is_an_error(client: ChatClient, outcome: Any, code: str) -> None:
    """The error names the answer and has the sentence of its code."""
    if isinstance(outcome, Exception):
        client.ratings.fails = outcome
    else:
        client.ratings.outcome = outcome

    client.says(type="feedback", stream_id=RATED, rating="like")

    error = {"type": "error", "code": code, "content": ZH[code.lower()], "stream_id": RATED}
    assert client.frames[-1] == error
    assert client.unknown() == []


class FakeSockets:
    """Records the calls of `serve`."""

    def __init__(self) -> None:
        self.served: list[tuple[str, str]] = []
        self.opens: list[Callable[[Any, Caller, str], ChatChannel]] = []

    def serve(self, channel: str, client_id: str, open: Callable[..., Any]) -> Response:
        self.served.append((channel, client_id))
        self.opens.append(open)
        return Response("served", 426)


def chat_routes(sockets: FakeSockets, gateway: FakeGateway) -> Blueprint:
    fakes: dict[str, Any] = {"limiter": Limit(), "ratings": Ratings(), "files": NO_FILES}
    texts = Texts()
    bots = AskableBots(BOTS, texts)

    def open(socket: Any, caller: Caller, client_id: str) -> ChatChannel:
        display = ChatDisplay(socket, client_id, texts=texts, html=LINES)
        return ChatChannel(display, caller, gateway=gateway, bots=bots, **fakes)

    return chat_blueprint(sockets, open)


@pytest.mark.parametrize("headers", [{}, {"Connection": "Upgrade", "Upgrade": "websocket"}])
@pytest.mark.parametrize(("path", "client_id"), [("/ws/chat", ""), ("/ws/chat/my.phone-1", "my.phone-1")])
def test_the_endpoints_addresses(gateway: FakeGateway, headers: dict[str, str], path: str, client_id: str) -> None:
    """A01, A02: with and without a client id, handshakes and plain requests go to the sockets' registry."""
    sockets = FakeSockets()
    app = Flask(__name__)
    app.register_blueprint(chat_routes(sockets, gateway))

    response = app.test_client().get(path, headers=headers)

    assert (response.status_code, response.text) == (426, "served")
    assert sockets.served == [("chat", client_id)]


def test_the_address_opens_a_channel(gateway: FakeGateway, client: ChatClient) -> None:
    """The opened channel has the given caller and client id."""
    sockets = FakeSockets()
    app = Flask(__name__)
    app.register_blueprint(chat_routes(sockets, gateway))
    app.test_client().get("/ws/chat")

    endpoint = sockets.opens[0](client, Caller("key:1"), "given")
    endpoint.received('{"content":"年假？"}')

    assert (gateway.questions[0].principal, client.frames[-1]["client_id"]) == ("key:1", "given")
    endpoint.closed(Closed(1000))
