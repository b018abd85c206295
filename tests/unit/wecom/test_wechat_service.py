"""A callback becomes a message or is refused under the name of the check; a reply becomes WeCom's envelope."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import CallbackRefused, LaibaoError, SettingsError
from services.wecom.callback import WechatService, derive_key
from services.wecom.crypto import Prpcrypt, _cipher, decode_key, signature
from services.wecom.message import Message

NOW = 1_700_000_000
TOKEN, NONCE = "TESTTOKEN0123456789", "123412323"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
NEW_TOKEN, NEW_KEY = "NEWTOKEN987", "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
RESPONSE_URL = "https://qyapi.weixin.qq.com/cgi-bin/aibot/response?response_code=EXAMPLE"

JsonObject = dict[str, Any]


def service(**settings: Any) -> WechatService:
    values: dict[str, Any] = {"tokens": (TOKEN,), "aes_keys": (KEY,), "clock": lambda: float(NOW), **settings}
    return WechatService("default", **values)


class WeCom:
    """WeCom's side: signs and encrypts as the console's settings say."""

    def __init__(self, *, token: str = TOKEN, key: str = KEY, receiver: str = "") -> None:
        self.token, self.receiver = token, receiver
        self.crypt = Prpcrypt(decode_key(key))

    def posts(self, message: Any, *, timestamp: str = str(NOW)) -> tuple[dict[str, str], bytes]:
        """Return the query and body of a callback; a text is sent as it is, anything else as JSON."""
        text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
        return self.signed(self.crypt.encrypt(text, self.receiver), timestamp=timestamp)

    def signed(self, encrypted: str, *, timestamp: str = str(NOW)) -> tuple[dict[str, str], bytes]:
        signed = signature(self.token, timestamp, NONCE, encrypted)
        args = {"msg_signature": signed, "timestamp": timestamp, "nonce": NONCE}
        return args, json.dumps({"encrypt": encrypted}).encode()

    def verifies(self, echo: str) -> dict[str, str]:
        """Return the query of a URL verification."""
        args, body = self.posts(echo)
        return {**args, "echostr": json.loads(body)["encrypt"]}

    def reads(self, envelope: str | bytes) -> Any:
        """Check a reply's signature and return what it holds."""
        reply = json.loads(envelope)
        stamp, nonce = str(reply["timestamp"]), reply["nonce"]
        assert reply["msgsignature"] == signature(self.token, stamp, nonce, reply["encrypt"])
        return json.loads(self.crypt.decrypt(reply["encrypt"], self.receiver))


def text_message(content: Any = "hello", **members: Any) -> JsonObject:
    message: JsonObject = {
        "msgid": "m-0001",
        "aibotid": "aibEXAMPLE",
        "chattype": "single",
        "from": {"userid": "zhangsan"},
        "response_url": RESPONSE_URL,
        "msgtype": "text",
        "text": {"content": content},
    }
    return {name: value for name, value in {**message, **members}.items() if value is not ...}


def group_message(content: str) -> JsonObject:
    return text_message(content, chattype="group", chatid="wrEXAMPLE")


def refused(args: Any = None, body: Any = None, *, message: Any = None, **settings: Any) -> str:
    """Return the name of the check that refused a callback; what is not given is a good text message's."""
    good_args, good_body = WeCom().posts(text_message() if message is None else message)
    with pytest.raises(CallbackRefused) as caught:
        service(**settings).open(good_args if args is None else args, good_body if body is None else body)
    assert caught.value.status == 400
    assert str(caught.value) == caught.value.code
    return caught.value.code


def tried(message: JsonObject) -> Message | str:
    """Return the message, or the name of the check that refused it."""
    try:
        return service().open(*WeCom().posts(message))
    except CallbackRefused as exc:
        return exc.code


def test_text_message_is_read_whole() -> None:
    """Every documented member of a text message is where the channel looks for it."""
    quote = {"msgtype": "text", "text": {"content": "the earlier message"}}

    message = service().open(*WeCom().posts(text_message("你好\n world ", quote=quote)))

    assert message == Message(
        msgid="m-0001",
        msgtype="text",
        userid="zhangsan",
        aibotid="aibEXAMPLE",
        text="你好\n world ",
        response_url=RESPONSE_URL,
    )
    assert message.payload["quote"] == quote


