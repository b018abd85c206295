"""Webhooks of batch tasks: signed, repeated after errors, delivered by one process at a time, only to allowed hosts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from services.batches.claims import micros
from services.batches.records import Task
from services.batches.store import begin_delivery, due_webhooks
from services.batches.webhooks import LEASE, PAUSES, Webhooks, delivery_of
from services.errors import WebhookRefused
from services.http.addresses import AddressRules
from services.http.fetcher import Poster
from tests.support.batches.desk import SECRET, BatchDesk, ScriptedProvider
from tests.support.batches.receiver import WebhookReceiver
from tests.support.batches.shelf import Shelf, at
from tests.support.servers.processes import FakeClock, wait_until
from tests.support.servers.raw_server import RawServer
from tests.unit.http.test_fetcher import status


@pytest.fixture
def poster() -> Iterator[Poster]:
    poster = Poster(AddressRules(("127.0.0.1",)))
    yield poster
    poster.close()


def ended(shelf: Shelf, url: str) -> Task:
    return shelf.ends(shelf.submits(1, webhook_url=url))


def test_an_ended_task_is_told_once_and_signed(shelf: Shelf, poster: Poster) -> None:
    """Not before its end; the body is the task as REST shows it, the header its HMAC by the secret key."""
    with WebhookReceiver() as receiver:
        webhooks = Webhooks(shelf.store, poster, SECRET)
        other = shelf.ends(shelf.submits(1))
        task = shelf.submits(1, webhook_url=receiver.url)
        assert webhooks.deliver() > 0.0
        assert receiver.calls == []

        shelf.ends(task)
        assert webhooks.deliver() == 0.0
        assert webhooks.deliver() > 0.0

        (call,) = receiver.calls
        assert call.signature == hmac.new(SECRET, call.body, hashlib.sha256).hexdigest()
        assert call.path == "/hook?token=obviously-fake"
        assert (call.told["event"], call.told["task"]["task_id"]) == ("batch_ended", task.task_id)
        assert (call.told["task"]["status"], call.told["task"]["progress"]["completed"]) == ("completed", 1)
    told = shelf.store.get(task.task_id).webhook
    assert (told.state, told.attempts, told.last_error) == ("delivered", 1, "")
    assert shelf.store.get(other.task_id).webhook.state == "none"


def test_each_attempt_is_signed_with_its_time_and_one_id(shelf: Shelf, poster: Poster, clock: FakeClock) -> None:
    """As Standard Webhooks says: the HMAC of id, time and body. A task that ends again has another id."""
    now = [1_700_000_000.9]
    with WebhookReceiver(503, 204, 204) as receiver:
        webhooks = Webhooks(shelf.store, poster, SECRET, clock=lambda: now[0])
        task = ended(shelf, receiver.url)
        webhooks.deliver()
        now[0] += PAUSES[0]
        clock.advance(PAUSES[0])
        webhooks.deliver()

        first, second = receiver.calls
        for call in (first, second):
            delivery, seconds, signature = call.standard
            expected = hmac.digest(SECRET, f"{delivery}.{seconds}.".encode() + call.body, "sha256")
            assert signature == f"v1,{base64.b64encode(expected).decode()}"
            assert delivery.startswith(f"{task.task_id}-")
        assert first.standard[0] == second.standard[0]
        assert [call.standard[1] for call in (first, second)] == ["1700000000", "1700000005"]
    again = replace(task, completed_at=task.seen_at + timedelta(hours=1))
    assert delivery_of(again) != delivery_of(shelf.store.get(task.task_id))


def test_a_failed_delivery_is_repeated_until_the_last_attempt(
    shelf: Shelf, poster: Poster, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """With growing pauses; the state says why, and the address is in no log line."""
    caplog.set_level(logging.INFO)
    with WebhookReceiver(*[500] * (len(PAUSES) + 1)) as receiver:
        webhooks = Webhooks(shelf.store, poster, SECRET)
        task = ended(shelf, receiver.url)
        for number, pause in enumerate(PAUSES, 1):
            assert webhooks.deliver() == 0.0
            assert shelf.store.get(task.task_id).webhook.attempts == number
            clock.now += pause - 0.5
            assert webhooks.deliver() > 0.0
            clock.now += 1.0
        assert shelf.store.get(task.task_id).webhook.state == "pending"
        webhooks.deliver()
        clock.now += 1e6
        assert webhooks.deliver() > 0.0

        assert len(receiver.calls) == len(PAUSES) + 1
    told = shelf.store.get(task.task_id).webhook
    assert (told.state, told.last_error) == ("failed", "HTTP 500")
    assert "obviously-fake" not in "".join(str(vars(record)) for record in caplog.records)


def test_a_process_that_dies_while_it_delivers_loses_nothing(shelf: Shelf, poster: Poster, clock: FakeClock) -> None:
    """Nobody else takes the webhook for the lease, and anybody after it; a late end of the first attempt is refused."""
    with WebhookReceiver() as receiver:
        task = ended(shelf, receiver.url)
        assert shelf.store.take_webhook(LEASE) == (task.task_id, 1)
        assert shelf.store.take_webhook(LEASE) is None

        clock.now += LEASE + 1.0
        assert shelf.store.take_webhook(LEASE) == (task.task_id, 2)
        shelf.store.settle_webhook(task.task_id, 1, delivered=True, again=None, error="")
        assert shelf.store.get(task.task_id).webhook.state == "pending"
        clock.now += LEASE + 1.0
        assert Webhooks(shelf.store, poster, SECRET).deliver() == 0.0

        assert len(receiver.calls) == 1
    assert shelf.store.get(task.task_id).webhook.state == "delivered"


def test_processes_at_once_take_a_webhook_once(shelf: Shelf, clock: FakeClock) -> None:
    """Of those that saw it due at the same moment, the first one takes it."""
    ended(shelf, "https://example.com/")
    now, database = micros(at(clock)), shelf.store._database
    (found,) = database.read(lambda connection: due_webhooks(connection, now))

    taken = [database.transact(lambda connection: begin_delivery(connection, found, now + 1)) for _ in range(2)]

    assert taken == [True, False]


def test_a_task_that_is_asked_again_is_told_again(shelf: Shelf, poster: Poster) -> None:
    """Its second end is delivered too."""
    with WebhookReceiver() as receiver:
        webhooks = Webhooks(shelf.store, poster, SECRET)
        task = shelf.submits(1, webhook_url=receiver.url)
        shelf.ends(task, failing=True)
        webhooks.deliver()
        shelf.store.retry_failed(task.task_id)
        assert shelf.store.get(task.task_id).webhook.state == "pending"
        shelf.ends(task)
        webhooks.deliver()

        assert [call.told["task"]["status"] for call in receiver.calls] == ["failed", "completed"]


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.2/",
        "https://127.0.0.1:1/x",
        "https://10.0.0.1/",
        "ftp://a.example/",
        "https://u@a.example/",
        "x",
    ],
)
def test_addresses_that_are_not_public_are_refused(shelf: Shelf, address: str) -> None:
    """At the submission, and again when the webhook is called: a name may lead elsewhere by then."""
    poster = Poster(AddressRules(()))
    webhooks = Webhooks(shelf.store, poster, SECRET)

    with pytest.raises(WebhookRefused) as refusal:
        webhooks.check(address)
    task = ended(shelf, address)
    webhooks.deliver()

    assert refusal.value.code == "webhook_not_allowed"
    assert "address" in shelf.store.get(task.task_id).webhook.last_error
    poster.close()


def test_a_redirect_is_not_followed(shelf: Shelf, poster: Poster) -> None:
    """It may lead to a private address; for the gateway it is an attempt that failed."""
    with WebhookReceiver() as inside, RawServer(status(b"307 Moved", f"Location: {inside.url}".encode())) as receiver:
        task = ended(shelf, f"{receiver.url}/hook")
        Webhooks(shelf.store, poster, SECRET).deliver()

        assert len(receiver.heads) == 1
        assert inside.calls == []
    told = shelf.store.get(task.task_id).webhook
    assert (told.state, told.last_error) == ("pending", "HTTP 307")


def test_a_name_that_leads_elsewhere_by_then_is_refused(shelf: Shelf) -> None:
    """The name was public at the submission; when the webhook is due its DNS server says a private address."""
    addresses = iter([["93.184.216.34"], ["127.0.0.1"]])
    with WebhookReceiver() as inside:
        poster = Poster(AddressRules((), resolve=lambda host, port: next(addresses)))
        webhooks = Webhooks(shelf.store, poster, SECRET)
        address = f"https://hook.example:{inside.url.split(':')[2]}"
        webhooks.check(address)
        task = ended(shelf, address)
        webhooks.deliver()
        poster.close()

        assert inside.calls == []
    assert "address" in shelf.store.get(task.task_id).webhook.last_error


def test_without_a_secret_key_there_are_no_webhooks(shelf: Shelf, poster: Poster) -> None:
    with pytest.raises(WebhookRefused) as refusal:
        Webhooks(shelf.store, poster, None).check("http://127.0.0.1/")

    assert refusal.value.code == "webhook_unsigned"


def test_a_replica_tells_the_end_of_its_tasks(redis_url: str, shelf: Shelf) -> None:
    """By its own threads, of completed and cancelled tasks; a refused address is refused before anything is stored."""
    provider = ScriptedProvider()
    provider.held.add("一")
    with WebhookReceiver() as receiver, BatchDesk(redis_url, provider, shelf.store) as desk:
        done = desk.submits(["二"], webhook_url=receiver.url)
        held = desk.submits(["一"], webhook_url=receiver.url)
        wait_until(lambda: len(receiver.calls) == 1, timeout=30.0)
        desk.batches.cancel(held, shelf.store.get(held).owner)
        wait_until(lambda: len(receiver.calls) == 2, timeout=30.0)
        with pytest.raises(WebhookRefused):
            desk.submits(["三"], webhook_url="http://127.0.0.2/")

        told = [(call.told["task"]["task_id"], call.told["task"]["status"]) for call in receiver.calls]
        assert told == [(done, "completed"), (held, "cancelled")]
        assert shelf.rows("tasks") == 2
