"""Files for Dify: the upload's form, its retries and errors, and the question that names it."""

from __future__ import annotations

import pytest

from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.server import MockDify
from services.attachments import MediaFile
from services.errors import AnswerError
from services.models import Identity, Query
from services.providers.dify.provider import DifyProvider
from tests.support.servers.processes import when
from tests.unit.providers.dify.conftest import KEY, Make
from utils.deadline import Deadline

FILE = MediaFile('报 告"1".pdf', "document", "application/pdf", bytes(range(256)) * 1000)
QUERY = Query("年假", "E1")


def code_of(app: DifyProvider, deadline: Deadline | None = None, *, file: MediaFile = FILE) -> str:
    with pytest.raises(AnswerError) as caught:
        app.upload(file, QUERY, deadline or Deadline(60.0))
    return caught.value.code


def test_a_file_is_uploaded_whole_and_named_in_the_question(make: Make, dify: MockDify) -> None:
    """Name, media type, user and bytes arrive unchanged; the entry has the type and Dify's id."""
    app = make()
    entry = app.upload(FILE, QUERY, Deadline(60.0))
    body = app._body(Query("年假", "E1", files=(entry, "an-id")))

    (upload,) = dify.uploads
    assert (upload.user, upload.name, upload.mime, upload.content) == ("E1", FILE.name, FILE.mime, FILE.content)
    assert body["files"] == [
        {"type": "document", "transfer_method": "local_file", "upload_file_id": upload.id},
        {"type": "custom", "transfer_method": "local_file", "upload_file_id": "an-id"},
    ]


def test_an_answer_to_a_question_with_a_file(make: Make, dify: MockDify) -> None:
    """The mock accepts the file of the same user only, and only with its type."""
    app = make()
    entry = app.upload(FILE, QUERY, Deadline(60.0))

    assert "我看到了" in app.query(Query("年假", "E1", files=(entry,)), Deadline(60.0)).content
    other_type = entry.replace("document", "image")
    for wrong in (Query("年假", "E2", files=(entry,)), Query("年假", "E1", files=(other_type,))):
        with pytest.raises(AnswerError) as caught:
            app.query(wrong, Deadline(60.0))
        assert caught.value.code == "provider_rejected"


def test_the_user_and_the_credential_are_those_of_the_question(make: Make, dify: MockDify) -> None:
    """Dify gives a file to the user who uploaded it only."""
    make(user="nobody").upload(FILE, Query("年假", ""), Deadline(60.0))
    dify.api_key = KEY
    person = Query("年假", "E1", identity=Identity("cached", token="token-of-e1"))
    make(auth_mode="user_token").upload(FILE, person, Deadline(60.0))

    assert [upload.user for upload in dify.uploads] == ["nobody", "E1"]
    assert code_of(make(auth_mode="user_token")) == "provider_unauthorized"


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
def test_an_upload_that_fails_has_its_code(make: Make, dify: MockDify, reply: str, code: str) -> None:
    """Statuses about the file have sentences about the file; 5xx is tried again."""
    dify.refuses_uploads = ERROR_REPLIES[reply]

    assert code_of(make()) == code
    assert dify.calls["POST /v1/files/upload"] == (3 if reply.startswith("503") else 1)


def test_a_file_above_difys_limit_is_too_large(make: Make) -> None:
    """Dify's limits depend on the type."""
    picture = MediaFile("x.png", "image", "image/png", bytes(10 * 1024 * 1024 + 1))

    assert code_of(make(), file=picture) == "media_too_large"


def test_an_abort_ends_an_upload(make: Make, dify: MockDify) -> None:
    """A cancelled question does not wait for Dify."""
    deadline = Deadline(60.0)
    dify.before_upload_reply = lambda upload: dify.closing.wait(60.0)  # type: ignore[assignment]
    when(lambda: dify.uploads, lambda: deadline.abort("cancelled"))

    assert code_of(make(), deadline) == "interrupted"
