"""The manifests as kubectl renders them: valid for Kubernetes, and consistent with the gateway."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from config import VERSION
from config.settings import Settings, load_settings
from services.ops import metrics_folder
from tests.support.servers.manifests import (
    BASE,
    DEV,
    GATEWAY,
    PROD,
    ROOT,
    WEBSOCKET,
    Manifest,
    config_of,
    container_in,
    every,
    everywhere,
    example_secret,
    gateway_in,
    gunicorn_of,
    labels_of,
    memory,
    named_by,
    one,
    pod_of,
    ports_of,
    read,
    render,
    selects,
)

pytestmark = pytest.mark.full

#: The label with a part's name.
NAME = "app.kubernetes.io/name"
KUBERNETES = ROOT / "docs" / "kubernetes.md"
#: An old and a new version of Kubernetes; both schemas ship with the validator.
VERSIONS = ["1.29", "1.37"]


@pytest.mark.parametrize("folder", [BASE, DEV, PROD, WEBSOCKET, GATEWAY], ids=lambda folder: folder.name)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid_for_kubernetes(folder: Path, version: str) -> None:
    """Kubernetes' own schemas accept every manifest and know every field in it; HTTPRoute is none of its kinds."""
    for manifest in [*render(folder), read(ROOT / "k8s/secret.example.yaml")]:
        if manifest["kind"] != "HTTPRoute":
            kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schema_check_finds_an_error() -> None:
    """The validator refuses a field that Kubernetes does not know."""
    gateway = gateway_in(BASE)
    wrong = {**gateway, "spec": {**gateway["spec"], "replica": 3}}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@everywhere
def test_a_rolling_update_never_has_fewer_ready_pods(folder: Path) -> None:
    """There are three replicas at least, and an old pod is stopped only after a new one has been ready."""
    spec = gateway_in(folder)["spec"]

    assert spec.get("replicas", 3) == 3
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert spec["minReadySeconds"] > 0


@everywhere
def test_the_grace_period_covers_the_drain(folder: Path) -> None:
    """terminationGracePeriodSeconds = preStop + graceful_timeout + 5, and graceful_timeout exceeds DRAIN_SECONDS."""
    command, seconds = container_in(folder)["lifecycle"]["preStop"]["exec"]["command"]
    graceful_timeout = gunicorn_of(folder)["graceful_timeout"]

    assert command == "sleep"
    assert graceful_timeout > float(config_of(render(folder))["DRAIN_SECONDS"])
    assert pod_of(gateway_in(folder))["terminationGracePeriodSeconds"] == int(seconds) + graceful_timeout + 5


@everywhere
def test_probes_use_the_right_pages(folder: Path) -> None:
    """Startup and liveness use /healthz, readiness uses /readyz, all on the port of the callbacks."""
    container = container_in(folder)
    probes = {name: probe["httpGet"] for name, probe in container.items() if name.endswith("Probe")}

    paths = {name: probe["path"] for name, probe in probes.items()}

    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert {probe["port"] for probe in probes.values()} == {"http"}


@everywhere
def test_a_draining_pod_becomes_unready_in_time(folder: Path) -> None:
    """Readiness fails within half of DRAIN_SECONDS, and before liveness would restart a pod that hangs."""
    container = container_in(folder)
    unready, dead = (
        probe["periodSeconds"] * probe["failureThreshold"]
        for probe in (container["readinessProbe"], container["livenessProbe"])
    )

    assert unready <= float(config_of(render(folder))["DRAIN_SECONDS"]) / 2
    assert unready < dead


@everywhere
def test_the_ports_are_those_the_gateway_listens_on(folder: Path) -> None:
    """The container's ports `http` and `ops` are PORT and OPS_PORT, which gunicorn binds to."""
    config, ports = config_of(render(folder)), ports_of(gateway_in(folder))

    assert ports == {"http": int(config["PORT"]), "ops": int(config["OPS_PORT"])}
    assert gunicorn_of(folder)["bind"] == [f"0.0.0.0:{port}" for port in ports.values()]


@everywhere
def test_workers_equal_the_cpu_limit(folder: Path) -> None:
    """WORKERS is the CPU limit: fewer would leave a CPU unused, more would share one."""
    resources = container_in(folder)["resources"]

    assert gunicorn_of(folder)["workers"] == int(resources["limits"]["cpu"])
    assert memory(resources["requests"]["memory"]) < memory(resources["limits"]["memory"])


@everywhere
def test_no_pod_has_more_rights_than_it_needs(folder: Path) -> None:
    """Every pod is non-root, has the runtime's seccomp profile, no capabilities and no Kubernetes token."""
    pods = [pod_of(manifest) for manifest in every(render(folder), "Deployment", "StatefulSet", "Job")]

    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
    for container in (container for pod in pods for container in pod["containers"]):
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


