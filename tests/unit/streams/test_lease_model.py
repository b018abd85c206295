"""A model check of leases, epochs and takeovers: any order of crashes, pauses, lost and late calls, and lost data.

The world is in `tests/support/streams/lease_world.py`. Each machine plays random events, checks the invariants after
each, and at its end lets the remaining replicas continue until the stream ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

import pytest
import redis
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.properties import examples
from tests.support.servers.processes import RedisServer
from tests.support.streams.lease_fence import GRACE, LEASE, State
from tests.support.streams.lease_replica import Attempt, Fate, Replica, Sent
from tests.support.streams.lease_world import REPLICAS, World

# Coverage would take longer than the runs themselves; other tests cover these lines too.
pytestmark = pytest.mark.no_cover

Rule = TypeVar("Rule", bound=Callable[..., Any])
TEXT = st.text("ab说😀", min_size=1, max_size=4)
PERHAPS = TEXT | st.just("")
FATE: st.SearchStrategy[Fate] = st.sampled_from(("ok", "ok", "ok", "lost", "unheard"))
STOP: st.SearchStrategy[Fate] = st.sampled_from(("ok", "under way", "arrived"))
SECONDS = st.sampled_from((0.5, LEASE / 3, GRACE, LEASE, LEASE + GRACE))
#: Points within a period, as shares of it.
MOMENTS = st.lists(st.floats(0.0, 1.0), max_size=5)
#: The keys of a stream that are lost.
LOST = st.sets(st.sampled_from(State._fields), min_size=1)
#: True in one draw of four, for the events that end most of a run: without it no run would get far.
SELDOM = st.integers(1, 4).map(lambda number: number == 4)
#: Seconds between two checks for the end of a stream.
TICK = 0.5


def one_of(name: str) -> st.SearchStrategy[Any]:
    """Draw one of the world's items of this kind, by the name of its attribute."""
    return st.runner().flatmap(lambda machine: st.sampled_from(getattr(machine.world, name)))


def some(name: str, count: int = 1) -> Callable[[Rule], Rule]:
    """Allow a rule only while the world has at least `count` items of a kind."""
    return precondition(lambda machine: len(getattr(machine.world, name)) >= count)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Keep the flusher's log lines out of a failure's report."""
    logging.getLogger("services").setLevel(logging.CRITICAL)


@pytest.fixture(scope="module")
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of a real Redis, which runs the scripts in half of fakeredis's time."""
    with redis_server.client(encoding_errors="ignore") as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def _set_client(client: redis.Redis) -> None:
    """Give the client to the machines that Hypothesis creates."""
    Leases.client = client


