"""One Dify answer as a state machine: every event, every order of events, every key missing or of a wrong type."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import ConversationGone, ProviderError
from services.models import Delta, ProviderEvent, ProviderIds, Replacement, Step, Usage
from services.providers.dify.answer import DifyAnswer

Event = Mapping[str, Any]


def events_of(*events: Event) -> list[ProviderEvent]:
    turn = DifyAnswer()
    return [emitted for event in events for emitted in turn.take(event)] + list(turn.close())


def failure(*events: Event) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        events_of(*events)
    return caught.value


def message(answer: Any, event: str = "message") -> dict[str, Any]:
    return {"event": event, "answer": answer}


def finished(status: str, **outputs: Any) -> Event:
    return {"event": "workflow_finished", "data": {"status": status, "outputs": outputs}}


END: dict[str, Any] = {"event": "message_end"}


AGENT = [message("一", "agent_message"), message("二", "agent_message")]


@pytest.mark.parametrize(
    ("events", "emitted"),
    [
        ([message("ha"), message(""), message("haha"), END], [Delta("ha"), Delta("haha"), Usage()]),
        ([*AGENT, message("一二"), END], [Delta("一"), Delta("二"), Usage()]),
        ([*AGENT, message(""), END], [Delta("一"), Delta("二"), Usage()]),
        ([*AGENT, message("定稿"), END], [Delta("一"), Delta("二"), Replacement("定稿"), Usage()]),
        ([message("", "agent_message"), message("答"), END], [Replacement("答"), Usage()]),
        ([message("答"), END], [Delta("答"), Usage()]),
        (
            [message("坏"), message("好", "message_replace"), message("!"), END],
            [Delta("坏"), Replacement("好"), Delta("!"), Usage()],
        ),
        ([message("\ud83d"), message("\ud83d\ude42"), END], [Delta("\ufffd"), Delta("🙂"), Usage()]),
        ([message("答"), finished("succeeded")], [Delta("答")]),
        ([message("答"), finished("partial-succeeded")], [Delta("答")]),
        ([message("答"), finished("stopped")], [Delta("答")]),
        ([finished("succeeded", answer="答")], [Delta("答")]),
        ([message("答"), finished("succeeded", answer="别的"), END], [Delta("答"), Usage()]),
    ],
    ids=[
        *("an empty delta", "an agent repeats its answer", "an agent closes with nothing", "an agent corrects itself"),
        *("an agent answers at once", "one message", "moderation", "half a surrogate pair", "no message_end"),
        *("partial success", "stopped", "text in the outputs alone", "other text in the outputs"),
    ],
)
def test_text_is_appended_or_replaced(events: list[Event], emitted: list[ProviderEvent]) -> None:
    """An agent's closing message counts only if it differs; Dify's event bus may lose messages, or the last event."""
    assert events_of(*events) == emitted


def node(kind: Any, title: Any) -> Event:
    return {"event": "node_started", "data": {"node_type": kind, "title": title}}


def test_a_node_that_starts_is_a_step() -> None:
    """Nodes that do no work of their own, and those without a title, are none."""
    quiet = [
        node("start", "开始"),
        node("answer", "直接回复"),
        node("llm", ""),
        node("llm", 5),
        {"event": "node_started"},
    ]

    assert events_of(*quiet, node("llm", "撰写\n回答"), node(None, "x"), message("答"), END) == [
        Step("撰写\n回答"),
        Step("x"),
        Delta("答"),
        Usage(),
    ]


def thought(tool: Any, labels: Any = None) -> Event:
    return {"event": "agent_thought", "thought": "private", "tool": tool, "tool_labels": labels}


def test_a_tool_is_a_step_in_every_language_it_has() -> None:
    """A label that is missing falls back to the tool's name; thoughts without a tool are no step."""
    labels = {"dalle3": {"en_US": "DALL-E 3", "zh_Hans": "绘画"}, "search": {"en_US": "Web"}, "odd": 3}
    several = thought("dalle3;search;odd;fourth", labels)

    assert events_of(thought(""), thought(None), several, thought("plain"), message("答"), END)[:-2] == [
        Step("dalle3, search, odd", {"zh": "绘画, search, odd", "en": "DALL-E 3, Web, odd"}),
        Step("plain", {"zh": "plain", "en": "plain"}),
    ]


def test_ids_are_emitted_as_they_become_known() -> None:
    """An event with an id that was not known yet emits the ids; an empty id changes nothing."""
    assert events_of(
        {"event": "workflow_started", "task_id": "t", "data": {"id": "r"}},
        message("答") | {"conversation_id": "c", "message_id": "m", "task_id": "t", "workflow_run_id": "r"},
        END | {"conversation_id": "c", "task_id": ""},
    ) == [
        ProviderIds(task_id="t"),
        ProviderIds(task_id="t", run_id="r"),
        ProviderIds("c", "m", "t", "r"),
        Delta("答"),
        Usage(),
    ]


