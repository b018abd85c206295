"""The alerts: those of the documentation, accepted by Prometheus' own checker, each fired by its fault alone."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Metric

from services.metrics import REGISTRY
from services.wecom.fault_watch import ALERTS
from tests.support.servers.manifests import MONITORING, ROOT, Manifest, one, render
from tests.support.servers.processes import require_binary

pytestmark = pytest.mark.full

#: Series of a deployment that works, by the minute.
HEALTHY = {
    "wechatlaibao_streams_max": "1000x60",
    "wechatlaibao_streams_running": "100x60",
    "wechatlaibao_streams_rewritten_total": "0x60",
    "wechatlaibao_redis_away": "0x60",
    'wechatlaibao_callback_seconds_bucket{le="0.1"}': "0+99x60",
    'wechatlaibao_callback_seconds_bucket{le="5"}': "0+99x60",
    'wechatlaibao_callback_seconds_bucket{le="+Inf"}': "0+99x60",
    'wechatlaibao_first_text_seconds_bucket{le="5"}': "0+9x60",
    'wechatlaibao_first_text_seconds_bucket{le="10.0"}': "0+9x60",
    'wechatlaibao_first_text_seconds_bucket{le="60"}': "0+9x60",
    'wechatlaibao_first_text_seconds_bucket{le="+Inf"}': "0+9x60",
    "wechatlaibao_first_text_seconds_count": "0+9x60",
    'wechatlaibao_streams_total{outcome="completed"}': "0+99x60",
    'wechatlaibao_streams_total{outcome="provider_error"}': "0+1x60",
    'wechatlaibao_streams_total{outcome="not_allowed"}': "0+5x60",
    'wechatlaibao_takeovers_total{kind="takeover"}': "0x60",
    'wechatlaibao_takeovers_total{kind="handover"}': "0+1x60",
    'wechatlaibao_recoveries_total{outcome="lost",reason="owner_lost"}': "0x60",
    'wechatlaibao_late_answers_total{outcome="failed"}': "0x60",
    'wechatlaibao_late_answers_total{outcome="sent"}': "0+1x60",
    'wechatlaibao_long_connection_evictions_total{bot="hr"}': "0x60",
    'wechatlaibao_long_connection_subscribed{bot="hr"}': "1x60",
    "wechatlaibao_feedback_waiting": "10x60",
    'wechatlaibao_usage_streams_total{outcome="lost"}': "0x60",
    "wechatlaibao_file_bytes": "100x60",
    "wechatlaibao_file_bytes_max": "1000x60",
    "wechatlaibao_schema_behind": "0x60",
    "wechatlaibao_sockets_open": "100x60",
    "wechatlaibao_sockets_max": "1000x60",
    'wechatlaibao_connections_refused_total{reason="malformed"}': "0+99x60",
    'wechatlaibao_connections_refused_total{reason="full"}': "0+1x60",
    'wechatlaibao_callbacks_refused_total{check="bad_signature"}': "0+1x60",
}
#: What each alert's fault changes; None is a series that is missing.
FAULTS: dict[str, dict[str, str | None]] = {
    "NoReplica": {"wechatlaibao_streams_max": None},
    "RedisAway": {"wechatlaibao_redis_away": "0x50 1x10"},
    "RedisLostWrites": {"wechatlaibao_streams_rewritten_total": "0x55 9x5"},
    "StreamSlotsRunOut": {"wechatlaibao_streams_running": "900x60"},
    "CallbacksSlow": {'wechatlaibao_callback_seconds_bucket{le="0.1"}': "0+90x60"},
    "FirstTextSlow": {
        'wechatlaibao_first_text_seconds_bucket{le="5"}': "0+7x60",
        'wechatlaibao_first_text_seconds_bucket{le="10.0"}': "0+7x60",
    },
    "AnswersFail": {'wechatlaibao_streams_total{outcome="not_allowed"}': "0+20x60"},
    "ReplicasDie": {'wechatlaibao_takeovers_total{kind="takeover"}': "0x55 3x5"},
    "AnswersLost": {'wechatlaibao_recoveries_total{outcome="lost",reason="owner_lost"}': "0x50 9x10"},
    "LateAnswersFail": {'wechatlaibao_late_answers_total{outcome="failed"}': "0x50 9x10"},
    "BotEvicted": {'wechatlaibao_long_connection_evictions_total{bot="hr"}': "0x50 1x10"},
    "BotNotSubscribed": {'wechatlaibao_long_connection_subscribed{bot="hr"}': "1x50 0x10"},
    "RatingsWait": {"wechatlaibao_feedback_waiting": "2000x60"},
    "FilesFillRedis": {"wechatlaibao_file_bytes": "900x60"},
    "QuestionsNotLogged": {'wechatlaibao_usage_streams_total{outcome="lost"}': "0x50 9x10"},
    "TablesMissing": {"wechatlaibao_schema_behind": "1x60"},
    "SocketsRunOut": {"wechatlaibao_sockets_open": "900x60"},
    "ConnectionsRefused": {'wechatlaibao_connections_refused_total{reason="full"}': "0+99x60"},
    "CallbacksRefused": {'wechatlaibao_callbacks_refused_total{check="bad_signature"}': "0+99x60"},
}
#: The same for the alerts of an objective, which look back for six hours: seven hours of series.
BURNS: dict[str, dict[str, str | None]] = {
    # 9 of 108 answers a minute fail for 70 minutes, after almost six hours without a failure.
    "AnswersBurnFast": {
        'wechatlaibao_streams_total{outcome="provider_error"}': "0x349 0+9x70",
        'wechatlaibao_streams_total{outcome="not_allowed"}': "0x420",
    },
    # 4 of 108 answers a minute fail all the time.
    "AnswersBurn": {'wechatlaibao_streams_total{outcome="provider_error"}': "0+4x420"},
    # No answer has text within 10 s for 70 minutes; all have it within 20 s.
    "FirstTextBurnFast": {
        'wechatlaibao_first_text_seconds_bucket{le="5"}': "0+9x350 3150x70",
        'wechatlaibao_first_text_seconds_bucket{le="10.0"}': "0+9x350 3150x70",
        'wechatlaibao_first_text_seconds_bucket{le="20.0"}': "0+9x420",
    },
    # 4 of 9 answers have no text within 10 s all the time.
    "FirstTextBurn": {
        'wechatlaibao_first_text_seconds_bucket{le="5"}': "0+5x420",
        'wechatlaibao_first_text_seconds_bucket{le="10.0"}': "0+5x420",
        'wechatlaibao_first_text_seconds_bucket{le="20.0"}': "0+9x420",
    },
}
#: The last quarter of an hour of a night: two of ten answers fail, and one of the others is slow.
NIGHT: dict[str, str | None] = {
    'wechatlaibao_streams_total{outcome="completed"}': "0x405 8x15",
    'wechatlaibao_streams_total{outcome="provider_error"}': "0x408 1x3 2x10",
    'wechatlaibao_streams_total{outcome="not_allowed"}': "0x420",
    'wechatlaibao_first_text_seconds_bucket{le="5"}': "0x405 7x15",
    'wechatlaibao_first_text_seconds_bucket{le="10.0"}': "0x405 7x15",
    'wechatlaibao_first_text_seconds_bucket{le="60"}': "0x405 8x15",
    'wechatlaibao_first_text_seconds_bucket{le="+Inf"}': "0x405 8x15",
    "wechatlaibao_first_text_seconds_count": "0x405 8x15",
}
#: The rules themselves, of which `make rules` makes the object of the Prometheus operator.
RULES = ROOT / "deploy" / "prometheus-rules.yaml"


@pytest.fixture
def group() -> Manifest:
    (found,) = (group for group in yaml.safe_load(RULES.read_text())["groups"] if group["name"] == "wechatlaibao")
    group: Manifest = found
    return group


def series_of(family: Metric) -> set[str]:
    """Return the names of a metric's series, also of one that has none yet."""
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    return {family.name + ending for ending in endings.get(family.type, [""])}


