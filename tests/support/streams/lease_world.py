"""The environment of the lease model: one stream, three replicas, connections that lose calls, and the possible events.

All calls go through the product's own store, flusher and `OwnedStream`; the replies are compared with the model in
`tests/support/streams/lease_fence.py`. The clock belongs to the model, and no thread runs, so the order is fixed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import redis

from services.answers.takeover import MAX_TAKEOVERS
from services.errors import AnswerError, StoreUnavailable, StreamClosed
from services.redis.store import Call, ScriptRunner
from services.streams.owned_stream import OUTAGE_SECONDS, OwnedStream
from services.streams.records import Appended, NewStream, Snapshot, Takeover, Write, taken_stream
from services.streams.store import StreamStore, stream_keys
from tests.support.streams.lease_fence import GRACE, LEASE, Fence, State
from tests.support.streams.lease_replica import Attempt, Fate, Opened, Replica, Sent, Stopped
from utils.deadline import Deadline

ID = "s"
KEYS = stream_keys(ID)
REPLICAS = 3


class World:
    """One stream on three replicas. The methods are the events; `check` tests the invariants after each."""

    def __init__(self, client: redis.Redis, frame_seconds: float | None = None) -> None:
        """Take a client of a Redis that only this model uses; its database is emptied."""
        client.flushdb()
        self.redis = client
        self.runner = ScriptRunner(self.redis)
        self.store = StreamStore(self.runner, lease=LEASE)
        self.fence = Fence()
        self.sent: list[Sent] = []
        #: The texts of each owner that was ever created: a delayed write may end the stream after its owner is gone.
        self.said: dict[str, list[str]] = {}
        self.seen: Snapshot | None = None
        self.history = [State()]
        #: Whether Redis lost acknowledged writes; `torn`: no owner has written since.
        self.lossy = self.torn = False
        self.time = 0.0
        self.replicas: list[Replica] = []
        self.replicas += [Replica(self, number) for number in range(REPLICAS)]
        self.pass_time(1000.0)
        self._named = 0
        self._begin(NewStream(ID, self._new_owner(), {"status": "processing"}, frame_seconds=frame_seconds))

    def pass_time(self, seconds: float) -> None:
        self.time = round(self.time + seconds, 3)
        for store in (self.store, *(replica.connection for replica in self.replicas)):
            store.now = f"{self.time:.3f}"

    @property
    def running(self) -> list[Replica]:
        return [replica for replica in self.replicas if not replica.paused]

    @property
    def owners(self) -> list[Replica]:
        """The running replicas that believe to own the stream."""
        return [replica for replica in self.running if replica.stream]

    @property
    def talkers(self) -> list[Replica]:
        """The owners whose provider has not ended."""
        return [replica for replica in self.owners if not replica.finished]

    @property
    def paused(self) -> list[Replica]:
        return [replica for replica in self.replicas if replica.paused]

    @property
    def takers(self) -> list[Replica]:
        """The replicas that may take the stream over."""
        return [replica for replica in self.replicas if replica.stream is None]

    @property
    def attempts(self) -> list[Attempt]:
        return [sent for sent in self.sent if isinstance(sent, Attempt)]

    # The events of an owner.

    def emit(self, replica: Replica, text: str) -> None:
        """Emit a delta, unless the replica owns no running stream or `text` is empty."""
        if replica not in self.talkers or not text:
            return
        try:
            replica.owned.emit(text)
            replica.versions[-1] += text
        except StreamClosed:
            pass
        except StoreUnavailable:
            # The stream has taken the text all the same.
            replica.versions[-1] += text
            self.finish(replica, "interrupted")

    def replace(self, replica: Replica, text: str) -> None:
        try:
            replica.owned.replace(text)
            replica.versions.append(text)
        except (StreamClosed, StoreUnavailable, AnswerError):
            replica.versions.append(replica.owned.text)
            self.finish(replica, "interrupted")

    def finish(self, replica: Replica, sentence: str = "") -> None:
        replica.finished = True
        replica.owned.finish("error" if sentence else "completed", sentence=sentence)

    def flush(self, replica: Replica, *fates: Fate) -> None:
        """Flush what is pending; the first fate is the write's, the second that of creating the stream again."""
        replica.connection.fates = list(fates)
        with suppress(StoreUnavailable):
            replica.flusher._flush()
        replica.connection.fates = []
        self._look_after(replica)

    def cut_off(self, replica: Replica) -> None:
        """Keep an owner from Redis for longer than `OUTAGE_SECONDS`."""
        self.pass_time(LEASE / 3)
        self.flush(replica, "lost")
        self.pass_time(OUTAGE_SECONDS + 1)
        if replica.stream:
            self.finish(replica, "interrupted")
        self.flush(replica, "lost")

    def pause(self, replica: Replica, fate: Fate) -> None:
        """Pause a replica, with its write in the state that `fate` says."""
        replica.paused = True
        replica.connection.stopped = None
        try:
            self.flush(replica, fate)
        except Stopped:
            return
        replica.connection.stopped = None
        replica.paused = replica.stream is not None

    def resume(self, replica: Replica, *, heard: bool) -> None:
        """Let it run on: it receives the reply that arrived meanwhile if `heard`, otherwise its call times out."""
        replica.paused = False
        stopped, replica.connection.stopped = replica.connection.stopped, None
        if heard and stopped and stopped[1] is not None:
            replica.flusher._after(replica.owned, *stopped)
        else:
            replica.flusher._failed(replica.owned)
        self._look_after(replica)

    def crash(self, replica: Replica) -> None:
        """Kill a replica; a new process without any state takes its place."""
        self.replicas[replica.number] = Replica(self, replica.number)
        self.pass_time(0.0)

    # The events of other processes.

    def attempt(self, replica: Replica, fate: Fate = "ok", *, retries: bool = False, stalls: bool = False) -> bool:
        """Try to take the stream over. Return whether it was taken.

        With `retries` a call whose reply was lost is sent again. With `stalls` other replicas take the stream over
        before this one has loaded it.
        """
        name = self._new_owner()
        self.sent.append(Attempt(name))
        taken = None if fate == "lost" else self._try(name)
        if fate == "unheard":
            taken = self._try(name) if retries else None
        if taken is None or taken.outcome != "taken":
            return False
        if stalls:
            self.pass_time(LEASE)
            for other in [other for other in self.takers if other is not replica]:
                self.attempt(other)
                self.pass_time(GRACE)
        return self._go_on(replica, name, taken)

    def take_over(self, replica: Replica) -> bool:
        """Let a replica take the stream over once its lease has lapsed; return whether it did."""
        self.pass_time(LEASE)
        self.attempt(replica)
        self.pass_time(GRACE)
        return self.attempt(replica)

    def take_over_late(self, attempt: Attempt) -> None:
        """Deliver a takeover call whose caller no longer waits: its owner never ran, or was replaced since."""
        for seconds in (LEASE, GRACE):
            self.pass_time(seconds)
            self._try(attempt.owner)

    def look(self) -> None:
        """Poll on every replica; one that finds the lease lapsed tries to take the stream over."""
        for replica in self.takers:
            self.poll()
            if self.seen and self.seen.lapsed:
                self.attempt(replica)

    def sweep(self) -> None:
        """Search for lapsed streams on every replica, as the sweep does."""
        if ID in self.store.lapsed():
            for replica in self.takers:
                self.attempt(replica)

    def cancel(self) -> None:
        status = self.state().status
        assert self.store.cancel(ID) == status

    def deliver_again(self, sent: Sent) -> None:
        match sent:
            case Write():
                self.deliver(sent)
            case NewStream():
                self.deliver_anew(sent)
            case Attempt():
                self._try(sent.owner)

    def deliver(self, write: Write, *others: Call) -> Any:
        """Deliver a write and compare its effect with the model; return the reply."""
        before = self.state()
        (reply,) = self.store.write([write], *others)
        assert isinstance(reply, Appended)
        after = self.state()
        if not before.hash:
            assert (reply.outcome, after) == ("gone", before)
        elif not self.fence.admits(write.epoch, write.owner):
            assert (reply.outcome, after) == ("refused", before), "a stale owner wrote"
        elif before.status != "processing":
            assert (reply.outcome in ("closed", "ok"), after) == (True, before), "a stream was written after its end"
        elif reply.outcome == "gap":
            assert self.lossy, "Redis lacks what it acknowledged"
        else:
            assert reply.outcome == "ok"
            self.fence.renews(write, self.time)
            self.torn = False
        return reply

    def deliver_anew(self, whole: NewStream) -> Opened:
        """Deliver the creation of a lost stream by its owner: where the stream exists, nothing changes."""
        # The reply has a snapshot, which is stored if the frame's deadline has passed: read once before comparing.
        self.store.read(ID)
        before = self.state()
        reply = self.store.open(whole)
        if before.hash:
            assert self.state() == before, "a stream that is there was created again"
        else:
            self.fence.recall(self.state())
            self.torn = False
        return reply

    def poll(self) -> None:
        """Read twice as a reader does: the text follows from the state, and is no shorter than before."""
        state, seen = self.state(), self.seen
        snapshot = self.seen = self.store.read(ID)
        assert self.store.read(ID) == snapshot, "a repeated poll shows something else"
        if snapshot is None:
            assert not state.hash
            return
        over = float(state.hash.get("frame_deadline", "inf")) <= self.time and state.status == "processing"
        shown = state.hash.get("shown")
        assert snapshot.text == (state.text if shown is None else shown)
        assert snapshot.frame_over == (over or shown is not None)
        assert (snapshot.status, snapshot.size) == (state.status, len(state.text.encode()))
        if seen and not self.lossy:
            assert not seen.frame_over or snapshot.text == seen.text, "the end of a frame changed"
            assert seen.start != snapshot.start or snapshot.text.startswith(seen.text), "a poll went backwards"

    def lose(self, after: State) -> None:
        """Let Redis restart with the state `after`, without writes it had acknowledged."""
        self.redis.delete(*KEYS)
        if after.hash:
            self.redis.hset(KEYS.hash, items=[part for pair in after.hash.items() for part in pair])
            self.redis.pexpire(KEYS.hash, 1_800_000)
        if after.messages:
            self.redis.rpush(KEYS.messages, *after.messages)
        if after.text:
            self.redis.set(KEYS.text, after.text)
        self.fence.recall(after)
        self.lossy = self.torn = True

    def lose_parts(self, lost: set[str]) -> None:
        state = self.state()
        self.lose(State(**{name: getattr(state, name) for name in State._fields if name not in lost}))

    # The invariants.

    def check(self) -> None:
        """Check invariants 1, 2 and 4 on the state in Redis, and on its difference from the state before."""
        state, before = self.state(), self.history[-1]
        self.history.append(state)
        if self.torn or not state.hash:
            return
        assert state.joined == state.text, "list and text differ"
        versions = self.said[self.fence.owner]
        assert any(version.startswith(state.text) for version in versions), "the owner never said that"
        if not self.lossy:
            assert self.fence.admits(int(state.hash["epoch"]), state.hash["owner"])
            assert state.start >= before.start
            assert state.start > before.start or state.text.startswith(before.text), "the text went backwards"
            assert before.status in ("", "processing") or state == before, "an ended stream changed"

    def state(self) -> State:
        with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(KEYS.hash)
            pipeline.lrange(KEYS.messages, 0, -1)
            pipeline.get(KEYS.text)
            fields, messages, text = pipeline.execute()
        fields.pop("read", None)
        return State(fields, tuple(messages), text or "")

    def _begin(self, new: NewStream) -> None:
        created, _, _ = self.store.open(new, *self.store.running_calls([ID]))
        assert created
        self.fence.begins(new.owner, self.time)
        self._own(self.replicas[0], new)

    def _new_owner(self) -> str:
        self._named += 1
        return f"owner {self._named}"

    def _own(self, replica: Replica, new: NewStream) -> None:
        stream = replica.stream = OwnedStream(
            new,
            deadline=Deadline(1_000_000.0, clock=lambda: self.time),
            changed=replica.flusher.changed,
            max_bytes=100_000,
            clock=lambda: self.time,
        )
        replica.flusher.add(stream)
        replica.finished = False
        replica.versions = self.said[new.owner] = [stream.text]

    def _try(self, name: str) -> Takeover:
        state = self.state()
        taken = self.store.takeover(ID, name)
        if state.status != "processing":
            assert taken.outcome == ("ended" if state.hash else "gone")
            return taken
        former = self.fence.owner
        expected = self.fence.tries(name, self.time)
        assert taken.outcome == expected, f"{taken.outcome}, but {expected} by lease and suspicion"
        if expected == "taken":
            assert (taken.epoch, taken.takeovers) == (self.fence.epoch, self.fence.takeovers)
            if former != name:
                assert taken.former_owner == former
                self.said[name] = [state.text]
        return taken

    def _go_on(self, replica: Replica, name: str, taken: Takeover) -> bool:
        fields, chunks = self.store.load(ID)
        if not fields:
            return False
        self._own(replica, taken_stream(ID, name, taken, fields, chunks, self.store.max_seconds))
        if taken.takeovers > MAX_TAKEOVERS:
            self.finish(replica, "interrupted")
        return True

    def _look_after(self, replica: Replica) -> None:
        """Let a replica drop a stream that was closed."""
        stream = replica.stream
        if stream is None or not stream.closed:
            return
        replica.stream = None
        if stream.closed in ("done", "cancelled"):
            self.store.write([], *self.store.ended_calls([ID]))
        if stream.closed == "fenced":
            assert self.lossy or not self.fence.admits(stream.epoch, stream.owner), "the present owner was refused"
