"""The cheap Dify: what the product makes of it is what it says it told, and each delta tells when it was sent."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from bench.load.socket_clients import stamps
from bench.stage.cheap_dify import CheapDify, cheap_dify
from bench.stage.cheap_dify_server import Line
from services.models import Delta, ProviderIds, Query, Usage
from services.providers.dify.polling import RecoveryTimeouts
from services.providers.dify.provider import DifyProvider
from tests.support.servers.processes import wait_until
from utils.deadline import Deadline

pytestmark = pytest.mark.full

PIECES = 8
#: Of a recovery, for which a run that goes on has ended long before.
TIMEOUTS = RecoveryTimeouts(running=60.0, pause=0.02, longest_pause=0.05)


@pytest.fixture(scope="module")
def dify() -> Iterator[CheapDify]:
    """A cheap Dify that is in a hurry."""
    with cheap_dify(PIECES, 0.005) as cheap:
        yield cheap


@pytest.fixture
def provider(dify: CheapDify) -> Iterator[DifyProvider]:
    """The product's own client of it."""
    client = DifyProvider(base_url=dify.base_url, api_keys=["app-fake-key"], timeout=30.0, timeouts=TIMEOUTS)
    yield client
    client.close()


def body(query: str) -> dict[str, Any]:
    return {"query": query, "user": "u1", "inputs": {}, "response_mode": "streaming"}


def events(dify: CheapDify, query: str) -> list[dict[str, Any]]:
    """Ask, and return the events until the connection is ready for the next question."""
    with requests.post(f"{dify.base_url}/v1/chat-messages", json=body(query), timeout=30) as reply:
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        *blocks, rest = reply.content.split(b"\n\n")
    assert rest == b""
    return [json.loads(block.removeprefix(b"data: ")) for block in blocks]


def test_an_answer_comes_in_the_events_of_a_chatflow(dify: CheapDify) -> None:
    """From the start of the workflow to its end, under the same ids; the deltas are the answer."""
    found = events(dify, "events")

    names = ["workflow_started", *["message"] * PIECES, "message_end", "workflow_finished"]
    assert [event["event"] for event in found] == names
    for name in ("conversation_id", "message_id", "task_id"):
        assert len({event[name] for event in found}) == 1
    said = [event["answer"] for event in found if event["event"] == "message"]
    assert "".join(said) == dify.told()[0]["events"] == found[-1]["data"]["outputs"]["answer"]
    assert all(re.fullmatch(r"[\u3000-\uffef]{3,12}@\d{10}\.\d{6}\|", piece) for piece in said)


def test_each_delta_tells_when_it_was_sent(dify: CheapDify) -> None:
    """One after the other, none before it was asked for, none after it was there."""
    before = time.time()
    events(dify, "times")
    after = time.time()

    sent = list(stamps(dify.told()[0]["times"]))
    assert len(sent) == PIECES
    assert [before, *sent, after] == sorted([before, *sent, after])


def test_the_product_ends_with_what_was_told(dify: CheapDify, provider: DifyProvider) -> None:
    """Text, ids and cost arrive; a second question finds the connection and the conversation again."""
    first = list(provider.stream_query(Query("one", "u1"), Deadline(30.0)))
    ids = next(event for event in reversed(first) if isinstance(event, ProviderIds))
    second = list(provider.stream_query(Query("two", "u1", conversation_id=ids.conversation_id), Deadline(30.0)))

    answers, asks = dify.told()
    for question, came in (("one", first), ("two", second)):
        assert "".join(event.text for event in came if isinstance(event, Delta)) == answers[question]
        assert asks[question] == 1
        assert any(isinstance(event, Usage) and event.total_tokens for event in came)
    assert {event.conversation_id for event in second if isinstance(event, ProviderIds)} == {ids.conversation_id}
    assert ids.run_id
    assert ids.task_id


def test_a_question_may_say_how_many_deltas_it_wants(dify: CheapDify) -> None:
    """A number after a star at its end; elsewhere it is part of the question."""
    assert len(events(dify, "many *12")) == 12 + 3
    assert len(events(dify, "*12 of them")) == PIECES + 3


def test_what_was_sent_is_counted(dify: CheapDify) -> None:
    """Runs, deltas, and the bytes of the deltas on the wire; questions that were asked again are noticed."""
    runs, deltas, size = dify.runs, dify.deltas, dify.bytes
    for _ in range(2):
        events(dify, "again")

    assert dify.told()[1]["again"] == 2
    assert (dify.runs - runs, dify.deltas - deltas) == (2, 2 * PIECES)
    assert 300 * 2 * PIECES < dify.bytes - size < 500 * 2 * PIECES


