"""Reading WeCom's callbacks, with the name of the check that rejects one, and sealing replies in WeCom's envelope."""

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

from config.errors import LaibaoError
from services.errors import CallbackRefused
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
    """WeCom's side: signs and encrypts with the token and key of the console."""

    def __init__(self, *, token: str = TOKEN, key: str = KEY, receiver: str = "") -> None:
        self.token, self.receiver = token, receiver
        self.crypt = Prpcrypt(decode_key(key))

    def posts(self, message: Any, *, timestamp: str = str(NOW)) -> tuple[dict[str, str], bytes]:
        """Return the query and body of a callback; a string is encrypted unchanged, anything else as JSON."""
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
        """Check a reply's signature and return its decrypted content."""
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


def failed_check(args: Any = None, body: Any = None, *, message: Any = None, **settings: Any) -> str:
    """Return the name of the check that rejects a callback; args and body default to a valid text message's."""
    good_args, good_body = WeCom().posts(text_message() if message is None else message)
    with pytest.raises(CallbackRefused) as caught:
        service(**settings).open(good_args if args is None else args, good_body if body is None else body)
    assert caught.value.status == 400
    assert str(caught.value) == caught.value.code
    return caught.value.code


def outcome_of(message: JsonObject) -> Message | str:
    """Return the message, or the name of the check that rejected it."""
    try:
        return service().open(*WeCom().posts(message))
    except CallbackRefused as exc:
        return exc.code


def test_text_message_is_read_completely() -> None:
    """Every documented member of a text message is read into its field; the repr has neither words nor the URL."""
    quote = {"msgtype": "text", "text": {"content": "the earlier message"}}

    message = service().open(*WeCom().posts(text_message("你好\n world ", quote=quote)))

    assert message == Message(
        msgid="m-0001",
        msgtype="text",
        userid="zhangsan",
        aibotid="aibEXAMPLE",
        text="你好\n world ",
        quoted="the earlier message",
        response_url=RESPONSE_URL,
    )
    assert message.payload["quote"] == quote
    assert "m-0001" in repr(message)
    assert "world" not in repr(message)
    assert "response_code" not in repr(message)


def test_stream_refresh_and_enter_chat_are_read() -> None:
    """A refresh has the stream id that we chose, and perhaps no msgid; enter_chat has no chattype, as a single chat."""
    refresh = text_message(msgtype="stream", msgid=..., stream={"id": "S1"}, text=..., response_url=...)
    polled = service().open(*WeCom().posts(refresh))
    assert (polled.msgtype, polled.stream_id, polled.msgid, polled.text) == ("stream", "S1", "", "")

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
    """A message of another type, known or not, has its payload and an empty text."""
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
def test_mention_is_removed_from_group_text(name: str, content: str, expected: str) -> None:
    """In a group the configured bot's mention and its spaces are removed; without a name, the leading mention.

    In a single chat a mention is ordinary text.
    """
    assert service(bot_name=name).open(*WeCom().posts(group_message(content))).text == expected
    assert service(bot_name=name).open(*WeCom().posts(text_message(content))).text == content


def test_group_message_names_its_group() -> None:
    """A group message has its chatid; in a single chat a chatid is ignored."""
    group = service().open(*WeCom().posts(group_message("@Bot hi")))
    single = service().open(*WeCom().posts(text_message("hi", chatid="wrEXAMPLE")))

    assert (group.chattype, group.chatid) == ("group", "wrEXAMPLE")
    assert (single.chattype, single.chatid) == ("single", "")


@pytest.mark.parametrize("name", ["msg_signature", "timestamp", "nonce"])
@pytest.mark.parametrize("value", [None, ""])
def test_missing_parameter_is_named(name: str, value: str | None) -> None:
    """A query that lacks one of its three parameters, or has an empty one, is rejected before the body is read."""
    args, _ = WeCom().posts(text_message())
    args = {key: text for key, text in args.items() if key != name} | ({} if value is None else {name: value})

    assert failed_check(args, b"<xml>") == "missing_parameter"


