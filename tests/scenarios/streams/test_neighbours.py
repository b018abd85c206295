"""A second replica and a restart, which break every bot that keeps its streams in one process."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.chaos_fleet import fleet
from tests.scenarios.stage.chaos_record import beginnings, examine
from tests.scenarios.stage.chaos_talk import report
from tests.scenarios.stage.people import TIMEOUT, stored
from tests.support.replicas import dify_settings, replicas, settings_for, wecom_user
from tests.support.scrapes import scrape
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

QUESTION = "怎么领电脑？"


def test_polls_that_alternate_between_two_replicas_see_one_answer(
    redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    """Each frame has the answer so far, never less than the one before, and only the last frame finishes."""
    with MockDify(delay=0.1) as dify:
        env = settings_for(redis_url, **dify_settings(dify.base_url))
        with replicas(2, env, tmp_path) as pair, wecom_user([replica.url for replica in pair]) as person:
            bubble = person.says(QUESTION)
            person.sees_finish(bubble, TIMEOUT, every=0.1)
            shown = [scrape(replica.url) for replica in pair]

        answer = dify.expected_answer(QUESTION)
        record = examine(QUESTION, bubble, stored(redis_server, bubble.stream_id), answer, calls=len(dify.requests))
        content_frames = [frame for frame in bubble.frames if frame.content != ZH["thinking"]]
        assert len(content_frames) >= 8
        assert {frame.content for frame in content_frames} <= beginnings(answer)
        assert all(len(old.content) <= len(new.content) for old, new in pairwise(content_frames))
        assert [frame.finish for frame in content_frames].index(True) == len(content_frames) - 1
        assert (record.right, record.calls) == (True, 1)
    polls = [re.search(r'wechatlaibao_callback_seconds_count{msgtype="stream"} (\S+)', text) for text in shown]
    assert all(found and float(found[1]) >= 4 for found in polls), "both were polled"


def test_a_restarted_process_finishes_the_killed_ones_answer(
    redis_server: RedisServer, redis_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """After SIGKILL of the only replica and a new start, the bubble pauses and then shows its whole answer."""
    with MockDify(delay=0.3, after_disconnect="runs on") as dify:
        env = settings_for(redis_url, **dify_settings(dify.base_url), STREAM_LEASE="3")
        with fleet(1, env, tmp_path) as alone:
            person = alone.person("zhangsan")
            bubble = person.says(QUESTION)
            answer = dify.expected_answer(QUESTION)
            wait_until(lambda: person.polls(bubble).content in beginnings(answer), TIMEOUT)
            (killed,) = alone.members
            killed.kill()
            alone.replace(killed)
            person.sees_finish(bubble, TIMEOUT, every=0.5)
            takeovers = alone.takeovers()[bubble.stream_id]

        found = stored(redis_server, bubble.stream_id)
        record = examine(QUESTION, bubble, found, answer, calls=len(dify.requests), takeovers=takeovers)
        report({"killed and restarted": record}, record_property)
        assert {frame.content for frame in bubble.frames} - {ZH["thinking"]} <= beginnings(answer)
        assert (record.right, record.calls, list(record.takeovers)) == (True, 1, ["takeover"])
