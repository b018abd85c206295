"""Checks that Redis answers, is configured to keep answers, and runs the product's scripts."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import redis

from bootstrap.container import Container
from bootstrap.probes import clock_window
from config.addresses import parse_redis_url
from services.errors import StoreUnavailable
from services.ops.remedies import REDIS, explained
from services.redis.store import Call, ScriptRunner, redis_errors, servers
from services.streams.records import born_finished
from services.streams.store import stream_keys
from tools._doctor.checks import Finding, judge_clock

#: The oldest major version the product is tested with.
OLDEST = 6
WORDS = "doctor 来宝"
#: The part of Redis's maxmemory that files may take, as its denominator: they take up to two thirds more
#: than their bytes.
FILES_PART = 3

_BATCHES = (
    ("ResponseError DB", "end BATCH_REDIS_URL with a database this Redis has (/0 always exists)"),
    ("password", "put the password that Redis expects into BATCH_REDIS_URL"),
    ("authentication", "put the password that Redis expects into BATCH_REDIS_URL"),
    ("connection refused", "start this Redis, or correct host and port in BATCH_REDIS_URL"),
)
_REFUSED = (
    ("MovedError", "this is a node of a Cluster: begin REDIS_URL with redis+cluster://"),
    ("ClusterDown", "some slots have no node: see CLUSTER INFO and CLUSTER NODES"),
    ("ReadOnly", "this is a replica: point REDIS_HOST at the primary"),
    ("misconf", "Redis cannot save to its disk and so refuses writes: see its log, make room"),
    ("OutOfMemory", "Redis is full: raise maxmemory"),
    ("NoPermission", "give the user the rights of `+@all ~*`, or of the commands the message names"),
)


def check_redis(container: Container) -> Iterator[Finding]:
    """Yield the findings on Redis; only one if it does not answer."""
    try:
        container.runner.ping()
    except StoreUnavailable as exc:
        yield Finding("redis", "failed", str(exc), explained(str(exc), REDIS, "see REDIS_URL or REDIS_HOST"))
        return
    yield Finding("redis", "ok", "answers")
    yield from _servers(container.redis, _kind(container), container.settings.files_max_bytes)
    yield _round_trip(container)
    yield _clock(container)


def check_batch_redis(container: Container) -> Iterator[Finding]:
    """Yield a finding on whether the separate Redis of batches answers."""
    try:
        ScriptRunner(container.redis_of_batches).ping()
    except StoreUnavailable as exc:
        remedy = explained(str(exc), _BATCHES, "see BATCH_REDIS_URL")
        yield Finding("batch redis", "failed", str(exc), remedy)
    else:
        yield Finding("batch redis", "ok", "answers")


def _clock(container: Container) -> Finding:
    window = clock_window(container.settings.bots.values())
    try:
        return judge_clock("redis clock", "Redis", container.runner.clock_skew(), window)
    except StoreUnavailable as exc:
        return Finding("redis clock", "warning", f"TIME fails: {exc}", "compare its clock with date -u yourself")


def _kind(container: Container) -> str:
    return parse_redis_url(container.settings.redis_address.get_secret_value()).kind


def _servers(client: redis.Redis, kind: str, files_max_bytes: int) -> Iterator[Finding]:
    """Judge the server, the Sentinel's master, or every primary of a Cluster. Equal findings are reported once."""
    try:
        with redis_errors():
            infos: list[Mapping[str, Any]] = [server.info() for server in servers(client)]
    except StoreUnavailable as exc:
        yield Finding("redis server", "warning", f"INFO fails: {exc}", "see its version and memory policy yourself")
        return
    judges = [
        lambda info: judge_version(str(info.get("redis_version", ""))),
        lambda info: judge_memory(str(info.get("maxmemory_policy", "")), int(info.get("maxmemory", 0))),
        judge_persistence,
    ]
    if kind in ("sentinel", "cluster"):
        judges.append(judge_replicas)
    yield from dict.fromkeys(judge(info) for judge in judges for info in infos)
    yield from judge_files(files_max_bytes, [int(info.get("maxmemory", 0)) for info in infos])


def judge_version(version: str) -> Finding:
    """Judge the server's version."""
    major = version.partition(".")[0]
    if not major.isdecimal():
        return Finding("redis version", "warning", "the server does not tell its version", f"use {OLDEST} or newer")
    if int(major) < OLDEST:
        return Finding("redis version", "failed", f"{version} is too old", f"use Redis {OLDEST} or newer")
    return Finding("redis version", "ok", version)


def judge_memory(policy: str, limit: int) -> Finding:
    """Judge the eviction policy. `limit` is maxmemory in bytes, 0 for none."""
    if limit and policy != "noeviction":
        text = f"maxmemory-policy {policy or 'unknown'}: a full Redis drops answers that are being written"
        return Finding("redis memory", "warning", text, "set maxmemory-policy noeviction")
    bound = f"{limit // 2**20} MiB" if limit else "no limit"
    return Finding("redis memory", "ok", f"{bound}, {policy or 'noeviction'}")


def judge_files(most: int, limits: Sequence[int]) -> Iterator[Finding]:
    """Yield a warning if `most` bytes of files may fill Redis; `limits` are the servers' maxmemory, 0 for none."""
    limit = sum(limits) if all(limits) else 0
    if limit and most * FILES_PART > limit:
        text = f"FILES_MAX_BYTES is {most >> 20} MiB of {limit >> 20} MiB: files may fill Redis"
        remedy = f"set FILES_MAX_BYTES to {limit // FILES_PART} or less, or raise maxmemory"
        yield Finding("redis files", "warning", text, remedy)


def judge_persistence(info: Mapping[str, Any]) -> Finding:
    """Judge from INFO whether data survives a restart of Redis."""
    if not int(info.get("aof_enabled", 0)):
        text = "no append-only file: a restart of Redis forgets conversations, tokens and finished answers"
        return Finding("redis persistence", "warning", text, "set appendonly yes")
    if info.get("aof_last_write_status", "ok") != "ok":
        return Finding("redis persistence", "failed", "the append-only file cannot be written", "make room on its disk")
    return Finding("redis persistence", "ok", "append-only file")


def judge_replicas(info: Mapping[str, Any]) -> Finding:
    """Judge from INFO whether a primary has a replica."""
    if int(info.get("connected_slaves", 0)):
        return Finding("redis replicas", "ok", "every primary has one")
    text = "a primary has no replica: when it is lost, nobody takes its place"
    return Finding("redis replicas", "warning", text, "give every primary a replica")


def _round_trip(container: Container) -> Finding:
    """Write a stream and read it back with the Lua scripts of answers, then delete it."""
    stream_id = f"doctor-{secrets.token_hex(8)}"
    try:
        container.streams.open(born_finished(stream_id, "doctor", {}, WORDS, error=False))
        snapshot = container.streams.read(stream_id)
    except StoreUnavailable as exc:
        return Finding("redis scripts", "failed", str(exc), explained(str(exc), _REFUSED, "see Redis's log"))
    finally:
        with suppress(StoreUnavailable):
            container.runner.run([Call(None, ("DEL", *stream_keys(stream_id)))])
    if snapshot is None or snapshot.text != WORDS:
        return Finding("redis scripts", "failed", "what was written did not come back", "use a Redis with Lua scripts")
    return Finding("redis scripts", "ok", "wrote a stream and read it back")
