"""Bodies of which the last byte does not come: whom they keep out, and whom they do not."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests

from tests.support.replicas import Replica, replicas, settings_for, wecom_user
from tests.support.scrapes import samples, scrape
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = pytest.mark.scenario

ANN, BEN = "obviously-fake-key-a", "obviously-fake-key-b"
MIB = 1024 * 1024
SETTINGS = {
    "API_KEYS": f"{ANN},{BEN}",
    "MOCK_MODE": "true",
    "MEDIA_MAX_BYTES": str(3 * MIB // 2),
    "BATCH_MAX_BYTES": str(2 * MIB),
    "BODIES_MAX_BYTES_PER_CALLER": str(4 * MIB),
    "BODIES_MAX_BYTES": str(6 * MIB),
}


@pytest.fixture(scope="module")
def replica(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with replicas(1, settings_for(redis_server.url(), **SETTINGS), tmp_path_factory.mktemp("bodies")) as (replica,):
        yield replica


def sends_all_but_one_byte(replica: Replica, key: str, size: int) -> socket.socket:
    return begins(replica, key, "/v1/chat/completions", "application/json", b" " * (size - 1))


def begins(replica: Replica, key: str, path: str, kind: str, sent: bytes) -> socket.socket:
    """Send a body of which one more byte is announced."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(sent) + 1}\r\n\r\n"
    )
    client = socket.create_connection(("127.0.0.1", replica.port), timeout=60)
    client.sendall(head.encode() + sent)
    return client


def asks(replica: Replica, key: str, path: str = "/v1/chat/completions", *, size: int = 0) -> requests.Response:
    """Send a body of blanks, or a question without a `size`."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    sent = b" " * size or '{"query": "年假怎么申请？"}'.encode()
    return requests.post(replica.url + path, data=sent, headers=headers, timeout=60)


def body_bytes(replica: Replica) -> float:
    return samples(scrape(replica.url))["wechatlaibao_body_bytes",]


def test_slow_bodies_keep_out_their_own_caller_alone(replica: Replica) -> None:
    """A third large one of the key is refused; other keys, questions and WeCom are served as ever."""
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(sends_all_but_one_byte(replica, ANN, 2 * MIB))
        wait_until(lambda: body_bytes(replica) > 3 * MIB, 60)

        refused = asks(replica, ANN, size=MIB)
        read = asks(replica, BEN, size=MIB)
        question = asks(replica, ANN, "/api/chat")
        began = time.monotonic()
        bubble = wecom_user([replica.url]).says("年假怎么申请？")
        waited = time.monotonic() - began

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert refused.json()["error"]["code"] == "bodies_full"
    assert (read.status_code, read.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert question.status_code == 200
    assert bubble.content
    assert waited < 10
    wait_until(lambda: not body_bytes(replica), 60)
    assert asks(replica, ANN, size=MIB).status_code == 400


def test_slow_uploads_keep_nobody_out(replica: Replica) -> None:
    """They take no slot before they are complete: neither others nor their own caller wait."""
    kind, content = "multipart/form-data; boundary=b", b"x" * MIB
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + content
    file = {"file": ("a.txt", content)}
    with ExitStack() as stack:
        for path in ("/api/files", "/api/files", "/api/push"):
            stack.enter_context(begins(replica, ANN, path, kind, form))
        wait_until(lambda: body_bytes(replica) > 2 * MIB, 60)

        replies = [
            requests.post(f"{replica.url}/api/files", files=file, headers={"X-API-Key": key}, timeout=60)
            for key in (BEN, ANN)
        ]

    assert [(reply.status_code, reply.json()["data"]["reason"]) for reply in replies] == [
        (422, "media_unsupported")
    ] * 2
    wait_until(lambda: not body_bytes(replica), 60)


@pytest.mark.full
def test_no_number_of_callers_takes_more_than_the_replica_has(replica: Replica) -> None:
    """What is in memory stays within the budget; beyond it a body of any key is refused, and a question is not."""
    with ExitStack() as stack:
        for key in (ANN, ANN, BEN, BEN):
            stack.enter_context(sends_all_but_one_byte(replica, key, 2 * MIB))
        wait_until(lambda: body_bytes(replica) > 5 * MIB, 60)

        assert body_bytes(replica) <= 6 * MIB
        assert asks(replica, BEN, size=MIB).status_code == 503
        assert asks(replica, BEN, "/api/chat").status_code == 200

    wait_until(lambda: not body_bytes(replica), 60)


def test_a_wrong_key_has_nothing_read(replica: Replica) -> None:
    """The credential is checked before the body, at every address that takes a body."""
    statuses = [
        asks(replica, "wrong", path, size=MIB).status_code
        for path in ("/v1/chat/completions", "/api/chat", "/api/files", "/api/push", "/api/batch/tasks")
    ]

    assert set(statuses) <= {401, 429}
    assert not body_bytes(replica)