def test_message_repr_has_no_words_and_no_url() -> None:
    """Printing a message shows ids; neither the user's words nor the one-time URL."""
    message = service().open(*WeCom().posts(text_message("my salary")))

    assert "salary" not in repr(message)
    assert "response_code" not in repr(message)
    assert "m-0001" in repr(message)


def test_stream_refresh_is_read() -> None:
    """A refresh carries the id we chose; it may come without a msgid, since it is never deduplicated."""
    refresh = text_message(msgtype="stream", msgid=..., stream={"id": "S1"}, text=..., response_url=...)

    message = service().open(*WeCom().posts(refresh))

    assert (message.msgtype, message.stream_id, message.msgid, message.text) == ("stream", "S1", "", "")


def test_enter_chat_without_chattype_is_a_single_chat() -> None:
    """The documented enter_chat has no chattype: it is a single chat's."""
    event = {
        "msgid": "e-0001",
        "create_time": NOW,
        "aibotid": "aibEXAMPLE",
        "from": {"userid": "zhangsan"},
        "msgtype": "event",
        "event": {"eventtype": "enter_chat"},
    }

    message = service().open(*WeCom().posts(event))

    assert (message.msgtype, message.event, message.chattype, message.chatid) == ("event", "enter_chat", "single", "")


@pytest.mark.parametrize("msgtype", ["image", "mixed", "voice", "file", "video", "location"])
def test_other_types_keep_their_payload(msgtype: str) -> None:
    """A type we do not read, known or not, is a message with its payload and without a text."""
    message = service().open(*WeCom().posts(text_message(msgtype=msgtype, **{msgtype: {"url": "https://x.example"}})))

    assert (message.msgtype, message.text) == (msgtype, "")
    assert message.payload[msgtype] == {"url": "https://x.example"}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("HelpBot", "@HelpBot how do I", "how do I"),
        ("HelpBot", "@HelpBot\u2005how do I", "how do I"),
        ("HelpBot", "@HelpBot  \n how", "how"),
        ("HelpBot", "@HelpBot", ""),
        ("HelpBot", "hello @HelpBot how", "hello how"),
        ("HelpBot", "how @HelpBot", "how"),
        ("HelpBot", "@HelpBotX how", "@HelpBotX how"),
        ("HelpBot", "@Someone else", "@Someone else"),
        ("Help Bot", "@Help Bot how", "how"),
        ("Help Bot", "@Help\u2005Bot\u2005how", "how"),
        ("C++ (beta)", "@C++ (beta) how", "how"),
        ("来宝", "@来宝 年假怎么申请", "年假怎么申请"),
        ("", "@HelpBot how", "how"),
        ("", " @HelpBot\u2005how @all", "how @all"),
        ("", "@HelpBot", ""),
        ("", "how @HelpBot", "how @HelpBot"),
    ],
)
def test_mention_is_taken_out_of_group_text(name: str, content: str, expected: str) -> None:
    """In a group the configured bot's mention goes, with its spaces; without a name, the leading mention."""
    assert service(bot_name=name).open(*WeCom().posts(group_message(content))).text == expected


@pytest.mark.parametrize("name", ["HelpBot", ""])
def test_single_chat_text_is_untouched(name: str) -> None:
    """In a single chat an @ is a word like any other."""
    assert service(bot_name=name).open(*WeCom().posts(text_message(" @HelpBot hi "))).text == " @HelpBot hi "


def test_group_message_names_its_group() -> None:
    """A group message has its chatid; a chatid outside a group is no group."""
    group = service().open(*WeCom().posts(group_message("@Bot hi")))
    single = service().open(*WeCom().posts(text_message("hi", chatid="wrEXAMPLE")))

    assert (group.chattype, group.chatid) == ("group", "wrEXAMPLE")
    assert (single.chattype, single.chatid) == ("single", "")


@pytest.mark.parametrize("name", ["msg_signature", "timestamp", "nonce"])
@pytest.mark.parametrize("value", [None, ""])
def test_missing_parameter_is_named(name: str, value: str | None) -> None:
    """A query without one of its three parameters, or with an empty one, is refused before the body is read."""
    args, _ = WeCom().posts(text_message())
    args = {key: text for key, text in args.items() if key != name} | ({} if value is None else {name: value})

    assert refused(args, b"<xml>") == "missing_parameter"


