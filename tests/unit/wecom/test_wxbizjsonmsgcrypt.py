"""WeCom's envelope: the published vectors byte for byte, and any other input."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from Crypto.Cipher import AES
from hypothesis import given
from hypothesis import strategies as st

import demo.ierror
import demo.WXBizJsonMsgCrypt
from services.wecom import codes as ierror
from services.wecom.crypto import CryptError, Prpcrypt, WXBizJsonMsgCrypt, decode_key, signature

APP_TOKEN, APP_RECEIVER = "QDG6eK", "wx5823bf96d3bd56c7"
APP_KEY = "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C"
APP_ECHO = "P9nAzCzyDtyTWESHep1vC5X9xho/qYX3Zpb4yKa9SKld1DsH3Iyt3tP3zNdtp+4RPcs8TgAE7OaBO+FZXvnaqQ=="
APP_POST = (
    "RypEvHKD8QQKFhvQ6QleEB4J58tiPdvo+rtK1I9qca6aM/wvqnLSV5zEPeusUiX5L5X/0lWfrf0QADHHhGd3QczcdCUpj911L3vg3W/sYYvuJTs3"
    "TUUkSUXxaccAS0qhxchrRYt66wiSpGLYL42aM6A8dTT+6k4aSknmPj48kzJs8qLjvd4Xgpue06DOdnLxAUHzM6+kDZ+HMZfJYuR+LtwGc2hgf5gs"
    "ijff0ekUNXZiqATP7PF5mZxZ3Izoun1s4zG4LUMnvw2r+KqCKIw+3IQH03v+BCA9nMELNqbSf6tiWSrXJB3LAVGUcallcrw8V2t9EL4EhzJWrQUa"
    "x5wLVMNS0+rUPA3k22Ncx4XXZS9o0MBH27Bo6BpNelZpS+/uh9KsNlY6bHCmJU9p8g7m3fVKn28H3KDYA5Pl/T8Z1ptDAVe0lXdQ2YoyyH2uyPIG"
    "HBZZIs2pDBS8R07+qN+E7Q=="
)

TOKEN, RANDOM = "TESTTOKEN0123456789", b"1234567890123456"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
OTHER_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
STAMP, NONCE = "1700000000", "123412323"

TEXT_MESSAGE = (
    '{"msgid":"MSGID1","aibotid":"AIBOT1","chattype":"single","from":{"userid":"alice"},'
    '"response_url":"https://qyapi.weixin.qq.com/cgi-bin/aibot/response?response_code=CODE1",'
    '"msgtype":"text","text":{"content":"你好"}}'
)
STREAM_REPLY = '{"msgtype":"stream","stream":{"id":"S1","finish":false,"content":"正在"}}'

#: Plaintext, ciphertext and signature of each vector: B1, B2, B3 and both of B4.
BOT_VECTORS = {
    "echostr": (
        "7283940561728394056",
        "ubT/hyl6kROaPuzc7P2P3wXZKy1rf+lFi3O8GzbQE7kHiBlJD8cVlElEMsugQTCtwTczVPAtwyzwVZogSUY7bw==",
        "49e68c7f59d22fd66753e0b599ea37c6835b2bf0",
    ),
    "text message": (
        TEXT_MESSAGE,
        "ubT/hyl6kROaPuzc7P2P300eZVdVmEouTL/zd9NRWfn+N357aGwzkqR7KThi5F0ZJ8OtUKA8/YC9sMvPjsr0H+x7Nenyxm5woLwobkxzTqMSqXcZ"
        "3V00tzsLsEEWU/ZhhB4e9rYTj7UyRwbSse/9SQYNtZvEw7JcdrH+To9F8O0eM1+P0QzSxbwmI+0Ezfxln9JI15jJUi3f7HL0aHxfWGAPFgBAddUu"
        "bso3Z25dWa6XJK29zHxTHRgokbqvj/AOronZs/dA6arY9OgVQeCiVsfNrcar47zUg7UOu7NYJhgI1H592oPm/Toil86/+rQXisk6E3dKRn/ICiaT"
        "luqRGg==",
        "54b58a43777baa8fefa697b6bece3dcd84d11238",
    ),
    "stream reply": (
        STREAM_REPLY,
        "ubT/hyl6kROaPuzc7P2P38Z7RZJM63FBKOQgh/lIObiYX3idM7PLwMlOyEG48Ut8LCiduhbXbABaSkTOLSlhiBgFwGvDllupsyG9Zo8Naca48T8m"
        "inAdGRX2kr0JgxmK",
        "175a3ca9c6703203c4bfd59c9f9d989079413cb8",
    ),
    "a full block of padding": (
        "x" * 12,
        "ubT/hyl6kROaPuzc7P2P34LCre5Bm1U0tjvH4hFCZ9ktl6V2t1Yog9l2cESBsxfIu3Xs3kX6kas3IVdFcWNS4w==",
        "09c22291e1b5d6427d29fce50c2ca7798ee3616b",
    ),
    "padding of 31": (
        "x" * 13,
        "ubT/hyl6kROaPuzc7P2P3xrur9ctdXyJY+kY0vCqwQpct8KglBtQwHEKNfZFs8q/uYfcaNzBjDRETnLsdFC4EA==",
        "6de1f52d05ecac690cd462162b901a44e6abcb64",
    ),
}


def crypt(*, token: str = TOKEN, key: str = KEY, receiver: str = "") -> WXBizJsonMsgCrypt:
    return WXBizJsonMsgCrypt(token, key, receiver)


def raw_encrypt(plain: bytes, key: str = KEY) -> str:
    """Encrypt exactly these bytes, without a prefix, a length or padding."""
    secret = decode_key(key)
    return base64.b64encode(AES.new(secret, AES.MODE_CBC, secret[:16]).encrypt(plain)).decode()


def padded(plain: bytes) -> bytes:
    count = 32 - len(plain) % 32
    return plain + bytes([count]) * count


def opened(encrypted: str, *, receiver: str = "") -> tuple[int, str | None]:
    """Open a ciphertext under a correct signature."""
    return crypt(receiver=receiver).open(encrypted, signature(TOKEN, STAMP, NONCE, encrypted), STAMP, NONCE)


def test_official_url_verification_is_opened() -> None:
    """The published GET example for applications is verified and decrypted, with its receiveid."""
    official = crypt(token=APP_TOKEN, key=APP_KEY, receiver=APP_RECEIVER)

    code, text = official.VerifyURL("5c45ff5e21c57e6ad56bac8758b79b1d9ac89fd3", "1409659589", "263014780", APP_ECHO)

    assert (code, text) == (ierror.WXBizMsgCrypt_OK, "1616140317555161061")


def test_official_message_is_opened_and_sealed_again() -> None:
    """The published POST example is decrypted; encrypting it with its random bytes gives the same ciphertext."""
    official = crypt(token=APP_TOKEN, key=APP_KEY, receiver=APP_RECEIVER)
    body = json.dumps({"encrypt": APP_POST})

    code, text = official.DecryptMsg(body, "477715d11cdb4164915debcba66cb864d751f3e6", "1409659813", "1372623149")

    assert code == ierror.WXBizMsgCrypt_OK
    assert text is not None
    assert text.startswith("<xml>")
    again = Prpcrypt(decode_key(APP_KEY), random=lambda _: b"0960688932c47ef1")
    assert again.encrypt(text, APP_RECEIVER) == APP_POST


@pytest.mark.parametrize("name", BOT_VECTORS)
def test_bot_vector_is_written_and_read_byte_for_byte(name: str) -> None:
    """With the vector's random bytes; every vector is read as an echostr and as a message body."""
    plain, encrypted, signed = BOT_VECTORS[name]

    written = Prpcrypt(decode_key(KEY), random=lambda _: RANDOM).encrypt(plain, "")

    assert written == encrypted
    assert signature(TOKEN, STAMP, NONCE, written) == signed
    assert crypt().VerifyURL(signed, STAMP, NONCE, encrypted) == (ierror.WXBizMsgCrypt_OK, plain)
    body = json.dumps({"encrypt": encrypted, "agentid": "ignored"}).encode()
    assert crypt().DecryptMsg(body, signed, STAMP, NONCE) == (ierror.WXBizMsgCrypt_OK, plain)


