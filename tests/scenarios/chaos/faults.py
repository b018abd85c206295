"""What goes wrong: the table `FAULTS`. Each fault lasts for some seconds of its range, and ends before it returns."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import NamedTuple

from demo.wecom.simulator import CallbackFailed, RuleBroken
from tests.scenarios.chaos.channels import userid
from tests.scenarios.chaos.world import PATIENCE, World
from tests.support.replicas import Replica, wecom_user

#: Seconds for which a wait goes on before the host is frozen in it.
BEFORE = 0.5
#: Bytes that Redis may still write into its file.
ROOM = 4096


class Fault(NamedTuple):
    #: Returns when it is over.
    inject: Callable[[World, float], None]
    #: Its shortest and longest duration in seconds.
    least: float = 0.0
    most: float = 0.0


def victim(world: World) -> Replica:
    """Wait for a second member that runs, and choose one of them."""
    end = time.monotonic() + PATIENCE
    while len(world.replicas.alive) < min(2, len(world.replicas.members)) and time.monotonic() < end:
        time.sleep(0.1)
    return world.dice.choice(world.replicas.alive)


def kill(world: World, seconds: float) -> None:
    """A replica is lost, master and workers at once; its successor starts a second later."""
    lost = victim(world)
    lost.kill()
    world.replace_soon(lost)


def terminate(world: World, seconds: float) -> None:
    """A replica is told to leave, and its successor starts at once."""
    leaving = victim(world)
    leaving.signal(signal.SIGTERM)
    world.replace_soon(leaving, 0.0)


def pause(world: World, seconds: float) -> None:
    """A replica is stopped for longer than its leases."""
    with stopped([victim(world)]):
        time.sleep(seconds)


def freeze(world: World, seconds: float) -> None:
    """The host of all replicas is frozen, as in a live migration, in one kind of wait after the other."""
    wait = WAITS[next(world.waits) % len(WAITS)]
    with ExitStack() as thaw:
        with wait(world):
            time.sleep(BEFORE)
            thaw.enter_context(stopped(world.replicas.everyone))
            time.sleep(seconds / 2)
        time.sleep(seconds / 2)


@contextmanager
def stopped(replicas: list[Replica]) -> Iterator[None]:
    """Stop all processes of replicas during the block."""
    groups = [replica.process.pid for replica in replicas if replica.process.poll() is None]
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        for group in groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGCONT)


@contextmanager
def redis_stopped(world: World) -> Iterator[None]:
    world.redis.pause()
    try:
        yield
    finally:
        world.redis.resume()


@contextmanager
def maria_stopped(world: World) -> Iterator[None]:
    world.maria.pause()
    try:
        yield
    finally:
        world.maria.resume()


@contextmanager
def dify_cut(world: World) -> Iterator[None]:
    """Cut Dify's connections: the answers are looked up."""
    world.dify_gate.cut()
    yield


@contextmanager
def dify_refuses(world: World) -> Iterator[None]:
    """Cut Dify's connections and refuse new ones: the look-ups fail, and are repeated."""
    with world.dify_gate.refusing():
        yield


@contextmanager
def auth_slow(world: World) -> Iterator[None]:
    """Let the auth API take two seconds for a token."""
    world.auth.delay, world.auth.behaviour = 2.0, "slow"
    try:
        yield
    finally:
        world.auth.behaviour = "normal"


@contextmanager
def servers_stopped(world: World) -> Iterator[None]:
    """Stop Redis and MariaDB, which are on the same host."""
    with redis_stopped(world), maria_stopped(world):
        yield


#: What the replicas wait for when they are frozen. Each ends while they are.
WAITS: tuple[Callable[[World], AbstractContextManager[None]], ...] = (
    lambda world: nullcontext(),
    dify_cut,
    dify_refuses,
    auth_slow,
    maria_stopped,
    redis_stopped,
    servers_stopped,
)


def redis_pauses(world: World, seconds: float) -> None:
    """Redis does not answer; its connections stay open."""
    with redis_stopped(world):
        time.sleep(seconds)


def redis_restarts(world: World, seconds: float) -> None:
    """Redis is killed, and started with what its file has."""
    world.redis.kill()
    time.sleep(seconds)
    world.redis.start()


def maria_freezes(world: World, seconds: float) -> None:
    """MariaDB does not answer: neither people's passwords nor batches."""
    with maria_stopped(world):
        time.sleep(seconds)


def dify_breaks(world: World, seconds: float) -> None:
    """Every connection to Dify is cut; the runs go on there."""
    world.dify_gate.cut()


def memory_full(world: World, seconds: float) -> None:
    """Redis is at `maxmemory` and refuses every write that needs memory (`noeviction`)."""
    _limited(world, seconds, "noeviction")


def memory_evicted(world: World, seconds: float) -> None:
    """Redis is at `maxmemory` and drops what was used longest ago (`allkeys-lru`)."""
    _limited(world, seconds, "allkeys-lru")


def _limited(world: World, seconds: float, policy: str) -> None:
    with world.redis.client() as client:
        client.config_set("maxmemory-policy", policy)
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]))
        time.sleep(seconds)
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")


def file_full(world: World, seconds: float) -> None:
    """Redis cannot write its file any further, as on a full disk, and refuses every write."""
    files = [path.stat().st_size for path in world.redis.directory.rglob("*.incr.aof")]
    soft, hard = resource.prlimit(world.redis.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(world.redis.pid, resource.RLIMIT_FSIZE, (max(files) + ROOM, hard))
    time.sleep(seconds)
    resource.prlimit(world.redis.pid, resource.RLIMIT_FSIZE, (soft, hard))


def lossy_line(world: World, seconds: float) -> None:
    """One replica's line to Redis has 200 to 400 ms and loses packets; another replica is killed meanwhile."""
    with world.replicas.gate.lossy(random.Random(world.dice.random())):
        time.sleep(seconds / 3)
        others = [member for member in world.replicas.alive if member is not world.replicas.gated]
        if others:
            lost = world.dice.choice(others)
            lost.kill()
            world.replace_soon(lost)
        time.sleep(seconds * 2 / 3)


FAULTS: Mapping[str, Fault] = {
    "kill": Fault(kill),
    "terminate": Fault(terminate),
    "pause": Fault(pause, 12, 12),
    "redis-pause": Fault(redis_pauses, 2, 8),
    "redis-restart": Fault(redis_restarts, 0.5, 3),
    "sql-freeze": Fault(maria_freezes, 5, 15),
    "dify-cut": Fault(dify_breaks),
    "freeze": Fault(freeze, 20, 90),
    "memory-full": Fault(memory_full, 5, 20),
    "memory-lru": Fault(memory_evicted, 5, 20),
    "file-full": Fault(file_full, 5, 20),
    "line": Fault(lossy_line, 10, 20),
}


def recovery(world: World) -> float:
    """Return the seconds until every member that runs has accepted a question."""
    began = time.monotonic()
    for member in world.replicas.alive:
        end = began + PATIENCE
        while member.process.poll() is None and time.monotonic() < end and not _accepts(world, member):
            time.sleep(0.1)
    return time.monotonic() - began


def _accepts(world: World, member: Replica) -> bool:
    with wecom_user([member.url], userid(1300 + next(world.probes) % 100)) as probe:
        try:
            return not probe.says("营业时间？").finish
        except (CallbackFailed, RuleBroken):
            return False
