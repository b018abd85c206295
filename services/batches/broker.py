"""The messages of batches, on dramatiq: each says that a lane has work, and its receiver works on the lane for a while.

A message may be lost or come twice: the sweep sends one for every free lane while there is work, and a worker drops a
message whose lane is taken. So dramatiq only wakes one of many workers, and nothing depends on its delivery.

It uses our access to Redis: `_Client` has the one method that dramatiq's broker calls, and runs its scripts by our
`ScriptRunner`, so that Cluster, Sentinels, timeouts and one log line per outage are the same as everywhere. The keys
are dramatiq's, all in one slot:

    {dramatiq}:batch, {dramatiq}:batch.msgs   list of message ids, hash of messages
    {dramatiq}:__acks__.<worker>.batch        set of the message ids a process has fetched and not acknowledged
    {dramatiq}:__heartbeats__                 sorted set of processes by their last heartbeat, in milliseconds
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dramatiq import Actor, Worker
from dramatiq.brokers.redis import RedisBroker

from services.errors import StoreUnavailable
from services.redis.store import Call, Script, ScriptRunner

log = logging.getLogger(__name__)

NAMESPACE = "{dramatiq}"
QUEUE = "batch"
#: Milliseconds without a heartbeat after which other processes take a process's messages, and how many commands in a
#: million check for that.
HEARTBEAT_TIMEOUT = 10_000
MAINTENANCE_CHANCE = 50_000
#: Maximal seconds between two fetches, and until a thread notices that it must stop.
POLL = 0.5
#: Number of arguments that Lua can always unpack; dramatiq would ask Redis for it.
UNPACK = 2000

#: Replies during an outage: nothing fetched; an unacknowledged message comes again, and is dropped.
_INSTEAD: dict[str, Any] = {"fetch": [], "ack": None, "nack": None, "requeue": None}


class _Client:
    """The part of a Redis client that dramatiq's broker uses."""

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner

    def register_script(self, source: bytes) -> Callable[..., Any]:
        text = source.decode()
        return partial(self._run, Script("dramatiq", text, hashlib.sha1(source).hexdigest()))

    def _run(self, script: Script, *, keys: Sequence[str] = (), args: Sequence[Any] = ()) -> Any:
        if not keys:
            return UNPACK
        command = args[0]
        try:
            # A repeated fetch would lose the first messages, a repeated enqueue would send one twice.
            attempts = 1 if command in ("fetch", "enqueue") else 2
            reply = self._runner.run([Call(script, tuple(keys), tuple(args))], attempts=attempts)[0]
        except StoreUnavailable:
            if command not in _INSTEAD:
                raise
            return _INSTEAD[command]
        return [message.encode() for message in reply if message] if command == "fetch" else reply


class _Broker(RedisBroker):
    """A broker without the queue for delayed messages: there are none, but its consumer would poll Redis."""

    def declare_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)


class LaneMessages:
    """Sends the lanes' messages and, after `start`, calls `step` with the lane of each, in its own threads."""

    def __init__(self, runner: ScriptRunner, step: Callable[[int], None], *, threads: int, poll: float = POLL) -> None:
        """Take the function that works on a lane, the number of lanes worked on here at once, and `POLL`."""
        self._runner = runner
        self._threads = threads
        self._poll = poll
        self._broker = _Broker(  # type: ignore[no-untyped-call]
            client=_Client(runner),
            # No message is retried, delayed or interrupted, so no middleware is needed.
            middleware=[],
            namespace=NAMESPACE,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            maintenance_chance=MAINTENANCE_CHANCE,
        )
        self._lane = Actor(step, broker=self._broker, actor_name="lane", queue_name=QUEUE, priority=0, options={})
        self._worker: Worker | None = None

    def send(self, lane: int) -> None:
        """Send a message that the lane has work.

        Raises:
            StoreUnavailable: Redis is away; the message may have been sent.
        """
        self._lane.send(lane)

    def waiting(self) -> int:
        """Return the number of messages that were not fetched yet; raises `StoreUnavailable`."""
        return int(self._runner.run([Call(None, ("LLEN", f"{NAMESPACE}:{QUEUE}"))])[0])

    def start(self) -> None:
        worker = Worker(self._broker, worker_timeout=int(self._poll * 1000), worker_threads=self._threads)
        # More would wait in this process while others are idle.
        worker.queue_prefetch = self._threads
        worker.start()
        self._worker = worker

    def share(self, lanes: int) -> None:
        """Limit the lanes worked on here, from the next message on."""
        for consumer in self._worker.consumers.values() if self._worker else ():
            consumer.prefetch = max(1, min(lanes, self._threads))
            if consumer.consumer is not None:
                consumer.consumer.prefetch = consumer.prefetch  # type: ignore[attr-defined]

    def leave(self) -> None:
        """Stop fetching messages; fetched ones are still worked on. Returns at once."""
        for consumer in self._worker.consumers.values() if self._worker else ():
            consumer.stop()

    def stop(self, seconds: float) -> None:
        """Wait up to `seconds` for lanes in work, and send back the messages of the others."""
        if self._worker is None:
            return
        self._worker.stop(timeout=int(seconds * 1000))
        self._worker = None
        try:
            self._unregister()
        except StoreUnavailable:
            log.debug("the broker learns by silence that this process has left")

    def _unregister(self) -> None:
        """Remove this process from the heartbeats; for a silent one dramatiq would scan all keys of the server."""
        acks = f"{NAMESPACE}:__acks__.{self._broker.broker_id}.{QUEUE}"
        if not self._runner.run([Call(None, ("EXISTS", acks))])[0]:
            self._runner.run([Call(None, ("ZREM", f"{NAMESPACE}:__heartbeats__"), (self._broker.broker_id,))])