@pytest.mark.parametrize("name", ["msgsignature", "signature"])
def test_signature_has_two_more_names(name: str) -> None:
    """The query names Tencent's plugin tolerates are tolerated."""
    args, body = WeCom().posts(text_message())
    args[name] = args.pop("msg_signature")

    assert service().open(args, body).msgid == "m-0001"


def test_capital_encrypt_is_tolerated() -> None:
    """`Encrypt`, as applications spell it, is read where `encrypt` is missing."""
    args, body = WeCom().posts(text_message())

    assert service().open(args, json.dumps({"Encrypt": json.loads(body)["encrypt"]}).encode()).msgid == "m-0001"


@pytest.mark.parametrize("seconds", [-601, 601, -(10**9), 10**9])
def test_stale_timestamp_is_refused(seconds: int) -> None:
    """A callback signed longer ago than the window, or as far ahead, is refused."""
    args, body = WeCom().posts(text_message(), timestamp=str(NOW + seconds))

    assert refused(args, body) == "stale_timestamp"


@pytest.mark.parametrize("seconds", [-600, 0, 600])
def test_timestamp_within_the_window_is_accepted(seconds: int) -> None:
    """The window reaches both ways, its ends included."""
    assert service().open(*WeCom().posts(text_message(), timestamp=str(NOW + seconds))).userid == "zhangsan"


def test_window_of_zero_accepts_any_time() -> None:
    """0 switches the window off."""
    args, body = WeCom().posts(text_message(), timestamp="1")

    assert service(timestamp_window=0.0).open(args, body).userid == "zhangsan"


@pytest.mark.parametrize("timestamp", ["soon", "-1", "1.5", " 1700000000", "1_700_000_000", "١٧٠٠٠٠٠٠٠٠", "9" * 5000])
@pytest.mark.parametrize("window", [0.0, 600.0])
def test_timestamp_that_is_no_number_is_refused(timestamp: str, window: float) -> None:
    """Only plain decimal seconds are a timestamp, with the window off too."""
    args, body = WeCom().posts(text_message(), timestamp=timestamp)

    assert refused(args, body, timestamp_window=window) == "stale_timestamp"


@pytest.mark.parametrize("body", [b"<xml></xml>", b"\xef\xbb\xbf\r\n <xml>", b"<html>"])
def test_xml_is_named(body: bytes) -> None:
    """An application's XML, sent because the URL was entered at the wrong place, has a name of its own."""
    assert refused(body=body) == "xml_body"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b'"text"', b"7", b'{"encrypt": 7}', b"[" * 100_000])
def test_body_that_is_no_envelope_is_bad_json(body: bytes) -> None:
    """A body that is no object with a text in `encrypt` is bad_json."""
    assert refused(body=body) == "bad_json"


@pytest.mark.parametrize("body", [b"{}", b'{"encrypt": ""}', b'{"encrypt": null}'])
def test_envelope_without_ciphertext_misses_a_parameter(body: bytes) -> None:
    """An object without `encrypt` lacks it, as a query may lack a parameter."""
    assert refused(body=body) == "missing_parameter"


def test_wrong_signature_is_refused() -> None:
    """Another token's signature is refused, and so is a signature over another nonce."""
    args, body = WeCom(token="SOMEONE").posts(text_message())
    assert refused(args, body) == "bad_signature"

    args, body = WeCom().posts(text_message())
    assert refused({**args, "nonce": "5"}, body) == "bad_signature"
    assert refused({**args, "nonce": "\ud800"}, body) == "bad_signature"


def test_ciphertext_that_is_no_base64_is_refused() -> None:
    """A signed text that is no base64 is bad_ciphertext."""
    assert refused(*WeCom().signed("not base64!")) == "bad_ciphertext"


def test_wrong_key_is_bad_ciphertext() -> None:
    """A message under another key is bad_ciphertext, and so is one with an impossible length."""
    assert refused(*WeCom(key=NEW_KEY).posts(text_message())) == "bad_ciphertext"
    assert refused(*WeCom().signed("YWJj")) == "bad_ciphertext"


