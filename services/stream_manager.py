"""The producers of this replica: a bounded number of threads that each turn one question into one finished stream."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from services.answer import LEAVING, AnswerEvent, Waiting
from services.errors import AnswerError, AuthError, StoreUnavailable, StreamClosed
from services.flusher import Flusher
from services.models import Delta, Identity, ProviderIds, Question, Replacement, Usage
from services.owned_stream import OwnedStream
from services.redis_store import Call
from services.stream_records import NewStream, Snapshot, Write
from services.stream_store import StreamStore
from utils.deadline import Deadline

log = logging.getLogger(__name__)

Answer = Callable[[Question, str, Deadline], Iterator[AnswerEvent]]
#: Seconds a producer waits for Redis to take its end; the flusher gives up a little earlier.
END_SECONDS = 30.0


class StreamManager:
    """Starts producers, writes what they say, and ends them."""

    def __init__(
        self,
        store: StreamStore,
        answer: Answer,
        *,
        sentence: Callable[[str], str],
        max_streams: int,
        max_bytes: int,
        log_content: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._answer = answer
        self._sentence = sentence
        self._max_streams = max_streams
        self._max_bytes = max_bytes
        self._log_content = log_content
        self._clock = clock
        self._flusher = Flusher(store, clock=clock)
        self._places = threading.Condition()
        self._taken = 0
        self.draining = False

    def start(self) -> None:
        self._flusher.start()

    def reserve(self) -> str:
        """Take a place for one more stream; return "" or the code of why there is none."""
        with self._places:
            if self.draining:
                return "draining"
            if self._taken >= self._max_streams:
                return "replica_full"
            self._taken += 1
            return ""

    def give_back(self) -> None:
        """Return a place that was reserved and not used."""
        with self._places:
            self._taken -= 1
            self._places.notify_all()

    @property
    def running(self) -> int:
        return self._taken

    def produce(self, new: NewStream, question: Question, *, waiting: bool = False, after: Sequence[Call] = ()) -> None:
        """Answer the question in a thread of its own; the place must have been reserved.

        `waiting` tells that the conversation's earlier questions come first; `after` is sent when the stream has ended.
        """
        stream = self._own(new)
        if waiting:
            stream.set(waiting="1")
        try:
            threading.Thread(target=self._produce, args=(stream, question, after), name="producer", daemon=True).start()
        except RuntimeError:
            stream.finish("error", error_code="replica_full", sentence=self._sentence("replica_full"))
            raise

    def known(self, stream_id: str) -> Snapshot | None:
        """Return a stream as this replica knows it without Redis, if it writes it; None of any other."""
        stream = self._flusher.owned(stream_id)
        return stream.snapshot if stream else None

    def reap(self, stream_id: str, owner: str) -> str:
        """End a stream whose owner is gone, with what it said and a sentence; return its question if it ended here.

        The first call marks the stream; one that comes after lease / 3 + 1 s finds it ripe.
        """
        if self._flusher.owned(stream_id):
            # Its owner is here and renews it, or is refused, as soon as writes pass again.
            return ""
        taken = self._store.takeover(stream_id, owner)
        if taken.outcome != "taken":
            return ""
        fields, chunks = self._store.load(stream_id)
        stream = self._own(NewStream(stream_id, owner, fields, chunks, epoch=taken.epoch, start=taken.start))
        stream.finish("error", error_code="interrupted", sentence=self._sentence("interrupted"))
        log.warning(
            "stream ended after its owner", extra={"stream_id": stream_id, "owner": owner, "epoch": taken.epoch}
        )
        stream.wait_closed(1.0)
        return taken.question

    def make_amends(self, end: Write, after: Sequence[Call]) -> None:
        """End a stream later that may have been opened although Redis's reply was lost, and what it holds."""
        self._flusher.later(end, after)

    def drain(self, seconds: float) -> None:
        """Take no more questions, let the running ones finish, then release what is left."""
        self.draining = True
        with self._places:
            self._places.wait_for(lambda: self._taken == 0, timeout=seconds)
        for stream in self._flusher.streams():
            stream.release()
        with self._places:
            self._places.wait_for(lambda: self._taken == 0, timeout=2.0)

    def close(self) -> None:
        self._flusher.stop()

    def _own(self, new: NewStream) -> OwnedStream:
        stream = OwnedStream(
            new,
            deadline=Deadline(self._store.max_seconds, clock=self._clock),
            changed=self._flusher.changed,
            max_bytes=self._max_bytes,
            clock=self._clock,
        )
        self._flusher.add(stream)
        return stream

    def _produce(self, stream: OwnedStream, question: Question, after: Sequence[Call]) -> None:
        began = self._clock()
        code = "answer_failed"
        try:
            code = self._say(stream, question)
            stream.wait_closed(END_SECONDS)
            if after and stream.closed not in LEAVING:
                self._store.write([], *after)
        except StoreUnavailable:
            log.warning("places not given back; they lapse", extra={"stream_id": stream.stream_id})
        except Exception:
            log.exception("producer failed", extra={"stream_id": stream.stream_id})
        finally:
            self.give_back()
            ms = round((self._clock() - began) * 1000)
            ids = {"stream_id": stream.stream_id, "channel": question.channel, "bot": question.bot}
            log.info("stream", extra={**ids, "outcome": code or "completed", "ms": ms, **stream.figures})

    def _say(self, stream: OwnedStream, question: Question) -> str:
        """Write the whole answer, whatever happens; return the error's code, "" for none."""
        code = ""
        events = self._answer(question, stream.stream_id, stream.deadline)
        try:
            for event in events:
                self._take(stream, event)
        except StreamClosed as exc:
            return str(exc)
        except AnswerError as exc:
            code = self._code(stream, exc)
        except StoreUnavailable as exc:
            code = exc.code
        except Exception:
            log.exception("answer failed", extra={"stream_id": stream.stream_id})
            code = "answer_failed"
        finally:
            self._close(events, stream)
        if code:
            stream.finish("error", error_code=code, sentence=self._sentence(code))
        else:
            stream.finish("completed")
        return stream.closed if stream.closed not in ("", "done") else code

    def _close(self, events: Iterator[AnswerEvent], stream: OwnedStream) -> None:
        """Let the answer clean up; what fails in that must not keep the stream from its end."""
        try:
            events.close()  # type: ignore[attr-defined]
        except Exception:
            log.exception("answer not closed", extra={"stream_id": stream.stream_id})

    def _code(self, stream: OwnedStream, error: AnswerError) -> str:
        """Return what ended the answer: its own limits come before what the provider made of them."""
        if isinstance(error, AuthError):
            stream.set(auth_state=error.code)
        if stream.deadline.over and not stream.deadline.aborted:
            return "answer_timeout"
        log.warning("answer error", extra={"stream_id": stream.stream_id, "code": error.code, "cause": str(error)})
        return error.code

    def _take(self, stream: OwnedStream, event: AnswerEvent) -> None:
        match event:
            case Delta(text):
                stream.emit(text)
                self._debug(stream, text)
            case Replacement(text):
                stream.replace(text)
            case ProviderIds():
                ids = {"conversation_id": event.conversation_id, "message_id": event.message_id}
                stream.set(**ids, task_id=event.task_id, run_id=event.run_id)
            case Waiting(waiting):
                stream.set(waiting="1" if waiting else "")
            case Identity():
                user_info = event.user.to_json() if event.user else ""
                stream.set(auth_state=event.state, user_info=user_info, token=fingerprint(event.token))
            case Usage():
                stream.set(tokens=str(event.total_tokens))

    def _debug(self, stream: OwnedStream, text: str) -> None:
        """Log the two lines the original documents for every piece of an answer."""
        if not log.isEnabledFor(logging.DEBUG):
            return
        shown = f"{text[:100]}..." if self._log_content else "***"
        log.debug("[调试] Dify返回内容块 (长度: %d): %s", len(text), shown)
        figures = stream.figures
        log.debug("[调试] 累计内容长度: %d, 消息队列长度: %d", len(stream.text), figures["chunks"])


def fingerprint(token: str) -> str:
    """Return what stands for a token where the token itself must not: "" for none."""
    return hashlib.sha256(token.encode()).hexdigest()[:16] if token else ""
