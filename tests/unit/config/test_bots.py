"""Bots and apps: each may override the provider, and inherits the other settings of the default bot."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.support.settings_values import AES_KEY, OTHER_AES_KEY, refusal, settings
from utils.questions.commands import BUILT_IN

HR = {"WECHAT_TOKEN": "fake-hr-token", "WECHAT_ENCODING_AES_KEY": OTHER_AES_KEY}


def bots(**given: dict[str, Any]) -> str:
    return json.dumps(given)


def test_the_default_bot_has_the_values_of_the_variables() -> None:
    """The WECHAT_* variables describe the default bot."""
    bot = settings(WECHAT_BOT_NAME="来宝", WECHAT_WELCOME="您好", WECHAT_THINKING="hide").bots["default"]

    assert (bot.name, bot.tokens, bot.aes_keys) == ("default", ("fake-wechat-token",), (AES_KEY,))
    assert (bot.receive_id, bot.bot_name, bot.welcome, bot.thinking) == ("", "来宝", "您好", "hide")
    assert bot.commands == BUILT_IN
    assert bot.provider.dify_api_keys == ("app-not-a-real-key",)


def test_a_named_bot_has_its_own_keys_and_provider() -> None:
    """Values in WECHAT_BOTS override the environment's for that bot."""
    own = {**HR, "DIFY_API_KEY": "app-fake-hr", "DIFY_TIMEOUT": 9, "WECHAT_SOURCES": True, "corp": "acme"}

    found = settings(WECHAT_BOTS=bots(hr=own)).bots

    assert list(found) == ["default", "hr"]
    hr = found["hr"]
    assert (hr.name, hr.corp, hr.tokens, hr.aes_keys) == ("hr", "acme", ("fake-hr-token",), (OTHER_AES_KEY,))
    assert (hr.provider.dify_api_keys, hr.provider.dify_timeout, hr.sources) == (("app-fake-hr",), 9, True)


def test_a_named_bot_inherits_the_rest() -> None:
    """A bot inherits what it does not set, except the values that WeCom assigns to each bot: ids and name."""
    found = settings(
        WECHAT_BOTS=bots(hr=HR),
        WECHAT_ANSWER_SECONDS="100",
        WECHAT_RECEIVE_ID="corp1",
        WECHAT_BOT_NAME="来宝",
        WECHAT_BOT_ID="bot1",
        DIFY_API_URL="https://dify.example",
    )

    hr = found.bots["hr"]
    assert hr.answer_seconds == 100
    assert hr.provider == found.provider
    assert (hr.receive_id, hr.bot_name, hr.bot_id) == ("", "", "")


def test_a_bot_of_the_long_connection_needs_no_callback_keys() -> None:
    """Bots of both kinds live side by side; each kind has its default for the end of a frame."""
    own = {"WECHAT_MODE": "websocket", "WECHAT_BOT_ID": "aibHR", "WECHAT_BOT_SECRET": "fake-secret"}

    found = settings(WECHAT_BOTS=bots(hr=own), WECHAT_WS_URL="ws://wecom.example:8080")

    hr, default = found.bots["hr"], found.bots["default"]
    assert (hr.mode, hr.bot_id, hr.tokens, hr.aes_keys) == ("websocket", "aibHR", (), ())
    assert (hr.ws_url, hr.ws_retry, hr.ws_frame_seconds) == ("ws://wecom.example:8080", 0, 1)
    assert (default.mode, default.answer_seconds, hr.answer_seconds) == ("callback", 330, 570)
    assert "fake-secret" in found.secrets
    assert "fake-secret" not in repr(found.bots)


def test_two_bots_of_the_long_connection_have_two_ids() -> None:
    """Two subscriptions of one bot would end each other for ever."""
    own = {"WECHAT_MODE": "websocket", "WECHAT_BOT_ID": "aibHR", "WECHAT_BOT_SECRET": "fake-secret"}

    line = refusal(WECHAT_BOTS=bots(hr=own, it=own))

    assert line == "WECHAT_BOTS='it.WECHAT_BOT_ID' is wrong: expected another bot than hr, which has this id"


def test_a_default_bot_is_optional() -> None:
    """Without WECHAT_TOKEN there is no default bot, and the start succeeds with named bots only."""
    found = settings(WECHAT_TOKEN="", WECHAT_ENCODING_AES_KEY="", WECHAT_BOTS=bots(hr=HR))

    assert list(found.bots) == ["hr"]


@pytest.mark.parametrize("name", ["DIFY_BASE_URL", "DIFY_API_URL"])
def test_a_bot_may_set_the_dify_address_under_either_name(name: str) -> None:
    """A bot's DIFY_BASE_URL or DIFY_API_URL does not conflict with an inherited value of the other name."""
    found = settings(WECHAT_BOTS=bots(hr={**HR, name: "https://hr.example"}), DIFY_API_URL="https://dify.example")

    assert found.bots["hr"].provider.dify_base_url == "https://hr.example"


def test_a_mock_switch_of_a_bot_counts_for_this_bot_only() -> None:
    """False for one bot makes Dify answer for it, true the mock; the other bots are not changed."""
    off = settings(USE_MOCK_RAG="true", WECHAT_BOTS=bots(hr={**HR, "USE_MOCK_RAG": False}, it=HR)).bots
    on = settings(WECHAT_BOTS=bots(hr={**HR, "MOCK_MODE": "1"})).bots

    providers = [{name: bot.provider.rag_provider for name, bot in found.items()} for found in (off, on)]
    assert providers == [{"default": "mock", "hr": "dify", "it": "mock"}, {"default": "dify", "hr": "mock"}]


