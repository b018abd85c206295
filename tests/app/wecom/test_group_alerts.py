"""Alerts for the operators' WeCom group: what is posted, once over all replicas, and who may send it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.errors import SettingsError
from config.settings import load_settings
from config.texts import ZH, Texts
from demo.mocks.group_robot import KEY, MockGroupRobot
from services.errors import ProviderError, StoreUnavailable
from services.identity.guesses import MOST
from services.redis.store import ScriptRunner
from services.wecom.alert_store import AlertClaim, AlertStatus, AlertStore
from services.wecom.alerts import Alert, AlertOutcomes, GroupAlerts, message
from services.wecom.handoff import MOST_BYTES
from tests.support.replicas import ADMIN_TOKEN, AppServer, settings_for

TOKEN = "obviously-fake-alert-token"
REDIS_AWAY = Alert("c4a5:2026-01-05T03:04:05Z", "firing", "RedisAway", "critical", "> Redis away.")


@pytest.fixture
def robot() -> Iterator[MockGroupRobot]:
    with MockGroupRobot() as robot:
        yield robot


@pytest.fixture
def replicas(redis_url: str, robot: MockGroupRobot) -> Iterator[list[AppServer]]:
    changes = {"ALERT_TOKEN": TOKEN, "ALERT_WEBHOOK": robot.url}
    with AppServer(redis_url, **changes) as first, AppServer(redis_url, **changes) as second:
        yield [first, second]


def webhook(*names: str, status: str = "firing", severity: str = "critical", **more: Any) -> dict[str, Any]:
    """Return what Alertmanager sends for one group."""
    alerts = [
        {
            "status": status,
            "labels": {"alertname": name, "severity": severity},
            "annotations": {"summary": f"{name} <@all>", "runbook_url": f"docs/runbook.md#{name}"},
            "startsAt": "2026-01-05T03:04:05Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "",
            "fingerprint": name.lower().encode().hex()[:16],
        }
        for name in names
    ]
    return {"version": "4", "groupKey": "{}", "status": status, "receiver": "wecom", "alerts": alerts, **more}


def send(replica: AppServer, body: Any, token: str = TOKEN) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    reply = replica.app.test_client().post("/alerts", json=body, headers=headers)
    return reply.status_code, reply.get_json()["data"]


def counts(**others: int) -> dict[str, int]:
    return {"posted": 0, "repeated": 0, "below_severity": 0, "limited": 0, **others}


def test_a_group_is_one_message_over_all_replicas(replicas: list[AppServer], robot: MockGroupRobot) -> None:
    """Both replicas get the group twice; a later alert of the group is posted alone."""
    answers = [send(replica, webhook("RedisAway", "NoReplica")) for replica in replicas * 2]
    further = send(replicas[1], webhook("RedisAway", "BotEvicted"))

    assert answers == [(200, counts(posted=2)), *[(200, counts(repeated=2))] * 3]
    assert further == (200, counts(posted=1, repeated=1))
    first, second = robot.messages
    assert ("RedisAway" in first, "NoReplica" in first) == (True, True)
    assert ("RedisAway" in second, "BotEvicted" in second) == (False, True)
    assert "docs/runbook.md#RedisAway" in first
    assert "<@" not in first


def test_a_resolved_alert_is_posted_once_if_it_was_posted_before(
    replicas: list[AppServer], robot: MockGroupRobot
) -> None:
    """An alert that nobody read of is not over again; a late copy of one that is over is not posted."""
    send(replicas[0], webhook("RedisAway"))
    answers = [send(replica, webhook("RedisAway", "NoReplica", status="resolved")) for replica in replicas]
    late = send(replicas[1], webhook("RedisAway"))

    assert answers == [(200, counts(posted=1, repeated=1)), (200, counts(repeated=2))]
    assert late == (200, counts(repeated=1))
    assert robot.messages[1:] == [
        ZH["alert_resolved"].format(name="RedisAway", words="> RedisAway <\u200b@all>\n> docs/runbook.md#RedisAway")
    ]


def test_alerts_below_the_severity_are_not_posted(replicas: list[AppServer], robot: MockGroupRobot) -> None:
    """By default only critical ones are; a severity that is not known counts as a warning."""
    answers = [send(replicas[0], webhook("Slow", severity=severity)) for severity in ("warning", "page", "")]

    assert answers == [(200, counts(below_severity=1))] * 3
    assert robot.messages == []


def test_a_message_that_the_robot_refused_is_posted_when_it_is_sent_again(
    replicas: list[AppServer], robot: MockGroupRobot, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is 502, which Alertmanager repeats. Neither log nor answer has the robot's key."""
    robot.errcode = 45009
    with caplog.at_level(logging.DEBUG):
        refused = (
            replicas[0]
            .app.test_client()
            .post("/alerts", json=webhook("RedisAway"), headers={"Authorization": f"Bearer {TOKEN}"})
        )
    robot.errcode = 0
    again = send(replicas[1], webhook("RedisAway"))

    assert (refused.status_code, again) == (502, (200, counts(posted=1)))
    assert len(robot.messages) == 1
    assert any(getattr(record, "cause", "") == "errcode 45009" for record in caplog.records)
    shown = refused.get_data(as_text=True) + "".join(str(vars(record)) for record in caplog.records)
    assert [secret for secret in (KEY, TOKEN) if secret in shown] == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        webhook("RedisAway", version="3"),
        webhook(),
        webhook("RedisAway", status="silenced"),
        webhook("RedisAway", alerts=[{"status": "firing"}]),
        webhook("RedisAway", alerts="none"),
    ],
)
def test_another_format_is_refused(replicas: list[AppServer], robot: MockGroupRobot, body: Any) -> None:
    assert send(replicas[0], body)[0] == 422
    assert robot.requests == 0


