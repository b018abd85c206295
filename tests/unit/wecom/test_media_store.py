"""The simulator's store of media refuses what WeCom's store refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from demo.wecom.media_store import VALID_SECONDS, MediaStore
from services.wecom.crypto import decode_key, decrypt_media
from tests.support.wecom_stub import AES_KEY


@pytest.fixture
def now() -> list[float]:
    return [1_700_000_000.0]


@pytest.fixture
def store(now: list[float]) -> Iterator[MediaStore]:
    with MediaStore(clock=lambda: now[0]) as store:
        yield store


def status(url: str, **headers: str) -> int:
    return requests.get(url, headers=headers, timeout=10, allow_redirects=False).status_code


def test_a_file_is_served_encrypted_with_its_name(store: MediaStore) -> None:
    """Neither the content nor the name is readable as it is."""
    reply = requests.get(store.put(b"plain text", AES_KEY, name="报告.pdf"), timeout=10)

    assert b"plain" not in reply.content
    assert decrypt_media(reply.content, decode_key(AES_KEY)) == b"plain text"
    assert reply.headers["Content-Disposition"] == "attachment; filename*=UTF-8''%E6%8A%A5%E5%91%8A.pdf"


def test_an_address_needs_its_signature_and_ends(store: MediaStore, now: list[float]) -> None:
    """A second encoding of the signature breaks it, as another signature and five minutes do."""
    url = store.put(b"x", AES_KEY)
    answers = [status(url), status(url.replace("%", "%25")), status(f"{url}x"), status(url.partition("?")[0])]
    now[0] += VALID_SECONDS + 1

    assert (answers, status(url)) == ([200, 403, 403, 403], 403)


def test_a_get_with_a_content_type_is_refused(store: MediaStore) -> None:
    """The rule is broken in the store's list, too."""
    assert status(store.put(b"x", AES_KEY), **{"Content-Type": "text/plain"}) == 400
    assert store.broken == ["a GET with Content-Type"]