def test_both_forms_of_the_rules_are_the_same() -> None:
    """The object of the Prometheus operator has the rules of the plain file; `make rules` writes it."""
    spec = one(render(MONITORING), "PrometheusRule", "wechatlaibao")["spec"]

    assert spec == yaml.safe_load(RULES.read_text())


def test_the_alerts_are_those_of_the_documentation(group: Manifest) -> None:
    """Each row of docs/monitoring.md is a rule with its expression and time; they name metrics that are exported."""
    page = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    rows = re.findall(r"^\| ([^|]+) \| `([^`]+)` \| (\w*) ?\|", page, re.MULTILINE)
    exported = {series for family in REGISTRY.collect() for series in series_of(family)}

    rules = [(rule["annotations"]["summary"], rule["expr"], rule.get("for", "")) for rule in group["rules"]]

    assert [rule["alert"] for rule in group["rules"]] == [f"WechatLaibao{name}" for name in (*FAULTS, *BURNS)]
    assert [rule[1:] for rule in rules] == [row[1:] for row in rows]
    assert all(summary.startswith(title) for (summary, *_), (title, *_) in zip(rules, rows, strict=True))
    assert set(re.findall(r"wechatlaibao_\w+", RULES.read_text())) <= exported


def promtool(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [require_binary("promtool"), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


def firing(fault: dict[str, str | None], alerts: list[str], minutes: int = 60) -> dict[str, Any]:
    """Return promtool's test that with this fault exactly these alerts fire after so many minutes."""
    healthy = {name: values.replace("x60", f"x{minutes}") for name, values in HEALTHY.items()}
    series = [{"series": name, "values": values} for name, values in {**healthy, **fault}.items() if values]
    samples = [{"labels": f'{{alertname="WechatLaibao{name}"}}', "value": 1} for name in alerts]
    look = {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "exp_samples": samples}
    look["eval_time"] = f"{minutes - 1}m"
    return {"interval": "1m", "input_series": series, "promql_expr_test": [look]}


def test_each_alert_is_fired_by_its_fault_alone(tmp_path: Path) -> None:
    """Prometheus' own tool accepts the rules, and evaluates them on series: none fires while all is well."""
    tests = [firing({}, []), *(firing(fault, [name]) for name, fault in FAULTS.items())]
    tests += [firing({}, [], 420), firing(NIGHT, [], 420)]
    tests += [firing(fault, [name], 420) for name, fault in BURNS.items()]
    (tmp_path / "rules.yaml").write_bytes(RULES.read_bytes())
    (tmp_path / "tests.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests})
    )

    checked, tested = (
        promtool(tmp_path, "check", "rules", "rules.yaml"),
        promtool(tmp_path, "test", "rules", "tests.yaml"),
    )

    assert "SUCCESS" in checked.stdout + checked.stderr
    assert (checked.returncode, tested.returncode) == (0, 0), tested.stdout + tested.stderr


def test_each_alert_has_its_section_of_the_runbook(group: Manifest) -> None:
    """A section names what people notice, shows three commands and the remedy; the alert's runbook_url leads to it.

    After those of the rules come those that the gateway alone posts.
    """
    page = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (WechatLaibao\w+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    urls = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in group["rules"]}

    assert list(sections) == [*urls, *(name for name, _ in ALERTS.values() if name not in urls)]
    assert urls == {name: f"docs/runbook.md#{name.lower()}" for name in urls}
    for name, section in sections.items():
        (commands,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
        assert len(re.findall(r"^\S", commands, re.MULTILINE)) == 3, name
        assert re.findall(r"^\*\*(\w+)\*\*", section, re.MULTILINE) == ["Noticed", "Cause", "Remedy"], name


def test_the_runbook_looks_for_what_the_product_writes() -> None:
    """A pattern for metrics is in the name of a series, one for the log in the code."""
    page = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    series = "\n".join(name for family in REGISTRY.collect() for name in series_of(family))
    paths = [ROOT / "app.py", *(path for name in ("channels", "services") for path in (ROOT / name).rglob("*.py"))]
    # The last one is gunicorn's.
    code = "\n".join([*(path.read_text("utf-8") for path in paths), "was sent SIGKILL"])

    commands = [shlex.split(line) for line in re.findall(r"^(?:metrics|logs) \| grep .*", page, re.MULTILINE)]
    looked = [
        (words[0], next(word for word in words[3:] if word != "-E").replace('"message": ', "")) for words in commands
    ]

    assert len(looked) > 30
    written = {"metrics": series, "logs": code}
    assert [found for found in looked if not re.search(found[1], written[found[0]], re.MULTILINE)] == []
