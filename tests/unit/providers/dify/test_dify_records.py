"""What Dify keeps of a run and of a message, read from records of any shape."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models import Usage
from services.providers.dify.records import DifyMessage, DifyRun


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
    """What is neither has no answer; half a surrogate pair cannot harm a store."""
    assert DifyRun.read(result).answer == answer


def row(**fields: Any) -> DifyMessage:
    return DifyMessage.read({"id": "m", "status": "normal", "answer": ""} | fields)


THOUGHTS = [{"position": 2, "thought": "二"}, {"position": 1, "thought": "一"}, {"position": 3, "thought": ""}, None]


@pytest.mark.parametrize("proof", [{"provider_response_latency": 0.5}, {"answer_tokens": 3}])
def test_what_dify_writes_at_the_end_proves_that_it_ended(proof: Any) -> None:
    """How long it took, or what it cost; then an agent's thoughts are whole, in their order."""
    assert row(agent_thoughts=THOUGHTS, **proof).answer == "一\n二"
    assert row(**proof).filled


@pytest.mark.parametrize(
    "nothing", [{}, {"provider_response_latency": 0}, {"provider_response_latency": "1"}, {"answer_tokens": True}]
)
def test_without_that_an_empty_row_proves_nothing(nothing: Any) -> None:
    """Thoughts without an end may be half of them."""
    message = row(agent_thoughts=THOUGHTS, **nothing)

    assert (message.answer, message.filled) == ("", False)


def test_a_row_tells_what_the_answer_cost() -> None:
    """The total is the sum where it is not told; half a surrogate pair is replaced."""
    message = row(answer="\ud83d答", message_tokens=7, answer_tokens=2, total_price=0.5, currency="CNY")

    assert message == DifyMessage("normal", "\ufffd答", True, Usage(9, 7, 2, "0.5", "CNY"))


def test_images_that_dify_took_out_come_back() -> None:
    """Only where nothing else differs: else the run's own answer may be what moderation took back."""
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


# A busy machine is no failure.
@given(record=st.dictionaries(KEYS, JSON, max_size=6))
def test_no_record_of_any_shape_raises(record: Any) -> None:
    """Keys may be missing or of any type: texts are text, counts are counts."""
    run, message = DifyRun.read(record), DifyMessage.read(record)

    assert isinstance(run.answer, str)
    assert isinstance(message.answer, str)
    assert message.filled or not message.answer
