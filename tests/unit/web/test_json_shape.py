"""Large JSON bodies are counted before they are parsed."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.batch.models import SHAPE, Submission
from channels.push.endpoints import PushAsked
from channels.web.json_shape import SMALL_BYTES, JsonShape
from channels.web.rest import RestError, parsed
from services import metrics

MIB = 1024 * 1024
WORDS = st.text(alphabet='"\\,{[]}a字', max_size=6)
JSON = st.recursive(
    WORDS | st.integers(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4)
)


def marks(value: Any) -> int:
    """Return the number of commas, and of lists and objects, in a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else max(1, len(inner)) + sum(map(marks, inner))


@given(JSON)
def test_marks_outside_of_strings_are_counted(value: Any) -> None:
    """Whatever strings contain, escaped or not."""
    sent, count = json.dumps(value, ensure_ascii=False).encode() + b" " * SMALL_BYTES, marks(value)

    assert JsonShape(count, 10).fits(sent)
    assert count == 0 or not JsonShape(count - 1, 10).fits(sent)


def test_members_are_counted_for_each_object() -> None:
    """A list may have as many as the body."""
    objects = json.dumps([{"a": [1, 2, 3, 4], "b": 2}] * 9).encode() + b" " * SMALL_BYTES

    assert JsonShape(100, 1).fits(objects)
    assert not JsonShape(100, 0).fits(objects)


WRONG_ITEM = {"text": "a", "inputs": {f"k{number}": [] for number in range(50)}}
HOSTILE = {
    "names": b"{" + b",".join(b'"%07d":1' % number for number in range(8 * MIB // 12)) + b"}",
    "lists": b'{"name":"x","texts":[' + b"[]," * (8 * MIB // 3) + b"[]]}",
    "inputs": json.dumps({"name": "x", "items": [WRONG_ITEM] * 10_000}).encode(),
    "no end": b'{"name":"' + b'\\"\\\\' * (2 * MIB),
}


@pytest.mark.parametrize("model", [Submission, PushAsked])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_cost_little(name: str, model: Any) -> None:
    """8 MiB of each took 0.1 to 8 s, and up to 2.6 GB."""
    began = time.thread_time()
    with pytest.raises(RestError) as refused:
        parsed(model, HOSTILE[name], SHAPE if model is Submission else JsonShape(20_000, 1_000))

    assert time.thread_time() - began < 2.0
    assert refused.value.status in (400, 422)


def test_a_body_with_too_many_values_is_refused_and_counted() -> None:
    """Its error names the body; the limit is `shape`."""
    before = metrics.REGISTRY.get_sample_value("wechatlaibao_bodies_refused_total", {"limit": "shape"}) or 0.0
    with pytest.raises(RestError) as refused:
        parsed(Submission, HOSTILE["lists"], SHAPE)

    assert (refused.value.status, refused.value.data["errors"][0]["field"]) == (422, "")
    assert metrics.REGISTRY.get_sample_value("wechatlaibao_bodies_refused_total", {"limit": "shape"}) == before + 1