def test_envelope_has_the_documented_members() -> None:
    """They are `encrypt`, `msgsignature`, an integer `timestamp` and `nonce`; the signature covers the others."""
    code, text = crypt().EncryptMsg(STREAM_REPLY, NONCE, STAMP)

    assert code == ierror.WXBizMsgCrypt_OK
    assert text is not None
    envelope = json.loads(text)
    assert envelope == {
        "encrypt": envelope["encrypt"],
        "msgsignature": signature(TOKEN, STAMP, NONCE, envelope["encrypt"]),
        "timestamp": 1700000000,
        "nonce": NONCE,
    }


def test_every_envelope_has_its_own_random_bytes() -> None:
    """The same reply twice gives two ciphertexts."""
    assert crypt().EncryptMsg("same", NONCE, STAMP) != crypt().EncryptMsg("same", NONCE, STAMP)


@given(text=st.text(max_size=300), receiver=st.text(max_size=40), nonce=st.text(max_size=20))
def test_any_text_is_sealed_and_opened(text: str, receiver: str, nonce: str) -> None:
    """Any text for any receiver is decrypted again by the envelope's reader."""
    both = crypt(receiver=receiver)

    code, envelope = both.EncryptMsg(text, nonce)

    assert code == ierror.WXBizMsgCrypt_OK
    assert envelope is not None
    sent = json.loads(envelope)
    assert sent["timestamp"] > 1_700_000_000
    read = both.DecryptMsg(envelope, sent["msgsignature"], str(sent["timestamp"]), sent["nonce"])
    assert read == (ierror.WXBizMsgCrypt_OK, text)


