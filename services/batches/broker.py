"""The messages of batches, on dramatiq: each says that a lane has work. Whoever gets it works the lane for a while.

A message may be lost or come twice: the sweep sends one for every free lane while there is work, and who finds the lane
taken drops his. So dramatiq is used for what it does well, waking one of many workers, and nothing rests on it.

Its Redis is ours: `_Client` has the one method dramatiq's broker uses of a client, and runs its scripts by our own
`ScriptRunner`, so a Cluster, Sentinels, bounded waits and one line per outage are the same as everywhere. The keys are
dramatiq's, all in one slot:

    {dramatiq}:batch, {dramatiq}:batch.msgs   list of message ids, hash of messages
    {dramatiq}:__acks__.<worker>.batch        set of the message ids a process has fetched and not acknowledged
    {dramatiq}:__heartbeats__                 sorted set of processes by their last sign of life, in milliseconds
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
#: Milliseconds of silence after which a process's messages are others', and how many commands in a million look.
HEARTBEAT_TIMEOUT = 10_000
MAINTENANCE_CHANCE = 50_000
#: Seconds between two looks for messages at the most, and until a thread notices that it is to end.
POLL = 0.5
#: Arguments Lua can surely unpack; dramatiq would ask Redis for it.
UNPACK = 2000

#: What comes back where Redis does not: nothing fetched; a message not acknowledged comes again, and is dropped.
_INSTEAD: dict[str, Any] = {"fetch": [], "ack": None, "nack": None, "requeue": None}


class _Client:
    """All that dramatiq's broker uses of a Redis client."""

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
            # Fetched twice, the first messages would be lost; enqueued twice, one would come twice.
            attempts = 1 if command in ("fetch", "enqueue") else 2
            reply = self._runner.run([Call(script, tuple(keys), tuple(args))], attempts=attempts)[0]
        except StoreUnavailable:
            if command not in _INSTEAD:
                raise
            return _INSTEAD[command]
        return [message.encode() for message in reply if message] if command == "fetch" else reply


class _Broker(RedisBroker):
    """Without the second queue, for delayed messages: there are none, and its consumer would ask all the time."""

    def declare_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)


class LaneMessages:
    """Sends the lanes' messages and, once started, has `step` called with the lane of each, in threads of its own."""

    def __init__(self, runner: ScriptRunner, step: Callable[[int], None], *, threads: int) -> None:
        """Take what works a lane for a while, and how many lanes may be worked here at once."""
        self._runner = runner
        self._threads = threads
        self._broker = _Broker(  # type: ignore[no-untyped-call]
            client=_Client(runner),
            # None of its own: no message is retried, delayed, or interrupted.
            middleware=[],
            namespace=NAMESPACE,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            maintenance_chance=MAINTENANCE_CHANCE,
        )
        self._lane = Actor(step, broker=self._broker, actor_name="lane", queue_name=QUEUE, priority=0, options={})
        self._worker: Worker | None = None

    def send(self, lane: int) -> None:
        """Have the lane worked by somebody.

        Raises:
            StoreUnavailable: Redis is away; the message may have been sent.
        """
        self._lane.send(lane)

    def waiting(self) -> int:
        """Return how many messages nobody has fetched yet; raises `StoreUnavailable`."""
        return int(self._runner.run([Call(None, ("LLEN", f"{NAMESPACE}:{QUEUE}"))])[0])

    def start(self) -> None:
        worker = Worker(self._broker, worker_timeout=int(POLL * 1000), worker_threads=self._threads)
        # More than are worked here would wait for this process while others are idle.
        worker.queue_prefetch = self._threads
        worker.start()
        self._worker = worker

    def share(self, lanes: int) -> None:
        """Work so many lanes here at the most, from the next message on."""
        for consumer in self._worker.consumers.values() if self._worker else ():
            consumer.prefetch = max(1, min(lanes, self._threads))
            if consumer.consumer is not None:
                consumer.consumer.prefetch = consumer.prefetch  # type: ignore[attr-defined]

    def leave(self) -> None:
        """Fetch no more messages; those that were are worked. Returns at once."""
        for consumer in self._worker.consumers.values() if self._worker else ():
            consumer.stop()

    def stop(self, seconds: float) -> None:
        """Wait so long for the lanes that are being worked, and send back the messages of those that are not."""
        if self._worker is None:
            return
        self._worker.stop(timeout=int(seconds * 1000))
        self._worker = None
        try:
            self._sign_off()
        except StoreUnavailable:
            log.debug("the broker learns by silence that this process has left")

    def _sign_off(self) -> None:
        """Take this process out of dramatiq's: for each that is silent it would look through all keys of the server."""
        acks = f"{NAMESPACE}:__acks__.{self._broker.broker_id}.{QUEUE}"
        if not self._runner.run([Call(None, ("EXISTS", acks))])[0]:
            self._runner.run([Call(None, ("ZREM", f"{NAMESPACE}:__heartbeats__"), (self._broker.broker_id,))])
