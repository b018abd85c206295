"""The dashboards and rules of Prometheus, on a real Prometheus that scrapes a replica in use."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from demo.mocks.dify.server import MockDify
from demo.wecom.feedback import rates
from tests.scenarios.http.test_every_channel import ENDPOINTS, KEY, MASKED
from tests.scenarios.stage.people import TIMEOUT
from tests.support.long_connection.bots import bot_server, websocket_settings
from tests.support.replicas import ADMIN_TOKEN, dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.manifests import MONITORING, ROOT, render
from tests.support.servers.processes import Server, require_binary, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full, pytest.mark.timeout(600)]

JOB = "wechatlaibao"
#: What Grafana puts in the place of its variables.
VARIABLES = {"$__rate_interval": "5m", "$__range": "5m", "$job": JOB, "${datasource}": "prometheus"}
#: Seconds between two scrapes, and at most for one.
EVERY = 3
#: Limit in seconds until every query has data: some scrapes while people use the bot, on a busy machine.
DATA = 300.0

RULES = ROOT / "deploy" / "prometheus-rules.yaml"

Dashboard = dict[str, Any]


class Prometheus(Server):
    """A Prometheus that scrapes one replica, and evaluates the rules of this repository as often."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self._binary = require_binary("prometheus")
        often = {f"{what}_interval": f"{EVERY}s" for what in ("scrape", "evaluation")}
        scrape: dict[str, Any] = {"job_name": JOB, "static_configs": [{"targets": [target]}]}
        scrape |= {"authorization": {"credentials": ADMIN_TOKEN}, "scrape_timeout": f"{EVERY}s"}
        config = {"global": often, "rule_files": [str(RULES)], "scrape_configs": [scrape]}
        (self.directory / "prometheus.yaml").write_text(yaml.safe_dump(config))

    def command(self) -> list[str]:
        files = [
            f"--config.file={self.directory / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
        ]
        return [self._binary, *files, f"--web.listen-address=127.0.0.1:{self.port}"]

    def answers(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/-/ready", timeout=5).ok
        except requests.RequestException:
            return False

    def asks(self, path: str, **fields: str) -> Any:
        """Return the `data` of a GET of Prometheus's HTTP API."""
        reply = requests.get(f"http://127.0.0.1:{self.port}/api/v1/{path}", params=fields, timeout=TIMEOUT)
        assert reply.ok, reply.text
        return reply.json()["data"]

    def health(self) -> Counter[str]:
        """Return how many rules have which health: `ok`, `err`, or `unknown` before the first evaluation."""
        return Counter(rule["health"] for group in self.asks("rules")["groups"] for rule in group["rules"])

    def has_data(self, query: str) -> bool:
        """Return whether a query has a value that a panel can show, which NaN is not."""
        return any(math.isfinite(float(row["value"][1])) for row in self.asks("query", query=query)["result"])


def dashboards() -> list[Dashboard]:
    """Return the dashboards that `kubectl apply -k k8s/monitoring` sends."""
    maps = [each for each in render(MONITORING) if each["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
    return [json.loads(text) for each in maps for text in each["data"].values()]


def queries(boards: Sequence[Dashboard]) -> list[str]:
    """Return the queries of all panels, with values for their variables."""
    found = [target["expr"] for board in boards for panel in board["panels"] for target in panel["targets"]]
    for name, value in VARIABLES.items():
        found = [query.replace(name, value) for query in found]
    assert not [query for query in found if "$" in query]
    return found


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings of a gateway with two bots, one of them on a long connection, and with words as `ENDPOINTS` want."""
    words = tmp_path / "words.txt"
    words.write_text(f"mask {MASKED}\n", "utf-8")
    with MockDify() as dify, bot_server() as wecom:
        linked = {name: value for name, value in websocket_settings(wecom).items() if value}
        yield settings_for(
            redis_url,
            **dify_settings(dify.base_url),
            **dict.fromkeys(("RATE_LIMIT_USER", "RATE_LIMIT_KEY", "RATE_LIMIT_IP"), "off"),
            API_KEYS=KEY,
            DATABASE_PATH=str(tmp_path / "laibao.db"),
            WORDS_FILE=str(words),
            WECHAT_BOTS=json.dumps({"hr": linked}),
        )


def use(url: str) -> None:
    """Ask over every channel, rate an answer, and ask what the provider does not answer."""
    for ask in ENDPOINTS.values():
        ask(url)
    with wecom_user([url]) as user:
        bubble = user.says("年假怎么申请？")
        user.sees_finish(bubble, TIMEOUT, 0.1)
        rates(user, bubble, "accurate")
        user.sees_finish(user.says("[[error-event]]"), TIMEOUT, 0.1)


def test_every_query_of_the_dashboards_has_data(settings: Mapping[str, str], tmp_path: Path) -> None:
    """While people use the bot, each has a value, also those of faults, which are 0; and each rule can be evaluated."""
    missing, page = queries(dashboards()), RULES.read_text("utf-8")
    assert len(missing) > 40
    with replicas(1, settings, tmp_path) as (replica,), Prometheus(f"127.0.0.1:{replica.port}") as prometheus:
        end = time.monotonic() + DATA
        while missing and time.monotonic() < end:
            use(replica.url)
            missing = [query for query in missing if not prometheus.has_data(query)]
        jobs = prometheus.asks("label/job/values", **{"match[]": "wechatlaibao_streams_max"})
        wait_until(lambda: "unknown" not in prometheus.health(), DATA)
        health = prometheus.health()

    assert (missing, jobs) == ([], [JOB])
    assert health == {"ok": len(re.findall(r"- (?:alert|record): ", page))}