def test_every_length_is_padded_to_whole_blocks() -> None:
    """At every length the ciphertext is a multiple of 32 bytes, with 1 to 32 bytes of padding."""
    for length in range(70):
        encrypted = Prpcrypt(decode_key(KEY)).encrypt("a" * length, "")

        size = len(base64.b64decode(encrypted))
        assert size % 32 == 0
        assert 1 <= size - (20 + length) <= 32
        assert opened(encrypted) == (ierror.WXBizMsgCrypt_OK, "a" * length)


def test_no_flipped_bit_passes_the_signature() -> None:
    """Each ciphertext with one flipped bit fails; signed anew it gives a known code, and a text only with OK."""
    _, encrypted, signed = BOT_VECTORS["stream reply"]
    raw = base64.b64decode(encrypted)
    known = {value for name, value in vars(ierror).items() if name.startswith("WXBizMsgCrypt_")}

    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        flipped = base64.b64encode(changed).decode()
        refused = crypt().open(flipped, signed, STAMP, NONCE)
        code, text = opened(flipped)
        assert refused == (ierror.WXBizMsgCrypt_ValidateSignature_Error, None)
        assert code in known
        assert (text is not None) == (code == ierror.WXBizMsgCrypt_OK)


def test_no_truncation_passes() -> None:
    """A truncated ciphertext is never accepted, even if it is signed correctly."""
    _, encrypted, signed = BOT_VECTORS["text message"]

    for end in range(len(encrypted)):
        assert crypt().open(encrypted[:end], signed, STAMP, NONCE)[0] != ierror.WXBizMsgCrypt_OK
        assert opened(encrypted[:end])[0] != ierror.WXBizMsgCrypt_OK