@pytest.mark.parametrize("name", ["msgsignature", "signature"])
def test_other_names_are_accepted(name: str) -> None:
    """The two other query names of Tencent's plugin, and `Encrypt`, as in callbacks of applications."""
    args, body = WeCom().posts(text_message())
    args[name] = args.pop("msg_signature")

    assert service().open(args, body).msgid == "m-0001"
    assert service().open(args, body.replace(b"encrypt", b"Encrypt")).msgid == "m-0001"


@pytest.mark.parametrize(
    ("seconds", "window", "refused"),
    [
        *((seconds, 600.0, True) for seconds in (-601, 601, -(10**9), 10**9)),
        *((seconds, 600.0, False) for seconds in (-600, 0, 600)),
        (1 - NOW, 0.0, False),
    ],
)
def test_a_timestamp_has_a_window(seconds: int, window: float, refused: bool) -> None:
    """It has the same length before and after now, and includes its ends; a window of 0 disables the check."""
    args, body = WeCom().posts(text_message(), timestamp=str(NOW + seconds))

    if refused:
        assert failed_check(args, body, timestamp_window=window) == "stale_timestamp"
    else:
        assert service(timestamp_window=window).open(args, body).userid == "zhangsan"


@pytest.mark.parametrize("timestamp", ["soon", "-1", "1.5", " 1700000000", "1_700_000_000", "١٧٠٠٠٠٠٠٠٠", "9" * 5000])
@pytest.mark.parametrize("window", [0.0, 600.0])
def test_timestamp_that_is_no_number_is_rejected(timestamp: str, window: float) -> None:
    """Only decimal digits are a timestamp, also if the window is disabled."""
    args, body = WeCom().posts(text_message(), timestamp=timestamp)

    assert failed_check(args, body, timestamp_window=window) == "stale_timestamp"


@pytest.mark.parametrize(
    ("bodies", "check"),
    [
        # An application's XML, which WeCom sends if the URL was entered in the wrong place.
        ((b"<xml></xml>", b"\xef\xbb\xbf\r\n <xml>", b"<html>"), "xml_body"),
        ((b"", b"{", b"\xff\xfe", b"[]", b'"text"', b"7", b'{"encrypt": 7}', b"[" * 100_000), "bad_json"),
        ((b"{}", b'{"encrypt": ""}', b'{"encrypt": null}'), "missing_parameter"),
    ],
)
def test_body_that_is_no_envelope_is_rejected(bodies: tuple[bytes, ...], check: str) -> None:
    """Each kind has an error of its own."""
    assert [failed_check(body=body) for body in bodies] == [check] * len(bodies)


def test_wrong_signature_or_ciphertext_is_rejected() -> None:
    """Of another token, over another nonce; under another key, of an impossible length, and what is no base64."""
    args, body = WeCom().posts(text_message())
    signed = [WeCom(token="SOMEONE").posts(text_message()), ({**args, "nonce": "5"}, body)]
    signed.append(({**args, "nonce": "\ud800"}, body))
    sealed = [WeCom(key=NEW_KEY).posts(text_message()), WeCom().signed("YWJj"), WeCom().signed("not base64!")]

    assert [failed_check(*one) for one in signed] == ["bad_signature"] * 3
    assert [failed_check(*one) for one in sealed] == ["bad_ciphertext"] * 3


def test_other_receiver_is_rejected() -> None:
    """A message for another receiveid is bad_ciphertext; the configured one is accepted."""
    args, body = WeCom(receiver="wwOTHER").posts(text_message())

    assert failed_check(args, body) == "bad_ciphertext"
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
def test_decrypted_text_of_another_shape_is_bad_ciphertext(message: Any) -> None:
    """A text that is not a message object, or has a member of a wrong type, is bad_ciphertext after decryption."""
    assert failed_check(message=message) == "bad_ciphertext"


@pytest.mark.parametrize(
    "changes",
    [{"from": ...}, {"from": {}}, {"from": {"userid": "sys"}}, {"chattype": "group"}, {"chattype": "channel"}],
)
def test_an_event_of_the_system_is_an_event(changes: dict[str, Any]) -> None:
    """It may lack members that messages must have: it has to be acknowledged, or WeCom sends it again.

    A message of a user who is called "sys" is read.
    """
    assert service().open(*WeCom().posts(text_message(**{"from": {"userid": "sys"}}))).userid == "sys"
    event = text_message(msgtype="event", event={"eventtype": "enter_check_update"}, **changes)

    message = service().open(*WeCom().posts(event))

    assert (message.event, message.userid in ("", "zhangsan")) == ("enter_check_update", True)


