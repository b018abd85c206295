"""Files that came with a question: encrypted pieces in Redis, until the question's stream has ended."""

from __future__ import annotations

import os
from base64 import b64encode

import pytest
import redis

from services.attachments import Media, MediaFile
from services.errors import AnswerError, FetchError, StoreUnavailable
from services.files.sent_store import UPLOAD_SECONDS, SentFileStore
from services.files.slices import SLICE_BYTES
from services.redis.store import ScriptRunner, connect
from tests.support.files import budget_of
from tests.support.pictures import png
from tests.support.servers.processes import free_port

KEY, NEW_KEY = b"k" * 32, b"n" * 32
#: A content that no ciphertext looks like by chance.
WORDS = b"words of somebody"
WEB = Media("image", "https://a.x/1", place="web")


@pytest.fixture
def store(runner: ScriptRunner) -> SentFileStore:
    return SentFileStore(runner, {"default": KEY}, budget_of(runner), ttl=100)


def picture(content: bytes) -> MediaFile:
    return MediaFile("image.png", "image", "image/png", content)


@pytest.mark.parametrize("size", [1, SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 3 * SLICE_BYTES])
def test_a_file_is_kept_in_pieces(store: SentFileStore, size: int) -> None:
    """Other files of the question stay where they are."""
    content = os.urandom(size)

    kept, other = store.keep("default", "key:1", (picture(content), WEB))

    assert (kept.kind, kept.place, other) == ("image", "redis", WEB)
    assert store.read("default", kept) == ("", content)


def test_redis_has_no_readable_content(store: SentFileStore, redis_client: redis.Redis) -> None:
    """Two copies of one file do not look alike either, and expire."""
    first, second = store.keep("default", "key:1", (picture(WORDS), picture(WORDS)))

    contents = [redis_client.hgetall(f"dify_media:{media.url}") for media in (first, second)]
    assert first.url != second.url
    assert contents[0]["0"] != contents[1]["0"]
    assert not [shown for shown in (WORDS, b64encode(WORDS)) if shown.decode() in str(contents)]
    assert 90 < redis_client.ttl(f"dify_media:{first.url}") <= 100


def test_a_key_that_was_rotated_still_decrypts(runner: ScriptRunner, store: SentFileStore) -> None:
    """While the bot has both; with the new one alone the file has to be sent again."""
    (kept,) = store.keep("default", "key:1", (picture(png()),))

    rotated = SentFileStore(runner, {"default": lambda: (NEW_KEY, KEY)}, budget_of(runner), ttl=100)
    assert rotated.read("default", kept) == ("", png())
    with pytest.raises(FetchError) as caught:
        SentFileStore(runner, {"default": NEW_KEY}, budget_of(runner), ttl=100).read("default", kept)
    assert caught.value.code == "media_too_old"


@pytest.mark.parametrize("lost", ["all", "piece"])
def test_a_file_that_is_gone_has_to_be_sent_again(store: SentFileStore, redis_client: redis.Redis, lost: str) -> None:
    """Never a part of it."""
    (kept,) = store.keep("default", "key:1", (picture(os.urandom(SLICE_BYTES + 1)),))
    key = f"dify_media:{kept.url}"
    if lost == "all":
        store.remove((kept, WEB))
        assert not redis_client.exists(key)
    else:
        redis_client.hdel(key, "1")

    with pytest.raises(FetchError) as caught:
        store.read("default", kept)

    assert caught.value.code == "media_too_old"


def test_without_redis_nothing_is_kept_and_nothing_removed() -> None:
    """The question is refused; what could not be removed expires."""
    nowhere = ScriptRunner(connect(f"redis://127.0.0.1:{free_port()}", pool_size=1))
    away = SentFileStore(nowhere, {"default": KEY}, budget_of(nowhere), ttl=100)

    with pytest.raises(StoreUnavailable):
        away.keep("default", "key:1", (picture(png()),))
    away.remove((Media("image", "x", place="redis"),))


def test_an_upload_waits_for_its_question(store: SentFileStore, redis_client: redis.Redis) -> None:
    """It keeps its name, lives as long as a stream from the question on, and is not removed with it."""
    report = MediaFile("年报.pdf", "document", "application/pdf", os.urandom(SLICE_BYTES + 1))
    name = store.upload("key:1", report)
    waits = redis_client.ttl(f"dify_media:{name}")

    (media,) = store.claimed("key:1", [name])
    store.remove((media,))

    assert (media.kind, media.place) == ("file", "upload")
    assert store.read("default", media) == ("年报.pdf", report.content)
    assert 590 < waits <= UPLOAD_SECONDS
    assert 90 < redis_client.ttl(f"dify_media:{name}") <= 100


def test_redis_has_no_name_of_an_upload(store: SentFileStore, redis_client: redis.Redis) -> None:
    """Nor its owner."""
    name = store.upload("key:1", picture(png()))

    written = str(redis_client.hgetall(f"dify_media:{name}"))
    assert not [word for word in ("image.png", "key:1") if word in written]


@pytest.mark.parametrize("wanted", ["another's", "expired", "no upload"])
def test_an_upload_is_its_owners(store: SentFileStore, redis_client: redis.Redis, wanted: str) -> None:
    """One file that is not there refuses the question; a file of another question is no upload."""
    (of_question,) = store.keep("default", "key:1", (picture(png()),))
    name = store.upload("key:1", picture(png()))
    caller = "key:2" if wanted == "another's" else "key:1"
    if wanted == "expired":
        redis_client.delete(f"dify_media:{name}")

    with pytest.raises(AnswerError) as caught:
        store.claimed(caller, [name if wanted != "no upload" else of_question.url])

    assert caught.value.code == "file_unknown"


def test_a_persons_uploads_are_counted(store: SentFileStore, redis_client: redis.Redis) -> None:
    """For ten minutes from the first one on."""
    assert [store.uploaded("ann", 3), store.uploaded("ann", 4), store.uploaded("bob", 1)] == [3, 7, 1]
    assert 590 < redis_client.ttl("dify_media_bytes:ann") <= UPLOAD_SECONDS
