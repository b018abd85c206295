"""A template card for the page: what WeCom shows of it, as plain JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from demo.wecom.card_clicks import Card, buttons_of, lists_of


def shown_card(card: Card | None) -> dict[str, Any] | None:
    """Return title, lines, links, lists of options and buttons of a card; None for none."""
    if card is None:
        return None
    title = card.get("main_title", {})
    asks = [jump for jump in card.get("jump_list", []) if jump.get("type") == 3]
    return {
        "title": title.get("title", ""),
        "lines": list(filter(None, [title.get("desc"), card.get("sub_title_text"), *_lines(card)])),
        "lists": [_list(each, multiple=bool(card.get("checkbox", {}).get("mode"))) for each in lists_of(card)],
        "buttons": list(buttons_of(card)),
        # A click on one of these sends its question as a message.
        "asks": [{"title": jump["title"], "question": jump["question"]} for jump in asks],
    }


def _lines(card: Card) -> Iterator[str]:
    for entry in card.get("horizontal_content_list", []):
        yield f"{entry['keyname']}：{entry.get('value', '')}"
    for entry in card.get("vertical_content_list", []):
        yield f"{entry['title']} {entry.get('desc', '')}"


def _list(box: Card, *, multiple: bool) -> dict[str, Any]:
    options = [{"id": option["id"], "text": option["text"]} for option in box["option_list"]]
    return {"key": box["question_key"], "title": box.get("title", ""), "options": options, "multiple": multiple}
