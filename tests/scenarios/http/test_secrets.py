"""Search the product's logs and Redis for secrets and for people's words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import redis
import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from demo.mocks.auth import DemoUser, MockAuth
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import CallbackFailed
from tests.scenarios.stage.people import ask, at_once, company_settings
from tests.support.replicas import AES_KEY, TOKEN, dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import MariaServer, RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

PEOPLE = [
    DemoUser("known", "E1", "张三", "13900000001", password="password-of-known"),
    DemoUser("refused", "E2", "李四", "13900000002", password="password-of-refused"),
]
WORDS = "我的工资是多少"
#: Part of the URL to which a late answer may be sent.
RESPONSE = "response_code"
DIFY_KEY = "app-test-key-not-real"
SOCKET_KEY, WRONG_KEY, ADMIN_TOKEN = "socket-key-not-real", "wrong-key-not-real", "admin-token-not-real"
TIMEOUT = 60.0
SQL_PASSWORD = "sql-password-not-real"
REDIS_PASSWORD = "redis-password-not-real"
#: Events that must be in the logs, so that the search covers the lines of every failure.
EVENTS = (
    *("unknown_user", "auth_refused", "store_refused", "provider_error", "provider_truncated", "bad_signature"),
    *("http question", "batch task taken"),
)


def values_in(client: redis.Redis) -> Iterator[tuple[str, str]]:
    """Yield every key of a Redis with its value."""
    readers: dict[str, Callable[[str], object]] = {
        "string": client.get,
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": client.smembers,
        "zset": lambda key: client.zrange(key, 0, -1),
    }
    for key in client.scan_iter():
        yield str(key), str(readers[str(client.type(key))](str(key)))


def secured(maria: MariaServer, server: RedisServer) -> dict[str, str]:
    """Create a user with a password in both databases; return the settings that log in as these."""
    maria.execute(f"CREATE OR REPLACE USER secretive@'%' IDENTIFIED BY '{SQL_PASSWORD}'")
    maria.execute("GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON laibao_secrets.* TO secretive@'%'")
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "laibao", "on", f">{REDIS_PASSWORD}", "~*", "&*", "+@all")
    address = f"redis://laibao:{REDIS_PASSWORD}@127.0.0.1:{server.port}/1"
    return {"REDIS_URL": address, "MYSQL_USER": "secretive", "MYSQL_PASSWORD": SQL_PASSWORD}


def forge(url: str) -> None:
    """Send a callback with a wrong signature."""
    with wecom_user([url]) as stranger:
        callback = stranger.seals({"msgtype": "text", "text": {"content": WORDS}})
        forged = {**callback.params, "msg_signature": "0" * 40}
        with pytest.raises(CallbackFailed):
            stranger.wire.post(type(callback)(forged, callback.body))


def visit_sockets(url: str) -> None:
    """Ask at both socket endpoints, send a wrong key, and list the connections as an administrator."""
    sockets, key = url.replace("http", "ws", 1), {"Authorization": f"Bearer {SOCKET_KEY}"}
    with connect(f"{sockets}/ws/chat", additional_headers=key) as chat:
        chat.send(json.dumps({"content": WORDS}))
        while json.loads(chat.recv(TIMEOUT)).get("status") is not False:
            pass
    with connect(f"{sockets}/ws/realtime-asr", additional_headers=key) as realtime:
        realtime.send(json.dumps({"type": "asr_chunk", "text": f"{WORDS}？", "is_final": True}))
        while not json.loads(realtime.recv(TIMEOUT)).get("final"):
            pass
    with pytest.raises(InvalidStatus):
        connect(f"{sockets}/ws/chat", additional_headers={"X-API-Key": WRONG_KEY}).close()
    for token in (ADMIN_TOKEN, WRONG_KEY):
        requests.get(f"{url}/api/ws/connections", headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT)


def visit_rest(url: str) -> None:
    """Ask over HTTP and in a batch, with success and errors, and send a wrong key."""
    key = {"X-API-Key": SOCKET_KEY}
    for script in ("", "[[error]]"):
        requests.post(f"{url}/api/chat", json={"query": WORDS + script}, headers=key, timeout=TIMEOUT)
    requests.post(f"{url}/api/chat", json={"query": WORDS, "stream": True}, headers=key, timeout=TIMEOUT)
    requests.post(f"{url}/api/chat", json={"query": WORDS, WORDS: WORDS}, headers=key, timeout=TIMEOUT)
    requests.post(f"{url}/api/chat", json={"query": WORDS}, headers={"X-API-Key": WRONG_KEY}, timeout=TIMEOUT)
    tasks, options = f"{url}/api/batch/tasks", {"max_attempts": 1}
    body = {"name": WORDS, "description": WORDS, "texts": [WORDS, f"{WORDS}[[error]]"], "options": options}
    task_id = requests.post(tasks, json=body, headers=key, timeout=TIMEOUT).json()["data"]["task_id"]
    one = f"{tasks}/{task_id}"

    def ended() -> bool:
        return bool(requests.get(one, headers=key, timeout=TIMEOUT).json()["data"]["status"] == "completed")

    wait_until(ended, TIMEOUT)
    requests.get(f"{one}/results?format=csv", headers=key, timeout=TIMEOUT)


@pytest.mark.parametrize("log_format", ["json", "plain"])
def test_no_secret_is_in_logs_or_redis(maria_server: MariaServer, tmp_path: Path, log_format: str) -> None:
    """Logs have no secret and no question, even at debug level; Redis has secrets under `authorization:` only."""
    logs = {"LOG_LEVEL": "DEBUG", "LOG_DIR": str(tmp_path / "logs"), "LOG_FORMAT": log_format}
    with RedisServer() as server, MockAuth(PEOPLE) as auth, MockDify() as dify:
        users = company_settings(maria_server, "laibao_secrets", auth)
        auth.users["E2"] = DemoUser("refused", "E2", password="another-password")
        everything = {**dify_settings(dify.base_url), **users, **secured(maria_server, server), **logs}
        endpoints = {"API_KEYS": SOCKET_KEY, "ADMIN_TOKEN": ADMIN_TOKEN}
        env = settings_for(server.url(), DIFY_TIMEOUT="10", **everything, **endpoints)
        with replicas(2, env, tmp_path) as pair:
            urls = [replica.url for replica in pair]
            asked = [("known", ""), ("refused", ""), ("nobody", ""), ("known", "[[error]]"), ("known", "[[drop]]")]
            at_once(partial(ask, urls, userid, f"{WORDS}{script}") for userid, script in asked)
            forge(urls[0])
            visit_sockets(urls[0])
            visit_rest(urls[1])
            maria_server.execute("DROP TABLE laibao_secrets.demo_users")
            ask(urls, "newcomer", WORDS)
            with server.client() as client:
                held = dict(values_in(client))
            server.stop()
            with wecom_user(urls) as person:
                person.says(WORDS)
            printed = [replica.log for replica in pair]
        written = [path.read_text("utf-8") for path in (tmp_path / "logs").glob("*.log")]

    assert auth.tokens
    passwords = [user.password for user in PEOPLE] + [SQL_PASSWORD, REDIS_PASSWORD]
    secrets = [*passwords, *auth.tokens, TOKEN, AES_KEY, DIFY_KEY, RESPONSE, SOCKET_KEY, WRONG_KEY, ADMIN_TOKEN]
    values = str({key: held[key] for key in held if not key.startswith("authorization:")})
    logged = "".join(printed + written)
    assert [event for event in (*EVENTS, "redis is away", "[调试]") if event not in logged] == []
    assert WORDS in values
    assert [secret for secret in secrets if secret in values or secret in logged] == []
    assert [words for words in (WORDS, "模拟回答", "13900000001") if words in logged] == []
    assert [password for password in passwords if password in str(held)] == []