@everywhere
def test_no_password_is_on_a_command_line(folder: Path) -> None:
    """Commands and probes leave passwords to variables of a shell: a command line is shown to everybody on the node."""
    pods = [pod_of(manifest) for manifest in every(render(folder), "Deployment", "StatefulSet", "Job")]
    containers = [container for pod in pods for container in pod["containers"]]

    commands = [word for container in containers for word in words_of(container)]

    assert [word for word in commands if re.search(r"requirepass \$|--requirepass|-p\"?\$|\$\(\w+\)", word)] == []


def words_of(container: Manifest) -> list[str]:
    """Return the words of a container's command, and of its probes' commands."""
    probes = [probe.get("exec", {}) for name, probe in container.items() if name.endswith("Probe")]
    return [word for each in (container, *probes) for name in ("command", "args") for word in each.get(name, ())]


@everywhere
def test_only_mounted_folders_of_the_gateway_are_writable(folder: Path) -> None:
    """The root file system is read-only; /tmp and /dev/shm are mounted with a size limit."""
    container, volumes = container_in(folder), pod_of(gateway_in(folder))["volumes"]

    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", "/dev/shm"}
    assert all("sizeLimit" in volume["emptyDir"] for volume in volumes)


@everywhere
def test_heartbeats_and_metrics_have_a_writable_folder(folder: Path) -> None:
    """gunicorn's heartbeats and the metrics' files are in mounted folders, with space enough for the metrics."""
    mounts = {mount["mountPath"]: mount["name"] for mount in container_in(folder)["volumeMounts"]}
    sizes = {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in pod_of(gateway_in(folder))["volumes"]}

    assert gunicorn_of(folder)["worker_tmp_dir"] in mounts
    assert memory(sizes[mounts[str(metrics_folder.MEMORY)]]) > metrics_folder.ROOM


@everywhere
def test_the_image_is_this_version(folder: Path) -> None:
    """The image's tag is the application's version."""
    registry = "registry.example.com/" if folder == PROD else ""

    assert container_in(folder)["image"] == f"{registry}wechatlaibao:{VERSION}"


