"""overlays/prod and monitoring: autoscalers, what they count, and Redis, in step with the gateway and each other."""

from __future__ import annotations

import re
from typing import Any

import pytest

from config.addresses import parse_redis_url
from services import metrics
from tests.support.servers.manifests import (
    MONITORING,
    PROD,
    ROOT,
    Manifest,
    config_of,
    every,
    labels_of,
    memory,
    one,
    pod_of,
    ports_of,
    read,
    render,
    selects,
)

pytestmark = pytest.mark.full

#: What the autoscaler counts, as it is called where it is counted.
RUNNING = next(metric.name for metric in metrics.STREAMS_RUNNING.collect())


@pytest.fixture
def gateway() -> Manifest:
    return one(render(PROD), "Deployment", "wechatlaibao")


@pytest.fixture
def redis() -> Manifest:
    return one(render(PROD), "StatefulSet", "redis")


@pytest.fixture
def hpa() -> Manifest:
    spec: Manifest = one(render(PROD), "HorizontalPodAutoscaler", "wechatlaibao")["spec"]
    return spec


@pytest.fixture
def keda() -> Manifest:
    spec: Manifest = read(MONITORING / "keda.yaml")["spec"]
    return spec


@pytest.fixture
def adapter() -> Manifest:
    return read(MONITORING / "prometheus-adapter-values.yaml")


@pytest.fixture
def script() -> str:
    """What the pods of Redis run."""
    text: str = one(render(PROD), "ConfigMap", "redis-scripts")["data"]["redis.sh"]
    return text


def metric_of(hpa: Manifest, kind: str) -> Manifest:
    (found,) = (metric[kind.lower()] for metric in hpa["metrics"] if metric["type"] == kind)
    metric: Manifest = found
    return metric


def test_the_number_of_pods_is_the_autoscalers_alone(hpa: Manifest, gateway: Manifest) -> None:
    """The autoscaler's target is the deployment, which names no number of its own that an apply would set again."""
    budget = one(render(PROD), "PodDisruptionBudget", "wechatlaibao")

    assert hpa["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": gateway["metadata"]["name"]}
    assert "replicas" not in gateway["spec"]
    assert 3 <= hpa["minReplicas"] < hpa["maxReplicas"]
    assert budget["spec"]["maxUnavailable"] < hpa["minReplicas"]


def test_the_autoscaler_counts_what_the_gateway_counts(hpa: Manifest, gateway: Manifest) -> None:
    """It goes by CPU, of which the pods request some, and by the gauge of running answers, well below the limit."""
    pods, cpu = metric_of(hpa, "Pods"), metric_of(hpa, "Resource")
    config = config_of(render(PROD))
    most = int(config["WORKERS"]) * int(config["STREAM_MAX_PER_REPLICA"])

    assert pods["metric"]["name"] == RUNNING == "wechatlaibao_streams_running"
    assert pods["target"]["type"] == "AverageValue"
    assert int(pods["target"]["averageValue"]) <= most / 2
    assert cpu["name"] == "cpu"
    assert all("cpu" in container["resources"]["requests"] for container in pod_of(gateway)["containers"])


