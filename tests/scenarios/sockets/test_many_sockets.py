"""A replica with many sockets is killed, and every answer continues elsewhere. In full: `python -m bench.sockets`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.load.socket_clients import Client, Crowd
from bench.stage.dify import mock_dify
from tests.support.replicas import dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer

pytestmark = [pytest.mark.scenario, pytest.mark.full]

IDLE, ANSWERING = 100, 40
#: Timeout in seconds of all answers, with a takeover on a busy machine.
TIMEOUT = 90.0


def test_all_answers_of_a_killed_replica_go_on_elsewhere(
    redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    """100 idle sockets and 40 in mid-answer: after SIGKILL each text is whole, byte for byte, and was asked for once.

    A second question of each client on the other replica is answered as well.
    """
    asking = [Client(f"asking-{n}") for n in range(ANSWERING)]
    with mock_dify(pieces=40, every=0.15) as dify:
        own = dify_settings(dify.base_url, STREAM_LEASE="3", WEBSOCKET_AUTH="none", RATE_LIMIT_USER="off")
        env = settings_for(redis_url, **own, RATE_LIMIT_IP="off", REDIS_POOL_SIZE="50")
        with replicas(2, env, tmp_path) as (first, second), Crowd(first.port) as crowd:
            for client in [*(Client(f"idle-{n}") for n in range(IDLE)), *asking]:
                crowd.join(client)
            for client in asking:
                client.ask(f"first {client.name}")
                crowd.listen_for(0.05)
            assert crowd.listen(lambda: all(client.text or client.status for client in asking), TIMEOUT)
            crowd.port = second.port
            first.kill()
            assert crowd.listen(lambda: all(client.status for client in asking), TIMEOUT)
            whole = {client.question: client.text for client in asking}
            asked_once = dify.transcript()
            ends = {client.status for client in asking}
            for client in asking:
                client.ask(f"second {client.name}")
                crowd.listen_for(0.05)
            assert crowd.listen(lambda: all(client.status for client in asking), TIMEOUT)
            answers, asks = dify.transcript()

    assert ends == {"completed"}
    assert whole == asked_once[0]
    assert {client.connects for client in asking} == {2}
    assert {client.question: client.text for client in asking}.items() <= answers.items()
    assert set(asks.values()) == {1}
    assert len(asks) == 2 * ANSWERING
