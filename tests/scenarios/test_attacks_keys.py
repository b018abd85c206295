"""What somebody gets who knows a little too much: another person's message id, or all of Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.mock_dify import MockDify
from tests.house import dify_settings, replicas, settings_for, wecom_user
from tests.servers import RedisServer

pytestmark = pytest.mark.scenario


def test_a_message_id_of_another_person_reads_nothing_of_theirs(redis_server: RedisServer, tmp_path: Path) -> None:
    """Whoever uses it asks a question of their own, and sees its answer alone."""
    with MockDify() as dify:
        env = settings_for(redis_server.url(), **dify_settings(dify.base_url))
        with replicas(1, env, tmp_path) as (one,), wecom_user([one.url], "zhangsan") as zhangsan:
            theirs = zhangsan.says("我的工资是多少")
            zhangsan.sees_finish(theirs, every=0.1)
            with wecom_user([one.url], "lisi") as lisi:
                own = lisi.says("年假怎么申请", msgid=theirs.msgid)
                lisi.sees_finish(own, every=0.1)

        assert own.stream_id != theirs.stream_id
        assert own.content != theirs.content
        assert [request.body["query"] for request in dify.requests] == ["我的工资是多少", "年假怎么申请"]
