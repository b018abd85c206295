"""Attacks from outside, each against a real gunicorn: what an attacker tried, and what it must not bring."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.forgery import FORGED, raw_callback
from tests.house import Replica, replicas, settings_for
from tests.scrapes import samples

pytestmark = pytest.mark.scenario

DOORS_KEY, DOORS_ADMIN = "obviously-fake-key-of-doors", "obviously-fake-admin-of-doors"
DOORS_AS_ADMIN = {"Authorization": f"Bearer {DOORS_ADMIN}"}


@pytest.fixture
def doors_replica(redis_url: str, tmp_path: Path) -> Iterator[Replica]:
    env = settings_for(redis_url, API_KEYS=DOORS_KEY, ADMIN_TOKEN=DOORS_ADMIN, RATE_LIMIT_IP="off")
    with replicas(1, env, tmp_path) as (replica,):
        yield replica


def doors_refusals(replica: Replica) -> list[tuple[str, str]]:
    """Return check and cause of each refused callback in the log."""
    lines = [json.loads(line) for line in replica.log.splitlines() if line.startswith("{")]
    return [(line["check"], line["cause"]) for line in lines if line["message"] == "callback refused"]


def test_no_answer_metric_or_line_tells_good_padding_from_bad(doors_replica: Replica) -> None:
    """A sender with the token tries all 256 values of the byte that a padding oracle recovers."""
    url = f"{doors_replica.url}/wechat/callback"
    guesses = [raw_callback(bytes(16) + bytes([0, 0, 0, 1]) + b"x" * 43 + bytes([last])) for last in range(256)]
    forged = [forge() for name, forge in FORGED.items() if name.startswith("bad_ciphertext")]

    with requests.Session() as session:
        replies = [session.post(url, params=one.params, data=one.body, timeout=10) for one in guesses + forged]
        metrics = session.get(f"{doors_replica.url}/metrics", headers=DOORS_AS_ADMIN, timeout=30).text

    assert {(reply.status_code, reply.text) for reply in replies} == {(400, '{"code": "callback_refused"}')}
    counted = {name[1:]: value for name, value in samples(metrics).items() if "callbacks_refused_total" in name[0]}
    assert counted == {("bad_ciphertext",): len(replies)}
    assert set(doors_refusals(doors_replica)) == {("bad_ciphertext", "bad_ciphertext")}
