"""MediaFetcher: fetched files are decrypted with the right key, or not passed on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
import requests
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from demo.wecom.media_store import VALID_SECONDS, MediaStore, StoreFaults, encrypt_media
from services.attachments import Media, MediaFile, MediaKind, media_from_json, media_to_json
from services.errors import AnswerError
from services.files.intake import MediaFetcher
from services.files.sent_store import SentFileStore
from services.http.addresses import AddressRules
from services.http.fetcher import Fetched, Fetcher
from services.redis.store import ScriptRunner, connect
from services.wecom.callback import MediaKeys, key_name
from services.wecom.crypto import decode_key, decrypt_media
from tests.support.files import budget_of
from tests.support.pictures import png
from tests.support.servers.processes import FakeClock
from tests.support.servers.raw_server import RawServer
from tests.unit.http.test_fetcher import ok
from tests.unit.wecom.test_wechat_service import KEY, NEW_KEY
from utils.deadline import Deadline

#: Vector of a media file under the key of the bytes 0 to 31.
PLAIN = b"plain-file-content-no-header"
#: A store that is not asked.
_NO_REDIS = ScriptRunner(connect("redis://127.0.0.1:9", pool_size=1))
NOTHING_SENT = SentFileStore(_NO_REDIS, {}, budget_of(_NO_REDIS), ttl=1)
CIPHERTEXT = base64.b64decode("JC96JgNvim/F/CWWBiCrSQEt1wz6qkZz38krjFYpOuo=")


@pytest.fixture
def store() -> Iterator[MediaStore]:
    with MediaStore() as store:
        yield store


@pytest.fixture
def service() -> Iterator[MediaFetcher]:
    fetcher = Fetcher(AddressRules(("127.0.0.1",)), backoff=0.0)
    made = MediaFetcher(fetcher, MediaKeys({"default": (NEW_KEY, KEY)}).decryptor, NOTHING_SENT, max_bytes=1000)
    yield made
    made.close()


def fetched(service: MediaFetcher, url: str, kind: MediaKind = "file", key: str = KEY) -> MediaFile:
    return service.fetch("default", Media(kind, url, key_name(key)), Deadline(30.0))


def code_of(service: MediaFetcher, url: str, kind: MediaKind = "file", key: str = KEY) -> str:
    with pytest.raises(AnswerError) as caught:
        fetched(service, url, kind, key)
    assert "sign" not in str(caught.value)
    return caught.value.code


def serving(body: bytes) -> MediaFetcher:
    """Return a service whose store has these bytes at every address."""

    class Source(Fetcher):
        def fetch(self, *args: object, **options: object) -> Fetched:
            return Fetched(body)

    return MediaFetcher(
        Source(AddressRules(())), MediaKeys({"default": (KEY,)}).decryptor, NOTHING_SENT, max_bytes=1000
    )


def test_the_documented_vector() -> None:
    """The simulator's encryption and the product's decryption agree with bytes that neither made."""
    assert encrypt_media(PLAIN, decode_key(KEY)) == CIPHERTEXT
    assert decrypt_media(CIPHERTEXT, decode_key(KEY)) == PLAIN


@pytest.mark.parametrize("size", [0, 1, 15, 16, 31, 32, 33, 999, 1000])
@pytest.mark.parametrize("block", [16, 32])
def test_a_file_of_any_size_is_decrypted(store: MediaStore, service: MediaFetcher, size: int, block: int) -> None:
    """The pad is checked by its value: lengths that are no multiple of 32 occur."""
    content = bytes(range(1, 251)) * 4
    url = store.put(content[:size], KEY, name="x.bin", faults=StoreFaults(block=block))

    assert fetched(service, url).content == content[:size]


def test_the_name_of_the_store_is_kept(store: MediaStore, service: MediaFetcher) -> None:
    """A Chinese name, which is percent-encoded in the header."""
    file = fetched(service, store.put(b"a,b", KEY, name="年假 报表.csv"))

    assert (file.name, file.type, file.mime) == ("年假 报表.csv", "document", "text/csv")
    assert store.broken == []


def test_the_store_refuses_what_wecoms_refuses() -> None:
    """Another signature, or the right one encoded twice, an address older than five minutes, and a Content-Type."""
    clock = FakeClock()
    with MediaStore(clock=clock) as store:
        url = store.put(b"x", KEY)
        asked = [url, url.replace("%", "%25"), f"{url}x", url.partition("?")[0]]
        answers = [requests.get(one, timeout=10).status_code for one in asked]
        typed = requests.get(url, headers={"Content-Type": "text/plain"}, timeout=10)
        clock.advance(VALID_SECONDS + 1)
        late = requests.get(url, timeout=10)

    assert answers == [200, 403, 403, 403]
    assert (typed.status_code, store.broken, late.status_code) == (400, ["a GET with Content-Type"], 403)


def test_the_key_that_opened_the_callback_decrypts(store: MediaStore, service: MediaFetcher) -> None:
    """While keys are rotated either may be in use; a key that is not set any more decrypts nothing."""
    assert fetched(service, store.put(b"new", NEW_KEY), key=NEW_KEY).content == b"new"
    assert code_of(service, store.put(b"old", KEY), key="z" * 43) == "media_undecryptable"
    with pytest.raises(AnswerError):
        service.fetch("another", Media("file", "https://x.invalid/", key_name(KEY)), Deadline(1.0))


@pytest.mark.parametrize("padding", ["", "="])
def test_a_file_may_have_a_key_of_its_own(store: MediaStore, service: MediaFetcher, padding: str) -> None:
    """On the long connection each address comes with its key, which needs no key of the bot."""
    media = Media("file", store.put(b"a,b", KEY, name="x.csv"), aeskey=KEY + padding)

    assert service.fetch("bot without keys", media, Deadline(30.0)).content == b"a,b"
    assert KEY not in repr(media)
    with pytest.raises(AnswerError) as caught:
        service.fetch("default", Media("file", media.url, aeskey="short"), Deadline(30.0))
    assert caught.value.code == "media_undecryptable"


def test_faults_that_pass_are_tried_again(store: MediaStore, service: MediaFetcher) -> None:
    """A reset and a 503, and then the file."""
    url = store.put(b"here", KEY, faults=StoreFaults(resets=1, busy=1))

    assert fetched(service, url).content == b"here"


@pytest.mark.parametrize(
    ("content", "faults", "kind", "code"),
    [
        (b"x" * 1001, StoreFaults(), "file", "media_too_large"),
        (b"x" * 5000, StoreFaults(), "file", "media_too_large"),
        (b"x", StoreFaults(expired=True), "file", "media_too_old"),
        (b"x", StoreFaults(busy=3), "file", "media_failed"),
        (b"x", StoreFaults(resets=3), "file", "media_failed"),
        (b"x", StoreFaults(redirect="http://localhost:1/"), "file", "media_not_allowed"),
        (b"no picture", StoreFaults(), "image", "media_wrong_type"),
    ],
)
def test_every_failure_has_a_code(
    store: MediaStore, service: MediaFetcher, content: bytes, faults: StoreFaults, kind: MediaKind, code: str
) -> None:
    """Each code has a sentence that says what to do."""
    assert code_of(service, store.put(content, KEY, faults=faults), kind) == code


@pytest.mark.parametrize(("last", "code"), [(b"\x21", "media_undecryptable"), (b"\x01", "media_wrong_type")])
def test_a_picture_of_a_wrong_key_is_not_passed_on(last: bytes, code: str) -> None:
    """Nearly every wrong key is found by the pad; one in 256 gives a valid pad, and no picture."""
    key = decode_key(KEY)
    opened_wrongly = Cipher(AES(key), CBC(key[:16])).encryptor().update(b"\xaa" * 63 + last)

    assert code_of(serving(opened_wrongly), "https://x.invalid/", "image") == code


@pytest.mark.parametrize("encrypted", [b"", b"<Error>Denied</Error>", b"x" * 16])
def test_a_body_that_was_never_encrypted_is_not_passed_on(encrypted: bytes) -> None:
    """An error page, or a file that somebody put there."""
    assert code_of(serving(encrypted), "https://x.invalid/") == "media_undecryptable"


def test_a_file_of_the_web_is_taken_as_it_is(service: MediaFetcher) -> None:
    """It is not decrypted; a picture still has to be one, and not too large."""

    def taken(content: bytes) -> MediaFile:
        with RawServer(ok(content)) as server:
            return service.fetch("default", Media("image", f"{server.url}/a.txt", place="web"), Deadline(30.0))

    file = taken(png())
    assert (file.type, file.mime, file.content) == ("image", "image/png", png())
    for content, code in ((b"no picture", "media_wrong_type"), (png() + b"x" * 1000, "media_too_large")):
        with pytest.raises(AnswerError) as caught:
            taken(content)
        assert caught.value.code == code


def test_files_are_written_and_read() -> None:
    """What is sealed in a question can be read again; anything else is an error."""
    media = (
        Media("image", "https://a.x/1?s=%2f", "k1"),
        Media("video", "https://a.x/2", aeskey="k"),
        Media("image", "https://a.x/3", place="web"),
    )

    assert media_from_json(media_to_json(media)) == media
    assert json.loads(media_to_json(media))[0] == ["image", "https://a.x/1?s=%2f", "k1"]
    assert (media_from_json(""), media_to_json(())) == ((), "")
    for damaged in ("{", '"x"', "[[1,2,3,4,5,6]]"):
        with pytest.raises((ValueError, TypeError)):
            media_from_json(damaged)
