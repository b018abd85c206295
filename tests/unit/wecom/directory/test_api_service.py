"""The wire format of WeCom's directory, on replies as documented and on broken ones."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from demo.mocks.contacts import CORP_ID, SECRET, MockContacts, encrypted
from services.errors import ProviderError
from services.wecom.directory.api_service import LONGEST_LIFE, SHORTEST_LIFE, ContactsApi, ContactsRefused, Person
from tests.support.servers.raw_server import RawServer
from utils.deadline import Deadline


@pytest.fixture
def wecom() -> Iterator[MockContacts]:
    with MockContacts() as mock:
        yield mock


@pytest.fixture
def api(wecom: MockContacts) -> Iterator[ContactsApi]:
    api = ContactsApi(wecom.url, corp_id=CORP_ID, secret=SECRET, timeout=10.0)
    yield api
    api.close()


def patient() -> Deadline:
    return Deadline(30.0)


def answered(reply: Any, call: Callable[[ContactsApi], Any], status: bytes = b"200 OK") -> Any:
    """Return what a call makes of a reply, bytes or JSON."""
    body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    with RawServer(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)) as server:
        api = ContactsApi(server.url, corp_id=CORP_ID, secret=SECRET, timeout=10.0)
        try:
            return call(api)
        finally:
            api.close()


def test_a_person_has_name_and_departments(api: ContactsApi) -> None:
    """The main department comes first, each once."""
    token, life = api.token(patient())

    assert life == 7200.0
    assert api.person(token, "lisi", patient()) == Person("lisi", "李四", (3, 2))
    assert api.department(token, 3, patient()) == "市场部"
    assert api.plain_userid(token, encrypted("lisi"), patient()) == "lisi"
    assert api.plain_userid(token, "lisi", patient()) == ""


@pytest.mark.parametrize(("corp_id", "secret", "errcode"), [("ww9", SECRET, 40013), (CORP_ID, "not-the-secret", 40001)])
def test_wrong_credentials_are_refused_by_errcode(corp_id: str, secret: str, errcode: int, wecom: MockContacts) -> None:
    """The error has the errcode, and neither the Secret nor WeCom's words, which quote the request."""
    api = ContactsApi(wecom.url, corp_id=corp_id, secret=secret)
    with pytest.raises(ContactsRefused) as caught:
        api.token(patient())
    api.close()

    assert caught.value.errcode == errcode
    assert str(caught.value) == f"gettoken: errcode {errcode}"


def test_a_token_is_checked_by_the_api(api: ContactsApi, wecom: MockContacts) -> None:
    """An unknown token and an ended one have codes of their own."""
    token, _ = api.token(patient())
    wecom.expire_tokens()

    for given, errcode in ((token, 42001), ("no-such-token", 40014)):
        with pytest.raises(ContactsRefused) as caught:
            api.person(given, "lisi", patient())
        assert caught.value.errcode == errcode


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        (7200, 7200.0),
        (1800, 1800.0),
        (0, SHORTEST_LIFE),
        (10**9, LONGEST_LIFE),
        ("x", LONGEST_LIFE),
        (True, LONGEST_LIFE),
    ],
)
def test_a_tokens_life_has_bounds(expires_in: Any, life: float) -> None:
    """Whatever a reply says: no storm of renewals, and none that never comes."""
    reply = {"errcode": 0, "access_token": "fake", "expires_in": expires_in}

    assert answered(reply, lambda api: api.token(patient())) == ("fake", life)


@pytest.mark.parametrize(
    ("fields", "person"),
    [
        ({}, Person("li", "", ())),
        ({"userid": 1, "name": ["x"], "department": "2", "main_department": "2"}, Person("li", "", ())),
        (
            {"name": "半\ud83d", "department": [True, -1, 0, 2.5, 7, 7], "main_department": 8},
            Person("li", "半?", (8, 7)),
        ),
        ({"name": "长" * 300}, Person("li", "长" * 128, ())),
    ],
)
def test_odd_fields_are_left_out(fields: dict[str, Any], person: Person) -> None:
    """Redis and the app get whole texts of bounded length only."""
    assert answered({"errcode": 0, **fields}, lambda api: api.person("t", "li", patient())) == person


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (b"<html>login</html>", b"200 OK"),
        (b"[1]", b"200 OK"),
        (b"[" * 100_000, b"200 OK"),
        ({"errcode": 0, "access_token": "fake"}, b"502 Bad Gateway"),
        (b"", b"302 Found"),
        ({"errcode": 0}, b"200 OK"),
        ({"errcode": 0, "access_token": "钥匙"}, b"200 OK"),
        ({"errcode": "what"}, b"200 OK"),
    ],
)
def test_what_is_no_reply_of_the_api_is_an_error(reply: Any, status: bytes) -> None:
    """A proxy's page, a redirect, another JSON: none of them is a token."""
    with pytest.raises(ProviderError):
        answered(reply, lambda api: api.token(patient()), status)


def test_no_secret_is_logged_or_raised(caplog: pytest.LogCaptureFixture) -> None:
    """The addresses have Secret and token: urllib3 logs them for damaged headers, and its errors quote them."""
    damaged = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\nno header\r\n\r\n{"errcode": 0}'
    with RawServer(damaged) as server, caplog.at_level(logging.DEBUG):
        api = ContactsApi(server.url, corp_id=CORP_ID, secret=SECRET)
        api.person("fake-token", "lisi", patient())
        api.close()
    gone = ContactsApi("http://127.0.0.1:1", corp_id=CORP_ID, secret=SECRET)
    with pytest.raises(ProviderError) as caught:
        gone.token(patient())

    assert "/cgi-bin/user/get" in caplog.text
    assert not [word for word in ("fake-token", SECRET, "lisi") if word in caplog.text]
    assert SECRET not in repr(caught.value) + repr(caught.value.__cause__)
    assert caught.value.__cause__ is None
