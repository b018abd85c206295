"""The gateway's own alerts, by real processes: once over two replicas, whichever leads, and at nobody's cost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from config.texts import ZH
from demo.mocks.group_robot import MockGroupRobot
from services.wecom.fault_watch import ALERTS
from tests.support.replicas import Replica, replicas, settings_for
from tests.support.servers.processes import MariaServer, RedisServer, wait_until
from tests.support.servers.relay import Relay

pytestmark = [pytest.mark.scenario, pytest.mark.full, pytest.mark.timeout(900)]

#: Limit in seconds for a message: some rounds of 15 s, a leader's lock of 45 s, and a busy machine.
MESSAGE = 180.0
ALERT_TOKEN = "obviously-fake-alert-token"
LOCK = "dify_lock:alert_watch"
#: How the messages begin.
FIRING, OVER = (ZH[f"alert_{status}"].split()[0] for status in ("firing", "resolved"))


class Company:
    """Redis, and a database behind a relay, and the operators' robot."""

    def __init__(self, closes: ExitStack) -> None:
        self.redis = closes.enter_context(RedisServer(aof=True))
        maria = closes.enter_context(MariaServer())
        maria.fresh_database("laibao")
        self.sql = closes.enter_context(Relay(maria.port))
        self.robot = closes.enter_context(MockGroupRobot())
        self.env = settings_for(
            self.redis.url(),
            ALERT_WEBHOOK=self.robot.url,
            MYSQL_HOST="127.0.0.1",
            MYSQL_PORT=str(self.sql.port),
            MYSQL_USER="root",
            MYSQL_DATABASE="laibao",
        )

    def leader(self) -> str:
        """Return the host and process of the replica that leads, "" for none."""
        with self.redis.client(decode_responses=True) as client:
            return str(client.get(LOCK) or "").rpartition(":")[0]

    def gets(self, kind: str, text: str) -> None:
        """Wait until the last message about a kind of fault begins with a text, such as "**告警**"."""
        wait_until(lambda: [each for each in self.about(kind)[-1:] if each.startswith(text)], MESSAGE, every=0.1)

    def about(self, kind: str) -> list[str]:
        """Return the messages about a kind of fault."""
        return [message for message in self.robot.messages if ALERTS[kind][0] in message.splitlines()[0]]


@pytest.fixture
def company() -> Iterator[Company]:
    with ExitStack() as closes:
        yield Company(closes)


def is_leader(replica: Replica, name: str) -> bool:
    return name.rpartition(":")[2] in [str(pid) for pid in replica.workers]


def repeated(replica: Replica) -> int:
    """Return how many alerts a replica wanted to post that had been posted before."""
    lines = [json.loads(line) for line in replica.log.splitlines() if line.startswith("{")]
    return sum(line["repeated"] for line in lines if line["message"] == "alerts")


def test_each_fault_is_posted_once_over_two_replicas_whichever_leads(company: Company, tmp_path: Path) -> None:
    """The leader is killed while the database is away: the other one goes on with the same occurrence."""
    with replicas(2, company.env, tmp_path) as running:
        with company.sql.refusing():
            company.gets("sql", FIRING)
            name = wait_until(company.leader, MESSAGE)
            killed, other = sorted(running, key=lambda each: not is_leader(each, name))
            killed.kill()
            wait_until(lambda: repeated(other), MESSAGE, every=0.1)
        company.gets("sql", OVER)

        with replicas(1, company.env, tmp_path):
            company.redis.kill()
            company.gets("redis", FIRING)
            company.redis.restart()
            company.gets("redis", OVER)
            wait_until(company.leader, MESSAGE)

    # On a machine that is too busy for a check there may be further faults: each is over again, too.
    for kind in ("sql", "redis"):
        began = [message.startswith(FIRING) for message in company.about(kind)]
        assert began == [True, False] * (len(began) // 2)


def test_a_robot_that_does_not_reply_holds_up_nothing(redis_url: str, tmp_path: Path) -> None:
    """While a group of alerts waits for its message, a question is answered; Alertmanager has to send it again."""
    alert = {"status": "firing", "labels": {"severity": "critical"}, "startsAt": "now", "fingerprint": "a1"}
    with MockGroupRobot() as robot, Relay(int(robot.address.rpartition(":")[2])) as relay:
        webhook = robot.url.replace(robot.address, f"http://127.0.0.1:{relay.port}")
        env = settings_for(redis_url, ALERT_WEBHOOK=webhook, ALERT_TOKEN=ALERT_TOKEN, WEBSOCKET_AUTH="none")
        with replicas(1, env, tmp_path) as (replica,), relay.silent(), ThreadPoolExecutor(1) as pool:
            headers = {"Authorization": f"Bearer {ALERT_TOKEN}"}
            body = {"version": "4", "alerts": [alert]}
            sending = pool.submit(requests.post, f"{replica.url}/alerts", json=body, headers=headers, timeout=60)
            wait_until(lambda: relay.connections or sending.done())
            answer = requests.post(f"{replica.url}/api/chat", json={"query": "年假怎么申请？"}, timeout=60)
            refused = sending.result(60)
            counted = requests.get(f"{replica.url}/metrics", headers=_admin(env), timeout=60).text

    assert (answer.status_code, refused.status_code) == (200, 502)
    assert re.search(r'^wechatlaibao_alerts_total{outcome="failed"} [1-9]', counted, re.MULTILINE)
    assert robot.messages == []


def _admin(env: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {env['ADMIN_TOKEN']}"}
