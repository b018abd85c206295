"""The Redis of overlays/prod: its script in real servers, three pods on three loopback addresses."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from config.addresses import parse_redis_url
from services.redis.store import connect
from tests.support.servers.manifests import PROD, config_of, render
from tests.support.servers.processes import Server, free_port, redis_client_for, require_binary, wait_until

pytestmark = [pytest.mark.full, pytest.mark.scenario]

SCRIPT = PROD / "redis.sh"
PASSWORD, SENTINEL_PASSWORD = "fakepassword", "fakesentinelpassword"
#: Seconds for a failover to settle: sentinels refresh their information every ten seconds, and the machine may be busy.
TIMEOUT = 80.0


class Container(Server):
    """A container of a pod; `part` is the script's argument, `redis` or `sentinel`."""

    def __init__(self, part: str, env: dict[str, str], port: int) -> None:
        super().__init__(port=port)
        require_binary("redis-server")
        self._part = part
        self.env = env

    def command(self) -> list[str]:
        return ["env", *(f"{name}={value}" for name, value in self.env.items()), "sh", str(SCRIPT), self._part]

    def client(self) -> redis.Redis:
        password = PASSWORD if self._part == "redis" else SENTINEL_PASSWORD
        return redis_client_for(f"redis://{self.env['BIND']}:{self.port}", password=password)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class Pod:
    """A Redis and its sentinel with their shared volume. An IP address takes the part of the Service's name."""

    def __init__(self, address: str, hosts: str, ports: tuple[int, int], volume: Path) -> None:
        self.address = address
        self.volume = volume
        env = {"HOSTS": hosts, "ME": address, "BIND": address, "DATA": str(volume)}
        env |= {"REDIS_PASSWORD": PASSWORD, "REDIS_SENTINEL_PASSWORD": SENTINEL_PASSWORD}
        env |= {"PORT": str(ports[0]), "SENTINEL_PORT": str(ports[1]), "MAXMEMORY": "64mb"}
        self.redis, self.sentinel = Container("redis", env, ports[0]), Container("sentinel", env, ports[1])

    def start(self) -> None:
        self.volume.mkdir(exist_ok=True)
        self.sentinel.start()
        self.redis.start()

    def kill(self) -> None:
        self.redis.kill()
        self.sentinel.kill()

    def close(self) -> None:
        self.redis.close()
        self.sentinel.close()

    def leave(self) -> None:
        """Run the preStop hook."""
        env = {"PATH": os.environ["PATH"], **self.redis.env}
        subprocess.run(["sh", str(SCRIPT), "leave"], env=env, check=True, capture_output=True, timeout=TIMEOUT)

    def role(self) -> str:
        """Return the role of its Redis: master or slave."""
        with self.redis.client() as client:
            return str(client.info("replication")["role"])

    def master(self) -> str:
        """Return the address of the master that its sentinel knows."""
        with self.sentinel.client() as client:
            return str(client.sentinel_master("laibao")["ip"])

    def is_settled(self) -> bool:
        """Tell whether its sentinel knows two other sentinels, a healthy master, and two replicas that follow it."""
        with self.sentinel.client() as client:
            master, replicas = client.sentinel_master("laibao"), client.sentinel_slaves("laibao")
        seen: list[Any] = [(one["flags"], one["master-link-status"], one["master-host"]) for one in replicas]
        whole = (master["flags"], int(master["num-other-sentinels"])) == ("master", 2)
        return whole and seen == [("slave", "ok", master["ip"])] * 2


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Pod]]:
    """Three pods, started as by a first apply."""
    # The addresses depend on the process id: test processes run side by side.
    addresses = [f"127.{os.getpid() % 250 + 2}.{os.getpid() // 250 % 250}.{number}" for number in (1, 2, 3)]
    ports, folder = (free_port(), free_port()), tmp_path_factory.mktemp("redis")
    pods = [Pod(address, " ".join(addresses), ports, folder / address) for address in addresses]
    try:
        for pod in pods:
            pod.start()
        yield pods
    finally:
        for pod in pods:
            pod.close()


@pytest.fixture(scope="module")
def first_roles(pods: list[Pod]) -> list[str]:
    """The roles of the pods once their first start has settled, before a test changes them."""
    wait_until(lambda: all(pod.is_settled() for pod in pods), timeout=TIMEOUT)
    return [pod.role() for pod in pods]