def test_a_run_outlives_its_client_and_is_found_again(dify: CheapDify, provider: DifyProvider) -> None:
    """Whoever asked hangs up after the first words; another replica gets the whole answer without asking again."""
    stream = provider.stream_query(Query("lost *60", "u1"), Deadline(30.0))
    ids = ProviderIds()
    for event in stream:
        if isinstance(event, ProviderIds):
            ids = event
        if isinstance(event, Delta):
            break
    stream.close()  # type: ignore[attr-defined]

    recovered = provider.recover(Query("lost *60", "u1"), ids, Deadline(60.0))

    answers, asks = dify.told()
    assert recovered.text == answers["lost *60"]
    assert len(list(stamps(recovered.text))) == 60
    assert asks["lost *60"] == 1


def test_the_gateways_other_calls_are_answered(dify: CheapDify, provider: DifyProvider) -> None:
    """The app is well, wants no inputs, and takes a stop; of what is not there it says so."""
    assert provider.health_check()
    assert provider.missing_inputs() == []
    provider.cancel(ProviderIds(task_id="t1"), "u1")
    assert requests.get(f"{dify.base_url}/v1/workflows/run/none", timeout=30).status_code == 404


def test_answers_end_when_they_are_told_to() -> None:
    """What goes on for ever has its proper end, with what it said; the next question goes on again."""
    with cheap_dify(10**6, 0.01) as dify:
        with requests.post(f"{dify.base_url}/v1/chat-messages", json=body("endless"), stream=True, timeout=30) as reply:
            wait_until(lambda: dify.deltas >= 3)
            dify.finish()
            last = reply.content.split(b"\n\n")[-2]
        assert json.loads(last.removeprefix(b"data: "))["data"]["outputs"]["answer"] == dify.told()[0]["endless"]
        with requests.post(f"{dify.base_url}/v1/chat-messages", json=body("next"), stream=True, timeout=30):
            before = dify.deltas
            wait_until(lambda: dify.deltas >= before + 3)
        assert "next" not in dify.told()[0]


def test_answers_wait_at_their_half_until_they_are_let_go_on() -> None:
    """By so many deltas, one group or all: each is whole in the end, as if it had never waited."""
    with cheap_dify(1, 0.005) as dify, ThreadPoolExecutor(3) as clients:
        dify.halt()
        address = f"{dify.base_url}/v1/chat-messages"
        asked = [clients.submit(requests.post, address, json=body(f"{one} *12"), timeout=60) for one in ("a", "b")]
        wait_until(lambda: dify.deltas == 12)
        dify.let("a", 2)
        wait_until(lambda: dify.deltas == 14)
        dify.let("a", 4)
        wait_until(lambda: dify.told()[0].keys() == {"a *12"})
        # While a third answer comes to its half, nobody else goes on.
        asked.append(clients.submit(requests.post, address, json=body("c *12"), timeout=60))
        wait_until(lambda: dify.deltas >= 24)
        assert dify.deltas == 24
        dify.let("", 100)
        assert all(b"workflow_finished" in reply.result(60).content for reply in asked)
        assert [len(list(stamps(answer))) for answer in dify.told()[0].values()] == [12, 12, 12]


def test_it_stays_on_the_cores_it_is_given() -> None:
    """And its CPU time can be seen."""
    core = min(os.sched_getaffinity(0))
    with cheap_dify(PIECES, 0.005, {core}) as dify:
        assert os.sched_getaffinity(dify.pid) == {core}
        wait_until(lambda: dify.cpu > 0.0)


@pytest.fixture
def pair() -> Iterator[tuple[Line, socket.socket]]:
    """The mock's end of a connection, and its client."""
    ours, theirs = socket.socketpair()
    with ours, theirs, select.epoll() as epoll:
        ours.setblocking(False)
        theirs.settimeout(30.0)
        epoll.register(ours, select.EPOLLIN)
        yield Line(ours, epoll), theirs


def test_a_client_that_reads_late_gets_every_byte(pair: tuple[Line, socket.socket]) -> None:
    """What the connection does not take at once is sent later, in its order."""
    line, client = pair
    sent = [b"%07d," % number for number in range(300_000)]
    for data in sent:
        line.send(data)

    received = b""
    while len(received) < 8 * len(sent):
        received += client.recv(2**20)
        if len(received) < 8 * len(sent):
            line.flush()

    assert received == b"".join(sent)


def test_nobody_hears_what_is_said_to_one_that_is_gone(pair: tuple[Line, socket.socket]) -> None:
    """Neither one that was closed here nor one that was reset there breaks the others' answers."""
    line, client = pair
    client.close()
    line.send(b"once")
    line.close()
    line.send(b"twice")


def test_requests_are_found_wherever_they_are_cut(pair: tuple[Line, socket.socket]) -> None:
    """Byte by byte or two at once: each request comes once, with its body."""
    line, client = pair
    request = b"POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\ncontent-length: 4\r\n\r\nbody"
    found: list[tuple[str, bytes]] = []
    for byte in request:
        client.send(bytes([byte]))
        found += line.requests()
    client.send(request + b"GET /z HTTP/1.1\r\n\r\n")
    found += line.requests()

    assert found == [("POST /v1/x?y=1", b"body"), ("POST /v1/x?y=1", b"body"), ("GET /z", b"")]
    client.close()
    with pytest.raises(ConnectionError):
        list(line.requests())
