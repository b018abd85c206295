"""POST /api/push and GET /api/push/<id>: what is taken, what is refused and with which words."""

from __future__ import annotations

import base64
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import redis
from werkzeug.test import TestResponse

from channels.push.endpoints import OPERATIONS, PushShown
from channels.web.bodies import LARGE_BYTES
from channels.web.errors import status_of
from config.texts import EN
from services.errors import PushRefused
from services.redis.store import ScriptRunner, connect
from services.wecom.long_connection import push_store
from services.wecom.long_connection.uploads import MAX_FILE
from tests.support.batches.counter import data_of, refused
from tests.support.long_connection.push_client import OTHER_KEY, PushClient
from tests.support.servers.processes import free_port

NOW = "1700000000"
DOCUMENT = Path(__file__).parents[3] / "docs" / "pushes.md"


@pytest.fixture
def client(runner: ScriptRunner) -> PushClient:
    return PushClient(runner, now=NOW)


def problem(reply: TestResponse) -> tuple[str, str]:
    """Return the field and the problem of a 422."""
    assert refused(reply) == (422, 10000, "invalid_fields")
    (error,) = reply.get_json()["data"]["errors"]
    return error["field"], error["problem"]


def payload(client: PushClient, reply: TestResponse) -> dict[str, object]:
    """Return the message of a push as its sender reads it."""
    bot, id = data_of(reply, 202)["id"].split(".")
    push = client.store.find(bot, id)
    assert push
    return dict(json.loads(client.store.payload(push)))


def test_a_push_is_taken_and_its_state_can_be_read(client: PushClient) -> None:
    """The reply is 202 with the id; the address in Location tells how it stands."""
    reply = client.pushes()

    shown = data_of(reply, 202)
    assert shown == {"id": shown["id"], "state": "queued", "created_at": "2023-11-14T22:13:20+00:00"}
    PushShown.model_validate(shown)
    assert data_of(client.asks("GET", reply.headers["Location"])) == shown
    assert payload(client, reply) == {"chatid": "zhangsan", "chat_type": 1, "markdown": "**提醒**：三点开会"}


def test_a_group_of_another_bot_is_named_by_chatid(client: PushClient) -> None:
    """The bot is the default one unless the request names another."""
    reply = client.pushes(bot="second", userid=None, chatid="wrGROUP")

    assert data_of(reply, 202)["id"].startswith("second.")
    assert payload(client, reply) == {"chatid": "wrGROUP", "chat_type": 2, "markdown": "**提醒**：三点开会"}


def test_a_file_comes_as_base64_or_as_a_form(client: PushClient) -> None:
    """Both ways keep the same content under the same name."""
    content = bytes(range(256)) * 4000
    file = {"name": "../报告.pdf", "base64": base64.b64encode(content).decode()}

    for reply in (client.pushes(markdown=None, file=file), client.uploads("报告.pdf", content)):
        assert payload(client, reply) == {"chatid": "zhangsan", "chat_type": 1, "name": "报告.pdf"}
        push = client.store.find("default", data_of(reply, 202)["id"].split(".")[1])
        assert push
        assert client.store.content(push) == content


def test_a_repeated_request_finds_its_push(client: PushClient) -> None:
    """The same key and message give the same id and queue nothing; another message under the key is refused."""
    first = data_of(client.pushes(key="k1"), 202)

    assert data_of(client.pushes(key="k1"), 200) == first
    assert refused(client.pushes(key="k1", markdown="另一条")) == (409, 20000, "push_conflict")
    assert refused(client.pushes(key="k1", userid="lisi")) == (409, 20000, "push_conflict")
    assert refused(client.uploads("a.txt", b"a", key="k1")) == (409, 20000, "push_conflict")
    assert data_of(client.pushes(key="k2"), 202)["id"] != first["id"]
    assert [client.store.head("default", chat) for chat in client.store.due("default", 5)] == [first["id"][8:]]


