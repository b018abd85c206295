"""Files for Dify: the upload's form, its retries and errors, and the question that names it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.features.uploads import MockUpload
from demo.mocks.dify.server import MockDify
from services.attachments import MediaFile
from services.errors import AnswerError
from services.models import Identity, Query
from services.providers.dify.provider import DifyProvider
from tests.support.servers.processes import when
from utils.deadline import Deadline

FILE = MediaFile('报 告"1".pdf', "document", "application/pdf", bytes(range(256)) * 1000)
QUERY = Query("年假", "E1")


@pytest.fixture
def dify() -> Iterator[MockDify]:
    with MockDify() as mock:
        yield mock


def provider(dify: MockDify, **options: object) -> DifyProvider:
    settings: dict[str, object] = {"backoff": 0.01, "linger": 0.05, **options}
    return DifyProvider(base_url=dify.base_url, api_keys=("app-test",), **settings)  # type: ignore[arg-type]


def code_of(dify: MockDify, **options: object) -> str:
    with pytest.raises(AnswerError) as caught:
        provider(dify, **options).upload(FILE, QUERY, Deadline(30.0))
    return caught.value.code


def test_a_file_is_uploaded_whole_and_named_in_the_question(dify: MockDify) -> None:
    """Name, media type, user and bytes arrive unchanged; the entry has the type and Dify's id."""
    app = provider(dify)
    entry = app.upload(FILE, QUERY, Deadline(30.0))
    body = app._body(Query("年假", "E1", files=(entry, "an-id")))

    (upload,) = dify.uploads
    assert (upload.user, upload.name, upload.mime, upload.content) == ("E1", FILE.name, FILE.mime, FILE.content)
    assert body["files"] == [
        {"type": "document", "transfer_method": "local_file", "upload_file_id": upload.id},
        {"type": "custom", "transfer_method": "local_file", "upload_file_id": "an-id"},
    ]


def test_an_answer_to_a_question_with_a_file(dify: MockDify) -> None:
    """The mock accepts the file of the same user only, and only with its type."""
    app = provider(dify)
    entry = app.upload(FILE, QUERY, Deadline(30.0))

    assert "我看到了" in app.query(Query("年假", "E1", files=(entry,)), Deadline(30.0)).content
    other_type = entry.replace("document", "image")
    for wrong in (Query("年假", "E2", files=(entry,)), Query("年假", "E1", files=(other_type,))):
        with pytest.raises(AnswerError) as caught:
            app.query(wrong, Deadline(30.0))
        assert caught.value.code == "provider_rejected"


def test_the_user_and_the_credential_are_those_of_the_question(dify: MockDify) -> None:
    """Dify gives a file to the user who uploaded it only."""
    provider(dify, user="nobody").upload(FILE, Query("年假", ""), Deadline(30.0))
    dify.api_key = "app-test"
    person = Query("年假", "E1", identity=Identity("cached", token="token-of-e1"))
    provider(dify, auth_mode="user_token").upload(FILE, person, Deadline(30.0))

    assert [upload.user for upload in dify.uploads] == ["nobody", "E1"]
    assert code_of(dify, auth_mode="user_token") == "provider_unauthorized"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("413-file_too_large", "media_too_large"),
        ("413-html", "media_too_large"),
        ("415-unsupported_file_type", "media_wrong_type"),
        ("400-no_file_uploaded", "provider_rejected"),
        ("401-unauthorized", "provider_unauthorized"),
        ("503-html", "provider_error"),
    ],
)
def test_an_upload_that_fails_has_its_code(dify: MockDify, reply: str, code: str) -> None:
    """Statuses about the file have sentences about the file; 5xx is tried again."""
    dify.refuses_uploads = ERROR_REPLIES[reply]

    assert code_of(dify) == code
    assert dify.calls["POST /v1/files/upload"] == (3 if reply.startswith("503") else 1)


def test_a_file_above_difys_limit_is_too_large(dify: MockDify) -> None:
    """Dify's limits depend on the type."""
    picture = MediaFile("x.png", "image", "image/png", bytes(10 * 1024 * 1024 + 1))

    with pytest.raises(AnswerError) as caught:
        provider(dify).upload(picture, QUERY, Deadline(30.0))

    assert caught.value.code == "media_too_large"


def test_an_abort_ends_an_upload(dify: MockDify) -> None:
    """A cancelled question does not wait for Dify."""
    deadline = Deadline(60.0)

    def hang(upload: MockUpload) -> None:
        dify.closing.wait(20.0)

    dify.before_upload_reply = hang
    when(lambda: dify.uploads, lambda: deadline.abort("cancelled"))

    with pytest.raises(AnswerError) as caught:
        provider(dify).upload(FILE, QUERY, deadline)

    assert caught.value.code == "interrupted"


@pytest.mark.parametrize(
    ("files", "data", "status", "code"),
    [
        ({}, {"user": "E1"}, 400, "no_file_uploaded"),
        ([("file", ("a.txt", b"a")), ("file", ("b.txt", b"b"))], {"user": "E1"}, 400, "too_many_files"),
        ({"file": ("a", b"a")}, {"user": "E1"}, 415, "unsupported_file_type"),
        ({"file": ("a.txt", b"a", "text/plain")}, {}, 400, "invalid_param"),
    ],
)
def test_the_mock_has_difys_own_errors(dify: MockDify, files: object, data: object, status: int, code: str) -> None:
    """A part without a media type is refused, as by Dify."""
    key = {"Authorization": "Bearer app-test"}
    url = f"{dify.base_url}/v1/files/upload"

    reply = requests.post(url, files=files, data=data, headers=key, timeout=10)  # type: ignore[arg-type]

    assert (reply.status_code, reply.json()["code"]) == (status, code)