class Leases(RuleBasedStateMachine):
    """Replicas die, freeze and return; calls are lost, late or doubled; Redis keeps what it acknowledged."""

    client: ClassVar[redis.Redis]
    world: World

    @initialize(frame_seconds=st.sampled_from((None, 10.0)), sweeps=st.booleans())
    def opens(self, frame_seconds: float | None, sweeps: bool) -> None:
        self.world = World(self.client, frame_seconds)
        #: The check that finds a stream without an owner at the end of a run: the sweep's or a reader's.
        self.find = self.world.sweep if sweeps else self.world.look

    @some("talkers")
    @rule(replica=one_of("talkers"), pieces=st.lists(st.tuples(TEXT, FATE | st.none()), min_size=1, max_size=4))
    def emits(self, replica: Replica, pieces: list[tuple[str, Fate | None]]) -> None:
        """Emit a few pieces; text that is not written at once goes with the next."""
        for text, fate in pieces:
            self.world.emit(replica, text)
            if fate:
                self.world.flush(replica, fate)

    @some("talkers")
    @rule(replica=one_of("talkers"), text=PERHAPS, fate=FATE)
    def replaces(self, replica: Replica, text: str, fate: Fate) -> None:
        self.world.replace(replica, text)
        self.world.flush(replica, fate)

    @some("running")
    @rule(replica=one_of("running"), text=PERHAPS, fate=FATE, again=FATE)
    def flushes(self, replica: Replica, text: str, fate: Fate, again: Fate) -> None:
        self.world.emit(replica, text)
        self.world.flush(replica, fate, again)

    @some("owners")
    @rule(replica=one_of("owners"))
    def releases(self, replica: Replica) -> None:
        replica.owned.release()

    @some("owners")
    @rule(replica=one_of("owners"))
    def crashes(self, replica: Replica) -> None:
        self.world.crash(replica)

    @some("owners")
    @rule(replica=one_of("owners"), text=PERHAPS, fate=STOP)
    def pauses(self, replica: Replica, text: str, fate: Fate) -> None:
        self.world.emit(replica, text)
        self.world.pause(replica, fate)

    @some("paused")
    @rule(replica=one_of("paused"), heard=st.booleans())
    def resumes(self, replica: Replica, heard: bool) -> None:
        self.world.resume(replica, heard=heard)

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @some("takers")
    @rule(replica=one_of("takers"), fate=FATE, retries=st.booleans(), stalls=st.booleans())
    def tries_to_take_over(self, replica: Replica, fate: Fate, retries: bool, stalls: bool) -> None:
        self.world.attempt(replica, fate, retries=retries, stalls=stalls)

    @some("takers")
    @rule(replica=one_of("takers"), text=PERHAPS)
    def takes_over_after_silence(self, replica: Replica, text: str) -> None:
        self.world.take_over(replica)
        self.world.emit(replica, text)
        self.world.flush(replica)

    @some("owners")
    @some("takers")
    @rule(replica=one_of("owners"), other=one_of("takers"), seconds=SECONDS, text=PERHAPS)
    def renews_late(self, replica: Replica, other: Replica, seconds: float, text: str) -> None:
        self.world.pass_time(seconds)
        self.world.emit(replica, text)
        self.world.attempt(other)
        self.world.flush(replica)

    @rule(how=st.sampled_from(("poll", "look", "sweep")))
    def polls_reads_or_sweeps(self, how: str) -> None:
        getattr(self.world, how)()

    @some("sent")
    @rule(sent=one_of("sent"))
    def an_earlier_call_comes_again(self, sent: Sent) -> None:
        self.world.deliver_again(sent)

    @some("attempts")
    @rule(attempt=one_of("attempts"), once=SELDOM)
    def an_earlier_attempt_takes_it_over(self, attempt: Attempt, once: bool) -> None:
        if once:
            self.world.take_over_late(attempt)

    @some("takers", 2)
    @rule(once=SELDOM)
    def a_replaced_owners_attempt_takes_it_over(self, once: bool) -> None:
        """The returning owner has its old name and an old epoch."""
        first, second, *_ = self.world.takers
        if once and self.world.take_over(first):
            attempt = self.world.attempts[-1]
            self.world.take_over(second)
            self.world.take_over_late(attempt)
            self.world.flush(first)

    @some("talkers")
    @rule(replica=one_of("talkers"), sentence=st.sampled_from(("", "sorry")), fate=FATE, once=SELDOM)
    def finishes(self, replica: Replica, sentence: str, fate: Fate, once: bool) -> None:
        if once:
            self.world.finish(replica, sentence)
            self.world.flush(replica, fate)

    @some("owners")
    @rule(replica=one_of("owners"), once=SELDOM)
    def is_cut_off(self, replica: Replica, once: bool) -> None:
        if once:
            self.world.cut_off(replica)

    @rule(once=SELDOM)
    def the_reader_cancels(self, once: bool) -> None:
        if once:
            self.world.cancel()

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """Invariants 5 and 2: the stream ends soon, has all of its last owner's text, and keeps it after late calls."""
        if not hasattr(self, "world"):
            return
        world = self.world
        ends(world, self.find)
        final = world.state()
        if final.status in ("completed", "error") and not world.torn:
            assert final.is_whole
            assert final.text == world.said[world.fence.owner][-1]
        for replica in world.paused:
            world.resume(replica, heard=True)
            if replica.stream:
                world.flush(replica)
        for sent in world.sent:
            world.deliver_again(sent)
        if final.hash:
            assert world.state() == final
        else:
            # A late call has created a stream again that Redis had lost.
            ends(world, self.world.look)


