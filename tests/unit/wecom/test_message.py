"""The words and files of every message type and of quotes, and the question that is made of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from channels.wecom.messages import is_readable, question_text
from config.texts import EN
from services.attachments import Media
from services.wecom.callback import key_name
from services.wecom.message import ANY_MENTION, Message, mention_of, read_message
from tests.unit.wecom.test_wechat_service import KEY, NEW_KEY, WeCom, service

URL = "https://HOST.cos.ap-guangzhou.myqcloud.com/OBJECT?sign=SECRET%2f1"
ASKED = EN["media_question"]


def message(msgtype: str, member: Any, *, group: bool = False, **more: Any) -> Message:
    """Read a message of a person in a single chat or a group."""
    chat = {"chattype": "group", "chatid": "wrG"} if group else {"chattype": "single"}
    payload = {"msgid": "m-1", "aibotid": "aib", **chat, "from": {"userid": "u"}, "msgtype": msgtype, msgtype: member}
    return read_message(json.dumps(payload | more), mention=ANY_MENTION, pair=0)


def text(words: str) -> dict[str, Any]:
    return {"msgtype": "text", "text": {"content": words}}


def image(url: str = URL) -> dict[str, Any]:
    return {"msgtype": "image", "image": {"url": url}}


def asked(found: Message) -> str:
    return question_text(found, ASKED)


@pytest.mark.parametrize("kind", ["image", "file", "video"])
def test_a_file_alone_asks_the_sentence(kind: str) -> None:
    """Its address is passed on unchanged."""
    found = message(kind, {"url": URL})

    assert found.media == (Media(kind, URL),)  # type: ignore[arg-type]
    assert (asked(found), is_readable(found)) == (ASKED, True)


@pytest.mark.parametrize(("member", "aeskey"), [({"aeskey": "K1"}, "K1"), ({}, ""), ({"aeskey": 7}, "")])
def test_a_file_may_come_with_its_key(member: dict[str, Any], aeskey: str) -> None:
    """The long connection has one for each address."""
    assert message("image", {"url": URL, **member}).media == (Media("image", URL, aeskey=aeskey),)


def test_voice_is_its_transcribed_words() -> None:
    """A voice message is asked like a text."""
    assert asked(message("voice", {"content": "年假怎么申请"})) == "年假怎么申请"


def test_mixed_items_are_words_and_pictures_in_their_order() -> None:
    """In a group the mention is in the first text item, which need not be the first item."""
    items = [image("https://a.x/1"), text("@HelpBot what is @this"), text("@HelpBot really"), image("https://a.x/2")]
    found = message("mixed", {"msg_item": items}, group=True)

    assert found.text == "what is @this\n@HelpBot really"
    assert [media.url for media in found.media] == ["https://a.x/1", "https://a.x/2"]
    assert message("mixed", {"msg_item": items}).text.startswith("@HelpBot what")


def test_mixed_pictures_without_words_ask_the_sentence() -> None:
    """A mention alone is no word."""
    assert asked(message("mixed", {"msg_item": [text("@HelpBot "), image()]}, group=True)) == ASKED


@pytest.mark.parametrize(
    ("quote", "words", "question"),
    [
        (text("old\nwords"), "what?", "> old\n> words\n\nwhat?"),
        ({"msgtype": "voice", "voice": {"content": "said"}}, "what?", "> said\n\nwhat?"),
        ({"msgtype": "mixed", "mixed": {"msg_item": [text("old"), image()]}}, "what?", "> old\n\nwhat?"),
        ({"msgtype": "mixed", "mixed": {"msg_item": [text("old"), image()]}}, "", f"> old\n\n{ASKED}"),
        (image(), "what?", "what?"),
        (image(), "", ASKED),
        (text("old words"), "", "old words"),
        ({"msgtype": "sticker", "sticker": {}}, "what?", "what?"),
        ({"msgtype": "text"}, "what?", "what?"),
        ("text", "what?", "what?"),
        (None, "what?", "what?"),
    ],
)
def test_a_quote_comes_before_the_question(quote: Any, words: str, question: str) -> None:
    """Quoted words are a quotation; a quotation alone is the question; an unreadable quote is left out."""
    assert asked(message("text", {"content": words}, quote=quote)) == question


@pytest.mark.parametrize("kind", ["image", "file", "video"])
def test_quoted_files_come_along_in_a_group(kind: str) -> None:
    """To quote a file and to mention the bot is the only way to hand one over in a group."""
    quote = {"msgtype": kind, kind: {"url": URL}}
    found = message("text", {"content": "@HelpBot"}, group=True, quote=quote)

    assert (found.media, found.quoted_media) == ((), (Media(kind, URL),))  # type: ignore[arg-type]
    assert asked(found) == ASKED


def test_a_name_with_spaces_is_removed_from_mixed() -> None:
    """The bot's configured name is used for every type."""
    payload = {
        "msgid": "m", "chattype": "group", "chatid": "wrG", "from": {"userid": "u"}, "msgtype": "mixed",
        "mixed": {"msg_item": [text("@Help Bot\u2005what")]},
    }  # fmt: skip

    assert read_message(json.dumps(payload), mention=mention_of("Help Bot"), pair=0).text == "what"


@pytest.mark.parametrize(
    ("msgtype", "member"),
    [
        ("sticker", {}),
        ("image", {}),
        ("image", {"url": 7}),
        ("file", "x"),
        ("location", {"url": URL}),
    ],
)
def test_what_cannot_be_read_is_not_readable(msgtype: str, member: Any) -> None:
    """Such a message gets a sentence; it is no error."""
    assert not is_readable(message(msgtype, member))


@pytest.mark.parametrize("items", [[], "x", None, [7, "x", {"msgtype": "image"}, {"msgtype": []}]])
def test_odd_mixed_messages_have_no_words(items: Any) -> None:
    """They are empty questions."""
    found = message("mixed", {"msg_item": items})

    assert (asked(found), found.media, is_readable(found)) == ("", (), True)


def test_files_are_listed_once_with_the_name_of_their_key() -> None:
    """With several keys the one that opened the callback decrypts the files; its name does not show the key."""
    bot = service(aes_keys=(NEW_KEY, KEY))
    twice = {"msgtype": "mixed", "mixed": {"msg_item": [image(), image("https://a.x/2")]}}
    found = bot.open(*WeCom().posts({"msgid": "m", "from": {"userid": "u"}, **image(), "quote": twice}))

    media = bot.media(found)

    assert media == (Media("image", URL, key_name(KEY)), Media("image", "https://a.x/2", key_name(KEY)))
    assert key_name(KEY) != key_name(NEW_KEY)
    assert "SECRET" not in repr(found)
    assert "SECRET" not in repr(media)