@given(
    body=st.binary(max_size=200) | st.text(max_size=200), words=st.lists(st.text(max_size=30), min_size=3, max_size=3)
)
def test_no_body_raises(body: bytes | str, words: list[str]) -> None:
    """Any body under any signature returns an error code and no text, and raises nothing."""
    code, text = crypt().DecryptMsg(body, *words)

    assert code != ierror.WXBizMsgCrypt_OK
    assert text is None


@given(plain=st.binary(max_size=200))
def test_no_plaintext_raises(plain: bytes) -> None:
    """Any plaintext with valid padding returns a code; a text comes only with OK."""
    code, text = opened(raw_encrypt(padded(plain)))

    assert (text is not None) == (code == ierror.WXBizMsgCrypt_OK)


@pytest.mark.parametrize(
    "body", ["", "[]", '"encrypt"', "{}", '{"encrypt": 7}', '{"encrypt": null}', "[" * 100_000, b"\xff"]
)
def test_body_without_ciphertext_is_a_parse_error(body: str | bytes) -> None:
    """A body that is not an object with a string in `encrypt` is ParseJson."""
    assert crypt().DecryptMsg(body, "x", STAMP, NONCE) == (ierror.WXBizMsgCrypt_ParseJson_Error, None)


OTHER_TOKENS = signature("OTHERTOKEN", STAMP, NONCE, BOT_VECTORS["echostr"][1])


@pytest.mark.parametrize(
    "given_signature", [OTHER_TOKENS, "", "é", "\ud800", "49E68C7F59D22FD66753E0B599EA37C6835B2BF0", None]
)
def test_wrong_signature_is_a_signature_error(given_signature: Any) -> None:
    """One of another token, empty, not ASCII, upper-case or not a string is ValidateSignature."""
    code, _ = crypt().VerifyURL(given_signature, STAMP, NONCE, BOT_VECTORS["echostr"][1])

    assert code == ierror.WXBizMsgCrypt_ValidateSignature_Error


def test_values_that_are_no_text_or_number_are_errors() -> None:
    """A nonce is ComputeSignature in reading and in writing, a reply EncryptAES, a timestamp GenReturnJson."""
    values: tuple[Any, ...] = (None, 5, b"bytes", "\ud800")
    stamps: tuple[Any, ...] = ("soon", [], float("inf"))

    read = {crypt().VerifyURL("x", STAMP, nonce, "x") for nonce in values}
    written = {crypt().EncryptMsg("x", nonce, STAMP) for nonce in values}
    assert read == written == {(ierror.WXBizMsgCrypt_ComputeSignature_Error, None)}
    replies = {crypt().EncryptMsg(reply, NONCE, STAMP) for reply in values}
    assert replies == {(ierror.WXBizMsgCrypt_EncryptAES_Error, None)}
    enveloped = {crypt().EncryptMsg("x", NONCE, stamp) for stamp in stamps}
    assert enveloped == {(ierror.WXBizMsgCrypt_GenReturnJson_Error, None)}


@pytest.mark.parametrize("key", ["", KEY[:-1], KEY + "A", KEY[:-1] + "!", "é" * 43, None])
def test_illegal_key_is_reported_by_every_method(key: Any) -> None:
    """A key that is not 43 characters of base64 is IllegalAesKey in every method."""
    broken = crypt(key=key)

    assert broken.VerifyURL("x", STAMP, NONCE, "x") == (ierror.WXBizMsgCrypt_IllegalAesKey, None)
    assert broken.DecryptMsg('{"encrypt": "x"}', "x", STAMP, NONCE) == (ierror.WXBizMsgCrypt_IllegalAesKey, None)
    assert broken.EncryptMsg("x", NONCE, STAMP) == (ierror.WXBizMsgCrypt_IllegalAesKey, None)


def test_last_character_of_a_key_may_carry_unused_bits() -> None:
    """A key whose last character has bits beyond the 32 bytes is accepted: WeCom issues such keys."""
    assert decode_key(KEY[:-1] + "9") == decode_key(KEY)


