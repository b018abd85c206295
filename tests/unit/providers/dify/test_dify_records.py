"""Reading Dify's records of runs and messages of any shape."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models import Usage
from services.providers.dify.recovery import DifyMessage, DifyRun


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        ({"outputs": {"answer": "答"}}, "答"),
        ({"outputs": '{"answer": "答"}'}, "答"),
        ({"outputs": "{broken"}, ""),
        ({"outputs": "[" * 100_000}, ""),
        ({"outputs": '"答"'}, ""),
        ({"outputs": None}, ""),
        ({"outputs": {"answer": ["答"]}}, ""),
        ({"outputs": {"answer": "\ud83d半"}}, "\ufffd半"),
        ({}, ""),
    ],
)
def test_outputs_may_be_an_object_or_its_json(result: Any, answer: str) -> None:
    """Outputs of any other type give an empty answer; a lone surrogate becomes U+FFFD, so that stores can encode it."""
    assert DifyRun.read(result).answer == answer


def row(**fields: Any) -> DifyMessage:
    return DifyMessage.read({"id": "m", "status": "normal", "answer": ""} | fields)


THOUGHTS = [{"position": 2, "thought": "二"}, {"position": 1, "thought": "一"}, {"position": 3, "thought": ""}, None]


@pytest.mark.parametrize("fields_at_end", [{"provider_response_latency": 0.5}, {"answer_tokens": 3}])
def test_a_latency_or_token_count_proves_that_the_message_ended(fields_at_end: Any) -> None:
    """A latency or a count of answer tokens marks the row as filled; the agent's thoughts are joined by position."""
    assert row(agent_thoughts=THOUGHTS, **fields_at_end).answer == "一\n二"
    assert row(**fields_at_end).filled


@pytest.mark.parametrize(
    "no_end", [{}, {"provider_response_latency": 0}, {"provider_response_latency": "1"}, {"answer_tokens": True}]
)
def test_a_row_without_latency_and_tokens_is_not_filled(no_end: Any) -> None:
    """The answer is empty: without an end the thoughts may be incomplete."""
    message = row(agent_thoughts=THOUGHTS, **no_end)

    assert (message.answer, message.filled) == ("", False)


def test_a_row_has_the_usage_of_its_answer() -> None:
    """The total is the sum of the counts if the row has none; a lone surrogate becomes U+FFFD."""
    message = row(answer="\ud83d答", message_tokens=7, answer_tokens=2, total_price=0.5, currency="CNY")

    assert message == DifyMessage("normal", "\ufffd答", True, Usage(9, 7, 2, "0.5", "CNY"))


def test_images_that_dify_removed_from_the_history_are_restored() -> None:
    """Only if the texts differ in no_end else: otherwise the run's output may be text that moderation replaced."""
    saved = row(answer="见图：  好")

    assert saved.with_images("见图： ![图](/files/a.png?x=1) 好\n") == "见图： ![图](/files/a.png?x=1) 好\n"
    assert saved.with_images("别的 ![图](/files/a.png)") == "见图：  好"
    assert saved.with_images("") == "见图：  好"
    assert saved.with_images("![" * 200_000) == "见图：  好"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(["answer", "thought", "position"]), each),
    max_leaves=5,
)
KEYS = st.sampled_from(
    ["status", "answer", "outputs", "agent_thoughts", "answer_tokens", "total_tokens", "provider_response_latency"]
)


# Texts, counts and thoughts are read in every type that JSON has.
@given(record=st.dictionaries(KEYS, JSON, max_size=6))
def test_no_record_of_any_shape_raises(record: Any) -> None:
    """Keys may be missing or of any type: the answer is a string, and only a filled message has one."""
    run, message = DifyRun.read(record), DifyMessage.read(record)

    assert isinstance(run.answer, str)
    assert isinstance(message.answer, str)
    assert message.filled or not message.answer