@pytest.fixture
def settled(pods: list[Pod], first_roles: list[str]) -> str:
    """The address of the master, once all sentinels have settled after the test before."""
    wait_until(lambda: all(pod.is_settled() for pod in pods), timeout=TIMEOUT)
    (master,) = {pod.master() for pod in pods}
    return master


@pytest.fixture
def gateway(pods: list[Pod]) -> Iterator[redis.Redis]:
    """The product's client, with the service name of the manifest."""
    url = parse_redis_url(config_of(render(PROD))["REDIS_URL"])
    hosts = ",".join(f"{pod.address}:{pod.sentinel.port}" for pod in pods)
    address = f"redis+sentinel://:{PASSWORD}@{hosts}/{url.service}/1?sentinel_password={SENTINEL_PASSWORD}"
    with connect(address, pool_size=2) as client:
        yield client


def at(pods: list[Pod], address: str) -> Pod:
    return next(pod for pod in pods if pod.address == address)


def succeeds(action: Callable[[], object]) -> Callable[[], bool]:
    """Return a function that runs the action and tells whether Redis carried it out."""

    def tried() -> bool:
        try:
            return bool(action())
        except redis.RedisError:
            return False

    return tried


def replicate(gateway: redis.Redis, name: str) -> None:
    """Write a key, and wait until both replicas have it."""
    wait_until(succeeds(lambda: gateway.set(name, "before") and gateway.wait(2, 300) == 2), timeout=TIMEOUT)


def test_a_first_start_has_a_master_and_two_replicas(first_roles: list[str], gateway: redis.Redis) -> None:
    """The first pod is the master; the others are replicas of it."""
    replicate(gateway, "first")

    assert first_roles == ["master", "slave", "slave"]


def test_a_killed_master_is_replaced_and_comes_back_as_a_replica(
    pods: list[Pod], settled: str, gateway: redis.Redis
) -> None:
    """The gateway's client finds the new master, which has the data of the old one."""
    replicate(gateway, "killed")

    at(pods, settled).kill()

    wait_until(succeeds(lambda: gateway.get("killed") == "before" and gateway.set("killed", "after")), TIMEOUT)
    at(pods, settled).start()
    wait_until(lambda: all(pod.is_settled() for pod in pods), timeout=TIMEOUT)
    assert pods[0].master() != settled


def test_a_master_that_leaves_hands_over_first(pods: list[Pod], settled: str, gateway: redis.Redis) -> None:
    """preStop makes another pod the master while this one still runs; then it is stopped."""
    replicate(gateway, "left")
    leaving, others = at(pods, settled), [pod for pod in pods if pod.address != settled]

    leaving.leave()

    wait_until(lambda: settled not in {pod.master() for pod in others})
    assert leaving.redis.running
    leaving.kill()
    wait_until(succeeds(lambda: gateway.get("left") == "before" and gateway.set("left", "after")), TIMEOUT)
    leaving.start()


def test_all_three_pods_may_fail_at_once(pods: list[Pod], settled: str, gateway: redis.Redis) -> None:
    """They start again with the same master and the data of their volumes."""
    replicate(gateway, "lost")
    for pod in pods:
        pod.redis.stop()
        pod.sentinel.stop()

    for pod in pods:
        pod.start()

    wait_until(succeeds(lambda: gateway.get("lost") == "before" and gateway.set("lost", "after")), TIMEOUT)
    assert {pod.master() for pod in pods} == {settled}


def test_a_pod_with_a_new_volume_follows_the_master(pods: list[Pod], settled: str, gateway: redis.Redis) -> None:
    """A pod that starts with an empty volume asks the sentinels for the master before it becomes one itself."""
    replicate(gateway, "emptied")
    emptied = next(pod for pod in pods if pod.address != settled)
    emptied.kill()
    shutil.rmtree(emptied.volume)

    emptied.start()

    with emptied.redis.client() as replica:
        assert replica.info("replication")["role"] == "slave"
        wait_until(lambda: replica.info("keyspace").get("db1"), timeout=TIMEOUT)
    assert gateway.get("emptied") == "before"
