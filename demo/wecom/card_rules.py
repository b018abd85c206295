"""The rules of template cards: required members, counts, and lengths by kind of card."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from demo.wecom.violation import RuleViolation

#: The members that each kind of card needs.
REQUIRED = {
    "text_notice": ("card_action",),
    "news_notice": ("main_title", "card_action"),
    "button_interaction": ("main_title", "button_list", "task_id"),
    "vote_interaction": ("main_title", "checkbox", "submit_button", "task_id"),
    "multiple_interaction": ("main_title", "select_list", "submit_button"),
}
#: Lists of cards: their smallest and largest number of entries.
COUNTS = {
    "button_list": (1, 6),
    "select_list": (1, 3),
    "horizontal_content_list": (0, 6),
    "vertical_content_list": (0, 4),
    "jump_list": (0, 3),
}
#: Allowed values of `type` by member.
TYPES = {"jump_list": (0, 1, 2, 3), "horizontal_content_list": (0, 1, 3)}
TASK_BYTES, KEY_BYTES, OPTION_BYTES, JUMP_BYTES = 128, 1024, 128, 200
RATIO = (1.3, 2.25)
_TASK_ID = re.compile(r"[A-Za-z0-9_@-]+")


def card_violations(card: Any) -> Iterator[RuleViolation]:
    """Yield the rules that a template card breaks."""
    if not isinstance(card, Mapping):
        yield _broken("template_card is no object")
        return
    kind = card.get("card_type")
    if kind not in REQUIRED:
        yield _broken("card_type is unknown")
        return
    for name in REQUIRED[kind]:
        if not card.get(name):
            yield _broken(f"a {kind} needs {name}")
    yield from _title_violations(kind, card)
    yield from _count_violations(card)
    yield from _action_violations(kind, card)
    yield from _task_violations(card)
    yield from _entry_violations(card)
    yield from _option_violations(card)


def _title_violations(kind: str, card: Mapping[str, Any]) -> Iterator[RuleViolation]:
    title = _member(card, "main_title").get("title")
    if kind == "text_notice" and not (title or card.get("sub_title_text")):
        yield _broken("a text_notice needs main_title.title or sub_title_text")
    if kind != "text_notice" and card.get("main_title") and not title:
        yield _broken("main_title needs a title")
    if kind == "news_notice" and not (card.get("card_image") or card.get("image_text_area")):
        yield _broken("a news_notice needs card_image or image_text_area")
    ratio = _member(card, "card_image").get("aspect_ratio", RATIO[0])
    if not isinstance(ratio, int | float) or not RATIO[0] <= ratio <= RATIO[1]:
        yield _broken(f"card_image.aspect_ratio is not between {RATIO[0]} and {RATIO[1]}")


def _count_violations(card: Mapping[str, Any]) -> Iterator[RuleViolation]:
    for name, (least, most) in COUNTS.items():
        if name in card:
            yield from _counted(name, card[name], least, most)
    if "action_menu" in card:
        yield from _counted("action_menu.action_list", _member(card, "action_menu").get("action_list"), 1, 3)
    if "checkbox" in card:
        yield from _counted("checkbox.option_list", _member(card, "checkbox").get("option_list"), 1, 20)
    for select in _entries(card, "select_list"):
        yield from _counted("select_list.option_list", select.get("option_list"), 1, 10)


def _counted(name: str, value: Any, least: int, most: int) -> Iterator[RuleViolation]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        yield _broken(f"{name} has not {least} to {most} entries")


def _action_violations(kind: str, card: Mapping[str, Any]) -> Iterator[RuleViolation]:
    if "card_action" not in card:
        return
    allowed = (1, 2) if kind in ("text_notice", "news_notice") else (0, 1, 2)
    if _member(card, "card_action").get("type") not in allowed:
        yield _broken(f"card_action.type is not one of {allowed}")


def _task_violations(card: Mapping[str, Any]) -> Iterator[RuleViolation]:
    task_id = card.get("task_id")
    if card.get("action_menu") and not task_id:
        yield _broken("a card with action_menu needs task_id")
    if task_id is None:
        return
    if not isinstance(task_id, str) or not _TASK_ID.fullmatch(task_id) or len(task_id) > TASK_BYTES:
        yield _broken(f"task_id is no 1 to {TASK_BYTES} letters, digits and _-@")


def _entry_violations(card: Mapping[str, Any]) -> Iterator[RuleViolation]:
    for button in _entries(card, "button_list"):
        if not button.get("text"):
            yield _broken("a button needs a text")
        yield from _bounded("button key", button.get("key"), KEY_BYTES)
        if button.get("style", 1) not in (1, 2, 3, 4):
            yield _broken("a button's style is not 1 to 4")
    for name, allowed in TYPES.items():
        if any(entry.get("type", 0) not in allowed for entry in _entries(card, name)):
            yield _broken(f"{name}[].type is not one of {allowed}")
    for jump in _entries(card, "jump_list"):
        if jump.get("type") == 3:
            yield from _bounded("jump_list question", jump.get("question"), JUMP_BYTES)
    if _member(card, "checkbox").get("mode", 0) not in (0, 1):
        yield _broken("checkbox.mode is neither 0 nor 1")


def _option_violations(card: Mapping[str, Any]) -> Iterator[RuleViolation]:
    boxes = [_member(card, name) for name in ("checkbox", "button_selection") if name in card]
    for box in [*boxes, *_entries(card, "select_list")]:
        yield from _bounded("question_key", box.get("question_key"), KEY_BYTES)
        for option in _entries(box, "option_list"):
            yield from _bounded("option id", option.get("id"), OPTION_BYTES)


def _bounded(name: str, value: Any, most: int) -> Iterator[RuleViolation]:
    if not isinstance(value, str) or not 0 < len(value.encode("utf-8", "replace")) <= most:
        yield _broken(f"a {name} is no text of 1 to {most} bytes")


def _entries(value: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    entries = value.get(name)
    return [each for each in entries if isinstance(each, Mapping)] if isinstance(entries, list) else []


def _member(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    member = value.get(name)
    return member if isinstance(member, Mapping) else {}


def _broken(text: str) -> RuleViolation:
    return RuleViolation("card", text)