def test_two_requests_at_once_under_one_key_keep_one_file(
    client: PushClient, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one looked for the push before the first one had queued it."""
    first = data_of(client.uploads("a.txt", b"one", key="k1"), 202)
    kept = redis_client.keys("*push_file*")
    found = iter([None])
    find = client.store.find
    monkeypatch.setattr(client.store, "find", lambda bot, id: next(found, find(bot, id)))

    assert data_of(client.uploads("a.txt", b"one", key="k1"), 200)["id"] == first["id"]
    assert redis_client.keys("*push_file*") == kept
    assert len(kept) == 1


def test_files_under_one_key_are_compared_by_content(client: PushClient) -> None:
    """A form and base64 of the same file are the same message."""
    first = data_of(client.uploads("a.txt", b"one", key="k1"), 202)
    file = {"name": "a.txt", "base64": base64.b64encode(b"one").decode()}

    assert data_of(client.pushes(key="k1", markdown=None, file=file), 200)["id"] == first["id"]
    assert refused(client.uploads("a.txt", b"two", key="k1"))[2] == "push_conflict"


def test_another_keys_push_is_unknown(client: PushClient, runner: ScriptRunner) -> None:
    """An idempotency key belongs to its API key, and so does the state."""
    other = PushClient(runner, key=OTHER_KEY, now=NOW)
    first = data_of(client.pushes(key="k1"), 202)

    assert refused(other.shows(first["id"])) == (404, 404, "push_unknown")
    assert data_of(other.pushes(key="k1"), 202)["id"] != first["id"]


@pytest.mark.parametrize("push_id", ["default." + "0" * 32, "nobody." + "0" * 32, "callback." + "0" * 32, "x", "%ff"])
def test_an_unknown_id_is_unknown(client: PushClient, push_id: str) -> None:
    """A wrong id, a wrong bot and an expired push get the same reply."""
    assert refused(client.shows(push_id)) == (404, 404, "push_unknown")


@pytest.mark.parametrize("key", ["", "obviously-wrong"])
def test_only_an_api_key_may_push(runner: ScriptRunner, key: str) -> None:
    """Also where WEBSOCKET_AUTH asks for no credential: anybody could write to everybody."""
    client = PushClient(runner, key=key)

    assert refused(client.pushes()) == (401, 401, "auth_required")
    assert refused(client.shows("default." + "0" * 32)) == (401, 401, "auth_required")


def test_a_bot_without_a_long_connection_is_refused_with_the_reason(client: PushClient) -> None:
    """A callback bot cannot push: 409. A bot that does not exist: 404."""
    reply = client.pushes(bot="callback")

    assert refused(reply) == (409, 20000, "push_bot_callback")
    assert reply.get_json()["message"] == EN["push_bot_callback"]
    assert refused(client.pushes(bot="nobody")) == (404, 404, "push_bot_unknown")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"chatid": "wrGROUP"}, ("userid", "either this or chatid has to be given")),
        ({"userid": None}, ("userid", "either this or chatid has to be given")),
        ({"markdown": None}, ("markdown", "either this or file has to be given")),
        ({"file": {"name": "a", "base64": "YQ=="}}, ("markdown", "either this or file has to be given")),
        ({"markdown": "年" * 6827}, ("markdown", "is longer than 20480 bytes")),
        ({"markdown": None, "file": {"name": "a", "base64": "Y?=="}}, ("file.base64", "is not base64")),
        ({"markdown": None, "file": {"name": "a", "base64": ""}}, ("file", "is empty")),
        ({"markdown": None, "file": {"name": "/", "base64": "YQ=="}}, ("file", "has no name")),
        ({"markdown": 5}, ("markdown", "Input should be a valid string")),
        ({"userid": "张三 "}, ("userid", "String should match pattern '^[\\x21-\\x7e]{1,128}$'")),
        ({"subject": "x"}, ("subject", "Extra inputs are not permitted")),
    ],
)
def test_a_wrong_field_is_named_in_words(client: PushClient, fields: dict[str, Any], wrong: tuple[str, str]) -> None:
    """The reply names the field and the problem, and repeats no value."""
    assert problem(client.pushes(**fields)) == wrong


def test_a_wrong_form_is_named_in_words(client: PushClient) -> None:
    """A form has one file and the target's fields."""
    assert problem(client.uploads("a.txt", b"")) == ("file", "is empty")
    assert problem(client.uploads("a.txt", b"a", markdown="x"))[0] == "markdown"
    assert problem(client.uploads("a.txt", b"a", chatid="wrGROUP"))[0] == "userid"
    assert problem(client.asks("POST", "/api/push", key="x" * 65, json={"userid": "a"}))[0] == "Idempotency-Key"


def test_a_file_that_wecom_would_refuse_is_refused(client: PushClient) -> None:
    """More than 20 MiB get a 413 with the limit, as a form and as JSON."""
    too_much = bytes(MAX_FILE + 1)
    file = {"name": "a.bin", "base64": base64.b64encode(too_much).decode()}

    for reply in (client.uploads("a.bin", too_much), client.pushes(markdown=None, file=file)):
        assert refused(reply) == (413, 10000, "too_large")
        assert reply.get_json()["data"]["max_bytes"] == MAX_FILE


def test_the_31st_message_of_a_minute_is_refused_with_the_time_to_wait(client: PushClient) -> None:
    """WeCom's limit counts for a chat over all callers; another chat is not concerned."""
    for _ in range(30):
        assert client.pushes().status_code == 202

    reply = client.pushes()
    assert refused(reply) == (429, 20000, "push_limited")
    assert reply.headers["Retry-After"] == "62"
    assert client.pushes(userid="lisi").status_code == 202


def test_a_push_that_a_full_queue_refused_leaves_nothing(
    client: PushClient, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis does not keep its file, and it does not count for the chat's limits."""
    monkeypatch.setattr(push_store, "MOST_WAITING", 1)
    assert client.pushes().status_code == 202

    assert refused(client.uploads("a.bin", b"content")) == (429, 20000, "push_queue_full")
    assert redis_client.keys("*push_file*") == []
    for _ in range(30):
        assert refused(client.pushes()) == (429, 20000, "push_queue_full")


def test_a_full_queue_is_refused_unless_expired_pushes_make_room(
    runner: ScriptRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no replica holds the connection, the next request ends what has expired."""
    monkeypatch.setattr(push_store, "MOST_WAITING", 1)
    client, later = PushClient(runner, now=NOW), PushClient(runner, now=str(int(NOW) + 3600))
    first = data_of(client.pushes(), 202)

    reply = client.pushes()
    assert (refused(reply), reply.headers["Retry-After"]) == ((429, 20000, "push_queue_full"), "60")
    with caplog.at_level(logging.WARNING):
        assert later.pushes(userid="lisi").status_code == 202
    assert data_of(later.shows(first["id"]))["state"] == "expired"
    assert [record.message for record in caplog.records] == ["pushes ended unsent"]


def test_large_bodies_have_slots(client: PushClient) -> None:
    """A body takes several times its memory: beyond the slots of a replica a large one is refused for seconds."""
    full = PushClient(client.store._runner, uploads_at_once=0)

    reply = full.uploads("a.bin", bytes(LARGE_BYTES))
    assert (refused(reply), reply.headers["Retry-After"]) == ((503, 503, "push_busy"), "10")
    assert full.pushes().status_code == 202


def test_without_redis_a_push_is_not_taken() -> None:
    """503 and a time to wait, for the request and for the state."""
    away = connect(f"redis://127.0.0.1:{free_port()}/0", pool_size=1, timeout=0.2)
    client = PushClient(ScriptRunner(away))

    for reply in (client.pushes(), client.pushes(key="k1"), client.shows("default." + "0" * 32)):
        assert (refused(reply), reply.headers["Retry-After"]) == ((503, 40000, "store_unavailable"), "5")
    away.close()


def test_nothing_tells_to_whom_or_what(
    client: PushClient, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the log nor Redis has the person or the words in plain."""
    with caplog.at_level(logging.DEBUG):
        client.pushes()
        client.uploads("名单.txt", b"secret words")

    keys = [str(key) for key in redis_client.scan_iter()]
    values = [str(redis_client.hgetall(key)) for key in keys if redis_client.type(key) == "hash"]
    told = " ".join([*keys, *values, *(str(vars(record)) for record in caplog.records)])
    assert not [word for word in ("zhangsan", "提醒", "名单", "secret words") if word in told]


def test_the_operations_are_the_routes() -> None:
    """Both addresses are documented."""
    assert [(one.method, one.path) for one in OPERATIONS] == [("POST", "/api/push"), ("GET", "/api/push/{push_id}")]


def test_the_documented_errors_are_those_of_the_code() -> None:
    """Each reason of docs/pushes.md that is of pushes has the status of its row, and a sentence."""
    rows = re.findall(r"^\| (\d+) \| \d+ \| (.*?) \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    shown = {reason: int(status) for status, words in rows for reason in re.findall(r"`(push_[a-z_]+)`", words)}

    assert shown == {reason: status_of(PushRefused(code=reason)) for reason in shown} | {"push_busy": 503}
    assert set(shown) == {key for key in EN if key.startswith("push_")}