@pytest.mark.parametrize("aibotid", ["aibOTHER", ...])
def test_other_bot_is_rejected_if_one_is_configured(aibotid: Any) -> None:
    """If a bot id is configured, another one or none is bad_ciphertext; otherwise any is accepted."""
    message = text_message(aibotid=aibotid)

    assert failed_check(message=message, aibotid="aibEXAMPLE") == "bad_ciphertext"
    assert service().open(*WeCom().posts(message)).userid == "zhangsan"
    assert service(aibotid="aibEXAMPLE").open(*WeCom().posts(text_message())).userid == "zhangsan"


def test_a_lone_surrogate_is_replaced() -> None:
    """A lone surrogate in the JSON becomes "?"; the rest of the message is kept, and every text can be encoded."""
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
def test_messages_of_any_shape_raise_only_callback_refused(members: JsonObject, msgtype: str) -> None:
    """For any value of any member the result is a message with strings, or bad_ciphertext."""
    raw = {
        **group_message("@Bot hi"),
        "msgtype": msgtype,
        "stream": {"id": "S1"},
        "event": {"eventtype": "x"},
        **members,
    }

    outcome = outcome_of(raw)

    if isinstance(outcome, Message):
        # Events of the bot itself have no user.
        assert outcome.userid or outcome.msgtype == "event"
        assert all(isinstance(text, str) for text in (outcome.msgid, outcome.chatid, outcome.text, outcome.event))
    else:
        assert outcome == "bad_ciphertext"


@given(
    body=st.binary(max_size=100),
    args=st.dictionaries(st.sampled_from(["msg_signature", "timestamp", "nonce"]), st.text()),
)
def test_any_bytes_raise_only_callback_refused(body: bytes, args: dict[str, str]) -> None:
    """Any query and body raise CallbackRefused, never another exception."""
    with pytest.raises(CallbackRefused):
        service().open(args, body)
    with pytest.raises(CallbackRefused):
        service().verify_url({**args, "echostr": "x"})


def test_url_verification_returns_the_echo() -> None:
    """The decrypted echo is returned unchanged, numeric or not."""
    assert service().verify_url(WeCom().verifies("7283940561728394056")) == "7283940561728394056"
    assert service().verify_url(WeCom().verifies(" 是\n")) == " 是\n"


def test_a_recorded_message_is_not_accepted_as_echo() -> None:
    """A recorded callback sent as an echostr is not decrypted for the sender."""
    with pytest.raises(CallbackRefused, match=r"^bad_ciphertext$"):
        service().verify_url(WeCom().verifies(json.dumps(text_message())))


def test_url_verification_survives_a_lost_plus() -> None:
    """A proxy that turns "+" into a space does not break the verification."""
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
    """A verification is rejected by the same checks as a message."""
    with pytest.raises(CallbackRefused) as caught:
        service().verify_url({**WeCom().verifies("echo"), **change})

    assert caught.value.code == check


def test_reply_is_compact_and_stamped_by_our_clock() -> None:
    """The envelope has the reply as compact UTF-8 JSON, our time as an integer, and the callback's nonce."""
    reply = {"msgtype": "stream", "stream": {"id": "S1", "finish": False, "content": "正在"}}

    envelope = json.loads(service(clock=lambda: NOW + 5.9).seal(reply, NONCE))

    assert (envelope["timestamp"], envelope["nonce"]) == (NOW + 5, NONCE)
    plain = WeCom().crypt.decrypt(envelope["encrypt"], "")
    assert plain == '{"msgtype":"stream","stream":{"id":"S1","finish":false,"content":"正在"}}'


def test_reply_with_a_lone_surrogate_is_sent() -> None:
    """A lone surrogate in a provider's text becomes "?", and the frame is sent."""
    assert WeCom().reads(service().seal({"content": "a\ud83db"}, NONCE)) == {"content": "a?b"}


