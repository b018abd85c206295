"""What a client says came before its question, as turns and as text."""

from __future__ import annotations

from services.conversations.earlier import Earlier, exchanges_of, read, with_earlier, written
from services.models import Exchange, Query
from services.providers.mock import MockProvider
from tests.support.made_providers import openai_provider

TURNS = (Exchange("甲？", "甲。"), Exchange("乙？", ""))
QUERY = Query("丙？", "ann", instructions="Be brief.", earlier=TURNS)
BEFORE = "System: Be brief.\n\nUser: 甲？\n\nAssistant: 甲。\n\nUser: 乙？\n\nUser: "


def test_messages_of_one_role_in_a_row_are_one_text() -> None:
    """Also at both ends, where a turn lacks its question or its answer."""
    said = [("assistant", "您好"), ("user", "甲"), ("user", "？"), ("assistant", "甲。"), ("user", "乙？")]

    assert exchanges_of(said) == (Exchange("", "您好"), Exchange("甲\n\n？", "甲。"), Exchange("乙？", ""))  # type: ignore[arg-type]


def test_what_was_written_is_read() -> None:
    """Nothing at all is no text, so that other channels' questions stay as they are."""
    assert read(written(Earlier("Be brief.", TURNS))) == Earlier("Be brief.", TURNS)
    assert (written(Earlier()), read("")) == ("", Earlier())


def test_a_provider_with_conversations_gets_it_as_text() -> None:
    """The question alone can be told from it: a web search looks for that."""
    asked = with_earlier(QUERY, MockProvider(), known=False)

    assert (asked.text, asked.question, asked.words) == (f"{BEFORE}丙？", "丙？", "丙？")
    assert (asked.history, asked.instructions, asked.earlier) == ((), "", ())


def test_a_model_server_gets_it_as_messages() -> None:
    """The question's text stays as it is, so that it is kept without them."""
    provider = openai_provider(base_url="http://127.0.0.1:9", api_key="not-a-real-key", model="m")

    asked = with_earlier(QUERY, provider, known=False)

    assert (asked.text, asked.history, asked.instructions) == ("丙？", TURNS, "Be brief.")


def test_a_conversation_that_is_known_is_told_nothing() -> None:
    """Its provider remembers the turns, and had the instructions with the first one."""
    asked = with_earlier(QUERY, MockProvider(), known=True)

    assert (asked.text, asked.instructions, asked.earlier) == ("丙？", "", ())
