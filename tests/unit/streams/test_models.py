"""The models that several packages share and that Redis keeps."""

from __future__ import annotations

from services.models import Identity, Question


def test_a_question_is_restored_from_its_json() -> None:
    """Another replica can ask the question from its JSON alone; fields of later versions are ignored."""
    question = Question("年假\n?", "wecom", "hr", "zhangsan", "group", "m1", {"a": 1}, ("f1", "f2"))

    assert Question.from_json(question.to_json()) == question
    assert Question.from_json(question.to_json()[:-1] + ',"of_a_later_version":1}') == question


def test_an_identity_shows_no_token() -> None:
    """The token is in neither repr nor str."""
    assert "tok-obviously-fake" not in f"{Identity('cached', None, 'tok-obviously-fake')!r}"
