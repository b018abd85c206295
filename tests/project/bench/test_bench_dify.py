"""The mock Dify: the product's answers are those of its transcript, and each delta contains the time it was sent."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import requests

from bench.stage.dify import MockDify, mock_dify, sent_times
from services.models import Delta, ProviderIds, Query, Usage
from services.providers.dify.polling import RecoveryTimeouts
from services.providers.dify.provider import DifyProvider
from tests.support.servers.processes import wait_until
from utils.deadline import Deadline

pytestmark = pytest.mark.full

PIECES = 8
#: Timeouts of a recovery; the run has ended long before.
TIMEOUTS = RecoveryTimeouts(running=60.0, pause=0.02, longest_pause=0.05)


@pytest.fixture(scope="module")
def dify() -> Iterator[MockDify]:
    """A mock Dify with 5 ms between two deltas."""
    with mock_dify(PIECES, 0.005) as mock:
        yield mock


@pytest.fixture
def provider(dify: MockDify) -> Iterator[DifyProvider]:
    """The product's own client of it."""
    client = DifyProvider(base_url=dify.base_url, api_keys=["app-fake-key"], timeout=30.0, timeouts=TIMEOUTS)
    yield client
    client.close()


def body(query: str) -> dict[str, Any]:
    return {"query": query, "user": "u1", "inputs": {}, "response_mode": "streaming"}


def events(dify: MockDify, query: str) -> list[dict[str, Any]]:
    """Ask, and return the events until the connection is ready for the next question."""
    with requests.post(f"{dify.base_url}/v1/chat-messages", json=body(query), timeout=30) as reply:
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        *blocks, rest = reply.content.split(b"\n\n")
    assert rest == b""
    return [json.loads(block.removeprefix(b"data: ")) for block in blocks]


def test_an_answer_has_the_events_of_a_chatflow(dify: MockDify) -> None:
    """All events from the start of the workflow to its end have the same ids; the deltas are the answer."""
    found = events(dify, "events")

    names = ["workflow_started", *["message"] * PIECES, "message_end", "workflow_finished"]
    assert [event["event"] for event in found] == names
    for name in ("conversation_id", "message_id", "task_id"):
        assert len({event[name] for event in found}) == 1
    texts = [event["answer"] for event in found if event["event"] == "message"]
    assert "".join(texts) == dify.transcript()[0]["events"] == found[-1]["data"]["outputs"]["answer"]
    assert all(re.fullmatch(r"[\u3000-\uffef]{3,12}@\d{10}\.\d{6}\|", piece) for piece in texts)


def test_each_delta_contains_the_time_it_was_sent(dify: MockDify) -> None:
    """Times rise, none is before the question or after the end of the answer."""
    before = time.time()
    events(dify, "times")
    after = time.time()

    sent = list(sent_times(dify.transcript()[0]["times"]))
    assert len(sent) == PIECES
    assert [before, *sent, after] == sorted([before, *sent, after])


def test_the_product_reads_the_whole_answer(dify: MockDify, provider: DifyProvider) -> None:
    """Text, ids and cost arrive; a second question finds the connection and the conversation again."""
    first = list(provider.stream_query(Query("one", "u1"), Deadline(30.0)))
    ids = next(event for event in reversed(first) if isinstance(event, ProviderIds))
    second = list(provider.stream_query(Query("two", "u1", conversation_id=ids.conversation_id), Deadline(30.0)))

    answers, asks = dify.transcript()
    for question, came in (("one", first), ("two", second)):
        assert "".join(event.text for event in came if isinstance(event, Delta)) == answers[question]
        assert asks[question] == 1
        assert any(isinstance(event, Usage) and event.total_tokens for event in came)
    assert {event.conversation_id for event in second if isinstance(event, ProviderIds)} == {ids.conversation_id}
    assert ids.run_id
    assert ids.task_id