def test_reply_that_cannot_be_sealed_raises_seal_failed() -> None:
    """A nonce that cannot be encoded raises our own error, which does not contain the reply."""
    with pytest.raises(LaibaoError) as caught:
        service().seal({"content": "words"}, "\ud800")

    assert caught.value.code == "seal_failed"
    assert "words" not in str(caught.value)


@pytest.mark.parametrize("token", [TOKEN, NEW_TOKEN])
@pytest.mark.parametrize("key", [KEY, NEW_KEY])
def test_any_pair_of_token_and_key_verifies(token: str, key: str) -> None:
    """During a rotation every token is valid with every key; the reply uses the pair of the request, or the first."""
    both = service(tokens=(TOKEN, NEW_TOKEN), aes_keys=(KEY, NEW_KEY))
    wecom = WeCom(token=token, key=key)

    message = both.open(*wecom.posts(text_message()))

    assert wecom.reads(both.seal({"content": "hi"}, NONCE, pair=message.pair)) == {"content": "hi"}
    assert WeCom().reads(both.seal({"content": "first"}, NONCE)) == {"content": "first"}
    assert both.verify_url(wecom.verifies("echo")) == "echo"


def functions_run(padded: bytes) -> list[str]:
    """Return the functions of ours that run, in order, until a callback with this plaintext is rejected."""
    raw = _cipher(decode_key(KEY)).encryptor().update(padded)
    args, body = WeCom().signed(base64.b64encode(raw).decode())
    called: list[str] = []

    def record_call(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.endswith(
            ("wecom/callback.py", "wecom/crypto.py", "wecom/message.py")
        ):
            called.append(frame.f_code.co_name)

    sys.setprofile(record_call)
    try:
        assert failed_check(args, body, aes_keys=(KEY, NEW_KEY)) == "bad_ciphertext"
    finally:
        sys.setprofile(None)
    return called


def test_every_failure_after_the_signature_runs_the_same_functions() -> None:
    """Bad padding, a wrong receiveid and an impossible length run the same functions: their timing shows no cause."""
    message = b'{"msgid":"m","msgtype":"text","from":{"userid":"u"},"text":{"content":"x"}}'.ljust(77)
    layout, pad = (bytes(16) + bytes([0, 0, 0, 77]) + message), bytes([31]) * 31

    steps = {
        "last byte": functions_run(layout + pad[:-1] + b"\x30"),
        "first byte": functions_run(layout + b"\x1e" + pad[1:]),
        "receiveid": functions_run(bytes(16) + bytes([0, 0, 0, 76]) + message[:-1] + b"w" + pad),
        "length": functions_run(bytes(16) + bytes([0, 0, 1, 77]) + message + pad),
    }

    assert steps == dict.fromkeys(steps, steps["receiveid"])
    assert steps["receiveid"].count("_payload") == 2


def test_with_several_pairs_the_latest_failed_check_is_named() -> None:
    """A valid signature with a wrong key is bad_ciphertext, although other tokens failed at the signature."""
    several = {"tokens": (NEW_TOKEN, TOKEN), "aes_keys": (KEY,)}
    reversed_tokens = {"tokens": (TOKEN, NEW_TOKEN), "aes_keys": (KEY,)}

    assert failed_check(*WeCom(key=NEW_KEY).posts(text_message()), **several) == "bad_ciphertext"
    assert failed_check(*WeCom(key=NEW_KEY).posts(text_message()), **reversed_tokens) == "bad_ciphertext"
    assert failed_check(*WeCom(receiver="wwOTHER").posts(text_message()), **several) == "bad_ciphertext"
    assert failed_check(*WeCom(token="SOMEONE").posts(text_message()), **several) == "bad_signature"


def test_a_derived_key_is_hkdf_of_an_aes_key() -> None:
    """The key for a purpose is the first block of HKDF (RFC 5869) over the decoded AES key."""
    extracted = hmac.digest(b"wechatlaibao", bytes(range(32)), hashlib.sha256)
    expected = hmac.digest(extracted, b"stream-id\x01", hashlib.sha256)

    assert derive_key(KEY, "stream-id") == expected
    assert derive_key(NEW_KEY, "stream-id") != expected
    assert derive_key(KEY, "reply") != expected