def test_a_body_is_bounded(replicas: list[AppServer]) -> None:
    assert send(replicas[0], webhook("RedisAway", externalURL="x" * 600_000))[0] == 413


def test_wrong_tokens_are_refused_and_limited(replicas: list[AppServer], robot: MockGroupRobot) -> None:
    """An address that guesses is blocked; the token that was right from there before still passes."""
    send(replicas[0], webhook("RedisAway"))

    answers = [send(replicas[0], webhook("RedisAway"), f"wrong-{number}")[0] for number in range(MOST + 1)]

    assert answers == [401] * MOST + [429]
    assert send(replicas[0], webhook("RedisAway")) == (200, counts(repeated=1))
    assert replicas[0].app.test_client().post("/alerts", json=webhook("RedisAway")).status_code == 429


def test_without_a_token_there_is_no_address(redis_url: str, robot: MockGroupRobot) -> None:
    with AppServer(redis_url, ALERT_WEBHOOK=robot.url) as replica:
        assert send(replica, webhook("RedisAway")) == (404, None)


def test_with_an_operators_port_the_address_is_there_only(redis_url: str, robot: MockGroupRobot) -> None:
    """A request that did not come by that port gets the same as without a token."""
    with AppServer(redis_url, ALERT_WEBHOOK=robot.url, ALERT_TOKEN=TOKEN, OPS_PORT="1") as replica:
        assert send(replica, webhook("RedisAway")) == (404, None)


def test_a_token_needs_a_robot(redis_url: str) -> None:
    with pytest.raises(SettingsError, match=r"ALERT_WEBHOOK is missing"):
        load_settings(settings_for(redis_url, ALERT_TOKEN=TOKEN), None)


class Robot:
    """Keeps messages, or raises."""

    def __init__(self) -> None:
        self.posted: list[str] = []
        self.error: ProviderError | None = None

    def post(self, content: str) -> None:
        if self.error:
            raise self.error
        self.posted.append(content)


