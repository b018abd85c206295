"""Task lists: an item that begins with `[ ]` or `[x]` gets a box instead of its bullet."""

from __future__ import annotations

import re

from markdown_it.rules_core import StateCore

#: The class of an item with a box.
CLASS = "task"

_TASK = re.compile(r"\[([ xX])\](?=[ \t\n]|\Z)")
_BOX, _TICKED = "☐", "☑"


def mark_tasks(state: StateCore) -> None:
    """Replace the brackets at the beginning of items by boxes; a rule that comes before the lines are parsed."""
    for item, _, words in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
        if item.type == "list_item_open" and words.type == "inline" and (found := _TASK.match(words.content)):
            item.attrSet("class", CLASS)
            words.content = f"{_BOX if found[1] == ' ' else _TICKED}{words.content[found.end() :]}"
