"""The options of a question over the chat socket: the same ones, and the same errors, as over plain HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from channels.options import AnswerReader
from config.texts import ZH
from services.identity.callers import Caller
from services.streams.long_text import FullAnswer
from tests.app.channels.test_chat import FakeGateway, FakeStream, arrives, client, ended, gateway, grown
from tests.app.channels.test_http_chat import Endpoint
from tests.support.sockets.chat_room import ChatClient

__all__ = ["arrives", "client", "gateway"]

TEXT = "<think>查手册。</think>\n\n十天。"
PIECES = ("<thi", "nk>查手", "册。</think>\n\n十", "天。")


def test_a_question_takes_its_options_along(client: ChatClient, gateway: FakeGateway) -> None:
    """Bot, model, temperature, inputs and end user are part of the question, which every replica can ask again."""
    client.asks("甲？", model="m2", temperature=0, user=" zhang/san ")
    client.asks("乙？", bot="hr", inputs={"a": 1})
    client.asks("丙？", bot=None, model=None, inputs=None, user=None, thinking=None)

    first, second, third = gateway.questions
    assert (first.bot, first.model, first.temperature) == ("default", "m2", 0.0)
    assert first.principal == f"{second.principal}/zhang/san"
    assert (second.bot, second.model, second.temperature, second.inputs) == ("hr", "", None, {"a": 1})
    assert (third.bot, third.options, third.principal) == ("default", {}, second.principal)


def test_an_end_user_is_counted_alone(client: ChatClient) -> None:
    """Over all clients; questions without one are counted by client id."""
    client.asks("甲？", user="zhangsan")
    client.asks("乙？")

    assert client.limit.asked == [("anonymous/zhangsan", ""), ("anonymous", "c1")]


def test_a_person_asks_for_nobody_else(arrives: Callable[..., ChatClient], gateway: FakeGateway) -> None:
    """A user's own token says who asks: `user` has no effect, as over HTTP."""
    client = arrives(caller=Caller("user:li", "sealed"))
    client.asks("甲？", user="zhangsan")

    assert [question.principal for question in gateway.questions] == ["user:li"]
    assert client.limit.asked == [("user:li", "c1")]