def test_other_receiver_is_refused() -> None:
    """A message for another receiveid is bad_ciphertext; the configured one is accepted."""
    args, body = WeCom(receiver="wwOTHER").posts(text_message())

    assert refused(args, body) == "bad_ciphertext"
    assert service(receive_id="wwOTHER").open(args, body).userid == "zhangsan"


@pytest.mark.parametrize(
    "message",
    [
        "",
        "no json",
        "[]",
        "7",
        "[" * 100_000,
        text_message(msgid=...),
        text_message(msgid=""),
        text_message(msgid=7),
        text_message(msgtype=...),
        text_message(msgtype=7),
        text_message(aibotid=7),
        text_message(response_url=7),
        text_message(text=...),
        text_message(text="hello"),
        text_message(text={"content": 7}),
        text_message(text=[]),
        text_message(chattype=7),
        text_message(chattype="channel"),
        text_message(chattype="group"),
        text_message(chattype="group", chatid=""),
        text_message(chattype="group", chatid=7),
        text_message(msgtype="stream"),
        text_message(msgtype="stream", stream={"id": 7}),
        text_message(msgtype="stream", stream={"id": ""}),
        text_message(msgtype="event"),
        text_message(msgtype="event", event="enter_chat"),
        text_message(msgtype="event", event={"eventtype": 7}),
        text_message(**{"from": ...}),
        text_message(**{"from": "zhangsan"}),
        text_message(**{"from": {}}),
        text_message(**{"from": {"userid": 7}}),
        text_message(msgtype="event", event={"eventtype": "enter_chat"}, **{"from": {"userid": 7}}),
    ],
)
def test_decrypted_text_of_another_shape_is_bad_message(message: Any) -> None:
    """What decrypts but is no message object, or has a wrong type anywhere, is bad_ciphertext."""
    assert refused(message=message) == "bad_ciphertext"


@pytest.mark.parametrize(
    "changes",
    [{"from": ...}, {"from": {}}, {"from": {"userid": "sys"}}, {"chattype": "group"}, {"chattype": "channel"}],
)
def test_an_event_of_the_system_is_an_event(changes: dict[str, Any]) -> None:
    """It may lack what a message must have: it is to be acknowledged, or WeCom sends it again."""
    event = text_message(msgtype="event", event={"eventtype": "enter_check_update"}, **changes)

    message = service().open(*WeCom().posts(event))

    assert (message.event, message.userid in ("", "zhangsan")) == ("enter_check_update", True)


def test_someone_named_sys_may_write() -> None:
    """Only events of `sys` are the system's; a message of a user with that id is a message."""
    assert service().open(*WeCom().posts(text_message(**{"from": {"userid": "sys"}}))).userid == "sys"


@pytest.mark.parametrize("aibotid", ["aibOTHER", ...])
def test_other_bot_is_refused_where_one_is_configured(aibotid: Any) -> None:
    """With a configured bot id another one, or none, is bad_ciphertext; without, any is accepted."""
    message = text_message(aibotid=aibotid)

    assert refused(message=message, aibotid="aibEXAMPLE") == "bad_ciphertext"
    assert service().open(*WeCom().posts(message)).userid == "zhangsan"
    assert service(aibotid="aibEXAMPLE").open(*WeCom().posts(text_message())).userid == "zhangsan"


def test_half_a_surrogate_pair_is_replaced() -> None:
    """A broken escape in the JSON costs its character, not the message: everything read can be encoded."""
    raw = json.dumps(text_message("HERE", quote="HERE")).replace("HERE", "a\\uD83D b \\ud83d\\ude00")

    message = service().open(*WeCom().posts(raw))

    assert message.text == "a? b 😀"
    assert message.payload["quote"] == "a? b 😀"


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
_NAMES = st.sampled_from(["userid", "id", "content", "eventtype", "url"])
_MEMBERS = _LEAVES | st.dictionaries(_NAMES, _LEAVES) | st.lists(_LEAVES)


