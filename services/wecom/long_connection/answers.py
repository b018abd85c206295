"""Sends the open answers of a bot over its link, each in a thread of its own.

An answer is stored as open in Redis before its question is asked. The holder of the connection reads the open answers
every second, so it also sends those of other replicas and continues those of a lost holder. The progress of each is
stored too:

- The finish frame may be sent again, because people see one bubble with the same text. Only if WeCom refused every
  finish frame that was sent, the whole answer is sent as messages instead.
- A further message is claimed before it leaves, and never sent again once it may have left.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

from services import metrics
from services.errors import StoreUnavailable
from services.files.answer_store import StoredFile
from services.models import Question
from services.streams.access import Access
from services.streams.records import Snapshot
from services.wecom.frames import is_over
from services.wecom.long_connection.allowance_store import AllowanceStore
from services.wecom.long_connection.link import Link
from services.wecom.long_connection.open_answers_store import (
    MOST_OPEN,
    FenceRefused,
    Finish,
    OpenAnswer,
    OpenAnswersStore,
)
from services.wecom.long_connection.protocol import (
    BUSY,
    INVALID_MEDIA,
    INVALID_REQ_ID,
    NOT_SUBSCRIBED,
    RESPOND,
    SEND,
    STREAM_EXPIRED,
    Ack,
    AckMissing,
    LinkLost,
)
from services.wecom.long_connection.uploads import FileMessage
from services.wecom.long_connection.view import (
    AnswerTarget,
    AnswerUploads,
    AnswerView,
    addressed,
    markdown,
    stream_frame,
)

log = logging.getLogger(__name__)

#: Seconds between two looks at a bot's open answers.
LOOK_SECONDS = 1.0
#: Seconds until the next attempt to send an answer after an unexpected error.
FAILED_SECONDS = 60.0
#: Answers that one replica sends at the same time; further ones wait, the oldest first.
MOST_AT_ONCE = 1000
#: Attempts for the finish frame, and for a message that WeCom refused because it was busy, over one link.
ATTEMPTS = 3
#: Seconds between attempts, and while Redis is away.
RETRY_SECONDS = 0.5
#: Error codes that end a stream: WeCom refuses its later frames, too.
ENDED = frozenset({INVALID_REQ_ID, STREAM_EXPIRED})
#: Seconds between reads of an answer whose frame is over.
ENDED_LOOK_SECONDS = 1.0

T = TypeVar("T")
#: A further message: a text, a file, or the body of a card's message.
Content = str | StoredFile | dict[str, Any]


class DeliveryServices(NamedTuple):
    """The services that all deliveries share."""

    store: OpenAnswersStore
    view: AnswerView
    files: AnswerUploads
    allowance: AllowanceStore


class AnswerSender:
    """Sends answers over the links of this replica."""

    def __init__(self, services: DeliveryServices, access: Access, *, frame_seconds: Mapping[str, float]) -> None:
        """`frame_seconds` has each bot's seconds between two frames of a growing answer."""
        self._services = services
        self._store = services.store
        self._access = access
        self._frame_seconds = frame_seconds
        self._lock = threading.Lock()
        # Answers that have a thread: no second one starts while that of a former link still records its last frame.
        self._sending: set[tuple[str, str]] = set()
        # By bot, answers that were replaced by a sentence because Redis did not reply. It may have recorded them.
        self._refused: Mapping[str, deque[str]] = defaultdict(lambda: deque(maxlen=MOST_OPEN))

    def answer(
        self, link: Link, question: Question, target: AnswerTarget, ask: Callable[[], Snapshot]
    ) -> Snapshot | None:
        """Record an open answer, ask its question, and begin to send the answer over the link.

        Return the snapshot of `ask`; None if too many answers are open: the question is not asked then.

        Raises:
            StoreUnavailable: Redis is away, and the question is not asked: nothing is sent for it later.
        """
        stream_id, started = self._access.stream_id(question), False
        # Entered before it is recorded: `_look` would start it without knowing whether it can be rated.
        entered = self._enter(link.bot, stream_id)
        try:
            if not self._store.add(link.bot, stream_id, self._access.sealed(question, target.written())):
                return None
            snapshot = ask()
            if snapshot.error_code == StoreUnavailable.code and not snapshot.found:
                raise StoreUnavailable
            if not (target.req_id or snapshot.found) and snapshot.status != "processing":
                # The update of the clicked card is the whole answer.
                self._store.close(link.bot, stream_id)
            elif entered:
                self._start(link, stream_id, rated=snapshot.is_answer)
                started = True
            return snapshot
        except StoreUnavailable:
            if entered:
                self._refused[link.bot].append(stream_id)
            raise
        finally:
            if entered and not started:
                self._leave(link.bot, stream_id)

    def serve(self, link: Link) -> None:
        """Send the bot's open answers until the link is lost."""
        while not link.lost.wait(self._look(link)):
            continue

    def _look(self, link: Link) -> float:
        """Start the open answers that have no thread; return the seconds until the next look."""
        refused = self._refused[link.bot]
        try:
            while refused:
                self._store.close(link.bot, refused[0])
                refused.popleft()
            open_ids, expired = self._store.open(link.bot, link.fence)
        except (StoreUnavailable, FenceRefused):
            # Another holder has the lease, and this link is about to end; or Redis is away.
            return LOOK_SECONDS
        if expired:
            metrics.FURTHER_MESSAGES.labels(link.bot, "expired").inc(expired)
            log.error("answers expired unsent", extra={"bot": link.bot, "count": expired})
        for stream_id in open_ids:
            if self._enter(link.bot, stream_id):
                # `answer` appends to `refused` before it calls `_leave`, so a refused answer is in `refused` by now.
                if stream_id in refused:
                    self._leave(link.bot, stream_id)
                else:
                    self._start(link, stream_id)
        return LOOK_SECONDS

    def _enter(self, bot: str, stream_id: str) -> bool:
        """Register an answer as being sent; return False if it is already, or too many are."""
        with self._lock:
            if (bot, stream_id) in self._sending or len(self._sending) >= MOST_AT_ONCE:
                return False
            self._sending.add((bot, stream_id))
            return True

    def _leave(self, bot: str, stream_id: str) -> None:
        with self._lock:
            self._sending.discard((bot, stream_id))

    def _start(self, link: Link, stream_id: str, *, rated: bool = False) -> None:
        """Send an answer that was entered, in a thread of its own; `rated`: people may rate it."""
        threading.Thread(target=self._run, args=(link, stream_id, rated), name="answer", daemon=True).start()

    def _run(self, link: Link, stream_id: str, rated: bool) -> None:
        about = {"bot": link.bot, "stream_id": stream_id}
        try:
            self._deliver(link, stream_id, rated)
        except (LinkLost, FenceRefused, StoreUnavailable) as exc:
            log.debug("answer left to the next link", extra={**about, "cause": type(exc).__name__})
        except Exception:
            log.exception("answer not sent", extra=about)
            # `_look` starts it again after `_leave`; without this pause it might fail every second.
            link.lost.wait(FAILED_SECONDS)
        self._leave(link.bot, stream_id)

    def _deliver(self, link: Link, stream_id: str, rated: bool) -> None:
        answer = self._store.read(link.bot, stream_id)
        if answer is None:
            return
        target = AnswerTarget.read(self._access.unsealed(Question("", "", link.bot, ""), answer.target))
        pace = self._frame_seconds[link.bot]
        AnswerDelivery(link, answer, target, services=self._services, frame_seconds=pace, rated=rated).run()