class LeasesOnAForgetfulRedis(Leases):
    """Also, Redis loses acknowledged writes: all of them, the last ones, or single keys."""

    @rule(steps=st.integers(1, 6), once=SELDOM)
    def goes_back(self, steps: int, once: bool) -> None:
        """A failover or a power cut: Redis has the state of some steps ago."""
        if once:
            self.world.lose(self.world.history[-steps:][0])

    @rule(lost=LOST, once=SELDOM)
    def loses(self, lost: set[str], once: bool) -> None:
        """An eviction, or a Redis that restarts empty."""
        if once:
            self.world.lose_parts(lost)

    @some("talkers")
    @rule(replica=one_of("talkers"), lost=LOST, text=PERHAPS, ends=st.booleans())
    def loses_text_of_a_running_owner(self, replica: Replica, lost: set[str], text: str, ends: bool) -> None:
        """The owner continues, and its next write restores all text."""
        self.world.lose_parts(lost)
        self.world.emit(replica, text)
        if ends:
            self.world.finish(replica, "sorry")
        self.world.pass_time(LEASE / 3)
        self.world.flush(replica)
        assert self.world.state().hash, "the owner did not restore its stream"

    @some("talkers")
    @some("takers")
    @rule(replica=one_of("talkers"), other=one_of("takers"), lost=LOST, text=TEXT)
    def loses_text_of_a_killed_owner(self, replica: Replica, other: Replica, lost: set[str], text: str) -> None:
        """The owner is killed before it restores the text; the next owner begins with what is left."""
        self.world.replace(replica, text)
        self.world.flush(replica)
        self.world.crash(replica)
        self.world.lose_parts(lost)
        self.world.take_over(other)
        self.world.emit(other, text)
        self.world.flush(other)

    @some("talkers")
    @rule(replica=one_of("talkers"), text=TEXT)
    def loses_an_owners_last_write(self, replica: Replica, text: str) -> None:
        """A failover while the owner continues."""
        before = self.world.state()
        self.world.emit(replica, text)
        self.world.flush(replica)
        self.world.lose(before)
        self.world.emit(replica, text)
        self.world.flush(replica)

    @some("takers", 2)
    @rule()
    def forgets_a_takeover(self) -> None:
        """A failover, after which the next owner gets an epoch that Redis lost."""
        first, second, *_ = self.world.takers
        before = self.world.state()
        if self.world.take_over(first):
            self.world.lose(before)
            self.world.take_over(second)


def ends(world: World, find: Callable[[], None]) -> None:
    """Let running replicas finish and idle ones look for the stream until it ends, within lease and two graces."""
    if len(world.paused) == REPLICAS:
        world.resume(world.paused[0], heard=False)
    left = LEASE + 2 * GRACE
    while (status := world.state().status) == "processing":
        assert left > 0, "the stream has no end"
        for replica in world.owners:
            world.finish(replica)
        for replica in world.running:
            world.flush(replica)
        find()
        world.check()
        world.pass_time(TICK)
        left -= TICK
    assert status or world.lossy
    world.poll()


#: The same runs every time, and a short report of one failure.
MODEL = settings(
    max_examples=examples(150),
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
# Seconds, including Hypothesis's shrinking of a failed run.
TestLeases = pytest.mark.timeout(400)(Leases.TestCase)
TestLeases.settings = MODEL
TestLeasesOnAForgetfulRedis = pytest.mark.timeout(400)(LeasesOnAForgetfulRedis.TestCase)
TestLeasesOnAForgetfulRedis.settings = MODEL


@settings(max_examples=examples(100), derandomize=True)
@given(st.lists(MOMENTS, max_size=10))
def test_an_owner_whose_writes_succeed_keeps_its_stream(client: redis.Redis, attempts: list[list[float]]) -> None:
    """An owner that writes within each lease keeps its stream against every attempt to take it over."""
    world = World(client)
    (replica,) = world.owners

    for tried in attempts:
        at(world, [share * (LEASE - 0.001) for share in tried], LEASE - 0.001)
        world.flush(replica)

    assert world.fence.owners == [replica.owned.owner]


@settings(max_examples=examples(100), derandomize=True)
@given(st.lists(st.tuples(st.floats(LEASE, 3 * LEASE), st.floats(0.0, GRACE - 0.001), MOMENTS), max_size=6))
def test_an_outage_of_redis_costs_no_living_owner_its_stream(
    client: redis.Redis, outages: list[tuple[float, float, list[float]]]
) -> None:
    """After any outage, the owner's renewal clears the suspicion before it is old enough for a takeover."""
    world = World(client)
    (replica,) = world.owners

    for seconds, late, tried in outages:
        world.pass_time(seconds)
        at(world, [share * late for share in tried], late)
        world.flush(replica)

    assert world.fence.owners == [replica.owned.owner]


def at(world: World, moments: list[float], until: float) -> None:
    """Try a takeover at each of these seconds from now; return when `until` seconds have passed."""
    passed = 0.0
    for moment in sorted(moments):
        world.pass_time(moment - passed)
        passed = moment
        world.attempt(world.takers[0])
    world.pass_time(until - passed)