def test_pods_are_taken_away_no_faster_than_they_drain(hpa: Manifest, gateway: Manifest) -> None:
    """One at a time, and the next one only when the last is gone."""
    (policy,) = hpa["behavior"]["scaleDown"]["policies"]

    assert (policy["type"], policy["value"]) == ("Pods", 1)
    assert policy["periodSeconds"] > pod_of(gateway)["terminationGracePeriodSeconds"]
    assert hpa["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= policy["periodSeconds"]


def test_prometheus_finds_the_pods(gateway: Manifest) -> None:
    """The PodMonitor selects the gateway's pods and scrapes the port that they have."""
    monitor = one(render(MONITORING), "PodMonitor", "wechatlaibao")["spec"]

    (endpoint,) = monitor["podMetricsEndpoints"]

    assert selects(monitor["selector"], labels_of(gateway))
    assert endpoint["port"] in ports_of(gateway)
    assert (endpoint["port"], endpoint["path"]) == ("ops", "/metrics")


def test_the_adapter_serves_what_the_autoscaler_asks_for(adapter: Manifest, hpa: Manifest) -> None:
    """Its one rule makes pods/<the autoscaler's metric> of the series that every pod shows, under the same name."""
    (rule,) = adapter["rules"]["custom"]

    assert adapter["rules"]["default"] is False
    assert rule["seriesQuery"].partition("{")[0] == metric_of(hpa, "Pods")["metric"]["name"]
    assert "name" not in rule
    assert rule["resources"]["overrides"] == {name: {"resource": name} for name in ("namespace", "pod")}
    assert rule["metricsQuery"] == "max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)"


def test_the_adapter_looks_no_more_often_than_prometheus(adapter: Manifest) -> None:
    """A metric that was not scraped between two looks of the adapter would vanish for the autoscaler."""
    (endpoint,) = one(render(MONITORING), "PodMonitor", "wechatlaibao")["spec"]["podMetricsEndpoints"]

    assert adapter["metricsRelistInterval"] == "1m"
    assert int(endpoint["interval"].removesuffix("s")) <= 30


def test_keda_scales_as_the_autoscaler_does(keda: Manifest, hpa: Manifest, adapter: Manifest) -> None:
    """The one or the other: target, bounds, figures, behaviour and Prometheus are the same."""
    cpu, prometheus = (next(t for t in keda["triggers"] if t["type"] == kind) for kind in ("cpu", "prometheus"))
    server = adapter["prometheus"]

    assert keda["scaleTargetRef"]["name"] == hpa["scaleTargetRef"]["name"]
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (hpa["minReplicas"], hpa["maxReplicas"])
    assert keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    assert int(cpu["metadata"]["value"]) == metric_of(hpa, "Resource")["target"]["averageUtilization"]
    assert prometheus["metadata"]["threshold"] == metric_of(hpa, "Pods")["target"]["averageValue"]
    assert RUNNING in prometheus["metadata"]["query"]
    assert prometheus["metadata"]["serverAddress"] == f"{server['url']}:{server['port']}"
    assert prometheus["metadata"]["ignoreNullValues"] == "false"


def test_the_sentinels_of_the_address_are_the_pods_of_redis(redis: Manifest, script: str) -> None:
    """REDIS_URL names a Service of each pod, by the sentinels' port, and the service's name is the one they know."""
    url = parse_redis_url(config_of(render(PROD))["REDIS_URL"])
    pods = [f"{redis['metadata']['name']}-{number}" for number in range(redis["spec"]["replicas"])]

    services = {pod: one(render(PROD), "Service", pod)["spec"] for pod in pods}

    assert url.hosts == tuple((pod, ports_of(redis)["sentinel"]) for pod in pods)
    assert f"SERVICE={url.service}\n" in script
    for pod, service in services.items():
        assert service["selector"] == {"statefulset.kubernetes.io/pod-name": pod}
        assert service["publishNotReadyAddresses"] is True
        assert {p["name"]: p["port"] for p in service["ports"]} == ports_of(redis)
        assert all(p["targetPort"] == p["name"] for p in service["ports"])


def test_the_pods_of_redis_know_each_other(redis: Manifest) -> None:
    """Both containers of a pod get the names of all and their own, and run the script they mount."""
    for container in pod_of(redis)["containers"]:
        env = {variable["name"]: variable for variable in container["env"]}
        assert env["HOSTS"]["value"].split() == ["redis-0", "redis-1", "redis-2"]
        assert env["ME"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        assert container["command"] == ["sh", "/scripts/redis.sh", container["name"]]
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/scripts", "/data"}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod_of(redis)["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == [
        "sh",
        "/scripts/redis.sh",
        "leave",
    ]


def test_redis_survives_the_loss_of_a_node(redis: Manifest) -> None:
    """Three, never two on a node, never two taken away at once, and none waits for another to start."""
    spec = redis["spec"]
    (apart,) = pod_of(redis)["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    budget = one(render(PROD), "PodDisruptionBudget", "redis")["spec"]

    assert (spec["replicas"], spec["podManagementPolicy"]) == (3, "Parallel")
    assert apart["topologyKey"] == "kubernetes.io/hostname"
    assert selects(apart["labelSelector"], labels_of(redis))
    assert selects(budget["selector"], labels_of(redis))
    assert budget["maxUnavailable"] == 1


def test_redis_keeps_what_it_has(redis: Manifest, script: str) -> None:
    """An append-only file on a volume; a full Redis refuses a write and drops nothing; there is room for a rewrite."""
    container = pod_of(redis)["containers"][0]
    maxmemory = next(v["value"] for v in container["env"] if v["name"] == "MAXMEMORY")
    (claim,) = redis["spec"]["volumeClaimTemplates"]

    options = dict(re.findall(r"--([\w-]+) (\S+)", script))

    assert options["appendonly"] == "yes"
    assert options["maxmemory-policy"] == "noeviction"
    assert memory(container["resources"]["limits"]["memory"]) >= 2 * memory(maxmemory)
    assert claim["metadata"]["name"] in {m["name"] for m in container["volumeMounts"] if m["mountPath"] == "/data"}
    assert memory(claim["spec"]["resources"]["requests"]["storage"]) >= 4 * memory(maxmemory)


def peers_of(rule: Manifest, direction: str) -> list[Any]:
    return [peer["podSelector"] for peer in rule[direction]]


def test_redis_hears_only_the_gateway_and_its_like(redis: Manifest, gateway: Manifest) -> None:
    """Redis takes connections of the gateway's pods and its own, and the gateway goes to those pods only."""
    (inward,) = one(render(PROD), "NetworkPolicy", "redis")["spec"]["ingress"]
    (outward,) = one(render(PROD), "NetworkPolicy", "wechatlaibao-to-redis")["spec"]["egress"]

    (heard,), (spoken_to,) = peers_of(inward, "from"), peers_of(outward, "to")

    assert selects(heard, labels_of(gateway))
    assert selects(heard, labels_of(redis))
    assert selects(spoken_to, labels_of(redis))
    for rule in (inward, outward):
        assert {port["port"] for port in rule["ports"]} == ports_of(redis).keys()


def test_no_manifest_asks_for_the_latest_of_an_image() -> None:
    """Every image has a tag that names a version."""
    pods = [pod_of(manifest) for manifest in every(render(PROD), "Deployment", "StatefulSet")]

    tags = [container["image"].rpartition(":")[2] for pod in pods for container in pod["containers"]]

    assert all(re.fullmatch(r"\d+(\.\d+)+", tag) for tag in tags)


def test_every_file_of_k8s_is_used() -> None:
    """What lies in the folders is in a kustomization, or is one of the three files that people apply by themselves."""
    recipes = {path: path.read_text() for path in (ROOT / "k8s").rglob("kustomization.yaml")}
    by_hand = {"secret.example.yaml", "prometheus-adapter-values.yaml", "keda.yaml", "kustomization.yaml"}

    for path in (path for path in (ROOT / "k8s").rglob("*") if path.is_file() and path.name not in by_hand):
        assert (
            f"- {path.name}\n" in recipes[path.parent / "kustomization.yaml"]
            or f"path: {path.name}\n" in recipes[path.parent / "kustomization.yaml"]
        )