class AnswerDelivery:
    """The delivery of one answer over one link; used by one thread."""

    def __init__(
        self,
        link: Link,
        answer: OpenAnswer,
        target: AnswerTarget,
        *,
        services: DeliveryServices,
        frame_seconds: float,
        rated: bool,
    ) -> None:
        """`frame_seconds` are between two frames of a growing answer; `rated`: people may rate it."""
        self._link = link
        self._answer = answer
        self._target = target
        self._store, self._view, self._files, self._allowance = services
        self._frame_seconds = frame_seconds
        self._rated = rated
        #: Whether WeCom refuses further frames of this stream.
        self._expired = False
        self._frames = 0
        #: Acks that did not come in time, and may still come. Acks of all frames have the same req_id.
        self._late_acks = 0

    def run(self) -> None:
        """Send the rest of the answer.

        Raises:
            LinkLost, FenceRefused: the next holder continues.
        """
        if not self._target.req_id:
            self._mark_finish("refused")
        elif self._answer.finish in ("", "sent"):
            self._show()
        while (snapshot := self._read()) and snapshot.status == "processing":
            self._wait(ENDED_LOOK_SECONDS)
        if snapshot:
            self._send_further(snapshot)
        self._retried(lambda: self._store.close(self._answer.bot, self._answer.stream_id))
        outcome = snapshot.error_code or snapshot.status if snapshot else "stream_unknown"
        result = {"outcome": outcome, "finish": self._answer.finish, "frames": self._frames}
        log.info("answer shown", extra={**self.about, **result})

    @property
    def about(self) -> dict[str, object]:
        """The log fields of the answer."""
        return {"bot": self._answer.bot, "stream_id": self._answer.stream_id, "messages": self._answer.messages}

    # The frame.

    def _show(self) -> None:
        """Show the growing answer until its end or its frame's, and finish the frame."""
        shown = ""
        while True:
            snapshot = self._read()
            content = self._retried(partial(self._view.content, self._answer.bot, snapshot, self._target))
            rated = self._rated and not shown
            if snapshot is None or is_over(snapshot):
                return self._finish(content, rated=rated)
            if content != shown and not self._expired:
                self._grow(content, rated=rated)
                shown = content
            self._wait(self._frame_seconds)

    def _grow(self, content: str, *, rated: bool) -> None:
        """Send a frame and wait for its ack; frames that were due meanwhile are skipped."""
        began = time.monotonic()
        try:
            ack = self._frame(content, finish=False, rated=rated)
        except AckMissing:
            ack = Ack(0)
        skipped = int((time.monotonic() - began) / self._frame_seconds)
        metrics.FRAMES_SKIPPED.labels(self._answer.bot).inc(skipped)
        self._expired = ack.errcode in ENDED

    def _finish(self, content: str, *, rated: bool) -> None:
        """Send the finish frame until it is acknowledged; store whether people see it."""
        may_be_shown = self._answer.finish == "sent"
        doubtful = min(self._late_acks, ATTEMPTS)
        for attempt in range(0 if self._expired else ATTEMPTS + doubtful):
            self._mark_finish("sent")
            try:
                ack = self._frame(content, finish=True, rated=rated)
            except AckMissing:
                may_be_shown = True
                continue
            except LinkLost as exc:
                if not (exc.sent or may_be_shown):
                    self._mark_finish("")
                raise
            if attempt < doubtful and ack.errcode not in ENDED:
                # Up to `doubtful` acks may belong to earlier frames; only a further one is certainly this frame's.
                may_be_shown = True
                continue
            if ack.errcode == 0:
                self._mark_finish("done")
                return
            if ack.errcode not in BUSY:
                break
            self._wait(RETRY_SECONDS)
        if may_be_shown:
            # A further finish frame would change nothing, and messages with the whole answer might repeat it.
            log.warning("finish frame not acknowledged", extra=self.about)
        self._mark_finish("done" if may_be_shown else "refused")

    def _frame(self, content: str, *, finish: bool, rated: bool) -> Ack:
        frame = stream_frame(self._answer.stream_id, content, finish=finish, rated=rated)
        ack = self._respond(frame)
        self._frames += 1
        return ack

    def _respond(self, body: dict[str, Any]) -> Ack:
        """Send a frame under the message's req_id."""
        try:
            return self._subscribed(self._link.request(RESPOND, body, req_id=self._target.req_id))
        except AckMissing:
            self._late_acks += 1
            raise

    # The messages after it.

    def _send_further(self, snapshot: Snapshot) -> None:
        in_frame = self._answer.finish == "done"
        further = partial(self._view.further, self._answer.bot, snapshot, self._target, in_frame=in_frame)
        parts, cards = self._retried(further)
        files = self._retried(lambda: self._files.listed(snapshot))
        messages: list[Content] = [*parts.messages, *files, *cards]
        if self._answer.unsure:
            self._note("unknown")
        for number in range(self._answer.messages + 1, len(messages) + 1):
            self._send(number, messages[number - 1])
        if parts.cut:
            self._note("cut")

    def _send(self, number: int, content: Content) -> None:
        """Send a further message at most once, when WeCom's limits for the chat allow it."""
        message, file = self._message(content)
        name = f"{self._answer.stream_id}:{number}"
        while seconds := self._retried(lambda: self._allowance.message(self._answer.bot, self._target.chat, name)):
            self._wait(seconds)
        self._mark_messages(number, unsure=True)
        try:
            ack = self._transmit(message)
        except AckMissing:
            self._note("unknown")
        except LinkLost as exc:
            if not exc.sent:
                self._mark_messages(number - 1, unsure=False)
            raise
        else:
            if file and isinstance(content, StoredFile) and ack.errcode == INVALID_MEDIA:
                self._send_again(number, content, file)
                return
            self._note("failed" if ack.errcode else "sent", ack.errcode)
        self._mark_messages(number, unsure=False)

    def _message(self, content: Content) -> tuple[dict[str, Any], FileMessage | None]:
        """Return a further message, and the uploaded file that it shows; a card's message is returned unchanged."""
        if isinstance(content, str):
            return markdown(content), None
        if not isinstance(content, StoredFile):
            return content, None
        stream_id = self._answer.stream_id
        file = self._retried(lambda: self._files.message(self._link, stream_id, content, self._wait))
        return (file.body, file) if file else (self._files.linked(stream_id, content), None)

    def _send_again(self, number: int, stored: StoredFile, file: FileMessage) -> None:
        """Send a file whose media_id WeCom refused: uploaded anew, or as a link if the refused upload was a new one."""
        self._mark_messages(number - 1, unsure=False)
        self._retried(lambda: self._files.forget(self._answer.bot, file))
        self._send(number, stored if file.is_reused else self._files.linked(self._answer.stream_id, stored))

    def _transmit(self, message: dict[str, Any]) -> Ack:
        """Send a message under the req_id if WeCom accepts it there, else to the chat; again while WeCom is busy.

        While a late ack of the req_id may still come, the message goes to the chat, where each has a req_id of its own.
        """
        ack = Ack(INVALID_REQ_ID)
        for left in reversed(range(ATTEMPTS)):
            if by_req_id := self._answer.finish == "done" and not (self._expired or self._late_acks):
                ack = self._respond(message)
                self._expired = ack.errcode in ENDED
            if self._expired or not by_req_id:
                ack = self._subscribed(self._link.request(SEND, addressed(self._target, message)))
            if ack.errcode not in BUSY or not left:
                break
            self._wait_unclaimed(BUSY[ack.errcode])
        return ack

    def _wait_unclaimed(self, seconds: float) -> None:
        """Wait before the next attempt, without the claim: WeCom refused the message, so a next holder may send it."""
        number = self._answer.messages
        self._mark_messages(number - 1, unsure=False)
        self._wait(seconds)
        self._mark_messages(number, unsure=True)

    def _note(self, outcome: str, errcode: int = 0) -> None:
        """Count a further message, or an answer that was cut, and log it unless it was sent."""
        metrics.FURTHER_MESSAGES.labels(self._answer.bot, outcome).inc()
        if outcome != "sent":
            log.warning("message of an answer", extra={**self.about, "outcome": outcome, "errcode": errcode})

    # Waits.

    def _read(self) -> Snapshot | None:
        return self._retried(lambda: self._view.read(self._answer.bot, self._answer.stream_id, self._target))

    def _retried(self, call: Callable[[], T]) -> T:
        """Return the call's value; repeat the call while Redis is away."""
        while True:
            try:
                return call()
            except StoreUnavailable:
                self._wait(RETRY_SECONDS)

    def _wait(self, seconds: float) -> None:
        if self._link.lost.wait(seconds):
            raise LinkLost(sent=False)

    def _subscribed(self, ack: Ack) -> Ack:
        """Return an ack. Raises: LinkLost: the frame was ignored, because the link is not subscribed any more."""
        if ack.errcode == NOT_SUBSCRIBED:
            raise LinkLost(sent=False)
        return ack

    def _mark_finish(self, finish: Finish) -> None:
        self._answer = self._retried(lambda: self._store.mark_finish(self._link.fence, self._answer, finish))

    def _mark_messages(self, messages: int, *, unsure: bool) -> None:
        self._answer = self._retried(
            lambda: self._store.mark_messages(self._link.fence, self._answer, messages, unsure=unsure)
        )
