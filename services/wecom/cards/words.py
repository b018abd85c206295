"""Write a card as Markdown, for places where WeCom shows no card: a group of the long connection, a late message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from services.wecom.cards.build import Card
from utils.markdown.plain import plain_line

#: Characters of one text of a card.
MOST = 1000


def card_words(card: Card) -> str:
    """Return the words of a valid card: its texts, then a list of what people can choose, open or type."""
    about = [*_title(card.get("main_title", {}), "**"), *_title(card.get("emphasis_content", {}))]
    quote = card.get("quote_area", {})
    about += _plain(card.get("sub_title_text"), quote.get("title"), quote.get("quote_text"))
    about += _title(card.get("image_text_area", {}))
    for part in card.get("vertical_content_list", []):
        about += _title(part)
    listed = [*_listed(card), *_choices(card)]
    return "\n\n".join([*about, *(["\n".join(f"- {line}" for line in listed)] if listed else [])])


def _title(part: Mapping[str, Any], mark: str = "") -> list[str]:
    title, desc = _plain(part.get("title")), _plain(part.get("desc"))
    return [*(f"{mark}{each}{mark}" for each in title), *desc]


def _listed(card: Card) -> Iterator[str]:
    """Yield the lines and links of a card."""
    for line in card.get("horizontal_content_list", []):
        yield _pair(line["keyname"], line.get("value") or line.get("userid") or "", line.get("url"))
    for jump in card.get("jump_list", []):
        yield _pair(jump["title"], jump.get("question", ""), jump.get("url"))
    if url := card.get("card_action", {}).get("url"):
        yield f"<{url}>"


def _choices(card: Card) -> Iterator[str]:
    """Yield the buttons of a card, with the question that each asks, and the options of its lists."""
    menu = card.get("action_menu", {}).get("action_list", [])
    for button in (*card.get("button_list", []), *menu):
        yield _pair(button["text"], button["key"])
    for part in (card.get("button_selection"), card.get("checkbox"), *card.get("select_list", [])):
        for option in part["option_list"] if part else []:
            yield _pair(part.get("title", ""), option["text"])


def _pair(name: str, value: str = "", url: str | None = None) -> str:
    words = ": ".join(dict.fromkeys(_plain(name, value)))
    return f"[{words}]({url})" if url else words


def _plain(*texts: str | None) -> list[str]:
    return [line for text in texts if text and (line := plain_line(text, MOST))]
