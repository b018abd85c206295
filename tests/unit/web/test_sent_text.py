"""What of a stream's text a client that cannot take text back is sent."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.openai.replies import AnswerReplaced, SentText
from services.streams.following import Update
from services.streams.records import Chunk


def update(*texts: str, reset: bool = False) -> Update:
    return Update(1, tuple(Chunk(text, "t") for text in texts), reset=reset)


def test_a_replacement_that_keeps_the_beginning_goes_on() -> None:
    """Only what is new is sent, however the replacement is cut."""
    sent = SentText()

    assert sent.take(update("年假", "五")) == "年假五"
    assert sent.take(update("年", reset=True)) == ""
    assert sent.take(update("假五天", "。")) == "天。"
    sent.end()


@pytest.mark.parametrize("text", ["年假十天。", "病假五天。"])
def test_another_text_is_not_sent(text: str) -> None:
    """A character that differs anywhere in what was sent ends the stream."""
    sent = SentText()
    sent.take(update("年假五"))

    with pytest.raises(AnswerReplaced):
        sent.take(update(text, reset=True))


def test_a_shorter_text_is_noticed_at_its_end() -> None:
    """Until then the rest may still come."""
    sent = SentText()
    sent.take(update("年假五"))
    sent.take(update("年假", reset=True))

    with pytest.raises(AnswerReplaced):
        sent.end()


@given(st.text(max_size=20), st.lists(st.integers(0, 20), max_size=5), st.integers(0, 20))
def test_a_repeated_text_is_sent_once(text: str, cuts: list[int], lost: int) -> None:
    """After a loss of Redis the whole text comes again: the client gets the part that it lacks."""
    sent, before = SentText(), text[:lost]
    got = sent.take(update(before))
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})

    got += sent.take(update(reset=True))
    got += "".join(sent.take(update(text[start:end])) for start, end in pairwise(places))

    assert got == text
    sent.end()
