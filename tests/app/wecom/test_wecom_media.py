"""Pictures, files, videos and quotes of them: what the provider gets, and the sentence for each failure."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from config.texts import ZH
from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.server import MockDify
from demo.mocks.openai.server import MockOpenAI
from demo.wecom.media_messages import text_message
from demo.wecom.simulator import Bubble, MediaStore, StoreFaults, WeComUser
from tests.support.pictures import MP4, PDF, png
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import wait_until

QUESTION = "这张图里是什么"


@pytest.fixture
def store() -> Iterator[MediaStore]:
    with MediaStore() as store:
        yield store
    assert store.broken == []


@pytest.fixture
def values(redis_url: str, dify: MockDify) -> dict[str, str]:
    return {
        "redis_url": redis_url,
        "DRAIN_SECONDS": "0",
        "MEDIA_HOSTS": "127.0.0.1",
        **dify_settings(dify.base_url),
    }


@pytest.fixture
def person(app_server: AppServer, store: MediaStore) -> Iterator[WeComUser]:
    with app_server.user(store=store) as user:
        yield user


@pytest.fixture
def member(app_server: AppServer, store: MediaStore) -> Iterator[WeComUser]:
    """The same person in a group."""
    with app_server.user(chatid="wrGROUP", store=store) as user:
        yield user


def answered(user: WeComUser, bubble: Bubble) -> str:
    assert (bubble.frames[0].finish, bubble.frames[0].content) == (False, ZH["thinking"])
    return user.sees_finish(bubble, every=0.05)


def sent(dify: MockDify) -> list[tuple[str, str]]:
    """Return type and name of the files of the last question, which were uploaded by the same user."""
    body = dify.requests[-1].body
    known = {upload.id: upload for upload in dify.uploads}
    assert all(known[file["upload_file_id"]].user == body["user"] for file in body.get("files", []))
    return [(file["type"], known[file["upload_file_id"]].name) for file in body.get("files", [])]


def test_a_photo_question_is_answered(person: WeComUser, dify: MockDify) -> None:
    """The picture is decrypted, uploaded as the person who asks, and sent along; the words are the sentence."""
    picture = png(40, 30)

    answer = answered(person, person.sends_image(picture))

    assert [(upload.content, upload.mime) for upload in dify.uploads] == [(picture, "image/png")]
    assert (sent(dify), dify.requests[0].body["query"]) == ([("image", "image.png")], ZH["media_question"])
    assert "image.png" in answer


def test_a_photo_of_wecom_needs_no_room_in_redis(person: WeComUser, app_server: AppServer) -> None:
    """It comes from WeCom's store, and goes to the provider."""
    settings, budget = app_server.container.settings, app_server.container.file_budget
    count = settings.files_max_bytes // settings.files_max_bytes_per_key
    for number in range(count):
        budget.count(f"key:{number}", {str(number): settings.files_max_bytes_per_key}, seconds=100.0)

    assert "image.png" in answered(person, person.sends_image(png()))
    assert budget.used() == count * settings.files_max_bytes_per_key


def test_words_and_pictures_of_a_mixed_message_are_asked(member: WeComUser, dify: MockDify) -> None:
    """In a group the mention goes; the files keep their order."""
    answered(member, member.sends_mixed(f"@来宝 {QUESTION}", png(), png(3, 3)))

    assert (dify.requests[0].body["query"], len(sent(dify))) == (QUESTION, 2)
    assert [upload.content for upload in dify.uploads] == [png(), png(3, 3)]


@pytest.mark.parametrize(
    ("make", "file"),
    [
        (lambda user: user.sends_file("报告.pdf", PDF), ("document", "报告.pdf")),
        (lambda user: user.sends_video(MP4), ("video", "video.mp4")),
        (lambda user: user.sends_file("x.zip", b"PK\x03\x04" + b"\0" * 30), ("custom", "x.zip")),
    ],
)
def test_files_have_difys_types(
    person: WeComUser, dify: MockDify, make: Callable[[WeComUser], Bubble], file: tuple[str, str]
) -> None:
    """Dify checks the type against the file's ending."""
    answered(person, make(person))

    assert sent(dify) == [file]