def test_a_question_sets_its_number_of_deltas(dify: MockDify) -> None:
    """The number stands after a star at the end; elsewhere it is part of the question."""
    assert len(events(dify, "many *12")) == 12 + 3
    assert len(events(dify, "*12 of them")) == PIECES + 3


def test_deltas_and_their_bytes_are_counted(dify: MockDify) -> None:
    """Deltas and their bytes on the wire are counted, and how often a question was asked."""
    deltas, size = dify.deltas, dify.bytes
    for _ in range(2):
        events(dify, "again")

    assert dify.transcript()[1]["again"] == 2
    assert dify.deltas - deltas == 2 * PIECES
    assert 300 * 2 * PIECES < dify.bytes - size < 500 * 2 * PIECES


def test_a_run_continues_without_its_client_and_can_be_looked_up(dify: MockDify, provider: DifyProvider) -> None:
    """After the client has disconnected, the product's recovery returns the whole answer without asking again."""
    stream = provider.stream_query(Query("lost *60", "u1"), Deadline(30.0))
    ids = ProviderIds()
    for event in stream:
        if isinstance(event, ProviderIds):
            ids = event
        if isinstance(event, Delta):
            break
    stream.close()  # type: ignore[attr-defined]

    recovered = provider.recover(Query("lost *60", "u1"), ids, Deadline(60.0))

    answers, asks = dify.transcript()
    assert recovered.text == answers["lost *60"]
    assert len(list(sent_times(recovered.text))) == 60
    assert asks["lost *60"] == 1


def test_the_gateways_other_calls_are_answered(dify: MockDify, provider: DifyProvider) -> None:
    """Health check, inputs and stop succeed; an unknown run is a 404."""
    assert provider.health_check()
    assert provider.missing_inputs() == []
    provider.cancel(ProviderIds(task_id="t1"), "u1")
    assert requests.get(f"{dify.base_url}/v1/workflows/run/none", timeout=30).status_code == 404


def test_finish_ends_running_answers() -> None:
    """An endless answer gets its last events, with its text so far; the next question is answered endlessly again."""
    with mock_dify(10**6, 0.01) as dify:
        with requests.post(f"{dify.base_url}/v1/chat-messages", json=body("endless"), stream=True, timeout=30) as reply:
            wait_until(lambda: dify.deltas >= 3)
            dify.finish()
            last = reply.content.split(b"\n\n")[-2]
        assert json.loads(last.removeprefix(b"data: "))["data"]["outputs"]["answer"] == dify.transcript()[0]["endless"]
        with requests.post(f"{dify.base_url}/v1/chat-messages", json=body("next"), stream=True, timeout=30):
            before = dify.deltas
            wait_until(lambda: dify.deltas >= before + 3)
        assert "next" not in dify.transcript()[0]


def test_answers_wait_until_more_is_allowed() -> None:
    """Answers stop after the deltas allowed by their question; `let` continues one group or all, each to its end."""
    with mock_dify(1, 0.005) as dify, ThreadPoolExecutor(3) as clients:

        def ask(name: str) -> Future[requests.Response]:
            address = f"{dify.base_url}/v1/chat-messages"
            return clients.submit(requests.post, address, json=body(f"{name} *12/6"), timeout=60)

        asked = [ask("a"), ask("b")]
        wait_until(lambda: dify.deltas == 12)
        dify.let("a", 2)
        wait_until(lambda: dify.deltas == 14)
        dify.let("a", 4)
        wait_until(lambda: dify.transcript()[0].keys() == {"a *12/6"})
        # While the third answer gets its first deltas, the second still waits.
        asked.append(ask("c"))
        wait_until(lambda: dify.deltas >= 24)
        assert dify.deltas == 24
        dify.let("", 100)
        assert all(b"workflow_finished" in reply.result(60).content for reply in asked)
        assert [len(list(sent_times(answer))) for answer in dify.transcript()[0].values()] == [12, 12, 12]
