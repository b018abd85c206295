"""The gateway's network: Service, ingresses and network policies of every overlay."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from channels.web.multipart import FIELDS_BYTES
from config.settings import load_settings
from tests.support.servers.manifests import (
    GATEWAY,
    PROD,
    Manifest,
    config_of,
    every,
    everywhere,
    example_secret,
    gateway_in,
    labels_of,
    one,
    ports_of,
    render,
    selects,
)
from tests.support.servers.nginx import SITE

pytestmark = pytest.mark.full


def policies_in(folder: Path) -> list[Manifest]:
    """Return the network policies that apply to the gateway's pods."""
    labels = labels_of(gateway_in(folder))
    return [p for p in every(render(folder), "NetworkPolicy") if selects(p["spec"]["podSelector"], labels)]


def api_in(folder: Path) -> Manifest:
    """Return the ingress for programs: the REST API."""
    return one(render(folder), "Ingress", "wechatlaibao-api")


def paths_of(ingress: Manifest) -> dict[str, str]:
    """Return the Service of each path."""
    (rule,) = ingress["spec"]["rules"]
    return {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}


def annotation(ingress: Manifest, name: str) -> str:
    value: str = ingress["metadata"]["annotations"][f"nginx.ingress.kubernetes.io/{name}"]
    return value


@everywhere
def test_the_api_ingress_allows_large_batches_and_long_answers(folder: Path) -> None:
    """The largest batch passes, the read timeout exceeds STREAM_TTL, and event streams are not buffered."""
    api = api_in(folder)
    settings = load_settings({**config_of(render(folder)), **example_secret()}, env_file=None)

    beyond = int(annotation(api, "proxy-body-size").removesuffix("m")) * 2**20 - settings.batch_max_bytes
    assert FIELDS_BYTES < beyond <= 2**20
    assert int(annotation(api, "proxy-read-timeout")) > settings.stream_ttl
    assert annotation(api, "proxy-buffering") == "off"


@everywhere
def test_the_ingress_has_the_limits_of_the_nginx_site(folder: Path) -> None:
    """Its annotations equal deploy/nginx.conf: connection and request limits, timeouts, retries, sizes, host."""
    site = SITE.read_text()
    callbacks, people, api = (
        one(render(folder), "Ingress", f"wechatlaibao{name}") for name in ("-callback", "", "-api")
    )

    for ingress in (people, api):
        for name, value in (("connections", "500"), ("rps", "50"), ("burst-multiplier", "4")):
            assert annotation(ingress, f"limit-{name}") == value
        assert "limit_conn wechatlaibao_connections 500;" in site
        assert "rate=50r/s;" in site
        assert "burst=200 nodelay;" in site
        assert f"proxy_read_timeout {annotation(ingress, 'proxy-read-timeout')}s;" in site
    assert not any("limit" in name for name in callbacks["metadata"]["annotations"])
    for ingress in (callbacks, people, api):
        assert f"proxy_connect_timeout {annotation(ingress, 'proxy-connect-timeout')}s;" in site
        assert f"proxy_next_upstream {annotation(ingress, 'proxy-next-upstream')};" in site
        assert f"server_name {ingress['spec']['rules'][0]['host']};" in site
    assert f"client_max_body_size {annotation(api, 'proxy-body-size')};" in site
    assert callbacks["spec"]["tls"] == people["spec"]["tls"] == api["spec"]["tls"]


@everywhere
def test_traffic_reaches_the_pods(folder: Path) -> None:
    """Ingresses forward callbacks, sockets, pages and REST to the gateway's Service, and no page for operators."""
    manifests, gateway = render(folder), gateway_in(folder)
    service = one(manifests, "Service", "wechatlaibao")
    callbacks = paths_of(one(manifests, "Ingress", "wechatlaibao-callback"))
    people, programs = paths_of(one(manifests, "Ingress", "wechatlaibao")), paths_of(api_in(folder))

    assert list(callbacks) == ["/wechat/callback"]
    assert list(people) == ["/ws", "/chat", "/realtime", "/batch", "/files", "/docs", "/openapi.json"]
    assert list(programs) == ["/api/chat", "/v1", "/api/batch", "/api/files", "/api/push"]
    assert {*callbacks.values(), *people.values(), *programs.values()} == {"wechatlaibao"}
    assert [(port["name"], port["targetPort"]) for port in service["spec"]["ports"]] == [("http", "http")]
    assert selects(service["spec"]["selector"], labels_of(gateway))