@pytest.mark.parametrize(
    ("name", "own", "line"),
    [
        ("HR", HR, "WECHAT_BOTS='HR' is wrong: expected bot names"),
        ("default", HR, "WECHAT_BOTS='default' is wrong: expected bot names"),
        ("hr", {**HR, "WECHAT_TOKN": "x"}, r"WECHAT_BOTS='hr.WECHAT_TOKN' is wrong.*did you mean WECHAT_TOKEN\?$"),
        ("hr", {**HR, "REDIS_HOST": "x"}, "WECHAT_BOTS='hr.REDIS_HOST' is wrong"),
        ("hr", {**HR, "dify_user": "x"}, "WECHAT_BOTS='hr.dify_user' is wrong"),
        ("hr", {**HR, "WECHAT_MODE": "pigeon"}, "WECHAT_BOTS: hr.WECHAT_MODE='pigeon' is wrong"),
        ("hr", {**HR, "DIFY_TIMEOUT": 0}, "WECHAT_BOTS: hr.DIFY_TIMEOUT='0' is wrong: expected more than 0"),
        ("hr", {**HR, "DIFY_API_KEY": {"a": 1}}, r"WECHAT_BOTS: hr.DIFY_API_KEY='\*\*\*' is wrong"),
        ("hr", {"WECHAT_TOKEN": "x"}, "WECHAT_BOTS: hr.WECHAT_ENCODING_AES_KEY is missing"),
        ("hr", {**HR, "RAG_PROVIDER": "openai"}, "WECHAT_BOTS: hr.OPENAI_API_KEY is missing"),
        ("hr", {**HR, "WECHAT_TOKEN": ""}, "WECHAT_BOTS: hr.WECHAT_TOKEN is missing"),
        ("hr", {**HR, "WECOM_CORP_ID": "ww1"}, "WECHAT_BOTS: hr.WECOM_CONTACT_SECRET is missing"),
        ("hr", {**HR, "WECOM_CONTACT_SECRET": "s"}, "WECHAT_BOTS: hr.WECOM_CORP_ID is missing"),
    ],
)
def test_an_error_in_a_bot_names_the_bot_and_the_variable(name: str, own: dict[str, Any], line: str) -> None:
    """The error's line begins with the bot's name and the variable."""
    assert re.match(line, refusal(WECHAT_BOTS=bots(**{name: own})))


def test_an_app_inherits_the_provider_it_does_not_override() -> None:
    """Its secrets are masked as any; another address leaves none of the inherited one."""
    apps = bots(**{"hr-app": {"DIFY_API_KEY": "app-fake-hr"}, "it": {"DIFY_API_URL": "https://it.example"}})

    found = settings(APPS=apps, DIFY_USER="员工", DIFY_BASE_URL="https://dify.example")

    told = {name: (app.dify_api_keys, app.dify_base_url, app.dify_user) for name, app in found.app_providers.items()}
    assert told == {
        "hr-app": (("app-fake-hr",), "https://dify.example", "员工"),
        "it": (("app-not-a-real-key",), "https://it.example", "员工"),
    }
    assert "app-fake-hr" in found.secrets
    assert "app-fake-hr" not in repr(found)


@pytest.mark.parametrize(
    ("name", "own", "line"),
    [
        ("HR", {}, "APPS='HR' is wrong: expected app names"),
        ("default", {}, "APPS='default' is wrong: expected app names"),
        ("hr", {"WECHAT_TOKEN": "x"}, r"APPS='hr.WECHAT_TOKEN' is wrong: expected provider variables"),
        ("hr", {"DIFY_API_KY": "x"}, r"APPS='hr.DIFY_API_KY' is wrong.*did you mean DIFY_API_KEY\?$"),
        ("hr", {"DIFY_TIMEOUT": 0}, "APPS: hr.DIFY_TIMEOUT='0' is wrong: expected more than 0"),
        ("hr", {"RAG_PROVIDER": "openai"}, "APPS: hr.OPENAI_API_KEY is missing"),
    ],
)
def test_an_error_in_an_app_names_the_app_and_the_variable(name: str, own: dict[str, Any], line: str) -> None:
    assert re.match(line, refusal(APPS=bots(**{name: own})))


def test_bots_of_one_company_share_its_directory() -> None:
    """A bot inherits the whole directory or none of it: in another company the same userid is another person."""
    company = {
        "WECOM_CORP_ID": "ww1",
        "WECOM_CONTACT_SECRET": "not-a-real-secret",
        "WECOM_API_URL": "http://wecom.example",
    }
    other = {"WECOM_CORP_ID": "ww2", "WECOM_CONTACT_SECRET": "not-a-real-one"}

    found = settings(WECHAT_BOTS=bots(hr=HR, acme={**HR, "corp": "acme"}, it={**HR, **other}), **company)

    told = {
        name: (bot.wecom_corp_id, bool(bot.wecom_contact_secret), bot.wecom_api_url) for name, bot in found.bots.items()
    }
    assert told == {
        "default": ("ww1", True, "http://wecom.example"),
        "hr": ("ww1", True, "http://wecom.example"),
        "acme": ("", False, "https://qyapi.weixin.qq.com"),
        "it": ("ww2", True, "https://qyapi.weixin.qq.com"),
    }
    assert {"not-a-real-secret", "not-a-real-one"} <= set(found.secrets)
