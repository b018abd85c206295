"""The batch workers of overlays/prod: what they run, how they leave, who they hear, in step with the gateway."""

from __future__ import annotations

import importlib.util

import pytest
import yaml

from config.settings import load_settings
from tests.support.servers.manifests import (
    BASE,
    DEV,
    MONITORING,
    PROD,
    Manifest,
    config_of,
    every,
    example_secret,
    gateway_in,
    gunicorn_of,
    labels_of,
    one,
    pod_of,
    ports_of,
    render,
    selects,
)

pytestmark = pytest.mark.full


@pytest.fixture
def worker() -> Manifest:
    return one(render(PROD), "Deployment", "wechatlaibao-batch")


@pytest.fixture
def container(worker: Manifest) -> Manifest:
    (container,) = pod_of(worker)["containers"]
    found: Manifest = container
    return found


def test_somebody_works_on_batches_everywhere() -> None:
    """The gateway where there are no workers, and the workers alone where there are: no task waits for ever."""
    for folder in (BASE, DEV, PROD):
        settings = load_settings({**config_of(render(folder)), **example_secret()}, env_file=None)
        workers = [m for m in every(render(folder), "Deployment") if m["metadata"]["name"] == "wechatlaibao-batch"]
        assert settings.batch_worker == ("external" if workers else "embedded")
        assert settings.sql_url is not None, "batches are in SQL"


def test_a_worker_is_the_same_image_with_the_same_settings(container: Manifest) -> None:
    """It starts a module that is there, as the user of the gateway, from the gateway's image."""
    (gateway,) = pod_of(gateway_in(PROD))["containers"]

    assert container["command"][:2] == ["python", "-m"]
    assert importlib.util.find_spec(container["command"][2])
    for same in ("image", "imagePullPolicy", "envFrom", "securityContext"):
        assert container[same] == gateway[same]


def test_a_worker_runs_as_the_gateway_does(worker: Manifest) -> None:
    """The same user, and nothing of its file system can be written but a bounded folder."""
    pod, gateway = pod_of(worker), pod_of(gateway_in(PROD))

    assert pod["securityContext"] == gateway["securityContext"]
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"])


def test_probes_ask_where_a_worker_listens(worker: Manifest, container: Manifest) -> None:
    """Health and readiness are on OPS_PORT, the one port it has."""
    probes = {name: probe["httpGet"] for name, probe in container.items() if name.endswith("Probe")}

    assert ports_of(worker) == {"ops": int(config_of(render(PROD))["OPS_PORT"])}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert {probe["port"] for probe in probes.values()} == {"ops"}


def test_a_worker_has_the_time_to_leave(worker: Manifest) -> None:
    """As long as a gateway after its preStop: gunicorn's graceful_timeout, which is beyond the drain, and five."""
    assert pod_of(worker)["terminationGracePeriodSeconds"] == gunicorn_of(PROD)["graceful_timeout"] + 5


def test_selectors_tell_workers_and_gateways_apart(worker: Manifest) -> None:
    """No Service, budget or deployment of the one takes a pod of the other for its own."""
    labels, gateway = labels_of(worker), labels_of(gateway_in(PROD))
    (preferred,) = pod_of(worker)["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    names = ("wechatlaibao", "wechatlaibao-batch")
    budgets = {name: one(render(PROD), "PodDisruptionBudget", name)["spec"] for name in names}

    assert selects(worker["spec"]["selector"], labels)
    assert not selects(worker["spec"]["selector"], gateway)
    assert not selects(gateway_in(PROD)["spec"]["selector"], labels)
    assert not selects(one(render(PROD), "Service", "wechatlaibao")["spec"]["selector"], labels)
    assert selects(preferred["podAffinityTerm"]["labelSelector"], labels)
    assert selects(budgets["wechatlaibao-batch"]["selector"], labels)
    assert not selects(budgets["wechatlaibao"]["selector"], labels)
    assert budgets["wechatlaibao-batch"]["maxUnavailable"] < worker["spec"]["replicas"]


def test_workers_hear_prometheus_alone_and_speak_as_gateways_do(worker: Manifest) -> None:
    """Every policy of the gateway holds for them, Redis lets them in, and they have the port of operations alone."""
    policies = every(render(PROD), "NetworkPolicy")
    (inward,) = one(render(PROD), "NetworkPolicy", "redis")["spec"]["ingress"]

    def holding(labels: dict[str, str]) -> list[str]:
        return [p["metadata"]["name"] for p in policies if selects(p["spec"]["podSelector"], labels)]

    assert holding(labels_of(worker)) == holding(labels_of(gateway_in(PROD)))
    assert "http" not in ports_of(worker)
    assert any(selects(peer["podSelector"], labels_of(worker)) for peer in inward["from"])


def test_workers_are_watched_and_not_scaled_by(worker: Manifest) -> None:
    """Prometheus scrapes them too; their answers are not counted where gateways are scaled."""
    monitor = one(render(MONITORING), "PodMonitor", "wechatlaibao")["spec"]
    keda = yaml.safe_load((MONITORING / "keda.yaml").read_text())["spec"]
    (query,) = [t["metadata"]["query"] for t in keda["triggers"] if t["type"] == "prometheus"]

    assert selects(monitor["selector"], labels_of(worker))
    assert monitor["podMetricsEndpoints"][0]["port"] in ports_of(worker)
    assert f'pod!~"{worker["metadata"]["name"]}-.*"' in query
