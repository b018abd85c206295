"""The values of a stream, and the models that several packages share, in the form that Redis stores."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from services.models import Identity, Question
from services.streams.records import Chunk

TEXT = st.text(st.characters(codec="utf-8"), max_size=50)


@given(content=TEXT, is_error=st.booleans(), is_final=st.booleans())
def test_a_chunks_json_is_the_same_in_every_version(content: str, is_error: bool, is_final: bool) -> None:
    """The bytes are equal: false marks are left out, and only what JSON requires is escaped."""
    chunk = Chunk(content, "2026-01-02T03:04:05.678+00:00", is_error, is_final)

    written, added = chunk.args()

    marks = {name: True for name, set_ in (("is_error", is_error), ("is_final", is_final)) if set_}
    entry = {"content": content, "timestamp": "2026-01-02T03:04:05.678+00:00", **marks}
    assert written == json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
    assert (Chunk.read(written), added) == (chunk, "" if is_error else content)


def test_a_question_is_restored_from_its_json() -> None:
    """Another replica can ask the question from its JSON alone; fields of later versions are ignored."""
    question = Question("年假\n?", "wecom", "hr", "zhangsan", "group", "m1", {"a": 1}, ("f1", "f2"))

    assert Question.from_json(question.to_json()) == question
    assert Question.from_json(question.to_json()[:-1] + ',"of_a_later_version":1}') == question


def test_an_identity_shows_no_token() -> None:
    """The token is in neither repr nor str."""
    assert "tok-obviously-fake" not in f"{Identity('cached', None, 'tok-obviously-fake')!r}"