def test_wrong_key_is_a_decryption_error() -> None:
    """Under another key the padding is wrong; the code is DecryptAES, not one about the receiver."""
    _, encrypted, signed = BOT_VECTORS["text message"]

    assert crypt(key=OTHER_KEY).open(encrypted, signed, STAMP, NONCE) == (ierror.WXBizMsgCrypt_DecryptAES_Error, None)


def test_other_receiver_is_rejected() -> None:
    """A text for another receiveid, or for none, is ValidateCorpid."""
    for_us = Prpcrypt(decode_key(KEY)).encrypt("x", "wwUS")
    for_nobody = Prpcrypt(decode_key(KEY)).encrypt("x", "")

    assert opened(for_us, receiver="wwUS") == (ierror.WXBizMsgCrypt_OK, "x")
    assert opened(for_us)[0] == ierror.WXBizMsgCrypt_ValidateCorpid_Error
    assert opened(for_nobody, receiver="wwUS")[0] == ierror.WXBizMsgCrypt_ValidateCorpid_Error


@pytest.mark.parametrize("encrypted", ["", "not base64!", "YQ", "é", "YWJj\n"])
def test_ciphertext_must_be_base64_of_whole_blocks(encrypted: str) -> None:
    """A string that is not standard base64 is DecodeBase64; an empty one is DecryptAES, because it has no block."""
    expected = ierror.WXBizMsgCrypt_DecodeBase64_Error if encrypted else ierror.WXBizMsgCrypt_DecryptAES_Error

    assert opened(encrypted) == (expected, None)


@pytest.mark.parametrize("tail", [b"\x00", b"\x21", b"\xff", b"\x01\x02", b"\x05\x05\x04\x05\x05"])
def test_wrong_padding_is_rejected(tail: bytes) -> None:
    """A padding byte of 0 or above 32, or padding bytes that differ, are DecryptAES."""
    plain = (RANDOM + struct.pack(">I", 1) + b"x" * 64)[: 64 - len(tail)] + tail

    assert opened(raw_encrypt(plain)) == (ierror.WXBizMsgCrypt_DecryptAES_Error, None)


def test_padding_is_to_32_bytes() -> None:
    """A text that is padded to 16 bytes, AES's block size, as other libraries do, is DecryptAES."""
    plain = RANDOM + struct.pack(">I", 12) + b"x" * 12 + b"\x10" * 16

    assert opened(raw_encrypt(plain)) == (ierror.WXBizMsgCrypt_DecryptAES_Error, None)


@pytest.mark.parametrize(
    "plain",
    [b"", b"\x00\x00\x00", b"\xff\xff\xff\xff" + b"x", b"\x00\x00\x00\x02" + b"x", b"\x00\x00\x00\x02" + b"\xff\xfe"],
)
def test_wrong_layout_is_rejected(plain: bytes) -> None:
    """Too short for prefix and length, a length beyond its end, and no UTF-8 are IllegalBuffer; no text is a text."""
    assert opened(raw_encrypt(padded(RANDOM + bytes(4)))) == (ierror.WXBizMsgCrypt_OK, "")
    assert opened(raw_encrypt(padded(RANDOM + plain))) == (ierror.WXBizMsgCrypt_IllegalBuffer, None)


def test_error_shows_only_its_code() -> None:
    """The message of a CryptError has the code and nothing of the input."""
    with pytest.raises(CryptError) as caught:
        decode_key("secret-looking-but-too-short")

    assert str(caught.value) == "code -40004"


def test_the_modules_of_the_sample_library_export_the_same_objects() -> None:
    """Code that imports the names of WeCom's sample library gets the product's objects."""
    sample = demo.WXBizJsonMsgCrypt
    assert (sample.WXBizJsonMsgCrypt, sample.Prpcrypt) == (WXBizJsonMsgCrypt, Prpcrypt)
    names = [name for name in vars(ierror) if name.startswith("WXBizMsgCrypt_")]
    assert names
    assert all(getattr(demo.ierror, name) is getattr(ierror, name) for name in names)