@everywhere
def test_the_gateway_accepts_only_the_ingress_and_prometheus(folder: Path) -> None:
    """The ingress controller's namespace may reach port `http` only, the namespace monitoring port `ops` only."""
    rules = [rule for policy in policies_in(folder) for rule in policy["spec"].get("ingress", [])]

    allowed = {
        source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]: [p["port"] for p in rule["ports"]]
        for rule in rules
        for source in rule["from"]
    }

    assert allowed == {"ingress-nginx": ["http"], "monitoring": ["ops"]}
    assert set().union(*allowed.values()) == ports_of(gateway_in(folder)).keys()


def outside(rule: Manifest) -> list[Manifest]:
    """Return the peers of a rule that are blocks of addresses."""
    return [peer for peer in rule.get("to", []) if "ipBlock" in peer]


def leads_to(block: Manifest, address: str) -> bool:
    """Return whether a block of addresses has this one; its exceptions must be within it."""
    cidr, wanted = ip_network(block["cidr"]), ip_address(address)
    excepted = [ip_network(each) for each in block.get("except", [])]
    assert all(each.subnet_of(cidr) for each in excepted)  # type: ignore[arg-type]
    return wanted in cidr and not any(wanted in each for each in excepted)


@everywhere
def test_the_gateways_egress_is_limited(folder: Path) -> None:
    """Outside the cluster: of a public address port 443, of a private one the databases' ports, of a cloud's metadata
    service none. Every rule names whom it opens its ports to, and each of its exceptions is within its block.
    """
    config, policies = config_of(render(folder)), policies_in(folder)
    rules = [rule for policy in policies for rule in policy["spec"].get("egress", [])]
    redis = {"redis", "sentinel"} if folder == PROD else {int(config["REDIS_PORT"]), 26379}
    stores = {int(config["MYSQL_PORT"])} | redis

    def open_at(address: str) -> set[Any]:
        open_rules = [rule for rule in rules if any(leads_to(peer["ipBlock"], address) for peer in outside(rule))]
        return {port["port"] for rule in open_rules for port in rule["ports"]}

    assert all("Egress" in policy["spec"]["policyTypes"] for policy in policies)
    assert all(rule["to"] for rule in rules)
    assert {port["port"] for rule in rules for port in rule["ports"]} == {53, 80, 443, 5001, 8080} | stores
    for address in ("203.0.113.7", "2001:db8::7"):
        assert open_at(address) == {443}
    for address in ("10.20.0.7", "172.16.0.1", "192.168.1.1", "fd12::1"):
        assert open_at(address) == stores - {"redis", "sentinel"}
    # The metadata services of clouds, also where their address is a private one.
    for address in ("169.254.169.254", "fd00:ec2::254", "fe80::1", "127.0.0.1", "100.100.100.200"):
        assert not open_at(address) & {80, 443}


def test_the_gateway_api_has_the_addresses_of_the_ingresses() -> None:
    """The overlay has routes in the place of the ingresses, to the same Service, with their timeouts."""
    manifests, ingresses = render(GATEWAY), every(render(PROD), "Ingress")
    route = one(manifests, "HTTPRoute", "wechatlaibao")["spec"]

    routed = {match["path"]["value"]: match["path"]["type"] for rule in route["rules"] for match in rule["matches"]}
    paths = [path for ingress in ingresses for path in ingress["spec"]["rules"][0]["http"]["paths"]]

    assert not every(manifests, "Ingress")
    assert routed == {path["path"]: path["pathType"].replace("Prefix", "PathPrefix") for path in paths}
    ports = one(manifests, "Service", "wechatlaibao")["spec"]["ports"]
    assert {backend["port"] for rule in route["rules"] for backend in rule["backendRefs"]} == {ports[0]["port"]}
    assert route["rules"][-1]["timeouts"]["request"] == annotation(api_in(PROD), "proxy-read-timeout") + "s"
