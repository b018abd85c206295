"""Sealing: only a replica's key opens it, and what was changed does not open."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.sealed import NONCE_BYTES, TAG_BYTES, seal, unseal

KEY = bytes(range(32))
SECRET = "https://wecom.invalid/reply?response_code=not-a-real-code"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_sealed_comes_back(text: str) -> None:
    """Any text, the empty one too, is itself again."""
    assert unseal(KEY, seal(KEY, text)) == text


def test_nothing_stays_nothing() -> None:
    """A question without a reply address has an empty field, not a sealed emptiness."""
    assert seal(KEY, "") == ""
    assert unseal(KEY, "") == ""


def test_the_sealed_text_shows_nothing() -> None:
    """It is plain base64 that has no byte of the secret's words, and is another one each time."""
    first, second = seal(KEY, SECRET), seal(KEY, SECRET)

    assert first != second
    assert b"wecom" not in base64.b64decode(first, validate=True)
    assert len(base64.b64decode(first)) == NONCE_BYTES + TAG_BYTES + len(SECRET)


def test_what_an_earlier_version_sealed_opens() -> None:
    """In a rolling update both write: nonce, tag and text stand in this order for ever."""
    sealed = (
        "AAAAAAAAAAAAAAAAbCBMEiu9XyJ+48ehcyDqImbIwa7GFqySf83KWnUC+PekIjo6TK4SSvDyyry3"
        "mi4mITGV2XWR12JW/h+ateMIY9tiIIpUEinBNQ=="
    )

    assert unseal(KEY, sealed) == SECRET


def test_another_key_opens_nothing() -> None:
    """Whoever has Redis alone has no reply address."""
    with pytest.raises(ValueError, match="MAC"):
        unseal(bytes(32), seal(KEY, SECRET))


@pytest.mark.parametrize("place", [0, NONCE_BYTES, NONCE_BYTES + TAG_BYTES])
def test_a_changed_byte_is_noticed(place: int) -> None:
    """Nonce, tag and text are all held to what was sealed."""
    raw = bytearray(base64.b64decode(seal(KEY, SECRET)))
    raw[place] ^= 1

    with pytest.raises(ValueError, match="MAC"):
        unseal(KEY, base64.b64encode(raw).decode())


@pytest.mark.parametrize("damaged", ["not base64!", "AAAA", "密封"])
def test_what_was_never_sealed_is_a_value_error(damaged: str) -> None:
    """A field somebody else wrote is refused like a damaged one."""
    with pytest.raises(ValueError):  # noqa: PT011 - the words are the libraries'
        unseal(KEY, damaged)
