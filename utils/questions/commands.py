"""The commands of WeCom's users and the words that give them: `WECHAT_COMMANDS`.

    {"/new": "reset"}            a word → its command
    {"stop": ["/stop", "停"]}    a command → its words; [] turns it off
    {}                           no commands

A command that is not named keeps its built-in words, except words that were given to another command.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

CommandName = Literal["reset", "stop", "retry", "help", "whoami", "quota", "human"]
NAMES: tuple[str, ...] = get_args(CommandName)

BUILT_IN: Mapping[str, str] = {
    "/reset": "reset", "新对话": "reset",
    "/stop": "stop", "停止": "stop",
    "/retry": "retry", "重试": "retry",
    "/help": "help", "帮助": "help",
    "/whoami": "whoami",
    "/quota": "quota", "额度": "quota",
    "/human": "human", "转人工": "human",
}  # fmt: skip
#: Characters of the longest word; a longer text is a question without being compared.
MOST_CHARS = 64


class CommandWords(dict[str, str]):
    """Words → commands after validation. A bot that inherits them gets no built-in words added once more."""


def canonical(text: str) -> str:
    """Return a text as it is compared: upper case, full-width characters and spaces around do not count."""
    return unicodedata.normalize("NFKC", text).strip().casefold()


def command_words(value: Any) -> Any:
    """Turn a setting in one of the shapes above into words → commands.

    Raises:
        ValueError: the value has another shape.
    """
    given = _parsed(value)
    if isinstance(given, CommandWords):
        return dict(given)
    words = dict(_pairs(given))
    forms = [canonical(word) for word in words]
    if not all(forms) or any(len(form) > MOST_CHARS for form in forms) or len(set(forms)) < len(forms):
        raise ValueError(f"words of 1 to {MOST_CHARS} characters, each one once")
    lists = {name for name, value in given.items() if isinstance(value, list)}
    named = {str(command).lower() for command in (*words.values(), *lists)}
    kept = {word: name for word, name in BUILT_IN.items() if name not in named and canonical(word) not in forms}
    return {**words, **kept} if given else {}


def _parsed(value: Any) -> dict[str, Any]:
    expected = "a JSON object of words and commands"
    try:
        given = json.loads(value) if isinstance(value, str) else value
    except ValueError as exc:
        raise ValueError(f"{expected} ({exc})") from exc
    if not isinstance(given, dict):
        raise ValueError(expected)
    return given


def _pairs(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each word with its command, which is checked later.

    Raises:
        ValueError: a list that belongs to no command, a word that is not text, or a word of two commands.
    """
    seen: set[str] = set()
    for name, value in given.items():
        if isinstance(value, list) and name.lower() not in NAMES:
            raise ValueError(f"lists of words for {', '.join(NAMES)} only")
        pairs = [(word, name.lower()) for word in value] if isinstance(value, list) else [(name, value)]
        for word, command in pairs:
            if not isinstance(word, str) or word in seen:
                raise ValueError("words that are texts, each one once")
            seen.add(word)
            yield word, command
