"""Pictures of answers on two real replicas: fetched by the owner, shown by both, also when the owner is killed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests

from config.texts import ZH
from demo.mocks.dify.features.files import signed
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble, WeComUser
from services.streams.store import stream_keys
from tests.scenarios.stage.people import TIMEOUT, stored
from tests.support.replicas import Replica, dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = pytest.mark.scenario

PUBLIC = "https://chat.example.com"
#: The picture beside the text, and those within it, by the mock's names.
BESIDE, FIRST, SECOND = "9d1c.png", "house.webp", "photo"


def settings(redis: RedisServer, dify: MockDify) -> dict[str, str]:
    return settings_for(redis.url(), **dify_settings(dify.base_url), PUBLIC_URL=PUBLIC, STREAM_LEASE="2")


def asks(replica: Replica) -> tuple[WeComUser, Bubble]:
    person = wecom_user([replica.url])
    return person, person.says("画一座房子 [[pictures]]")


def has(redis: RedisServer, bubble: Bubble, entry: str) -> bool:
    """Return whether Redis has a whole file of the answer."""
    with redis.client() as client:
        return bool(client.hexists(f"{{{stream_keys(bubble.stream_id).hash}}}:files", entry))


def test_both_replicas_show_the_same_pictures(redis_server: RedisServer, tmp_path: Path) -> None:
    """One fetches them, each shows them again and again, and either sends the file of a link."""
    with MockDify() as dify, replicas(2, settings(redis_server, dify), tmp_path) as both:
        person, bubble = asks(both[0])
        person.sees_finish(bubble, TIMEOUT, 0.2)
        with wecom_user([replica.url for replica in both]) as anywhere:
            shown = [anywhere.polls(bubble) for _ in range(4)]
        link = re.search(rf"{PUBLIC}(/files/\S+\.pdf)\)", bubble.content)
        assert link
        sent = [requests.get(replica.url + link[1], timeout=10) for replica in both]
        person.close()

    assert [len(frame.pictures) for frame in shown] == [3] * 4
    assert {(frame.content, frame.pictures) for frame in shown} == {(bubble.content, bubble.last.pictures)}
    assert [reply.status_code for reply in sent] == [200, 200]
    assert sent[0].content == sent[1].content
    assert [dify.fetched(name) for name in (BESIDE, FIRST, SECOND)] == [1, 1, 1]


@pytest.mark.timeout(120)
@pytest.mark.full
def test_a_killed_owners_pictures_are_used(redis_server: RedisServer, tmp_path: Path) -> None:
    """Killed while it fetches the second picture: the next owner keeps those before, and fetches what is missing."""
    with MockDify(after_disconnect="runs on") as dify, replicas(2, settings(redis_server, dify), tmp_path) as both:
        dify.held.add(SECOND)
        person, bubble = asks(both[0])
        wait_until(lambda: has(redis_server, bubble, "p1") and dify.fetched(SECOND) == 0, TIMEOUT)
        both[0].kill()
        person.close()
        dify.held.clear()
        with wecom_user([both[1].url]) as survivor:
            survivor.sees_finish(bubble, TIMEOUT, 0.2)
            again = survivor.polls(bubble)
        fields = stored(redis_server, bubble.stream_id).fields

    assert int(fields["epoch"]) > 1
    assert len(bubble.last.pictures) == len(set(bubble.last.pictures)) == 3
    assert (again.content, again.pictures) == (bubble.content, bubble.last.pictures)
    assert dify.fetched(FIRST) == 1
    assert dify.fetched(BESIDE) == 1
    assert ZH["files_missing"][:5] not in bubble.content
    assert signed(BESIDE) not in str(fields)