@pytest.mark.parametrize(
    "options",
    [
        {"bot": "sales"},
        {"bot": 7},
        {"model": ""},
        {"bot": "hr", "model": "m2"},
        {"bot": "hr", "temperature": 0},
        {"temperature": "0.5"},
        {"temperature": 3},
        {"inputs": ["a"]},
        {"inputs": {"a": [1]}},
        {"inputs": {"a": "x" * 10_001}},
        {"user": "x" * 129},
        {"user": "a\nb", "thinking": "fold"},
        {"user": "\ud83d"},
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_as_over_http(client: ChatClient, gateway: FakeGateway, options: Any) -> None:
    """With the same code, words and fields. The socket goes on, and the id may be used again."""
    http = Endpoint().asks(**options).get_json()
    client.says(content="甲？", id="q1", **options)
    refused = client.frames[-1]

    errors = {"errors": http["data"]["errors"]} if "errors" in http["data"] else {}
    expected = {"code": http["data"]["reason"].upper(), "content": http["message"], "id": "q1"}
    assert refused == {"type": "error", **expected, **errors}
    assert client.asks("甲？", id="q1") == "s1"
    assert len(gateway.questions) == 1
    assert client.unknown() == []


def test_an_id_belongs_to_its_options_bot_and_user(client: ChatClient, gateway: FakeGateway) -> None:
    """Other options under a used id are refused; ids of other users and bots are other ids."""
    client.asks("甲？", id="q1", model="m2")
    client.says(content="甲？", id="q1", model="m3")
    assert client.frames[-1]["code"] == "ID_CONFLICT"

    client.says(content="甲？", id="q1", user="zhangsan")
    client.says(content="甲？", id="q1", bot="hr")

    asked = [(question.bot, question.principal) for question in gateway.questions]
    assert asked == [("default", "anonymous"), ("default", "anonymous/zhangsan"), ("hr", "anonymous")]


@pytest.mark.parametrize(
    ("thinking", "pieces", "full"),
    [
        ("show", [("<thi", ""), ("nk>查手", ""), ("册。</think>\n\n十", ""), ("天。", "")], {"content": TEXT}),
        ("hide", [("十", ""), ("天。", "")], {"content": "十天。"}),
        (
            "separate",
            [("", "查手"), ("十", "册。"), ("天。", "")],
            {"content": "十天。", "reasoning": "查手册。"},
        ),
    ],
)
def test_the_thinking_goes_where_the_client_wants_it(
    client: ChatClient, gateway: FakeGateway, thinking: str, pieces: list[tuple[str, str]], full: dict[str, str]
) -> None:
    """Its tags are in no piece, also where a tag comes in two; the whole answer and its HTML follow."""
    stream_id = client.asks("甲？", thinking=thinking, render="html")
    gateway.answers(stream_id, *PIECES)
    frames = client.sees_end(stream_id)

    deltas = [(frame["content"], frame.get("reasoning", "")) for frame in frames if frame["type"] == "chat_delta"]
    assert deltas == pieces
    assert {name: frames[-2][name] for name in ("content", "reasoning") if name in frames[-2]} == full
    assert frames[-2]["html"] == f"<main>{full['content']}</main>"
    assert client.unknown() == []


def test_a_backtick_that_was_held_back_is_sent_at_the_end(client: ChatClient, gateway: FakeGateway) -> None:
    """Text that might have been a tag comes with the end of the stream."""
    stream_id = client.asks("甲？", thinking="separate")
    gateway.answers(stream_id, "a <thi")
    client.sees_end(stream_id)

    assert client.text(stream_id) == "a <thi"


def test_a_replaced_text_begins_its_thinking_anew(client: ChatClient, gateway: FakeGateway) -> None:
    """A tag that was open in the former text is not open in the next one."""
    stream_id = client.asks("甲？", thinking="separate")
    gateway.streams[stream_id].answer = FullAnswer("十天。", "completed")
    gateway.streams[stream_id].tells(grown(1, "<think>查"), grown(2, "十天。", reset=True), ended(3))
    client.sees_end(stream_id)

    assert client.text(stream_id) == "十天。"


def test_an_answer_is_resumed_for_its_user_and_its_bot(client: ChatClient, gateway: FakeGateway) -> None:
    """With its thinking hidden the text comes again from its beginning, because a tag may come before the cursor."""
    gateway.streams["s1"] = FakeStream()
    gateway.answers("s1", *PIECES)
    client.says(type="resume", stream_id="s1", cursor=3, bot="hr", user="zhangsan", thinking="hide")
    frames = client.sees_end("s1")

    assert (gateway.followed, gateway.readers) == ([("s1", 0)], [("hr", "anonymous/zhangsan")])
    assert [frame["type"] for frame in frames[:2]] == ["typing", "reset"]
    assert client.text("s1") == "十天。"


def test_an_answer_is_stopped_for_its_user_and_its_bot(client: ChatClient, gateway: FakeGateway) -> None:
    """One that is shown here needs no names; another one does."""
    for user in ("zhangsan", "lisi"):
        client.asks("甲？", bot="hr", user=user)
    gateway.streams["s9"] = FakeStream()
    gateway.readers.clear()

    client.says(type="stop", stream_id="s1")
    client.says(type="stop")
    client.says(type="stop", stream_id="s9", bot="hr", user="wangwu")

    assert set(gateway.readers) == {("hr", f"anonymous/{user}") for user in ("zhangsan", "lisi", "wangwu")}
    assert gateway.cancelled == ["s1", "s2"]


def test_an_answer_is_rated_for_its_user_and_its_bot(client: ChatClient) -> None:
    client.says(type="feedback", stream_id="s1", rating="like", bot="hr", user="zhangsan")

    assert client.ratings.readers == [AnswerReader(bot="hr", principal="anonymous/zhangsan")]


@pytest.mark.parametrize(
    "frame", [{"type": "resume"}, {"type": "stop"}, {"type": "feedback", "rating": "like"}], ids=str
)
@pytest.mark.parametrize(
    ("option", "code"), [({"bot": "sales"}, "BOT_UNKNOWN"), ({"user": 7}, "INVALID_FIELDS")], ids=str
)
def test_wrong_names_of_an_answer_are_refused(client: ChatClient, frame: Any, option: Any, code: str) -> None:
    """The error names no stream, as that of every malformed frame."""
    client.says(**frame, stream_id="s1", **option)

    assert client.frames[-1]["code"] == code
    assert client.frames[-1]["content"] == (ZH["bot_unknown"] if code == "BOT_UNKNOWN" else "部分字段有误。")
    assert client.ratings.readers == []
    assert client.unknown() == []
