"""What somebody gets who knows a little too much: another person's message id, or all of Redis."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import requests

from demo.mock_auth import DEMO_USER_QUERY, create_demo_users
from demo.mock_dify import MockDify
from services.models import UserInfo
from tests.house import dify_settings, replicas, settings_for, wecom_user
from tests.servers import RedisServer, free_port
from utils.keyring import derive
from utils.sealed import unseal

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


#: Without a bot and without SECRET_KEY: nothing secret is left that Redis does not have.
NO_BOT = {"WECHAT_TOKEN": "", "WECHAT_ENCODING_AES_KEY": "", "WEBSOCKET_AUTH": "token"}
USER_TOKEN = "user-token-not-real"


def test_a_reader_of_redis_opens_no_users_token(redis_server: RedisServer, tmp_path: Path) -> None:
    """Neither by what Redis keeps nor by what everybody knows, with the derivations of the code at hand."""
    create_demo_users(f"sqlite:///{tmp_path / 'users.db'}")
    company = {
        **NO_BOT,
        "AUTH_MODE": "external",
        "AUTH_SERVICE_URL": f"http://127.0.0.1:{free_port()}",
        "AUTH_USER_QUERY": DEMO_USER_QUERY,
        "DATABASE_PATH": str(tmp_path / "users.db"),
    }
    with redis_server.client() as stored, replicas(1, settings_for(redis_server.url(), **company), tmp_path) as (one,):
        stored.flushdb()
        stored.set(f"authorization:token:{USER_TOKEN}", UserInfo("E1001", "张三").to_json())
        shown = {"Authorization": f"Bearer {USER_TOKEN}"}
        answer = requests.post(f"{one.url}/api/chat", json={"query": "年假怎么申请"}, headers=shown, timeout=30)
        assert answer.status_code == 200, answer.text
        (record,) = stored.scan_iter("dify_stream:*")
        question = json.loads(str(stored.hget(record, "question")))
        secret = str(stored.get("dify_secret:own") or "")

    assert question["credential"]
    public = hashlib.sha256(b"callers:WechatLaibao").digest()
    for key in (public, derive(secret.encode(), "callers"), derive(bytes.fromhex(secret), "callers")):
        with pytest.raises(ValueError, match="MAC"):
            unseal(key, question["credential"])
