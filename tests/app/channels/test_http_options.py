"""The options of one question over plain HTTP: bot, end user, model, temperature, inputs, and its thinking."""

from __future__ import annotations

from typing import Any

import pytest

from channels.http_chat.replies import END
from config.texts import ZH
from services.streams.long_text import FullAnswer
from tests.app.channels.test_chat import ended, grown
from tests.app.channels.test_http_chat import EVENTS, WHOLE, Endpoint, endpoint, error_of, prepared, shown
from tests.support.sockets.event_reader import Event

__all__ = ["endpoint"]

THOUGHT = FullAnswer("<think>查手册。</think>\n\n十天。", "completed")


def test_a_question_takes_its_options_along(endpoint: Endpoint) -> None:
    """Bot, model, temperature and end user are part of the question, which every replica can ask again."""
    endpoint.asks(model="m2", temperature=0, user=" zhang/san ", **prepared(endpoint, WHOLE))
    endpoint.asks(bot="hr", inputs={"a": 1}, **prepared(endpoint, WHOLE, id="q2"))

    first, second = endpoint.gateway.questions
    assert (first.bot, first.model, first.temperature) == ("default", "m2", 0.0)
    assert first.principal == f"{second.principal}/zhang/san"
    assert (second.bot, second.model, second.temperature, second.inputs) == ("hr", "", None, {"a": 1})


def test_an_end_user_is_counted_alone(endpoint: Endpoint) -> None:
    """From every address; questions without one are counted by the key and the address."""
    endpoint.asks(user="zhangsan", **prepared(endpoint, WHOLE))
    endpoint.asks(**prepared(endpoint, WHOLE, id="q2"))

    (user, address), (key, own) = endpoint.limit.asked
    assert (user, address) == (f"{key}/zhangsan", "")
    assert own == "127.0.0.1"


@pytest.mark.parametrize("asks", ["asks", "gets", "cancels"])
@pytest.mark.parametrize("bot", ["sales", "", "../x"])
def test_a_bot_that_programs_may_not_ask_is_unknown(endpoint: Endpoint, asks: str, bot: str) -> None:
    """No matter whether it exists."""
    endpoint.has("s1")
    reply = {
        "asks": lambda: endpoint.asks(bot=bot),
        "gets": lambda: endpoint.gets("s1", f"?bot={bot}"),
        "cancels": lambda: endpoint.cancels("s1", f"?bot={bot}"),
    }[asks]()

    assert error_of(reply) == (404, 404, "bot_unknown")
    assert not endpoint.gateway.questions


@pytest.mark.parametrize("field", [{"model": "m2"}, {"temperature": 0.5}, {"temperature": 0}], ids=str)
def test_an_option_that_the_provider_lacks_is_named(endpoint: Endpoint, field: dict[str, Any]) -> None:
    """It is refused and not ignored; the default bot's provider takes it."""
    reply = endpoint.asks(bot="hr", **field)

    assert error_of(reply) == (422, 10000, "invalid_fields")
    assert reply.get_json()["data"]["errors"] == [{"field": next(iter(field)), "problem": ZH["option_unsupported"]}]
    assert endpoint.asks(**field, **prepared(endpoint, WHOLE)).status_code == 200


def test_an_answer_is_read_for_its_user_and_its_bot(endpoint: Endpoint) -> None:
    """The query names both, as the question did."""
    endpoint.has("s1").tells(ended(1))
    endpoint.gateway.running.add("s1")

    endpoint.gets("s1", "?bot=hr&user=zhangsan")
    endpoint.cancels("s1", "?bot=hr&user=zhangsan")

    assert {bot for bot, _ in endpoint.gateway.readers} == {"hr"}
    assert all(principal.endswith("/zhangsan") for _, principal in endpoint.gateway.readers)
    assert len(endpoint.gateway.readers) == 2


@pytest.mark.parametrize(
    ("thinking", "said"),
    [
        ("show", {"content": "<think>查手册。</think>\n\n十天。"}),
        ("hide", {"content": "十天。"}),
        ("separate", {"content": "十天。", "reasoning": "查手册。"}),
    ],
)
@pytest.mark.parametrize("status", ["completed", "error"])
def test_the_thinking_goes_where_the_client_wants_it(
    endpoint: Endpoint, thinking: str, status: Any, said: dict[str, str]
) -> None:
    """Of a whole answer and of a failed one; asked, and read again."""
    full = FullAnswer(THOUGHT.text, status, "provider_timeout" if status == "error" else "")
    asked = endpoint.asks(thinking=thinking, **prepared(endpoint, full, full.text, sentence="slow"))
    endpoint.has("s1", full).tells(ended(2, status))
    read = endpoint.gets("s1", f"?thinking={thinking}")

    for reply in (asked, read):
        data = reply.get_json()["data"]
        assert {name: data[name] for name in ("content", "reasoning") if name in data} == said


@pytest.mark.parametrize(
    ("thinking", "said"),
    [
        ("show", [("delta", "<thi"), ("delta", "nk>查手"), ("delta", "册。</think>\n\n十"), ("delta", "天。")]),
        ("hide", [("delta", "十"), ("delta", "天。")]),
        ("separate", [("reasoning", "查手"), ("reasoning", "册。"), ("delta", "十"), ("delta", "天。")]),
    ],
)
def test_the_thinking_has_events_of_its_own(endpoint: Endpoint, thinking: str, said: list[tuple[str, str]]) -> None:
    """Its tags are in none of them, also where a tag comes in two pieces."""
    pieces = ("<thi", "nk>查手", "册。</think>\n\n十", "天。")

    got = shown(endpoint.asks(thinking=thinking, stream=True, **prepared(endpoint, THOUGHT, *pieces)))

    assert [(event.name, event.data["content"]) for event in got if event.name in ("delta", "reasoning")] == said
    assert (got[0].name, got[-1].name, got[-1].id) == ("start", "done", END)


def test_a_replaced_text_begins_its_thinking_anew(endpoint: Endpoint) -> None:
    """A tag that was open in the former text is not open in the next one."""
    stream = endpoint.has("s1", FullAnswer("十天。", "completed"))
    stream.tells(grown(1, "<think>查"), grown(2, "十天。", reset=True), ended(3))

    got = shown(endpoint.gets("s1", "?thinking=separate", **EVENTS))

    names = [(event.name, event.data.get("content")) for event in got[1:-1]]
    assert names == [("reasoning", "查"), ("reset", None), ("delta", "十天。")]


def test_a_client_that_resumes_within_separated_text_gets_it_again(endpoint: Endpoint) -> None:
    """An event need not end where a chunk does: a reset comes before the text from its beginning."""
    stream = endpoint.has("s1", THOUGHT)
    stream.tells(grown(1, "<think>查手册。</think>十"), grown(2, "天。"), ended(3))

    got = shown(endpoint.gets("s1", "?thinking=hide", **EVENTS, **{"Last-Event-ID": "1"}))

    assert endpoint.gateway.followed == [("s1", 0)]
    assert [event.name for event in got] == ["start", "reset", "delta", "delta", "done"]
    assert got[1] == Event("reset", "0", {})
