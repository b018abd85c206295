"""WECHAT_COMMANDS: words for each command, in two forms, for all bots or for one."""

from __future__ import annotations

import json

import pytest

from tests.support.settings_values import OTHER_AES_KEY, refusal, settings
from utils.questions.commands import BUILT_IN, canonical

RESET = {"/reset": "reset", "新对话": "reset"}


def words(value: object) -> dict[str, str]:
    return dict(settings(WECHAT_COMMANDS=json.dumps(value)).bots["default"].commands)


def without(*commands: str) -> dict[str, str]:
    return {word: command for word, command in BUILT_IN.items() if command not in commands}


def test_without_a_value_the_built_in_words_count() -> None:
    """Every command has a word that begins with a slash."""
    assert settings().bots["default"].commands == BUILT_IN
    assert {command for word, command in BUILT_IN.items() if word == f"/{command}"} == set(BUILT_IN.values())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"/new": "RESET", "重来": "reset"}, {"/new": "reset", "重来": "reset", **without("reset")}),
        ({"reset": ["/new", "重来"]}, {"/new": "reset", "重来": "reset", **without("reset")}),
        ({"Reset": ["/new", "重来"]}, {"/new": "reset", "重来": "reset", **without("reset")}),
        ({"human": []}, without("human")),
        # It did so before there was more than one command.
        ({}, {}),
        ({"停止": "reset"}, {"停止": "reset", **{w: c for w, c in without("reset").items() if w != "停止"}}),
        ({"help": "reset"}, {"help": "reset", **without("reset")}),
    ],
    ids=["word: command", "command: words", "in any case", "off", "all off", "another's word", "another's name"],
)
def test_a_command_that_is_named_has_the_given_words_only(given: object, expected: dict[str, str]) -> None:
    """Both forms mean the same; the other commands keep theirs, except a word that is given to another command."""
    assert words(given) == expected


def test_a_bot_has_words_of_its_own_or_inherits_all() -> None:
    """What is off for the default bot is off for a bot that inherits."""
    keys = {"WECHAT_TOKEN": "fake-hr-token", "WECHAT_ENCODING_AES_KEY": OTHER_AES_KEY}
    hr = {**keys, "WECHAT_COMMANDS": {"stop": ["别说了"]}}
    found = settings(WECHAT_COMMANDS='{"human": []}', WECHAT_BOTS=json.dumps({"hr": hr, "it": keys})).bots

    assert found["hr"].commands == {"别说了": "stop", **without("stop")}
    assert found["it"].commands == found["default"].commands == without("human")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('["/stop"]', "a JSON object of words and commands"),
        ('{"dance": ["/x"]}', "lists of words for reset, stop, retry, help, whoami, quota, human only"),
        ('{"/x": "reset", "stop": ["/x"]}', "words that are texts, each one once"),
        ('{"/x": "reset", "stop": ["/X "]}', "words of 1 to 64 characters, each one once"),
        ('{"stop": [3]}', "words that are texts, each one once"),
        ('{"stop": [" "]}', "words of 1 to 64 characters, each one once"),
        ('{"/x": 3}', "'reset', 'stop', 'retry', 'help', 'whoami', 'quota' or 'human'"),
        (json.dumps({"x" * 65: "reset"}), "words of 1 to 64 characters, each one once"),
    ],
)
def test_a_wrong_value_stops_the_start(given: str, expected: str) -> None:
    """The line says what is expected."""
    line = refusal(WECHAT_COMMANDS=given)

    assert line.startswith("WECHAT_COMMANDS=")
    assert f"expected {expected}" in line


@pytest.mark.parametrize("typed", ["/STOP", " /Stop\n", "／ｓｔｏｐ"])
def test_words_are_compared_without_case_and_width(typed: str) -> None:
    """Chinese keyboards type full-width characters."""
    assert canonical(typed) == "/stop"


def test_the_address_of_the_group_robot_is_a_secret() -> None:
    """Its key is masked in logs, and a wrong address is refused without being shown."""
    found = settings(HANDOFF_WEBHOOK="https://qyapi.example/cgi-bin/webhook/send?key=not-a-real-key")

    assert {"not-a-real-key", "https://qyapi.example/cgi-bin/webhook/send?key=not-a-real-key"} <= set(found.secrets)
    assert "not-a-real-key" not in repr(found) + repr(found.bots["default"])
    line = refusal(HANDOFF_WEBHOOK="qyapi.example/send?key=not-a-real-key")
    assert "HANDOFF_WEBHOOK" in line
    assert "not-a-real-key" not in line


def test_a_bot_has_a_group_robot_of_its_own_or_inherits_one() -> None:
    """Departments are told of their own people."""
    keys = {"WECHAT_TOKEN": "fake-hr-token", "WECHAT_ENCODING_AES_KEY": OTHER_AES_KEY}
    hr = {**keys, "HANDOFF_WEBHOOK": "https://qyapi.example/send?key=not-a-real-hr-key"}
    found = settings(
        HANDOFF_WEBHOOK="https://qyapi.example/send?key=not-a-real-key", WECHAT_BOTS=json.dumps({"hr": hr, "it": keys})
    )

    told = {
        name: bot.handoff_webhook.get_secret_value()[-6:] for name, bot in found.bots.items() if bot.handoff_webhook
    }
    assert told == {"default": "al-key", "hr": "hr-key", "it": "al-key"}
    assert {"not-a-real-hr-key", "not-a-real-key"} <= set(found.secrets)
