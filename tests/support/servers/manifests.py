"""The manifests of k8s/ as kubectl renders them, with ways to search them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from tests.support.servers.processes import require_binary

ROOT = Path(__file__).parents[3]
BASE = ROOT / "k8s" / "base"
DEV = ROOT / "k8s" / "overlays" / "dev"
PROD = ROOT / "k8s" / "overlays" / "prod"
#: PROD for a bot with a long connection.
WEBSOCKET = ROOT / "k8s" / "overlays" / "websocket"
#: PROD behind the Gateway API.
GATEWAY = ROOT / "k8s" / "overlays" / "gateway"
MONITORING = ROOT / "k8s" / "monitoring"

Manifest = dict[str, Any]

#: Parametrizes a test over all overlays for callbacks.
everywhere = pytest.mark.parametrize("folder", [BASE, DEV, PROD], ids=["base", "dev", "prod"])


@cache
def render(folder: Path) -> list[Manifest]:
    """Return the manifests that `kubectl apply -k folder` would send; no cluster is needed."""
    if not kubectl_is_old():
        done = kustomize(folder)
    else:
        with TemporaryDirectory() as copy:
            done = kustomize(for_old_kubectl(folder, Path(copy) / "k8s"))
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@cache
def kubectl_is_old() -> bool:
    """Return whether kubectl is older than 1.21, as that of Debian 12."""
    command = [require_binary("kubectl"), "version", "--client", "--output=json"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    return int(json.loads(done.stdout)["clientVersion"]["minor"].rstrip("+")) < 21


def kustomize(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [require_binary("kubectl"), "kustomize", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def for_old_kubectl(folder: Path, copy: Path) -> Path:
    """Return a copy of `folder` for kubectl before 1.21 (Debian 12): it knows resources and patches by older names."""
    whole = next(parent for parent in folder.parents if parent.name == "k8s")
    shutil.copytree(whole, copy)
    for recipe in copy.rglob("kustomization.yaml"):
        lines = re.sub(r"resources:\n  - (\.\./.*)\n", r"bases:\n  - \1\nresources:\n", recipe.read_text())
        recipe.write_text(lines.replace("patches:\n", "patchesStrategicMerge:\n").replace("  - path: ", "  - "))
    return copy / folder.relative_to(whole)


def read(path: Path) -> Manifest:
    manifest: Manifest = yaml.safe_load(path.read_text())
    return manifest


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the only manifest of this kind and name; the name may end in a generated hash."""
    hashed = re.compile(f"{name}(-[a-z0-9]{{10}})?")
    found = [m for m in manifests if m["kind"] == kind and hashed.fullmatch(m["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} manifests are a {kind} {name}"
    return found[0]


def every(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def config_of(manifests: list[Manifest]) -> dict[str, str]:
    config: dict[str, str] = one(manifests, "ConfigMap", "wechatlaibao-config")["data"]
    return config


def example_secret() -> dict[str, str]:
    secret: dict[str, str] = read(ROOT / "k8s/secret.example.yaml")["stringData"]
    return secret


def pod_of(manifest: Manifest) -> Manifest:
    spec: Manifest = manifest["spec"]["template"]["spec"]
    return spec


def gateway_in(folder: Path) -> Manifest:
    """Return the gateway's Deployment."""
    return one(render(folder), "Deployment", "wechatlaibao")


def container_in(folder: Path) -> Manifest:
    (container,) = pod_of(gateway_in(folder))["containers"]
    found: Manifest = container
    return found


def labels_of(manifest: Manifest) -> dict[str, str]:
    """Return the labels of the pods of a Deployment or StatefulSet."""
    labels: dict[str, str] = manifest["spec"]["template"]["metadata"]["labels"]
    return labels


def ports_of(manifest: Manifest) -> dict[str, int]:
    """Return the ports of a pod's containers by name."""
    return {port["name"]: port["containerPort"] for c in pod_of(manifest)["containers"] for port in c["ports"]}


def named_by(pod: Manifest) -> Iterator[tuple[str, str]]:
    """Yield (kind, name) of every ConfigMap and Secret that the pod reads."""
    for container in pod["containers"]:
        for source in container.get("envFrom", []):
            yield from ((kind.removesuffix("Ref"), ref["name"]) for kind, ref in source.items())
        for variable in container.get("env", []):
            sources = variable.get("valueFrom", {})
            yield from ((k.removesuffix("KeyRef"), ref["name"]) for k, ref in sources.items() if k != "fieldRef")
    yield from (("configMap", v["configMap"]["name"]) for v in pod.get("volumes", []) if "configMap" in v)


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Return whether a label selector, or a Service's, selects pods with these labels."""
    if "matchExpressions" in selector:
        return all(e["operator"] == "In" and labels.get(e["key"]) in e["values"] for e in selector["matchExpressions"])
    wanted: dict[str, str] = selector.get("matchLabels", selector)
    return wanted.items() <= labels.items()


def memory(quantity: str) -> int:
    """Return the bytes of a Kubernetes quantity such as 64Mi, or of Redis's such as 1gb."""
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi|mb|gb)", quantity).groups()  # type: ignore[union-attr]
    return int(number) << (20 if unit[0].lower() == "m" else 30)


@cache
def gunicorn_of(folder: Path) -> Manifest:
    """Return gunicorn.conf.py's values under an overlay's settings, read in a separate process."""
    names = ["bind", "workers", "graceful_timeout", "worker_tmp_dir"]
    code = (
        f"import json, runpy; c = runpy.run_path('gunicorn.conf.py'); print(json.dumps({{n: c[n] for n in {names}}}))"
    )
    env = {**config_of(render(folder)), **example_secret()}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    values: Manifest = json.loads(done.stdout)
    return values
