"""The target of an answer over a long connection."""

from __future__ import annotations

from services.wecom.long_connection.view import AnswerTarget


def test_a_target_is_read_as_it_was_written() -> None:
    """Also where a newer version has written more."""
    target = AnswerTarget("r-1", "zhangsan", "wrGROUP")

    assert AnswerTarget.read(target.written()) == target
    assert AnswerTarget.read('["r-1", "zhangsan", "wrGROUP", "more"]') == target


def test_the_repr_of_a_target_has_no_credential() -> None:
    """A req_id lets its holder answer the person; a repr may get into a log."""
    assert repr(AnswerTarget("r-1", "zhangsan", "wrGROUP")) == "AnswerTarget()"
