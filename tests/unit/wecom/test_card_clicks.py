"""Cards and clicks as pure functions."""

from __future__ import annotations

from typing import Any

import pytest

from demo.wecom.card_clicks import click_event
from demo.wecom.card_rules import card_violations
from services.forms import OfferedChoices
from services.wecom.cards import clicked_card, form_card, read_click

STREAM, FORM = "0123456789abcdef" * 2, "0123456789abcdef01234567"


def of(*titles: str) -> dict[str, Any] | None:
    return form_card(STREAM, OfferedChoices(FORM, titles), "请选择")


@pytest.mark.parametrize(
    "titles",
    [("同意",), tuple("一二三四五六"), ("*" * 9, "😀" * 400), ("换\n行", "[link](x)")],
)
def test_a_forms_card_follows_the_rules_and_its_clicks_are_read(titles: tuple[str, ...]) -> None:
    """Any words: each button stands for its own choice."""
    card = of(*titles)
    assert card
    assert list(card_violations(card)) == []

    clicks = [read_click(click_event(card, button["text"])) for button in card["button_list"]]
    assert [click.choice for click in clicks] == [f"{FORM} {place}" for place in range(len(titles))]
    updates = [clicked_card(click, "zhangsan", "好的")["template_card"] for click in clicks]
    assert [list(card_violations(update)) for update in updates] == [[]] * len(titles)
    assert [read_click(click_event(card, card["button_list"][0]["text"])) for card in updates] == clicks


@pytest.mark.parametrize("titles", [(), ("同意", " "), tuple("一二三四五六七")])
def test_choices_that_do_not_fit_on_a_card_get_none(titles: tuple[str, ...]) -> None:
    """Their numbers are in the text."""
    assert of(*titles) is None


def test_an_event_as_the_tables_spell_it_is_read() -> None:
    """The documentation has both spellings."""
    details = {"cardtype": "button_interaction", "eventkey": f"{FORM} 2 同意", "taskid": f"form-{STREAM}"}
    click = read_click({"event": {"eventtype": "template_card_event", "template_card_event": details}})

    assert (click.choice, click.text) == (f"{FORM} 2", "同意")


@pytest.mark.parametrize(
    "details",
    [
        None,
        "form",
        {},
        {"task_id": f"form-{STREAM}"},
        {"task_id": f"form-{STREAM}", "event_key": "approve"},
        {"task_id": f"form-{STREAM}", "event_key": 7},
        {"task_id": "form-1", "event_key": f"{FORM} 0 同意"},
        {"task_id": ["form"], "event_key": f"{FORM} 0 同意"},
        {"task_id": f"ask-{STREAM}", "event_key": " "},
    ],
)
def test_events_of_other_cards_are_refused(details: Any) -> None:
    """They are malformed, or the card is not one of ours."""
    with pytest.raises(ValueError, match="not one of our"):
        read_click({"event": {"eventtype": "template_card_event", "template_card_event": details}})
