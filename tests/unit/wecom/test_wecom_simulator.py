"""The simulator against a misbehaving callback: it rejects every reply that WeCom would reject."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from config.texts import LOCALES
from demo.wecom.bubble import product_placeholders
from demo.wecom.simulator import (
    CallbackFailed,
    RuleBroken,
    SimulatedBot,
    WeComUser,
)
from tests.support.servers.processes import free_port
from tests.support.wecom_stub import AES_KEY, TOKEN, Reply, StubCallback, frame


@pytest.fixture
def callback() -> Iterator[StubCallback]:
    """A stub callback on a real port."""
    with StubCallback() as stub:
        yield stub


@pytest.fixture
def user(callback: StubCallback) -> Iterator[WeComUser]:
    """The user zhangsan in a single chat with the bot."""
    with WeComUser(callback.url, SimulatedBot(TOKEN, AES_KEY), "zhangsan", placeholders=["thinking"]) as user:
        yield user


def test_a_text_callback_has_every_documented_field(callback: StubCallback, user: WeComUser) -> None:
    """A text carries msgid, bot, chat type, sender, response_url and content; with a chatid the chat is a group."""
    user.says("你好", msgid="m1")
    with WeComUser(callback.url, SimulatedBot(TOKEN, AES_KEY), "zhangsan", "wrGROUP") as member:
        member.says("@Bot hello")

    message, of_group = callback.messages
    assert (of_group["chattype"], of_group["chatid"]) == ("group", "wrGROUP")
    assert message.pop("response_url").startswith("https://wecom.invalid/")
    assert message == {
        "msgid": "m1",
        "aibotid": "aibDEMO",
        "chattype": "single",
        "from": {"userid": "zhangsan"},
        "msgtype": "text",
        "text": {"content": "你好"},
    }


def test_a_replacement_that_is_expected_may_shrink_the_text(callback: StubCallback, user: WeComUser) -> None:
    """One expected replacement is allowed, a second one is not."""
    callback.grows("a long beginning", "short", "short and more")
    assert user.sees_finish(user.says("hello"), every=0.01, replacements=1) == "short and more"

    callback.grows("a long beginning", "short", "shorter", "s")
    with pytest.raises(RuleBroken, match="shrank"):
        user.sees_finish(user.says("hello"), every=0.01, replacements=1)


def test_the_products_own_placeholders_may_be_longer_than_the_answer(callback: StubCallback) -> None:
    """A shorter text may follow a placeholder, in both languages, and the sentence that names a step."""
    steps = [sentences["step"].format(step="查知识库 (2) [x]") for sentences in LOCALES.values()]
    for placeholder in (*product_placeholders(), *steps):
        callback.grows(placeholder, "x", "xy")
        with WeComUser(callback.url, SimulatedBot(TOKEN, AES_KEY), "zhangsan") as user:
            assert user.sees_finish(user.says("hello"), every=0.01) == "xy"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (None, "no bubble"),
        ({"msgtype": "text", "text": {"content": "hi"}}, "text cannot answer a message"),
        (frame("x", stream_id=""), "no id"),
        ("[]", "not a JSON object"),
        ("nonsense", "not JSON"),
    ],
)
def test_a_reply_that_wecom_would_not_show_is_rejected(
    callback: StubCallback, user: WeComUser, reply: Reply, reason: str
) -> None:
    """test_rules has each rule."""
    callback.reply = lambda message: reply

    with pytest.raises(RuleBroken, match=reason):
        user.says("hello")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda envelope: envelope | {"nonce": "another"}, "nonce"),
        (lambda envelope: envelope | {"timestamp": str(envelope["timestamp"])}, "not a number"),
        (lambda envelope: envelope | {"timestamp": envelope["timestamp"] + 1}, "-40001"),
        (lambda envelope: envelope | {"msgsignature": "0" * 40}, "-40001"),
        (lambda envelope: {k: v for k, v in envelope.items() if k != "msgsignature"}, "no msgsignature"),
        (lambda envelope: {k: v for k, v in envelope.items() if k != "encrypt"}, "no encrypt"),
        (lambda envelope: "success", "not JSON"),
        (lambda envelope: "[]", "not a JSON object"),
    ],
)
def test_a_reply_in_a_wrong_envelope_is_rejected(
    callback: StubCallback, user: WeComUser, change: Callable[[dict[str, Any]], Any], reason: str
) -> None:
    """Signature, nonce and timestamp of the reply are checked."""
    callback.envelope = change

    with pytest.raises(RuleBroken, match=reason):
        user.says("hello")


def test_an_error_of_the_callback_has_its_status(callback: StubCallback, user: WeComUser) -> None:
    """A status other than 200 raises CallbackFailed with that status; without a connection it is 0."""
    callback.status = 403
    with pytest.raises(CallbackFailed, match="403") as failed:
        user.says("hello")
    assert failed.value.status == 403

    address = f"http://127.0.0.1:{free_port()}/"
    with WeComUser(address, SimulatedBot(TOKEN, AES_KEY), "zhangsan") as lost, pytest.raises(CallbackFailed) as failed:
        lost.says("hello")
    assert failed.value.status == 0


def test_entering_shows_the_welcome_text(callback: StubCallback, user: WeComUser) -> None:
    """enter_chat is an event whose text reply is shown; after an empty reply nothing is shown."""
    callback.reply = lambda message: {"msgtype": "text", "text": {"content": "欢迎"}}
    assert user.enters() == "欢迎"
    assert callback.messages[0]["event"] == {"eventtype": "enter_chat"}
    assert "response_url" not in callback.messages[0]

    callback.reply = lambda message: None
    assert user.enters() == ""

    callback.reply = lambda message: frame("x")
    with pytest.raises(RuleBroken, match="stream cannot answer enter_chat"):
        user.enters()


def test_the_url_is_verified_byte_for_byte(callback: StubCallback, user: WeComUser) -> None:
    """The reply must be the plaintext of echostr and nothing else."""
    assert user.verifies_url().isdigit()

    callback.envelope = lambda answer: {"plain": f'"{answer["plain"]}"'}
    with pytest.raises(RuleBroken, match="byte for byte"):
        user.verifies_url()
