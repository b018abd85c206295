"""MediaIntake: which files are fetched again, the bounds of time, number and size, and the errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from demo.mocks.dify.server import MockDify
from demo.wecom.media_store import MediaStore, StoreFaults
from services.attachments import Media, media_to_json
from services.errors import AnswerError, ProviderError
from services.files.intake import INLINE_BYTES, MediaFetcher, MediaIntake
from services.http.addresses import AddressRules
from services.http.fetcher import Fetcher
from services.models import Query, Question
from services.providers.base import BaseRAGProvider
from services.providers.dify.provider import DifyProvider
from services.providers.mock import MockProvider
from services.streams.access import Access
from services.streams.answer_events import Uploaded
from services.wecom.callback import MediaKeys, key_name
from tests.support.made_providers import dify_provider, openai_provider
from tests.support.pictures import png
from tests.support.servers.processes import wait_until, when
from tests.unit.files.test_media_fetcher import NOTHING_SENT
from tests.unit.wecom.test_wechat_service import KEY
from utils.deadline import Deadline

ACCESS = Access({"default": b"k" * 32})
QUERY = Query("年假", "E1")


@pytest.fixture
def store() -> Iterator[MediaStore]:
    with MediaStore() as store:
        yield store


@pytest.fixture
def provider(dify: MockDify) -> DifyProvider:
    return dify_provider(base_url=dify.base_url, api_keys=("app-test",), backoff=0.01)


def intake(**bounds: float) -> MediaIntake:
    fetcher = Fetcher(AddressRules(("127.0.0.1",)), backoff=0.0)
    source = MediaFetcher(fetcher, MediaKeys({"default": (KEY,)}).decryptor, NOTHING_SENT, max_bytes=INLINE_BYTES)
    return MediaIntake(source, ACCESS, **bounds)  # type: ignore[arg-type]


def question(*urls: str, files: tuple[str, ...] = (), names: tuple[str, ...] = ()) -> Question:
    media = [Media("image", url, key_name(KEY)) for url in urls]
    asked = Question("年假", "wecom", "default", "u", files=files, file_names=names)
    return replace(asked, media=ACCESS.sealed(asked, media_to_json(media)))


def taken(
    asked: Question, provider: BaseRAGProvider, made: MediaIntake | None = None, deadline: Deadline | None = None
) -> tuple[list[Uploaded], Query]:
    """Return the uploads as they are told, and the query."""
    steps = (made or intake()).take_in(asked, provider, QUERY, deadline or Deadline(60.0))
    told: list[Uploaded] = []
    while True:
        try:
            step: Uploaded = next(steps)
        except StopIteration as end:
            return told, end.value
        told.append(step)


def code_of(asked: Question, provider: BaseRAGProvider, made: MediaIntake | None = None) -> str:
    with pytest.raises(AnswerError) as caught:
        taken(asked, provider, made)
    return caught.value.code


def test_each_upload_is_told_with_those_before_it(store: MediaStore, dify: MockDify, provider: DifyProvider) -> None:
    """The receiver stores them; the query has them in the message's order."""
    told, query = taken(question(store.put(png(1), KEY), store.put(png(2), KEY)), provider)

    first, second = (f"image:{upload.id}" for upload in dify.uploads)
    assert told == [Uploaded((first,), ("image.png",)), Uploaded((first, second), ("image.png",) * 2)]
    assert (query.files, query.media) == ((first, second), ())


def test_stored_uploads_are_not_fetched_again(store: MediaStore, dify: MockDify, provider: DifyProvider) -> None:
    """A replica that took the question over uploads the rest; with all of them it does nothing."""
    expired = store.put(png(1), KEY, faults=StoreFaults(expired=True))
    told, query = taken(question(expired, store.put(png(2), KEY), files=("image:1",), names=("报告.png",)), provider)
    again = taken(question(expired, expired, files=("image:1", "image:2")), provider)

    assert query.files == ("image:1", f"image:{dify.uploads[0].id}")
    assert told[0].names == ("报告.png", "image.png")
    assert (len(told), len(dify.uploads), again[0], again[1].files) == (1, 1, [], ("image:1", "image:2"))


def test_files_within_the_question_are_kept_until_it_is_asked(store: MediaStore) -> None:
    """Only their names are told, because there is no id to store."""
    openai = openai_provider(base_url="http://127.0.0.1:9", api_key="sk", model="m")
    told, query = taken(question(store.put(png(1), KEY)), openai)

    assert (told, query.files) == ([Uploaded((), ("image.png",))], ())
    assert [file.name for file in query.media] == ["image.png"]


def test_files_within_the_question_are_bounded_together(store: MediaStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole request is in memory."""
    monkeypatch.setattr("services.files.intake.INLINE_BYTES", 10_000)
    openai = openai_provider(base_url="http://127.0.0.1:9", api_key="sk", model="m")
    half = png() + bytes(5000)

    assert code_of(question(store.put(half, KEY), store.put(half + b"x", KEY)), openai) == "media_too_large"


def test_a_provider_without_files_fetches_nothing(store: MediaStore) -> None:
    """The person reads that this service takes no files."""
    assert code_of(question(store.put(png(), KEY)), MockProvider()) == "media_unsupported"
    assert store.requests == {}


def test_addresses_that_cannot_be_opened_are_a_failure(provider: DifyProvider) -> None:
    """The bot's keys were exchanged since the question was asked."""
    asked = Question("年假", "wecom", "default", "u", media=Access({"default": b"x" * 32}).sealed(question(), "[]"))

    assert code_of(asked, provider) == "media_failed"


def test_all_files_of_a_question_share_one_time(store: MediaStore, dify: MockDify, provider: DifyProvider) -> None:
    """A store that drips does not hold a question for long: it ends with a sentence about the file."""
    url = store.put(png() + bytes(50_000), KEY, faults=StoreFaults(pause=0.5))

    assert code_of(question(url), provider, intake(total_seconds=0.1)) == "media_failed"
    assert dify.uploads == []


def test_few_files_are_fetched_at_the_same_time(store: MediaStore, provider: DifyProvider) -> None:
    """A further one waits for its turn, within its own time."""
    made, held = intake(most_at_once=1, total_seconds=20.0), threading.Event()

    def hold(file_id: str) -> None:
        held.wait(20.0)

    store.before_body = hold
    thread = threading.Thread(target=taken, args=(question(store.put(png(), KEY)), provider, made))
    thread.start()
    wait_until(lambda: store.requests, timeout=20.0)
    waiting = store.put(png(2), KEY)
    made._total_seconds = 0.2

    assert code_of(question(waiting), provider, made) == "media_failed"
    held.set()
    thread.join(20.0)
    assert list(store.requests.values()) == [1]


def test_a_cancelled_question_ends_its_download(store: MediaStore, provider: DifyProvider) -> None:
    """The error is that of the cancelled answer, not one about the file."""
    deadline = Deadline(60.0)
    url = store.put(png() + bytes(50_000), KEY, faults=StoreFaults(pause=0.5))
    when(lambda: store.requests, lambda: deadline.abort("cancelled"))

    with pytest.raises(ProviderError) as caught:
        taken(question(url), provider, deadline=deadline)

    assert caught.value.code == "interrupted"