def test_usage_and_sources_come_from_message_end() -> None:
    """Tokens are counts, the price stays a string, sources that are objects are kept."""
    usage = {"total_tokens": 9, "prompt_tokens": 7, "completion_tokens": 2, "total_price": "0.00043", "currency": "USD"}
    end = {"event": "message_end", "metadata": {"usage": usage, "retriever_resources": [{"position": 1}, "x"]}}

    assert events_of(message("答"), end)[-1] == Usage(9, 7, 2, "0.00043", "USD", ({"position": 1},))


@pytest.mark.parametrize("metadata", [None, [], "x", {"usage": None}, {"usage": [], "retriever_resources": {}}])
def test_metadata_may_be_anything(metadata: Any) -> None:
    """A missing key or a value of a wrong type counts as no usage."""
    assert events_of(message("答"), END | {"metadata": metadata})[-1] == Usage()


def test_usage_of_wrong_types_counts_as_nothing() -> None:
    """A price that is a number becomes a string; a boolean is no count."""
    usage = {"total_tokens": True, "prompt_tokens": "7", "total_price": 0.5, "currency": None}

    assert events_of(message("答"), END | {"metadata": {"usage": usage}})[-1] == Usage(total_price="0.5")
    assert events_of(message("答"), END | {"metadata": {"usage": {"total_price": True}}})[-1] == Usage()


def test_a_failed_workflow_is_an_error_whatever_events_follow() -> None:
    """Neither silence nor message_end makes it a success; a later error event gives the code."""
    assert failure(message("答"), finished("failed")).code == "provider_error"
    assert failure(message("答"), finished("failed"), END).code == "provider_error"
    error = {"event": "error", "code": "invalid_param", "message": "Run failed: secret", "status": 400}
    assert str(failure(finished("failed"), error)) == "in the stream: HTTP 400 invalid_param"


@pytest.mark.parametrize("event", [{"event": "workflow_paused"}, finished("paused")])
def test_a_pause_has_its_own_error_code(event: Event) -> None:
    """The workflow waits for a person's input, which no channel can give: the code is `provider_paused`."""
    assert failure(message("答"), event).code == "provider_paused"


@pytest.mark.parametrize(
    "error",
    [
        {"event": "error", "message": "boom", "status": 500},
        {"event": "error"},
        {"event": "error", "status": "x", "code": 7, "message": None},
        {"event": "error", "status": 401, "code": "unauthorized", "message": "?"},
        {"event": "error", "status": 400, "code": "Not A Code; with user words", "message": "?"},
    ],
)
def test_an_error_event_is_a_provider_error(error: Event) -> None:
    """Every error event has the same code, and its message is not in the error."""
    raised = failure(message("答"), error)

    assert raised.code == "provider_error"
    assert "words" not in str(raised)


def test_a_missing_conversation_is_conversation_gone_only_before_text() -> None:
    """Before the text the caller may ask again in a new conversation; after text it may not."""
    gone = {"event": "error", "message": "404 Not Found: Conversation Not Exists. You have", "conversation_id": "c"}

    assert isinstance(failure(gone), ConversationGone)
    assert not isinstance(failure(message("答"), gone), ConversationGone)


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([message("答")], "provider_truncated"),
        ([{"event": "workflow_started"}], "provider_error"),
        ([], "provider_error"),
        ([END], "provider_empty"),
        ([finished("succeeded")], "provider_empty"),
        ([message("坏"), message("", "message_replace"), END], "provider_empty"),
    ],
)
def test_an_answer_without_an_end_or_a_text_is_an_error(events: list[Event], code: str) -> None:
    """With text it is truncated; a success without text, or with one that moderation removed, is empty."""
    assert failure(*events).code == code


IGNORED = """
agent_thought message_file tts_message tts_message_end ping reasoning_chunk node_started
node_finished node_retry iteration_started iteration_next iteration_completed loop_started loop_next
loop_completed parallel_branch_started parallel_branch_finished agent_log text_chunk text_replace
human_input_required human_input_form_filled human_input_form_timeout a_future_event
"""


@pytest.mark.parametrize("name", IGNORED.split())
def test_other_events_add_no_text(name: str) -> None:
    """Progress, files, speech, reasoning and unknown events never reach the text."""
    event = {"event": name, "answer": "nein", "data": {"text": "nein", "answer": "nein", "status": "failed"}}

    assert events_of(message("答"), event, END) == [Delta("答"), Usage()]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3), lambda each: st.lists(each), max_leaves=3
)
KEYS = st.sampled_from(["answer", "data", "metadata", "conversation_id", "task_id", "status", "code", "message"])
NAMES = st.sampled_from(
    ["message", "agent_message", "message_replace", "message_end", "workflow_finished", "error", "x"]
)
EVENTS = st.builds(lambda name, rest: {**rest, "event": name}, NAMES, st.dictionaries(KEYS, JSON, max_size=4))


@given(events=st.lists(EVENTS, max_size=8))
def test_events_of_any_shape_raise_only_provider_errors(events: list[Event]) -> None:
    """Keys may be missing or of any type: the outcome is an answer or a ProviderError, and every delta has text."""
    turn = DifyAnswer()
    emitted: list[ProviderEvent] = []

    with suppress(ProviderError):
        for event in events:
            emitted.extend(turn.take(event))
        emitted.extend(turn.close())

    assert all(each.text for each in emitted if isinstance(each, Delta))
