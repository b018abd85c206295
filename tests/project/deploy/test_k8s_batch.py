"""The batch workers of overlays/prod: their command, shutdown and network, consistent with the gateway."""

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


def test_each_overlay_has_workers_for_batches() -> None:
    """The gateway works on batches in overlays without batch workers, and leaves them to the workers in prod."""
    for folder in (BASE, DEV, PROD):
        settings = load_settings({**config_of(render(folder)), **example_secret()}, env_file=None)
        workers = [m for m in every(render(folder), "Deployment") if m["metadata"]["name"] == "wechatlaibao-batch"]
        assert settings.batch_worker == ("external" if workers else "embedded")
        assert settings.sql_url is not None, "batches are in SQL"


def test_a_worker_is_the_same_image_with_the_same_settings(container: Manifest) -> None:
    """It runs another module of the gateway's image, with the same environment and rights."""
    (gateway,) = pod_of(gateway_in(PROD))["containers"]

    assert container["command"][:2] == ["python", "-m"]
    assert importlib.util.find_spec(container["command"][2])
    for same in ("image", "imagePullPolicy", "envFrom", "securityContext"):
        assert container[same] == gateway[same]


def test_a_worker_has_the_gateways_restrictions(worker: Manifest) -> None:
    """It runs as the same user with a read-only root file system and volumes of bounded size."""
    pod, gateway = pod_of(worker), pod_of(gateway_in(PROD))

    assert pod["securityContext"] == gateway["securityContext"]
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"])


def test_a_workers_probes_use_its_port(worker: Manifest, container: Manifest) -> None:
    """Health and readiness are on OPS_PORT, a worker's only port."""
    probes = {name: probe["httpGet"] for name, probe in container.items() if name.endswith("Probe")}

    assert ports_of(worker) == {"ops": int(config_of(render(PROD))["OPS_PORT"])}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert {probe["port"] for probe in probes.values()} == {"ops"}


def test_a_worker_has_time_to_drain(worker: Manifest) -> None:
    """Its grace period is a gateway's without the preStop: graceful_timeout, which exceeds DRAIN_SECONDS, plus 5."""
    assert pod_of(worker)["terminationGracePeriodSeconds"] == gunicorn_of(PROD)["graceful_timeout"] + 5


def test_selectors_separate_workers_and_gateways(worker: Manifest) -> None:
    """No Service, budget or deployment of one selects pods of the other."""
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


def test_workers_have_the_gateways_network_policies(worker: Manifest) -> None:
    """All policies of the gateway apply to workers, Redis accepts them, and they have no `http` port."""
    policies = every(render(PROD), "NetworkPolicy")
    (inward,) = one(render(PROD), "NetworkPolicy", "redis")["spec"]["ingress"]

    def holding(labels: dict[str, str]) -> list[str]:
        return [p["metadata"]["name"] for p in policies if selects(p["spec"]["podSelector"], labels)]

    assert holding(labels_of(worker)) == holding(labels_of(gateway_in(PROD)))
    assert "http" not in ports_of(worker)
    assert any(selects(peer["podSelector"], labels_of(worker)) for peer in inward["from"])


def test_workers_are_scraped_but_do_not_scale_the_gateway(worker: Manifest) -> None:
    """Prometheus scrapes workers too; KEDA's query leaves their streams out."""
    monitor = one(render(MONITORING), "PodMonitor", "wechatlaibao")["spec"]
    keda = yaml.safe_load((MONITORING / "keda.yaml").read_text())["spec"]
    (query,) = [t["metadata"]["query"] for t in keda["triggers"] if t["type"] == "prometheus"]

    assert selects(monitor["selector"], labels_of(worker))
    assert monitor["podMetricsEndpoints"][0]["port"] in ports_of(worker)
    assert f'pod!~"{worker["metadata"]["name"]}-.*"' in query
