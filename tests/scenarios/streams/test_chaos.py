"""Every replica is killed, one after the other, while sixty users are being answered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from demo.mocks.dify.server import MockDify
from tests.scenarios.chaos import Crowd, Killer, by_takeovers, happened
from tests.scenarios.stage.chaos_fleet import fleet
from tests.scenarios.stage.chaos_record import records_of
from tests.support.replicas import dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

PEOPLE = 60


def test_sixty_conversations_outlive_every_replica(
    redis_server: RedisServer, redis_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every answer arrives whole: none is interrupted, goes backwards or is asked for twice."""
    with MockDify(delay=0.1, limit=120.0, after_disconnect="runs on") as dify:
        dify.holds_at = 8
        env = settings_for(redis_url, **dify_settings(dify.base_url), STREAM_LEASE="3")
        with fleet(3, env, tmp_path) as replicas:
            crowd = Crowd(replicas)
            crowd.begin(PEOPLE)
            with Killer(replicas, every=3.5, most=3) as killer:
                wait_until(lambda: killer.kills == 3, 60.0)
                dify.holds_at = None
                crowd.wait_end()
            records = records_of(crowd.asked, replicas, redis_server, dify)

    figures = f"{by_takeovers(records)}\n\n{happened(replicas)}"
    print("", figures, sep="\n")
    record_property("chaos", figures)
    assert killer.kills == 3
    assert crowd.broken == []
    assert len(records) == PEOPLE
    assert [f"{record.question}: {record}" for record in records if not record.right] == []
    assert {(record.calls, record.interrupted, record.backwards) for record in records} == {(1, False, 0)}
    assert sum(len(record.takeovers) for record in records) >= PEOPLE / 3, "each kill met somebody"
