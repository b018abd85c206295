"""overlays/prod and monitoring: autoscalers, their metrics, and Redis, consistent with the gateway."""

from __future__ import annotations

import re
from typing import Any

import pytest

from config.addresses import parse_redis_url
from services import metrics
from services.wecom.long_connection.subscriber import HANDOVER_SECONDS
from tests.support.servers.manifests import (
    MONITORING,
    PROD,
    ROOT,
    WEBSOCKET,
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

#: The autoscaler's metric, by the name that the gateway exports.
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
    """The script that the pods of Redis run."""
    text: str = one(render(PROD), "ConfigMap", "redis-scripts")["data"]["redis.sh"]
    return text


def metric_of(hpa: Manifest, kind: str) -> Manifest:
    (found,) = (metric[kind.lower()] for metric in hpa["metrics"] if metric["type"] == kind)
    metric: Manifest = found
    return metric


def test_only_the_autoscaler_sets_the_number_of_pods(hpa: Manifest, gateway: Manifest) -> None:
    """The autoscaler's target is the deployment, which has no `replicas` that an apply would set again."""
    budget = one(render(PROD), "PodDisruptionBudget", "wechatlaibao")

    assert hpa["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": gateway["metadata"]["name"]}
    assert "replicas" not in gateway["spec"]
    assert 3 <= hpa["minReplicas"] < hpa["maxReplicas"]
    assert budget["spec"]["maxUnavailable"] < hpa["minReplicas"]


def test_the_autoscaler_uses_the_gateways_metric(hpa: Manifest, gateway: Manifest) -> None:
    """It scales by requested CPU and by the gauge of running streams, at half of the limit per pod at most."""
    pods, cpu = metric_of(hpa, "Pods"), metric_of(hpa, "Resource")
    config = config_of(render(PROD))
    most = int(config["WORKERS"]) * int(config["STREAM_MAX_PER_REPLICA"])

    assert pods["metric"]["name"] == RUNNING == "wechatlaibao_streams_running"
    assert pods["target"]["type"] == "AverageValue"
    assert int(pods["target"]["averageValue"]) <= most / 2
    assert cpu["name"] == "cpu"
    assert all("cpu" in container["resources"]["requests"] for container in pod_of(gateway)["containers"])


def test_scaling_down_waits_for_the_drain(hpa: Manifest, gateway: Manifest) -> None:
    """One pod is removed at a time, and the period is longer than its grace period."""
    (policy,) = hpa["behavior"]["scaleDown"]["policies"]

    assert (policy["type"], policy["value"]) == ("Pods", 1)
    assert policy["periodSeconds"] > pod_of(gateway)["terminationGracePeriodSeconds"]
    assert hpa["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= policy["periodSeconds"]


def test_prometheus_finds_the_pods(gateway: Manifest) -> None:
    """The PodMonitor selects the gateway's pods and scrapes a port that they have."""
    monitor = one(render(MONITORING), "PodMonitor", "wechatlaibao")["spec"]

    (endpoint,) = monitor["podMetricsEndpoints"]

    assert selects(monitor["selector"], labels_of(gateway))
    assert endpoint["port"] in ports_of(gateway)
    assert (endpoint["port"], endpoint["path"]) == ("ops", "/metrics")


def test_the_adapter_serves_the_autoscalers_metric(adapter: Manifest, hpa: Manifest) -> None:
    """Its one rule turns the series of each pod into a metric of pods with the same name."""
    (rule,) = adapter["rules"]["custom"]

    assert adapter["rules"]["default"] is False
    assert rule["seriesQuery"].partition("{")[0] == metric_of(hpa, "Pods")["metric"]["name"]
    assert "name" not in rule
    assert rule["resources"]["overrides"] == {name: {"resource": name} for name in ("namespace", "pod")}
    assert rule["metricsQuery"] == "max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)"


def test_the_adapter_relists_less_often_than_prometheus_scrapes(adapter: Manifest) -> None:
    """A metric without a scrape between two relists of the adapter would vanish for the autoscaler."""
    (endpoint,) = one(render(MONITORING), "PodMonitor", "wechatlaibao")["spec"]["podMetricsEndpoints"]

    assert adapter["metricsRelistInterval"] == "1m"
    assert int(endpoint["interval"].removesuffix("s")) <= 30


def test_keda_scales_like_the_autoscaler(keda: Manifest, hpa: Manifest, adapter: Manifest) -> None:
    """KEDA, the alternative, has the same target, bounds, thresholds, behaviour and Prometheus server."""
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


def test_redis_url_names_the_sentinels_of_the_pods(redis: Manifest, script: str) -> None:
    """REDIS_URL has a Service for each pod, with the sentinels' port, and the service name that the script sets."""
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
    """Both containers of a pod get all names and the pod's own, and run the mounted script."""
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
    """Three pods start in parallel, never two on a node; a disruption takes one at a time."""
    spec = redis["spec"]
    (apart,) = pod_of(redis)["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    budget = one(render(PROD), "PodDisruptionBudget", "redis")["spec"]

    assert (spec["replicas"], spec["podManagementPolicy"]) == (3, "Parallel")
    assert apart["topologyKey"] == "kubernetes.io/hostname"
    assert selects(apart["labelSelector"], labels_of(redis))
    assert selects(budget["selector"], labels_of(redis))
    assert budget["maxUnavailable"] == 1


def test_redis_never_drops_keys(redis: Manifest, script: str) -> None:
    """It has an append-only file on a volume with room for its rewrite, and refuses writes when it is full."""
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


def test_redis_accepts_only_the_gateway_and_itself(redis: Manifest, gateway: Manifest) -> None:
    """Redis accepts connections of the gateway's pods and its own; the gateway's policy leads to those pods."""
    (inward,) = one(render(PROD), "NetworkPolicy", "redis")["spec"]["ingress"]
    (outward,) = one(render(PROD), "NetworkPolicy", "wechatlaibao-to-redis")["spec"]["egress"]

    (sources,), (targets,) = peers_of(inward, "from"), peers_of(outward, "to")

    assert selects(sources, labels_of(gateway))
    assert selects(sources, labels_of(redis))
    assert selects(targets, labels_of(redis))
    for rule in (inward, outward):
        assert {port["port"] for port in rule["ports"]} == ports_of(redis).keys()


def test_every_image_has_a_version() -> None:
    """The tag of each image is a version number, not `latest`."""
    pods = [pod_of(manifest) for manifest in every(render(PROD), "Deployment", "StatefulSet")]

    tags = [container["image"].rpartition(":")[2] for pod in pods for container in pod["containers"]]

    assert all(re.fullmatch(r"\d+(\.\d+)+", tag) for tag in tags)


def test_every_file_of_k8s_is_used() -> None:
    """Each file is in a kustomization, but for three that administrators apply by themselves."""
    recipes = {path: path.read_text() for path in (ROOT / "k8s").rglob("kustomization.yaml")}
    by_hand = {"secret.example.yaml", "prometheus-adapter-values.yaml", "keda.yaml", "kustomization.yaml"}

    for path in (path for path in (ROOT / "k8s").rglob("*") if path.is_file() and path.name not in by_hand):
        recipe = next(file for file in (folder / "kustomization.yaml" for folder in path.parents) if file in recipes)
        name = path.relative_to(recipe.parent)
        assert f"- {name}\n" in recipes[recipe] or f"path: {name}\n" in recipes[recipe]


def test_a_bot_with_a_long_connection_needs_no_public_callback() -> None:
    """The overlay is PROD in websocket mode without the Ingress of callbacks; port 443 outside is open to the pods."""
    production, manifests = render(PROD), render(WEBSOCKET)

    def names(rendered: list[Manifest]) -> set[tuple[str, str]]:
        return {(manifest["kind"], re.sub("-[a-z0-9]{10}$", "", manifest["metadata"]["name"])) for manifest in rendered}

    assert names(production) - names(manifests) == {("Ingress", "wechatlaibao-callback")}
    assert names(manifests) <= names(production)
    assert config_of(manifests) == {**config_of(production), "WECHAT_MODE": "websocket"}
    assert float(config_of(manifests)["DRAIN_SECONDS"]) > HANDOVER_SECONDS
    gateway = one(manifests, "Deployment", "wechatlaibao")
    policies = [p for p in every(manifests, "NetworkPolicy") if selects(p["spec"]["podSelector"], labels_of(gateway))]
    rules = [rule for policy in policies for rule in policy["spec"].get("egress", []) if {"port": 443} in rule["ports"]]
    assert {peer["ipBlock"]["cidr"] for rule in rules for peer in rule["to"] if "ipBlock" in peer} == {
        "0.0.0.0/0",
        "::/0",
    }