def test_the_messages_of_an_hour_are_limited(runner: ScriptRunner) -> None:
    """The last one says so; an alert beyond the limit is posted when it is sent again after the hour."""
    store, robot = AlertStore(runner, per_hour=2, now="1000"), Robot()
    group = GroupAlerts(store, robot.post, Texts())
    alerts = [replace(REDIS_AWAY, id=f"{number}") for number in range(3)]

    outcomes = [group.post([alert]) for alert in alerts]
    repeated = group.post(alerts[:1])
    store.now = "4601"
    later = group.post(alerts[2:])

    assert outcomes == [AlertOutcomes(posted=1), AlertOutcomes(posted=1), AlertOutcomes(limited=1)]
    assert (repeated, later) == (AlertOutcomes(repeated=1), AlertOutcomes(posted=1))
    assert [ZH["alert_limit"] in posted for posted in robot.posted] == [False, True, False]


class LostStore(AlertStore):
    """A store whose Redis is away while `away`."""

    away = True

    def claim(self, alerts: Any) -> AlertClaim:
        if self.away:
            raise StoreUnavailable("away")
        return super().claim(alerts)

    def release(self, claim: AlertClaim, alerts: Any) -> None:
        if self.away:
            raise StoreUnavailable("away")
        super().release(claim, alerts)


def test_without_redis_a_process_posts_each_alert_once(runner: ScriptRunner) -> None:
    """The alert that Redis is away arrives; when it is back, the same process posts that it is over."""
    store, robot = LostStore(runner, per_hour=9), Robot()
    group = GroupAlerts(store, robot.post, Texts())
    statuses: list[AlertStatus] = ["firing", "firing"]
    robot.error = ProviderError("no reply")
    with pytest.raises(ProviderError):
        group.post([REDIS_AWAY])
    robot.error = None

    during = [group.post([replace(REDIS_AWAY, status=status)]).posted for status in statuses]
    store.away = False
    after = [group.post([replace(REDIS_AWAY, status="resolved")]).posted for _ in range(2)]

    assert (during, after) == ([1, 0], [1, 0])


def as_admin(replica: AppServer, method: str, path: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    reply = replica.app.test_client().open(f"/api/admin/{path}", method=method, headers=headers)
    return reply.status_code, reply.get_json()["data"]


def test_an_administrator_posts_a_test_message(redis_url: str, robot: MockGroupRobot, tmp_path: Path) -> None:
    """The audit has it, also if the robot did not take it; the overview says that there is a group."""
    with AppServer(redis_url, ALERT_WEBHOOK=robot.url, DATABASE_PATH=str(tmp_path / "laibao.db")) as replica:
        posted = as_admin(replica, "POST", "alerts/test")
        robot.errcode = 45009
        refused = as_admin(replica, "POST", "alerts/test")
        rows = as_admin(replica, "GET", "audit?action=alert.test")[1]["rows"]
        overview = as_admin(replica, "GET", "overview")[1]

    assert (posted, refused) == ((200, {"posted": True}), (502, None))
    assert robot.messages == [ZH["alert_test"].format(person="ADMIN_TOKEN")]
    assert [(row["name"], row["object"]) for row in rows] == [("ADMIN_TOKEN", "ALERT_WEBHOOK")] * 2
    assert overview["alerts"] is True


def test_without_a_group_there_is_nothing_to_test(redis_url: str) -> None:
    with AppServer(redis_url) as replica:
        answer = as_admin(replica, "POST", "alerts/test")
        overview = as_admin(replica, "GET", "overview")[1]

    assert (answer, overview["alerts"]) == ((404, None), False)


def test_a_test_message_names_the_person(runner: ScriptRunner) -> None:
    robot = Robot()

    GroupAlerts(AlertStore(runner, per_hour=1), robot.post, Texts()).test("wang <@all>")

    assert robot.posted == [ZH["alert_test"].format(person="wang <\u200b@all>")]


@pytest.mark.parametrize("texts", [Texts(), Texts("en")])
def test_a_message_of_many_alerts_fits_the_robots_limit(texts: Texts) -> None:
    """It is cut, and still says that the hour's limit is reached."""
    shown = message(texts, [replace(REDIS_AWAY, name="名" * 999, words="词" * 9999)] * 500, last=True)

    assert MOST_BYTES - 20 < len(shown.encode()) <= MOST_BYTES
    assert shown.endswith(texts.get("alert_limit"))


def test_an_alert_shows_no_words() -> None:
    assert "Redis away." not in repr(REDIS_AWAY)
