"""The manifests as kubectl renders them: valid for Kubernetes, and in step with what the gateway itself does."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import kubernetes_validate
import pytest
import yaml

from config.settings import load_settings
from tests.servers import require_binary

ROOT = Path(__file__).parent.parent
BASE = ROOT / "k8s" / "base"
DEV = ROOT / "k8s" / "overlays" / "dev"
#: Old clusters and new ones; both schemas ship with the validator.
VERSIONS = ["1.29", "1.37"]

Manifest = dict[str, Any]


def render(folder: Path) -> list[Manifest]:
    """Return what `kubectl apply -k folder` would send; no cluster is asked."""
    done = kustomize(folder)
    if "must be a file" in done.stderr:
        with TemporaryDirectory() as copy:
            done = kustomize(for_old_kubectl(folder, Path(copy)))
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def kustomize(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [require_binary("kubectl"), "kustomize", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def for_old_kubectl(folder: Path, copy: Path) -> Path:
    """Return a copy for kubectl before 1.21, Debian 12's own: it takes a folder as one of `bases` only."""
    shutil.copytree(ROOT / "k8s", copy / "k8s")
    place = copy / folder.relative_to(ROOT)
    recipe = place / "kustomization.yaml"
    lines = recipe.read_text().replace("resources:\n  - ../../base\n", "bases:\n  - ../../base\nresources:\n")
    recipe.write_text(lines)
    return place


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the manifest of that kind whose name is `name`, with or without a generated hash."""
    hashed = re.compile(f"{name}(-[a-z0-9]{{10}})?")
    found = [m for m in manifests if m["kind"] == kind and hashed.fullmatch(m["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} manifests are a {kind} {name}"
    return found[0]


def pod_of(manifest: Manifest) -> Manifest:
    spec: Manifest = manifest["spec"]["template"]["spec"]
    return spec


def named_by(pod: Manifest) -> Iterator[tuple[str, str]]:
    """Yield (kind, name) of every ConfigMap and Secret the pod reads."""
    for container in pod["containers"]:
        for source in container.get("envFrom", []):
            yield from ((kind.removesuffix("Ref"), ref["name"]) for kind, ref in source.items())
        for variable in container.get("env", []):
            sources = variable.get("valueFrom", {})
            yield from ((kind.removesuffix("KeyRef"), ref["name"]) for kind, ref in sources.items())


@pytest.fixture(scope="module")
def base() -> list[Manifest]:
    return render(BASE)


@pytest.fixture(scope="module")
def dev() -> list[Manifest]:
    return render(DEV)


@pytest.fixture(scope="module")
def gateway(base: list[Manifest]) -> Manifest:
    """The gateway's deployment."""
    return one(base, "Deployment", "wechatlaibao")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", [BASE, DEV], ids=["base", "dev"])
def test_every_manifest_is_valid_for_kubernetes(folder: Path, version: str) -> None:
    """Kubernetes' own schemas accept every manifest, and know every field in it."""
    for manifest in [*render(folder), yaml.safe_load((ROOT / "k8s/secret.example.yaml").read_text())]:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_wrong_manifest_is_seen(gateway: Manifest) -> None:
    """The check above refuses a field that Kubernetes does not know."""
    wrong = {**gateway, "spec": {**gateway["spec"], "replica": 3}}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_three_replicas_listen_on_port_5000(gateway: Manifest) -> None:
    """The deployment is wechatlaibao, three pods, containerPort 5000, and no update takes one of the three away."""
    (container,) = pod_of(gateway)["containers"]

    assert gateway["spec"]["replicas"] == 3
    assert [port["containerPort"] for port in container["ports"]] == [5000]
    assert gateway["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert container["resources"].keys() == {"requests", "limits"}


def test_probes_ask_the_right_pages(gateway: Manifest) -> None:
    """Start and life are /healthz, traffic is /readyz."""
    (container,) = pod_of(gateway)["containers"]

    paths = {probe: container[probe]["httpGet"]["path"] for probe in container if probe.endswith("Probe")}

    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def test_the_grace_period_is_long_enough_for_the_drain(base: list[Manifest], gateway: Manifest) -> None:
    """terminationGracePeriodSeconds = preStop + graceful_timeout (DRAIN_SECONDS + 10) + 5."""
    (container,) = pod_of(gateway)["containers"]
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    drain = int(one(base, "ConfigMap", "wechatlaibao-config")["data"]["DRAIN_SECONDS"])

    assert command == "sleep"
    assert pod_of(gateway)["terminationGracePeriodSeconds"] == int(seconds) + (drain + 10) + 5


@pytest.mark.parametrize("name", ["wechatlaibao", "redis", "mysql"])
def test_no_pod_has_more_rights_than_it_needs(dev: list[Manifest], name: str) -> None:
    """Every pod is non-root, without capabilities and without a Kubernetes token."""
    pod = pod_of(one(dev, "Deployment" if name == "wechatlaibao" else "StatefulSet", name))
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_only_named_places_of_the_gateway_are_writable(gateway: Manifest) -> None:
    """The root file system is read-only; what is mounted over it is named and bounded."""
    pod = pod_of(gateway)
    (container,) = pod["containers"]

    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]} == {"tmp": "/tmp"}
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"])


