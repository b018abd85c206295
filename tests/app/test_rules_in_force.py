"""Rules that are saved by the API, on two replicas of one database: what people may ask, and what they see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.replicas import ADMIN_TOKEN, AppServer
from tests.support.rules import noon_zone
from tests.support.servers.processes import free_port, wait_until

#: Questions without a credential.
OPEN = {"WEBSOCKET_AUTH": "none", "BATCH_ENABLED": "false", "RATE_LIMIT_USER": "off", "RATE_LIMIT_IP": "off"}
ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
TIMEOUT = 60.0


def saves(replica: AppServer, kind: str, text: str, base: int = 0) -> None:
    body = {"text": text, "base": base}
    reply = requests.put(f"{replica.url}/api/admin/rules/{kind}", json=body, headers=ADMIN, timeout=TIMEOUT)
    assert reply.status_code == 200, reply.text


def asks(replica: AppServer, question: str = "年假怎么申请？") -> tuple[int, Any]:
    """Return the status and the data of an answer."""
    reply = requests.post(f"{replica.url}/api/chat", json={"query": question}, timeout=TIMEOUT)
    return reply.status_code, reply.json()["data"]


def reason(replica: AppServer) -> str:
    """Return why a question is refused; "" if it is answered."""
    status, data = asks(replica)
    return "" if status == 200 else str(data["reason"])


def nowhere() -> dict[str, str]:
    """The settings of a replica whose database is away, which it waits for as short as it can."""
    address = {"MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(free_port()), "MYSQL_DATABASE": "laibao"}
    return {**address, "MIGRATION_SECONDS": "1", **OPEN}


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """The settings of replicas with one database."""
    return {"DATABASE_PATH": str(tmp_path / "laibao.db"), "REPORT_TZ": noon_zone(), **OPEN}


@pytest.fixture
def two(redis_url: str, own: dict[str, str]) -> Iterator[tuple[AppServer, AppServer]]:
    with AppServer(redis_url, **own) as one, AppServer(redis_url, **own) as other:
        yield one, other


def test_a_change_is_in_force_on_every_replica(two: tuple[AppServer, AppServer]) -> None:
    """On the one that saved it at once, on the others within seconds; an emptied text ends it."""
    one, other = two
    assert (reason(one), reason(other)) == ("", "")

    saves(one, "access", "- {allow: false}")

    assert reason(one) == "not_allowed"
    wait_until(lambda: reason(other) == "not_allowed", TIMEOUT, every=0.2)
    saves(other, "access", "", 1)
    assert reason(other) == ""


def test_words_and_quotas_are_saved_too(two: tuple[AppServer, AppServer]) -> None:
    """They are those of every bot without a file."""
    one, _ = two
    saves(one, "words", "refuse 机密\nmask re:[a-z0-9，。]\n")
    assert asks(one, "机密项目")[1]["reason"] == "forbidden_words"
    assert "＊" in asks(one)[1]["content"]

    saves(one, "quotas", "- {total: true, questions: 1/day}")
    assert [reason(one) for _ in range(2)] == ["", "quota_used"]


def test_a_replica_that_starts_without_the_database_has_the_rules(redis_url: str, own: dict[str, str]) -> None:
    """From the copy in Redis: it lets nobody in whom they refuse. Without the copy it answers nobody."""
    with AppServer(redis_url, **own) as one:
        saves(one, "access", "- {allow: false}")
    with AppServer(redis_url, **nowhere()) as late:
        assert reason(late) == "not_allowed"


def test_without_database_and_copy_a_question_gets_a_sentence(redis_url: str) -> None:
    """It is not asked: nobody knows whether the person may."""
    with AppServer(redis_url, **nowhere()) as replica:
        assert (asks(replica)[0], reason(replica)) == (503, "store_unavailable")


def test_a_session_needs_its_csrf_token_to_save(two: tuple[AppServer, AppServer]) -> None:
    """The cookie alone changes nothing."""
    address = f"{two[0].url}/api/admin"
    with requests.Session() as session:
        opened = session.post(f"{address}/session", json={"token": ADMIN_TOKEN}, timeout=TIMEOUT).json()["data"]
        body = {"text": "mask 甲", "base": 0}
        refused = session.put(f"{address}/rules/words", json=body, timeout=TIMEOUT)
        restored = session.post(f"{address}/rules/words/versions/1/restore", timeout=TIMEOUT)
        assert (refused.status_code, restored.status_code) == (403, 403)
        assert refused.json()["data"]["reason"] == "csrf_token"

        token = {"X-CSRF-Token": opened["csrf_token"]}
        assert session.put(f"{address}/rules/words", json=body, headers=token, timeout=TIMEOUT).status_code == 200
