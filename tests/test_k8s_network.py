"""Who reaches the gateway and whom it may reach: Service, ingress, and the network policies of every overlay."""

from __future__ import annotations

from pathlib import Path

from tests.manifests import (
    PROD,
    Manifest,
    config_of,
    every,
    everywhere,
    gateway_in,
    labels_of,
    one,
    ports_of,
    render,
    selects,
)


def policies_in(folder: Path) -> list[Manifest]:
    """Return the network policies that hold for the gateway's pods."""
    labels = labels_of(gateway_in(folder))
    return [p for p in every(render(folder), "NetworkPolicy") if selects(p["spec"]["podSelector"], labels)]


@everywhere
def test_traffic_finds_the_pods(folder: Path) -> None:
    """The ingress leads callbacks, sockets and pages to the Service and that to the pods, nobody to operators."""
    manifests, gateway = render(folder), gateway_in(folder)
    service = one(manifests, "Service", "wechatlaibao")
    (rule,) = one(manifests, "Ingress", "wechatlaibao")["spec"]["rules"]

    paths = [path["path"] for path in rule["http"]["paths"]]
    assert paths == ["/wechat/callback", "/ws", "/chat", "/realtime"]
    assert {path["backend"]["service"]["name"] for path in rule["http"]["paths"]} == {"wechatlaibao"}
    assert [(port["name"], port["targetPort"]) for port in service["spec"]["ports"]] == [("http", "http")]
    assert selects(service["spec"]["selector"], labels_of(gateway))


@everywhere
def test_the_gateway_hears_only_the_ingress_and_prometheus(folder: Path) -> None:
    """Callbacks come from the ingress controller's namespace, scrapes from monitoring, each to its own port alone."""
    rules = [rule for policy in policies_in(folder) for rule in policy["spec"].get("ingress", [])]

    allowed = {
        source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]: [p["port"] for p in rule["ports"]]
        for rule in rules
        for source in rule["from"]
    }

    assert allowed == {"ingress-nginx": ["http"], "monitoring": ["ops"]}
    assert set().union(*allowed.values()) == ports_of(gateway_in(folder)).keys()


@everywhere
def test_the_gateway_may_speak_to_everybody_it_has_to(folder: Path) -> None:
    """DNS, Redis, MySQL and HTTP(S) are open, nothing else is, and no way leads to a cloud's metadata service."""
    config, policies = config_of(render(folder)), policies_in(folder)
    rules = [rule for policy in policies for rule in policy["spec"].get("egress", [])]

    open_ports = {port["port"] for rule in rules for port in rule["ports"]}

    redis = {"redis", "sentinel"} if folder == PROD else {int(config["REDIS_PORT"]), 26379}
    assert open_ports == {53, int(config["MYSQL_PORT"]), 80, 443} | redis
    assert all("Egress" in policy["spec"]["policyTypes"] for policy in policies)
    blocks = [peer["ipBlock"] for rule in rules for peer in rule.get("to", []) if "ipBlock" in peer]
    assert "169.254.0.0/16" in next(block["except"] for block in blocks if block["cidr"] == "0.0.0.0/0")
