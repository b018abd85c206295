"""Sealing: only the same key decrypts a sealed text, and a changed one is refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.sealed import NONCE_BYTES, TAG_BYTES, seal, unseal_any

KEY = bytes(range(32))
SECRET = "https://wecom.invalid/reply?response_code=not-a-real-code"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_sealed_text_is_unsealed(text: str) -> None:
    """This holds for any text, the empty one included."""
    assert unseal_any((KEY,), seal(KEY, text)) == text


def test_an_empty_text_stays_empty() -> None:
    """A question without a reply address has an empty field, not an encrypted empty text."""
    assert seal(KEY, "") == ""
    assert unseal_any((KEY,), "") == ""


def test_a_sealed_text_does_not_show_the_secret() -> None:
    """It is base64 without the secret's words, and differs each time because of its nonce."""
    first, second = seal(KEY, SECRET), seal(KEY, SECRET)

    assert first != second
    assert b"wecom" not in base64.b64decode(first, validate=True)
    assert len(base64.b64decode(first)) == NONCE_BYTES + TAG_BYTES + len(SECRET)


def test_a_text_sealed_by_an_earlier_version_is_unsealed() -> None:
    """In a rolling update both versions write, so the order nonce, tag, text must not change."""
    sealed = (
        "AAAAAAAAAAAAAAAAbCBMEiu9XyJ+48ehcyDqImbIwa7GFqySf83KWnUC+PekIjo6TK4SSvDyyry3"
        "mi4mITGV2XWR12JW/h+ateMIY9tiIIpUEinBNQ=="
    )

    assert unseal_any((KEY,), sealed) == SECRET


def test_another_key_does_not_unseal() -> None:
    """Access to Redis alone does not reveal a reply address."""
    with pytest.raises(ValueError, match="MAC"):
        unseal_any((bytes(32),), seal(KEY, SECRET))


@pytest.mark.parametrize("position", [0, NONCE_BYTES, NONCE_BYTES + TAG_BYTES])
def test_a_changed_byte_is_detected(position: int) -> None:
    """This holds for the nonce, the tag and the text."""
    raw = bytearray(base64.b64decode(seal(KEY, SECRET)))
    raw[position] ^= 1

    with pytest.raises(ValueError, match="MAC"):
        unseal_any((KEY,), base64.b64encode(raw).decode())


@pytest.mark.parametrize("damaged", ["not base64!", "AAAA", "密封"])
def test_a_text_that_was_never_sealed_raises_value_error(damaged: str) -> None:
    """A field with other content is refused like a damaged one."""
    with pytest.raises(ValueError):  # noqa: PT011 - the words are the libraries'
        unseal_any((KEY,), damaged)