@given(
    members=st.dictionaries(st.sampled_from(sorted(group_message("x"))), _MEMBERS),
    msgtype=st.sampled_from(["text", "stream", "event", "image"]),
)
def test_no_shape_raises_anything_else(members: JsonObject, msgtype: str) -> None:
    """Whatever is in a member's place, the result is a message of texts or bad_ciphertext."""
    raw = {
        **group_message("@Bot hi"),
        "msgtype": msgtype,
        "stream": {"id": "S1"},
        "event": {"eventtype": "x"},
        **members,
    }

    outcome = tried(raw)

    if isinstance(outcome, Message):
        # Events of the bot itself come from nobody.
        assert outcome.userid or outcome.msgtype == "event"
        assert all(isinstance(text, str) for text in (outcome.msgid, outcome.chatid, outcome.text, outcome.event))
    else:
        assert outcome == "bad_ciphertext"


@given(
    body=st.binary(max_size=100),
    args=st.dictionaries(st.sampled_from(["msg_signature", "timestamp", "nonce"]), st.text()),
)
def test_no_garbage_raises_anything_else(body: bytes, args: dict[str, str]) -> None:
    """Any query and body is refused, never an exception of another kind."""
    with pytest.raises(CallbackRefused):
        service().open(args, body)
    with pytest.raises(CallbackRefused):
        service().verify_url({**args, "echostr": "x"})


def test_url_verification_answers_the_text() -> None:
    """The echo comes back as it was, numeric or not."""
    assert service().verify_url(WeCom().verifies("7283940561728394056")) == "7283940561728394056"
    assert service().verify_url(WeCom().verifies(" 是\n")) == " 是\n"


def test_a_recorded_message_is_no_echo() -> None:
    """A sender who has the token gets nothing decrypted by a verification."""
    with pytest.raises(CallbackRefused, match=r"^bad_ciphertext$"):
        service().verify_url(WeCom().verifies(json.dumps(text_message())))


def test_url_verification_survives_a_lost_plus() -> None:
    """A proxy that turned plus signs into spaces does not break the verification."""
    echo = next(args for args in (WeCom().verifies("echo") for _ in range(1000)) if "+" in args["echostr"])

    assert service().verify_url({**echo, "echostr": echo["echostr"].replace("+", " ")}) == "echo"


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"echostr": ""}, "missing_parameter"),
        ({"nonce": ""}, "missing_parameter"),
        ({"timestamp": "1"}, "stale_timestamp"),
        ({"msg_signature": "0" * 40}, "bad_signature"),
        ({"echostr": "AAAA"}, "bad_signature"),
    ],
)
def test_url_verification_makes_the_same_checks(change: dict[str, str], check: str) -> None:
    """A verification is refused under the same names as a message."""
    with pytest.raises(CallbackRefused) as caught:
        service().verify_url({**WeCom().verifies("echo"), **change})

    assert caught.value.code == check


def test_reply_is_compact_and_stamped_by_our_clock() -> None:
    """The envelope holds the reply as compact UTF-8 JSON, our time as an integer, and the callback's nonce."""
    reply = {"msgtype": "stream", "stream": {"id": "S1", "finish": False, "content": "正在"}}

    envelope = json.loads(service(clock=lambda: NOW + 5.9).seal(reply, NONCE))

    assert (envelope["timestamp"], envelope["nonce"]) == (NOW + 5, NONCE)
    plain = WeCom().crypt.decrypt(envelope["encrypt"], "")
    assert plain == '{"msgtype":"stream","stream":{"id":"S1","finish":false,"content":"正在"}}'


def test_reply_with_half_a_surrogate_pair_is_still_sent() -> None:
    """One broken character of a provider does not cost the frame."""
    assert WeCom().reads(service().seal({"content": "a\ud83db"}, NONCE)) == {"content": "a?b"}


def test_reply_that_cannot_be_sealed_says_so() -> None:
    """A nonce that no callback could carry ends in our own error, without the reply's words."""
    with pytest.raises(LaibaoError) as caught:
        service().seal({"content": "words"}, "\ud800")

    assert caught.value.code == "seal_failed"
    assert "words" not in str(caught.value)


