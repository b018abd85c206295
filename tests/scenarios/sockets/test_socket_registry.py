"""The registry of connected clients over real replicas: administrators list and close clients, also after a kill."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.replicas import Replica, replicas, settings_for
from tests.support.servers.processes import wait_until
from tests.support.sockets.chat_room import WIDE, ChatSocket

pytestmark = [pytest.mark.scenario, pytest.mark.full]

KEY = "not-a-real-key"
ADMIN = "not-a-real-admin-token"


@pytest.fixture
def pair(redis_url: str, tmp_path: Path) -> Iterator[tuple[Replica, Replica]]:
    """Two replicas of two workers each."""
    env = settings_for(redis_url, API_KEYS=KEY, ADMIN_TOKEN=ADMIN, RATE_LIMIT_IP="off", WORKERS="2")
    with replicas(2, env, tmp_path) as (one, other):
        yield one, other
        assert "Traceback" not in one.log + other.log


def administrator(replica: Replica, method: str, path: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    reply = requests.request(method, f"{replica.url}/api/ws/{path}", headers=headers, timeout=WIDE)
    return reply.status_code, reply.json()["data"]


def connected(replica: Replica) -> list[str]:
    """Return the sorted client ids in the administrators' list."""
    status, data = administrator(replica, "GET", "connections")
    assert (status, data["count"]) == (200, len(data["connections"]))
    return sorted(one["client_id"] for one in data["connections"])


def test_an_administrator_lists_and_closes_clients_of_any_replica(pair: tuple[Replica, Replica]) -> None:
    """Any worker of any replica lists all clients; a closed client gets the reason, and others stay connected."""
    one, other = pair
    people = {f"phone-{i}": ChatSocket(pair[i % 2].url, f"phone-{i}", key=KEY) for i in range(6)}
    assert connected(one) == connected(other) == sorted(people)

    assert administrator(other, "POST", "disconnect/phone-0") == (200, {"client_id": "phone-0", "disconnected": 1})
    assert administrator(one, "POST", "disconnect/nobody")[0] == 404

    gone = people.pop("phone-0")
    assert gone.close_code() == 4410
    assert gone.sees(type="system", client_id="phone-0")
    wait_until(lambda: connected(one) == sorted(people), WIDE)
    for person in people.values():
        person.asks("还在吗？")
        person.leaves()
    wait_until(lambda: connected(other) == [], WIDE)


def test_clients_of_a_killed_replica_leave_the_list(pair: tuple[Replica, Replica]) -> None:
    """A killed replica's clients disappear from the list within seconds, although nothing unregisters them."""
    one, other = pair
    lost, stays = ChatSocket(one.url, "lost", key=KEY), ChatSocket(other.url, "stays", key=KEY)
    assert connected(other) == ["lost", "stays"]

    one.kill()

    lost.close_code()
    wait_until(lambda: connected(other) == ["stays"], WIDE)
    stays.asks("还在吗？")
    stays.leaves()


def test_clients_of_a_terminated_replica_reconnect_to_the_other(pair: tuple[Replica, Replica]) -> None:
    """A replica that shuts down closes its sockets with 1012; after it the list has the clients that reconnected."""
    one, other = pair
    moved, stays = ChatSocket(one.url, "moved", key=KEY), ChatSocket(other.url, "stays", key=KEY)

    one.signal(signal.SIGTERM)

    assert moved.close_code() == 1012
    back = ChatSocket(other.url, "moved", key=KEY)
    assert one.process.wait(WIDE) == 0
    assert connected(other) == ["moved", "stays"]
    for person in (back, stays):
        person.asks("还在吗？")
        person.leaves()
