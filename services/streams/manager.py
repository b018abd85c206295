"""The producers of this replica: a bounded number of threads, each of which turns one question into a stream."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from config.logging import log_fields
from config.texts import Texts
from services import metrics
from services.errors import StoreUnavailable
from services.models import Attempt, ProviderIds, Question
from services.redis.store import Call
from services.streams.access import person_of
from services.streams.answer_events import read_sources
from services.streams.flusher import Flusher
from services.streams.owned_stream import OwnedStream
from services.streams.producer import Answer, AnswerHandlers, Producer
from services.streams.records import NewStream, Snapshot, Write
from services.streams.store import StreamStore
from utils.deadline import Deadline
from utils.tracing import Trace, tracing

log = logging.getLogger(__name__)

#: Seconds that a producer waits for Redis to store its end; the flusher gives up a little earlier.
END_SECONDS = 30.0
#: Seconds that a leaving replica waits for Redis to store the released streams.
RELEASE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """How much one replica writes."""

    #: Streams at the same time.
    max_streams: int
    #: Bytes of UTF-8 of one stream's text.
    max_bytes: int


class StreamManager:
    """Starts producers, writes their streams, and ends them."""

    def __init__(
        self,
        store: StreamStore,
        writer: StreamStore,
        handlers: AnswerHandlers,
        *,
        texts: Texts,
        limits: StreamLimits,
        replica: str = "replica",
        log_content: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the stores; `writer` has a connection of its own, so that many readers do not delay a renewal."""
        self._store = store
        self._handlers = handlers
        self._texts = texts
        self._max_streams = limits.max_streams
        self._max_bytes = limits.max_bytes
        self._replica = replica
        self._log_content = log_content
        self._clock = clock
        self._flusher = Flusher(writer, clock=clock)
        self._slots = threading.Condition()
        self._taken = 0
        self.draining = False
        self._leaving = False

    def start(self) -> None:
        metrics.STREAMS_MAX.inc(self._max_streams)
        self._flusher.start()

    def new_owner(self) -> str:
        """Return an owner's name: the host, the process id, and a random part."""
        return f"{self.name}:{secrets.token_hex(4)}"

    @property
    def name(self) -> str:
        """The replica's name: the host and the process id."""
        return f"{self._replica}:{os.getpid()}"

    def reserve(self) -> str:
        """Reserve a slot for one more stream; return "", or the code of the error if there is none."""
        with self._slots:
            if self.draining:
                return "draining"
            if self._taken >= self._max_streams:
                return "replica_full"
            self._taken += 1
        metrics.STREAMS_RUNNING.inc()
        return ""

    def give_back(self) -> None:
        """Release a slot that was reserved."""
        with self._slots:
            self._taken -= 1
            self._slots.notify_all()
        metrics.STREAMS_RUNNING.dec()

    @property
    def running(self) -> int:
        return self._taken

    @property
    def capacity(self) -> int:
        """How many streams this replica writes at once."""
        return self._max_streams

    def produce(
        self,
        new: NewStream,
        question: Question,
        *,
        answer: Answer | None = None,
        waiting: bool = False,
        after: Sequence[Call] = (),
    ) -> None:
        """Answer the question in a new thread; the caller has reserved a slot.

        `answer` replaces the handlers' events for this question; `waiting` is true while earlier questions of
        the conversation come first; `after` is sent when the stream has ended.
        """
        stream = self._own(new, question, self._store.max_seconds)
        if waiting:
            stream.set(waiting="1")
        handlers = replace(self._handlers, events=answer) if answer else self._handlers
        producer = self._producer(stream, question, handlers)
        try:
            self.start_thread(self._run, stream, question.trace, producer, producer.run, after)
        except RuntimeError:
            producer.end("replica_full")
            raise

    def start_thread(self, work: Callable[..., None], *args: Any) -> None:
        """Run a producer's work in a new thread, in a reserved slot, which the work releases.

        Raises:
            RuntimeError: no thread can be started; the slot is still the caller's.
        """
        threading.Thread(target=work, args=args, name="producer", daemon=True).start()

    def resume(
        self,
        new: NewStream,
        question: Question,
        *,
        former_owner: str,
        seconds_left: float,
        ending: str | None = None,
        may_ask: bool = True,
        after: Sequence[Call] = (),
    ) -> None:
        """Continue a stream that was taken over, in the caller's thread; the caller has reserved a slot.

        With `ending` the stream only ends, with its text so far and the sentence of that code ("" for none). `may_ask`
        tells whether the provider may be asked again if its answer is lost.
        """
        attempt = replace(attempt_of(new), may_ask=may_ask, owner=former_owner)
        stream = self._own(new, question, seconds_left)
        producer = self._producer(stream, question, self._handlers, attempt)
        work = producer.run if ending is None else lambda: producer.end(ending)
        self._run(stream, question.trace, producer, work, after)

    def owned(self, stream_id: str) -> OwnedStream | None:
        """Return a stream that this replica writes, else None."""
        return self._flusher.owned(stream_id)

    def owns(self, stream_id: str) -> bool:
        """Tell whether this replica writes the stream."""
        return self._flusher.owned(stream_id) is not None

    def known(self, stream_id: str) -> Snapshot | None:
        """Return a stream from this replica's memory if it writes it, else None."""
        stream = self._flusher.owned(stream_id)
        return stream.known(self._store.lease) if stream else None

    def end_later(self, end: Write, after: Sequence[Call], opened: Sequence[Call] = ()) -> None:
        """End a stream that may have been opened although the reply was lost; send `after`, and `opened` if it was."""
        self._flusher.end_later(end, after, opened)

    def drain(self, seconds: float) -> None:
        """Reject new questions, let running ones finish for `seconds`, then release the rest to other replicas."""
        self.draining = True
        with self._slots:
            self._slots.wait_for(lambda: self._taken == 0, timeout=seconds)
        self._leaving = True
        for stream in self._flusher.streams():
            stream.release()
        with self._slots:
            self._slots.wait_for(lambda: self._taken == 0, timeout=RELEASE_SECONDS)

    def close(self) -> None:
        self._flusher.stop()

    def about(self, readers: str, question: Question) -> dict[str, str]:
        """Return the log fields of a stream beside its id; `readers` are the fingerprints of its readers."""
        person = self.person(question, lambda: person_of(readers))
        return {"bot": question.bot, "person": person, **question.trace.log_fields}

    def person(self, question: Question, fingerprint: Callable[[], str]) -> str:
        """Return the log's name of the user: the `fingerprint`, or the id itself under `LOG_CONTENT`."""
        return question.principal if self._log_content else fingerprint()

    def _own(self, new: NewStream, question: Question, seconds: float) -> OwnedStream:
        stream = OwnedStream(
            new,
            deadline=Deadline(seconds, clock=self._clock),
            changed=self._flusher.changed,
            max_bytes=self._max_bytes,
            about=self.about(new.fields.get("access", ""), question),
            clock=self._clock,
        )
        self._flusher.add(stream)
        if self._leaving:
            # It was being opened when all others were released.
            stream.release()
        return stream

    def _producer(
        self, stream: OwnedStream, question: Question, handlers: AnswerHandlers, attempt: Attempt | None = None
    ) -> Producer:
        return Producer(stream, question, handlers, texts=self._texts, attempt=attempt, log_content=self._log_content)

    def _run(
        self, stream: OwnedStream, trace: Trace, producer: Producer, work: Callable[[], str], after: Sequence[Call]
    ) -> None:
        with log_fields(**stream.about), tracing(trace):
            self._write(stream, producer, work, after)

    def _write(self, stream: OwnedStream, producer: Producer, work: Callable[[], str], after: Sequence[Call]) -> None:
        outcome = "answer_failed"
        try:
            outcome = work()
            stream.wait_closed(END_SECONDS)
            # It may have written its end before it learned that another owner has the stream.
            outcome = outcome if stream.closed in ("", "done") else stream.closed
            if stream.closed in ("done", "cancelled"):
                # In one step: the sweep does the same for a killed owner, as long as the index has the stream. There it
                # also finds a late message whose owner was killed.
                ended = () if stream.late else self._store.ended_calls([stream.stream_id])
                settled = self._handlers.settled(stream.stream_id, stream.field)
                self._store.write([], *after, *settled, *ended)
        except StoreUnavailable:
            log.warning("places not given back; they lapse", extra={"stream_id": stream.stream_id})
        except Exception:
            log.exception("producer failed", extra={"stream_id": stream.stream_id})
        finally:
            try:
                producer.report(outcome)
                producer.deliver()
            finally:
                self.give_back()


def attempt_of(stream: NewStream) -> Attempt:
    """Return what earlier owners did."""
    fields = stream.fields
    ids = ProviderIds(*(fields.get(name, "") for name in ("conversation_id", "message_id", "task_id", "run_id")))
    sources, resets = read_sources(fields.get("sources")), fields.get("resets", "")
    asked_at = float(fields.get("asked_at") or 0.0)
    speaker, form, app, quotas = (fields.get(name, "") for name in ("speaker", "form", "app", "quotas"))
    attempt = Attempt(int(fields["asks"]), ids, stream.text, sources, resets, asked_at=asked_at)
    return replace(attempt, speaker=speaker, form=form, app=app, quotas=quotas)


def is_whole(stream: NewStream) -> bool:
    """Tell whether an earlier owner marked the answer as complete, and all of its text is here."""
    noted = stream.fields.get("whole", "")
    return bool(noted) and noted == str(len(stream.text.encode()))