def test_a_quoted_picture_comes_along_in_a_group(member: WeComUser, dify: MockDify) -> None:
    """A mention that quotes a picture asks the sentence; with words the words are asked."""
    answered(member, member.quotes(member.file_message("image", png()), "@来宝"))
    first = dify.requests[0].body["query"]
    answered(member, member.quotes(member.mixed_message("旧话", png()), f"@来宝 {QUESTION}"))

    assert (first, dify.requests[1].body["query"]) == (ZH["media_question"], f"> 旧话\n\n{QUESTION}")
    assert sent(dify) == [("image", "image.png")]
    assert len(dify.uploads) == 2


def test_a_redelivered_photo_is_fetched_uploaded_and_asked_once(
    person: WeComUser, dify: MockDify, store: MediaStore
) -> None:
    """WeCom may deliver a message again; both deliveries show the same stream."""
    message = person.file_message("image", png())
    first = person.shows(message, "m-1")
    again = person.shows(message, "m-1")

    assert again.stream_id == first.stream_id
    answered(person, first)
    assert (len(dify.uploads), len(dify.requests), sum(store.requests.values())) == (1, 1, 1)


def test_a_file_is_uploaded_before_the_question_waits_for_its_turn(
    person: WeComUser, dify: MockDify, store: MediaStore
) -> None:
    """The address would be too old after a long answer to the question before."""
    waited = "等很久 [[pings-after-text]]"
    first = person.says(waited)
    bubble = person.sends_image(png())
    wait_until(lambda: dify.uploads, timeout=30.0)
    person.polls(bubble)

    assert (len(dify.requests), bubble.finish) == (1, False)
    person.says("/stop")
    assert person.polls(first).finish


@pytest.mark.parametrize(
    ("content", "faults", "key"),
    [
        (b"x" * 5000, StoreFaults(), "media_too_large"),
        (b"x", StoreFaults(expired=True), "media_too_old"),
        (b"x", StoreFaults(redirect="http://localhost:1/x"), "media_not_allowed"),
        (b"no picture", StoreFaults(), "media_wrong_type"),
    ],
)
def test_a_failure_gets_its_sentence_and_the_provider_is_not_asked(
    values: dict[str, str], store: MediaStore, dify: MockDify, content: bytes, faults: StoreFaults, key: str
) -> None:
    """The sentence says what to do. Nothing is uploaded."""
    with AppServer(**values, MEDIA_MAX_BYTES="1000") as app_server, app_server.user(store=store) as user:
        bubble = user.sends_image(content, faults=faults)
        shown = answered(user, bubble)

    assert shown == ZH[key]
    assert (dify.uploads, dify.requests) == ([], [])


def test_no_undecrypted_byte_leaves(person: WeComUser, dify: MockDify) -> None:
    """A file under another key is refused: by its padding or, where that is valid by chance, by its type."""
    shown = answered(person, person.sends_image(png(), faults=StoreFaults(wrong_key=True)))

    assert shown in (ZH["media_undecryptable"], ZH["media_wrong_type"])
    assert (dify.uploads, dify.requests) == ([], [])


@pytest.mark.parametrize(
    ("reply", "key"),
    [
        ("413-file_too_large", "media_too_large"),
        ("413-html", "media_too_large"),
        ("415-unsupported_file_type", "media_wrong_type"),
        ("400-filename_not_exists_error", "provider_rejected"),
        ("401-unauthorized", "provider_unauthorized"),
    ],
)
def test_an_upload_that_dify_refuses_gets_a_sentence(person: WeComUser, dify: MockDify, reply: str, key: str) -> None:
    """Dify's own errors and a proxy's."""
    dify.refuses_uploads = ERROR_REPLIES[reply]

    assert answered(person, person.sends_image(png())) == ZH[key]
    assert dify.requests == []


def test_too_many_files_are_refused_at_once(person: WeComUser, dify: MockDify) -> None:
    """Ten files are taken, the eleventh is not."""
    bubble = person.sends_mixed(*(png(n + 1) for n in range(11)))

    assert (bubble.finish, bubble.content) == (True, ZH["media_too_many"])
    assert answered(person, person.sends_mixed(*(png(n + 1) for n in range(10))))
    assert len(dify.uploads) == 10