@pytest.mark.parametrize("token", [TOKEN, NEW_TOKEN])
@pytest.mark.parametrize("key", [KEY, NEW_KEY])
def test_any_pair_of_token_and_key_verifies(token: str, key: str) -> None:
    """While settings rotate, every token goes with every key, and the reply can go back under the same pair."""
    both = service(tokens=(TOKEN, NEW_TOKEN), aes_keys=(KEY, NEW_KEY))
    wecom = WeCom(token=token, key=key)

    message = both.open(*wecom.posts(text_message()))

    assert wecom.reads(both.seal({"content": "hi"}, NONCE, pair=message.pair)) == {"content": "hi"}
    assert both.verify_url(wecom.verifies("echo")) == "echo"


def test_first_pair_signs_by_default() -> None:
    """Without a pair the reply goes out under the first token and the first key."""
    both = service(tokens=(NEW_TOKEN, TOKEN), aes_keys=(NEW_KEY, KEY))

    assert WeCom(token=NEW_TOKEN, key=NEW_KEY).reads(both.seal({"content": "hi"}, NONCE)) == {"content": "hi"}


def work_on(padded: bytes) -> list[str]:
    """Return which functions of ours run, in their order, until a callback with this plaintext is refused."""
    raw = _cipher(decode_key(KEY)).encryptor().update(padded)
    args, body = WeCom().signed(base64.b64encode(raw).decode())
    called: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.endswith(
            ("wecom/callback.py", "wecom/crypto.py", "wecom/message.py")
        ):
            called.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        assert refused(args, body, aes_keys=(KEY, NEW_KEY)) == "bad_ciphertext"
    finally:
        sys.setprofile(None)
    return called


def test_every_failure_after_the_signature_takes_the_same_steps() -> None:
    """Bad padding, a wrong receiveid and an impossible length cost what a message of another shape costs."""
    message = b'{"msgid":"m","msgtype":"text","from":{"userid":"u"},"text":{"content":"x"}}'.ljust(77)
    layout, pad = (bytes(16) + bytes([0, 0, 0, 77]) + message), bytes([31]) * 31

    steps = {
        "last byte": work_on(layout + pad[:-1] + b"\x30"),
        "first byte": work_on(layout + b"\x1e" + pad[1:]),
        "receiveid": work_on(bytes(16) + bytes([0, 0, 0, 76]) + message[:-1] + b"w" + pad),
        "length": work_on(bytes(16) + bytes([0, 0, 1, 77]) + message + pad),
    }

    assert steps == dict.fromkeys(steps, steps["receiveid"])
    assert steps["receiveid"].count("_payload") == 2


def test_with_several_pairs_the_furthest_failure_is_named() -> None:
    """A good signature under a wrong key is bad_ciphertext, although other tokens failed earlier."""
    several = {"tokens": (NEW_TOKEN, TOKEN), "aes_keys": (KEY,)}
    turned = {"tokens": (TOKEN, NEW_TOKEN), "aes_keys": (KEY,)}

    assert refused(*WeCom(key=NEW_KEY).posts(text_message()), **several) == "bad_ciphertext"
    assert refused(*WeCom(key=NEW_KEY).posts(text_message()), **turned) == "bad_ciphertext"
    assert refused(*WeCom(receiver="wwOTHER").posts(text_message()), **several) == "bad_ciphertext"
    assert refused(*WeCom(token="SOMEONE").posts(text_message()), **several) == "bad_signature"


@pytest.mark.parametrize(
    "settings", [{"tokens": ()}, {"tokens": ("",)}, {"aes_keys": ()}, {"aes_keys": (KEY, "short")}]
)
def test_wrong_settings_stop_the_start(settings: dict[str, Any]) -> None:
    """A missing token or an illegal key is one line that names the variable and hides the value."""
    with pytest.raises(SettingsError) as caught:
        service(**settings)

    assert "WECHAT_" in str(caught.value)
    assert "short" not in str(caught.value)


def test_a_derived_key_is_hkdf_of_an_aes_key() -> None:
    """A purpose's key is the first block of RFC 5869 over the decoded key."""
    extracted = hmac.digest(b"wechatlaibao", bytes(range(32)), hashlib.sha256)
    expected = hmac.digest(extracted, b"stream-id\x01", hashlib.sha256)

    assert derive_key(KEY, "stream-id") == expected
    assert derive_key(NEW_KEY, "stream-id") != expected
    assert derive_key(KEY, "reply") != expected