def test_the_image_runs_as_the_user_of_the_manifest(gateway: Manifest) -> None:
    """The Dockerfile's USER and the deployment's runAsUser are the same number."""
    security = pod_of(gateway)["securityContext"]

    user = re.search(r"^USER (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert user
    assert user[1] == f"{security['runAsUser']}:{security['runAsGroup']}"


def test_traffic_finds_the_pods(base: list[Manifest], gateway: Manifest) -> None:
    """The ingress leads the callback to the Service, and the Service to the pods."""
    service = one(base, "Service", "wechatlaibao")
    (rule,) = one(base, "Ingress", "wechatlaibao")["spec"]["rules"]
    labels = gateway["spec"]["template"]["metadata"]["labels"]

    assert [path["path"] for path in rule["http"]["paths"]] == ["/wechat/callback"]
    assert {path["backend"]["service"]["name"] for path in rule["http"]["paths"]} == {"wechatlaibao"}
    assert service["spec"]["ports"][0]["targetPort"] == pod_of(gateway)["containers"][0]["ports"][0]["name"]
    for selector in (service["spec"]["selector"], one(base, "PodDisruptionBudget", "wechatlaibao")["spec"]["selector"]):
        assert selector.get("matchLabels", selector).items() <= labels.items()


def test_production_brings_no_secret_and_no_database(base: list[Manifest]) -> None:
    """What production keeps elsewhere is not in the base."""
    assert {m["kind"] for m in base} == {"ConfigMap", "Deployment", "Service", "Ingress", "PodDisruptionBudget"}


def test_dev_brings_redis_and_mysql_under_the_names_the_gateway_asks_for(dev: list[Manifest]) -> None:
    """The Services redis-service and mysql-service exist, lead to a pod, and are the configured hosts."""
    config = one(dev, "ConfigMap", "wechatlaibao-config")["data"]

    assert (config["REDIS_HOST"], config["MYSQL_HOST"]) == ("redis-service", "mysql-service")
    for store in ("redis", "mysql"):
        service, pods = one(dev, "Service", f"{store}-service"), one(dev, "StatefulSet", store)
        assert service["spec"]["selector"].items() <= pods["spec"]["template"]["metadata"]["labels"].items()
        assert service["spec"]["ports"][0]["port"] == int(config[f"{store.upper()}_PORT"])


def test_dev_pods_find_their_settings_and_secrets(dev: list[Manifest]) -> None:
    """Every ConfigMap and Secret that a pod of the overlay reads is in the overlay."""
    there = {(m["kind"].lower(), m["metadata"]["name"]) for m in dev}
    pods = [pod_of(m) for m in dev if m["kind"] in ("Deployment", "StatefulSet")]

    read = {(kind.lower(), name) for pod in pods for kind, name in named_by(pod)}

    assert read
    assert read <= there


def test_the_secret_example_holds_what_dev_generates(dev: list[Manifest]) -> None:
    """The example and the overlay's Secret name the same settings, and the example's values are fakes."""
    example = yaml.safe_load((ROOT / "k8s/secret.example.yaml").read_text())

    assert example["metadata"]["name"] == "wechatlaibao-secret"
    assert example["stringData"].keys() == one(dev, "Secret", "wechatlaibao-secret")["data"].keys()
    assert all("fake" in value for value in example["stringData"].values())


@pytest.mark.parametrize(("folder", "auth_mode"), [(BASE, "external"), (DEV, "none")], ids=["base", "dev"])
def test_the_gateway_starts_with_what_the_manifests_set(folder: Path, auth_mode: str) -> None:
    """ConfigMap and Secret together are complete settings, each under a name the gateway knows."""
    secret = yaml.safe_load((ROOT / "k8s/secret.example.yaml").read_text())["stringData"]
    config = one(render(folder), "ConfigMap", "wechatlaibao-config")["data"]

    settings = load_settings({**config, **secret}, env_file=None)

    assert settings.warnings == ()
    assert settings.port == 5000
    assert settings.drain_seconds == 60
    assert settings.auth_mode == auth_mode
