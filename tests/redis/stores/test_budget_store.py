"""The bytes of files in Redis have a budget for each caller and for all of them, which files leave when they end."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import redis

from services.attachments import MediaFile
from services.errors import AnswerError
from services.files.answer_store import FileStore, Owner, StoredFile
from services.files.budget_store import LEAST_BYTES, FileBudget
from services.files.sent_store import SentFileStore
from services.redis.store import ScriptRunner, connect
from services.streams.records import NewStream
from services.streams.store import StreamStore
from tests.support.files import PLENTY, budget_of

MIB = 1024 * 1024
NOW = 1_700_000_000.0
KEYS = ("{dify_files}:ends", "{dify_files}:bytes")


def at(runner: ScriptRunner, seconds: float, per_caller: int = 3 * MIB, total: int = 5 * MIB) -> FileBudget:
    """Return the budget of 3 MiB for each caller and 5 MiB for all, `seconds` after the test began."""
    return budget_of(runner, per_caller, total, now=str(NOW + seconds))


def refusal(budget: FileBudget, caller: str, sizes: Mapping[str, int], seconds: float = 100.0) -> str:
    """Count files; return the error code, "" if they were counted."""
    try:
        budget.count(caller, sizes, seconds=seconds)
    except AnswerError as exc:
        return exc.code
    return ""


@pytest.mark.every_redis
def test_a_caller_and_all_callers_have_so_many_bytes(runner: ScriptRunner) -> None:
    """Over all replicas. A refused file is not counted, so a smaller one may still fit."""
    here, there = at(runner, 0.0), at(runner, 0.0)

    assert [refusal(here, "key:a", {"1": 2 * MIB}), refusal(there, "key:a", {"2": 2 * MIB})] == ["", "files_full"]
    assert [refusal(there, "key:a", {"3": MIB}), refusal(here, "key:a", {"4": 1})] == ["", "files_full"]
    assert [refusal(here, "key:b", {"5": 2 * MIB}), refusal(here, "key:c", {"6": 1})] == ["", "files_store_full"]
    assert here.used() == there.used() == 5 * MIB


def test_the_files_of_one_question_are_counted_together(runner: ScriptRunner) -> None:
    """All of them or none."""
    budget = at(runner, 0.0)

    assert refusal(budget, "key:a", {"1": 2 * MIB, "2": 2 * MIB}) == "files_full"
    assert (budget.used(), refusal(budget, "key:a", {"1": MIB, "2": 2 * MIB}), budget.used()) == (0, "", 3 * MIB)


def test_a_count_that_is_repeated_changes_nothing(runner: ScriptRunner) -> None:
    """A lost reply of Redis repeats it; the next owner of an answer stores a file again, of another size perhaps."""
    budget = at(runner, 0.0)

    for size in (2 * MIB, 2 * MIB, 3 * MIB, MIB):
        assert refusal(budget, "key:a", {"1": size}) == ""
        assert budget.used() == size


def test_a_file_counts_until_its_end(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """No sweep has to run for that; when the last one is over, Redis drops the keys by itself."""
    refusal(at(runner, 0.0), "key:a", {"1": 2 * MIB}, seconds=100.0)
    refusal(at(runner, 50.0), "key:a", {"2": MIB}, seconds=100.0)

    assert [0 < redis_client.ttl(key) <= 100 for key in KEYS] == [True, True]
    assert refusal(at(runner, 99.0), "key:a", {"3": 1}) == "files_full"
    assert refusal(at(runner, 100.0), "key:a", {"3": 2 * MIB}) == ""
    assert [at(runner, seconds).used() for seconds in (100.0, 150.0, 200.0)] == [3 * MIB, 2 * MIB, 0]


@pytest.mark.every_redis
def test_a_file_that_was_removed_does_not_count(runner: ScriptRunner) -> None:
    """One that is unknown, or was removed before, changes nothing."""
    budget = at(runner, 0.0)
    refusal(budget, "key:a", {"1": MIB, "2": 2 * MIB})

    for _ in range(2):
        budget.remove(["1", "unknown"])

    assert (budget.used(), refusal(budget, "key:a", {"3": MIB})) == (2 * MIB, "")


@pytest.mark.every_redis
def test_a_file_that_lives_longer_counts_longer(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """And so do the keys; a file that does not count any more is not counted again."""
    refusal(at(runner, 0.0), "key:a", {"1": MIB, "2": MIB}, seconds=100.0)
    at(runner, 0.0).remove(["2"])

    runner.run([at(runner, 50.0).prolong_call(["1", "2"], seconds=1000.0)])

    assert [900 < redis_client.ttl(key) <= 1000 for key in KEYS] == [True, True]
    assert [at(runner, seconds).used() for seconds in (1049.0, 1050.0)] == [MIB, 0]


def test_small_files_are_bounded_too(runner: ScriptRunner) -> None:
    """Each has a cost of its own in Redis."""
    budget = at(runner, 0.0)

    assert refusal(budget, "key:a", {str(number): 1 for number in range(10)}) == ""
    assert budget.used() == 10 * LEAST_BYTES


def test_any_number_of_files_that_are_over_makes_room(runner: ScriptRunner) -> None:
    """Each count drops as many as it needs, a bounded number beyond that."""
    count = 1200
    full = count * LEAST_BYTES
    assert refusal(at(runner, 0.0, full, full), "key:a", {str(number): 1 for number in range(count)}) == ""

    assert refusal(at(runner, 99.0, full, full), "key:a", {"new": 1}) == "files_full"
    assert refusal(at(runner, 100.0, full, full), "key:a", {"new": full}) == ""
    assert at(runner, 100.0).used() == full


@pytest.mark.parametrize("lost", KEYS)
def test_a_redis_that_evicts_keys_blocks_no_caller(runner: ScriptRunner, redis_client: redis.Redis, lost: str) -> None:
    """What is lost is not counted any more, and no sum stays without its files."""
    refusal(at(runner, 0.0), "key:a", {"1": 3 * MIB})
    redis_client.delete(lost)

    assert refusal(at(runner, 1.0), "key:a", {"2": 3 * MIB}) == ""
    assert [at(runner, seconds).used() for seconds in (1.0, 101.0)] == [3 * MIB, 0]


def test_redis_has_no_callers_name(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """It is hashed."""
    refusal(budget_of(runner, PLENTY, PLENTY), "user:zhangsan", {"1": 1})

    assert "zhangsan" not in str(redis_client.hgetall(KEYS[1]))


def test_files_take_two_thirds_more_memory_than_their_bytes_at_most(redis_url: str) -> None:
    """Base64 takes a third; uploads of several slices take next to nothing more, whichever allocator Redis has."""
    size, owner = MIB + MIB // 64, Owner("s0", 1, "a")
    client = connect(redis_url, pool_size=1, timeout=30.0)
    runner = ScriptRunner(client)
    fields = {"status": "processing", "access": "tag"}
    StreamStore(runner, lease=6.0).open(NewStream(owner.stream_id, owner.owner, fields))

    sent = SentFileStore(runner, {"default": b"k" * 32}, budget_of(runner), ttl=100)
    name = sent.upload("key:1", MediaFile("a.pdf", "document", "application/pdf", bytes(size)))
    assert FileStore(runner).put(owner, StoredFile("f0", size=size), bytes(size))

    keys = (f"dify_media:{name}", "{dify_stream:s0}:file:f0")
    upload, answer = (client.memory_usage(key, samples=0) or 0 for key in keys)
    client.close()
    assert size < upload < 1.4 * size
    assert size < answer < 5 / 3 * size