def test_retry_fetches_the_files_again(person: WeComUser, dify: MockDify) -> None:
    """Within five minutes the same question has the same files."""
    answered(person, person.sends_mixed(QUESTION, png()))

    answered(person, person.says("/retry"))

    assert [request.body["query"] for request in dify.requests] == [QUESTION, QUESTION]
    assert sent(dify) == [("image", "image.png")]


def test_addresses_are_sealed_and_not_logged(
    person: WeComUser, dify: MockDify, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has the address can fetch the file: it is in no log line and readable in no key of Redis."""
    caplog.set_level(logging.DEBUG)
    message = person.file_message("image", png())
    secret = message["image"]["url"].partition("sign=")[2]

    bubble = person.shows(message)
    answered(person, bubble)

    with redis.Redis.from_url(redis_url, decode_responses=True) as stored:
        fields = stored.hgetall(f"dify_stream:{bubble.stream_id}")
    question = json.loads(fields["question"])
    assert question["media"]
    assert question["files"] == [f"image:{dify.uploads[0].id}"]
    assert secret not in json.dumps(fields)
    assert secret not in "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)


def test_a_provider_without_files_says_so(redis_url: str, store: MediaStore) -> None:
    """The built-in mock takes none; nothing is fetched."""
    with AppServer(redis_url, MEDIA_HOSTS="127.0.0.1") as app_server, app_server.user(store=store) as user:
        assert answered(user, user.sends_image(png())) == ZH["media_unsupported"]

    assert store.requests == {}


def test_openai_gets_pictures_and_texts_within_the_question(redis_url: str, store: MediaStore) -> None:
    """Pictures as data URLs, text files as text; a video is of the wrong type."""
    with MockOpenAI() as openai:
        settings = {"RAG_PROVIDER": "openai", "OPENAI_BASE_URL": openai.base_url, "OPENAI_API_KEY": "sk-test"}
        with (
            AppServer(redis_url, MEDIA_HOSTS="127.0.0.1", **settings) as app_server,
            app_server.user(store=store) as user,
        ):
            answered(user, user.sends_mixed(QUESTION, png()))
            quote = user.file_message("file", "年假,天数\n张三,5\n".encode("gb18030"), name="年假.csv")
            answered(user, user.quotes(quote, QUESTION))
            video = answered(user, user.sends_video(MP4))
        asked = [request.body["messages"][-1]["content"] for request in openai.asked]

    text, picture = asked[0]
    assert (text["text"], picture["type"]) == (QUESTION, "image_url")
    assert picture["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")
    assert asked[1][1] == {"type": "text", "text": "年假.csv:\n\n年假,天数\n张三,5\n"}
    assert (video, len(asked)) == (ZH["media_wrong_type"], 2)


def test_a_command_may_quote_but_not_have_a_picture(member: WeComUser, dify: MockDify) -> None:
    """A picture with the word /help is a question about the picture."""
    listed = member.quotes(text_message("旧话"), "@来宝 /help")
    answered(member, member.sends_mixed("@来宝 /help", png()))

    assert listed.finish
    assert [request.body["query"] for request in dify.requests] == ["/help"]


def test_a_forbidden_word_beside_a_file_is_refused(
    redis_url: str, dify: MockDify, store: MediaStore, tmp_path: Path
) -> None:
    """In a caption, in a text of a picture's message, in the quote of such a message, and in a file's name."""
    words = tmp_path / "words.txt"
    words.write_text("refuse 机密项目\n", "utf-8")
    settings = {"MEDIA_HOSTS": "127.0.0.1", "WORDS_FILE": str(words), **dify_settings(dify.base_url)}
    with AppServer(redis_url, **settings) as app_server, app_server.user(store=store) as user:
        forbidden = (
            user.sends_mixed("请看机 密项目", png()),
            user.quotes(user.mixed_message("机密项目", png()), QUESTION),
            user.sends_file("机密项目.pdf", PDF),
        )
        shown = {user.sees_finish(bubble, every=0.05) for bubble in forbidden}

    assert shown == {ZH["forbidden_words"]}
    assert dify.requests == []
