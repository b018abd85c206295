"""Values that cross floors and outlive a process."""

from __future__ import annotations

from services.models import Identity, Question


def test_a_question_comes_back_from_redis_as_it_was() -> None:
    """Another replica can ask the question from its JSON alone."""
    question = Question("年假\n?", "wecom", "hr", "zhangsan", "group", "m1", {"a": 1}, ("f1", "f2"))

    assert Question.from_json(question.to_json()) == question
    assert Question.from_json(question.to_json()[:-1] + ',"of_a_later_version":1}') == question


def test_an_identity_shows_no_token() -> None:
    """Neither repr nor str shows it."""
    assert "tok-obviously-fake" not in f"{Identity('cached', None, 'tok-obviously-fake')!r}"