def test_the_image_runs_as_the_user_of_the_manifest() -> None:
    """The Dockerfile's USER and the deployment's runAsUser are the same number."""
    security = pod_of(gateway_in(BASE))["securityContext"]

    user = re.search(r"^USER (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert user
    assert user[1] == f"{security['runAsUser']}:{security['runAsGroup']}"


@everywhere
def test_selectors_select_the_pods(folder: Path) -> None:
    """Selectors of deployments, budgets, affinities and spreads match the labels of the gateway's pods."""
    gateway = gateway_in(folder)
    labels, pod = labels_of(gateway), pod_of(gateway)
    (preferred,) = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    budget = one(render(folder), "PodDisruptionBudget", "wechatlaibao")

    apart, spread = preferred["podAffinityTerm"], pod["topologySpreadConstraints"][0]

    assert (apart["topologyKey"], spread["topologyKey"]) == ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    for owner in (gateway["spec"]["selector"], apart["labelSelector"], spread["labelSelector"]):
        assert selects(owner, labels)
    assert selects(budget["spec"]["selector"], labels)
    assert budget["spec"]["maxUnavailable"] < gateway["spec"].get("replicas", 3)


def test_the_base_has_no_secret_and_no_database() -> None:
    """The base has only the gateway's own kinds of manifests."""
    kinds = {"ConfigMap", "Deployment", "Service", "ServiceAccount", "Ingress", "PodDisruptionBudget", "NetworkPolicy"}
    kinds.add("Job")

    assert {manifest["kind"] for manifest in render(BASE)} == kinds


def test_dev_has_redis_and_mysql_under_the_configured_names() -> None:
    """The Services redis-service and mysql-service are the configured hosts and select a StatefulSet's pods."""
    dev, config = render(DEV), config_of(render(DEV))

    assert (config["REDIS_HOST"], config["MYSQL_HOST"]) == ("redis-service", "mysql-service")
    for store in ("redis", "mysql"):
        service, pods = one(dev, "Service", f"{store}-service"), one(dev, "StatefulSet", store)
        assert selects(service["spec"]["selector"], labels_of(pods))
        assert service["spec"]["ports"][0]["port"] == int(config[f"{store.upper()}_PORT"])


@pytest.mark.parametrize("folder", [DEV, PROD], ids=["dev", "prod"])
def test_pods_find_their_settings_and_secrets(folder: Path) -> None:
    """Every ConfigMap and Secret that a pod reads is in the overlay; prod's Secret is created separately."""
    manifests = render(folder)
    there = {(manifest["kind"].lower(), manifest["metadata"]["name"]) for manifest in manifests}
    there |= {("secret", "wechatlaibao-secret")} if folder == PROD else set()
    pods = [pod_of(manifest) for manifest in every(manifests, "Deployment", "StatefulSet")]

    asked_for = {(kind.lower(), name) for pod in pods for kind, name in named_by(pod)}

    assert asked_for
    assert asked_for <= there


@everywhere
def test_the_tables_can_be_migrated_before_the_gateway_is_replaced(folder: Path) -> None:
    """The Job has the gateway's image and settings, and no requests; the documented selector leaves the gateway."""
    manifests, job = render(folder), one(render(folder), "Job", "wechatlaibao-migrate")
    (container,) = pod_of(job)["containers"]
    (spared,) = re.findall(r"name notin \((.*?)\)", (ROOT / "docs/upgrade.md").read_text("utf-8"))
    first = [m for m in manifests if m["metadata"].get("labels", {}).get(NAME) not in spared.split(", ")]

    assert (container["image"], container["command"]) == (
        container_in(folder)["image"],
        ["python", "-m", "tools.migrate", "up"],
    )
    assert not selects(one(manifests, "Service", "wechatlaibao")["spec"]["selector"], labels_of(job))
    assert {"Job", "ConfigMap"} <= {manifest["kind"] for manifest in first}
    assert not every(first, "Deployment", "Ingress")
    assert dict(named_by(pod_of(job))) == dict(named_by(pod_of(gateway_in(folder))))


def test_the_secret_example_has_the_keys_of_dev() -> None:
    """The example and the overlay's Secret have the same keys, and all values of the example are fakes."""
    example = read(ROOT / "k8s/secret.example.yaml")

    assert example["metadata"]["name"] == "wechatlaibao-secret"
    assert example["stringData"].keys() == one(render(DEV), "Secret", "wechatlaibao-secret")["data"].keys()
    assert all("fake" in value for value in example["stringData"].values())


@everywhere
def test_every_name_in_config_and_secret_is_a_setting(folder: Path) -> None:
    """ConfigMap and Secret set no variable that the gateway does not read."""
    given = {*config_of(render(folder)), *example_secret()}

    assert given <= {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize(
    ("folder", "auth_mode", "redis"),
    [
        (BASE, "external", "redis://:{}@redis-service:6379/1"),
        (DEV, "none", "redis://:{}@redis-service:6379/1"),
        (
            PROD,
            "external",
            "redis+sentinel://:{}@redis-0:26379,redis-1:26379,redis-2:26379/laibao/1?sentinel_password=fake-sentinel-password",
        ),
    ],
    ids=["base", "dev", "prod"],
)
def test_the_gateway_starts_with_what_the_manifests_set(folder: Path, auth_mode: str, redis: str) -> None:
    """ConfigMap and Secret together are complete settings and cause no warnings."""
    secret = example_secret()

    settings = load_settings({**config_of(render(folder)), **secret}, env_file=None)

    assert settings.warnings == ()
    assert (settings.port, settings.ops_port, settings.drain_seconds) == (5000, 9090, 60)
    assert settings.auth_mode == auth_mode
    assert settings.redis_address.get_secret_value() == redis.format(secret["REDIS_PASSWORD"])


def test_the_overlay_of_the_documentation(tmp_path: Path) -> None:
    """It renders, all of it in its namespace; ConfigMap and Secret have a hash that the pods name."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", KUBERNETES.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (overlay,) = (block for block in blocks if "secretGenerator" in block)
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    mine = tmp_path / "k8s/overlays/mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(overlay)
    (mine / "secret.env").write_text("".join(f"{name}={value}\n" for name, value in example_secret().items()))

    manifests = render(mine)

    assert {m["metadata"].get("namespace", "laibao") for m in manifests} == {"laibao"}
    named = {named for pod in every(manifests, "Deployment", "StatefulSet") for named in named_by(pod_of(pod))}
    secrets = {name for kind, name in named if kind.lower().startswith("secret")}
    assert secrets == {one(manifests, "Secret", "wechatlaibao-secret")["metadata"]["name"]}
    assert re.fullmatch(r"wechatlaibao-secret-\w{10}", secrets.pop())
    assert config_of(manifests)["PUBLIC_URL"] == "https://laibao.example.com"
    assert container_in(mine)["image"].startswith("registry.example.com/team/")


def test_the_documented_command_pins_every_image(tmp_path: Path) -> None:
    """It asks a registry for the digest of each image of the overlay, and prints them for kustomize."""
    (command,) = re.findall(
        r"^(kubectl kustomize \S+ \| sed .*?^done\n)", KUBERNETES.read_text("utf-8"), re.M | re.DOTALL
    )
    for name, script in {"kubectl": "cat rendered", "docker": f"echo sha256:{'0' * 64}"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "rendered").write_text(yaml.safe_dump_all(render(PROD)))

    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=path, timeout=60)

    pods = [pod_of(manifest) for manifest in every(render(PROD), "Deployment", "StatefulSet")]
    images = {container["image"].partition(":")[0] for pod in pods for container in pod["containers"]}
    pinned = yaml.safe_load(done.stdout)
    assert {image["name"] for image in pinned} == images
    assert all(image["digest"].startswith("sha256:") for image in pinned)
