"""The gateway's own alerts, by real processes: once over two replicas, whichever leads, and at nobody's cost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import requests

from config.texts import ZH
from demo.mocks.group_robot import MockGroupRobot
from services.redis.store import ScriptRunner, connect
from services.wecom.fault_watch import ALERTS
from services.wecom.long_connection.lease_store import LeaseStore
from tests.support.long_connection.bots import BOT_ID, SECRET, bot_server, websocket_settings
from tests.support.long_connection.raw_bot import RawBot
from tests.support.replicas import Replica, replicas, settings_for, wecom_user
from tests.support.scrapes import scrape
from tests.support.servers.processes import MariaServer, RedisServer, wait_until
from tests.support.servers.relay import Relay

pytestmark = [pytest.mark.scenario, pytest.mark.full, pytest.mark.timeout(900)]

#: Limit in seconds for a message: some rounds of 15 s, a leader's lock of 45 s, and a busy machine.
MESSAGE = 180.0
ALERT_TOKEN = "obviously-fake-alert-token"
LOCK = "dify_lock:alert_watch"
#: The name in the settings of the bot with a long connection.
BOT = "hr"
#: How the messages begin.
FIRING, OVER = (ZH[f"alert_{status}"].split()[0] for status in ("firing", "resolved"))


class Company:
    """Redis, and a database behind a relay, WeCom's side of a bot's long connection, and the operators' robot."""

    def __init__(self, closes: ExitStack) -> None:
        self.redis = closes.enter_context(RedisServer(aof=True))
        maria = closes.enter_context(MariaServer())
        maria.fresh_database("laibao")
        self.sql = closes.enter_context(Relay(maria.port))
        self.robot = closes.enter_context(MockGroupRobot())
        self.wecom = closes.enter_context(bot_server())
        linked = {name: value for name, value in websocket_settings(self.wecom).items() if value}
        self.env = settings_for(
            self.redis.url(),
            ALERT_WEBHOOK=self.robot.url,
            WECHAT_BOTS=json.dumps({BOT: linked}),
            MYSQL_HOST="127.0.0.1",
            MYSQL_PORT=str(self.sql.port),
            MYSQL_USER="root",
            MYSQL_DATABASE="laibao",
        )

    def leader(self) -> str:
        """Return the host and process of the replica that leads, "" for none."""
        with self.redis.client(decode_responses=True) as client:
            return str(client.get(LOCK) or "").rpartition(":")[0]

    def resume_bot(self) -> None:
        """Let the replicas subscribe the bot again, as `python -m tools.wecom resume` does, and wait until one has."""
        with closing(connect(self.redis.url(), pool_size=1, timeout=5.0)) as client:
            LeaseStore(ScriptRunner(client)).resume(BOT)
        self.wecom.wait_until(lambda: self.wecom.subscribed(BOT_ID) > 0, MESSAGE)

    def gets(self, kind: str, text: str) -> None:
        """Wait until the last alert of a kind of fault begins with a text, such as "**告警**"."""
        wait_until(lambda: [each for each in self.about(kind)[-1:] if each.startswith(text)], MESSAGE, every=0.1)

    def about(self, kind: str) -> list[str]:
        """Return the first lines of the alerts of a kind of fault; a message may have several alerts."""
        lines = [line for message in self.robot.messages for line in message.splitlines()]
        return [line for line in lines if line.startswith((FIRING, OVER)) and ALERTS[kind][0] in line]


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
    """The leader is killed while the database is away and another program has the bot's long connection.

    The other replica goes on with the same occurrences, and posts that they are over after the bot was resumed.
    """
    with replicas(2, company.env, tmp_path) as running:
        company.wecom.wait_until(lambda: company.wecom.subscribed(BOT_ID) > 0, MESSAGE)
        with company.sql.refusing(), RawBot(company.wecom.url, BOT_ID, SECRET):
            company.gets("sql", FIRING)
            company.gets("evicted", FIRING)
            name = wait_until(company.leader, MESSAGE)
            killed, other = sorted(running, key=lambda each: not is_leader(each, name))
            killed.kill()
            wait_until(lambda: repeated(other) > 1, MESSAGE, every=0.1)
        company.resume_bot()

        with replicas(1, company.env, tmp_path):
            company.gets("sql", OVER)
            company.gets("evicted", OVER)
            company.redis.kill()
            company.gets("redis", FIRING)
            company.redis.restart()
            company.gets("redis", OVER)
            wait_until(company.leader, MESSAGE)

    # On a machine that is too busy for a check there may be further faults: each is over again, too.
    for kind in ("sql", "redis", "evicted"):
        began = [message.startswith(FIRING) for message in company.about(kind)]
        assert began == [True, False] * (len(began) // 2)


def test_a_robot_that_does_not_reply_holds_up_nothing(redis_url: str, tmp_path: Path) -> None:
    """While a group of alerts waits for its message, people are answered; its sender's repetition is posted later.

    Callbacks, questions and other alerts do not wait for it, nor does the replica's end.
    """
    with MockGroupRobot() as robot, Relay(int(robot.address.rpartition(":")[2])) as relay:
        webhook = robot.url.replace(robot.address, f"http://127.0.0.1:{relay.port}")
        env = settings_for(redis_url, ALERT_WEBHOOK=webhook, ALERT_TOKEN=ALERT_TOKEN, WEBSOCKET_AUTH="none")
        with replicas(1, env, tmp_path) as (replica,), ThreadPoolExecutor(3) as pool:

            def send(*names: str) -> list[Future[requests.Response]]:
                return [pool.submit(send_alert, replica, name) for name in names]

            with relay.silent():
                sending = send("first", "second", "third")
                wait_until(lambda: relay.connections or sending[0].done())
                answer = requests.post(f"{replica.url}/api/chat", json={"query": "年假怎么申请？"}, timeout=60)
                with wecom_user([replica.url]) as user:
                    shown = user.sees_finish(user.says("年假怎么申请？"), MESSAGE, 0.1)
                refused = {each.result(60).status_code for each in sending}
                counted = scrape(replica.url)
            posted = {each.result(60).status_code for each in send("first", "second", "third")}
            with relay.silent():
                unsent = send("fourth")
                wait_until(lambda: relay.connections or unsent[0].done())
                status = replica.stop()

    assert (answer.status_code, refused, posted, status) == (200, {502}, {200}, 0)
    assert "年假怎么申请？" in shown
    assert re.search(r'^wechatlaibao_alerts_total{outcome="failed"} [1-9]', counted, re.MULTILINE)
    assert sorted(name for message in robot.messages for name in re.findall("first|second|third|fourth", message)) == [
        "first", "second", "third",
    ]  # fmt: skip


def send_alert(replica: Replica, name: str) -> requests.Response:
    """Post an alert as Alertmanager does, and return the reply."""
    labels = {"severity": "critical", "alertname": name}
    alert = {"status": "firing", "labels": labels, "startsAt": "now", "fingerprint": name}
    headers = {"Authorization": f"Bearer {ALERT_TOKEN}"}
    return requests.post(f"{replica.url}/alerts", json={"version": "4", "alerts": [alert]}, headers=headers, timeout=60)
