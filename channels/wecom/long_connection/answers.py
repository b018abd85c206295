"""Serves the open answers of a bot: each is sent in a thread of its own, over whichever link the bot has now.

An answer is noted as open in Redis before its question is asked. Whoever holds the connection looks at these notes
every second, so an answer goes on after its holder was lost, and one that another replica noted is sent here.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping

from channels.wecom.long_connection.delivery import AnswerDelivery, DeliveryServices
from channels.wecom.long_connection.link import Link
from channels.wecom.long_connection.outgoing import AnswerTarget
from services.errors import StoreUnavailable
from services.models import Question
from services.streams.access import Access
from services.streams.records import Snapshot
from services.wecom.long_connection import metrics
from services.wecom.long_connection.open_answers_store import MOST_OPEN, FenceRefused
from services.wecom.long_connection.protocol import LinkLost

log = logging.getLogger(__name__)

#: Seconds between two looks at a bot's open answers.
LOOK_SECONDS = 1.0
#: Seconds until an answer is tried again that could not be sent because of an unexpected error.
FAILED_SECONDS = 60.0
#: Answers that one replica sends at the same time; further ones wait, the oldest first.
MOST_AT_ONCE = 1000


class AnswerSender:
    """Sends answers over the links of this replica."""

    def __init__(self, services: DeliveryServices, access: Access, *, frame_seconds: Mapping[str, float]) -> None:
        """`frame_seconds` has each bot's seconds between two frames of a growing answer."""
        self._services = services
        self._store = services.store
        self._access = access
        self._frame_seconds = frame_seconds
        self._lock = threading.Lock()
        # One thread per answer, also while a former link of the bot is still ending: it writes what has left.
        self._sending: set[tuple[str, str]] = set()
        # By bot, messages that got a sentence because Redis was away, which may have noted them nevertheless.
        self._refused: Mapping[str, deque[str]] = defaultdict(lambda: deque(maxlen=MOST_OPEN))

    def answer(
        self, link: Link, question: Question, target: AnswerTarget, ask: Callable[[], Snapshot]
    ) -> Snapshot | None:
        """Note that a message waits for its answer, ask its question, and begin to send the answer over the link.

        Return what `ask` does; None where too many answers are open, and the question is not asked.

        Raises:
            StoreUnavailable: Redis is away, and the question is not asked: nothing is sent for it later.
        """
        stream_id, started = self._access.stream_id(question), False
        # Entered before it is noted: a look would send it without knowing whether it can be rated.
        entered = self._enter(link.bot, stream_id)
        try:
            if not self._store.add(link.bot, stream_id, self._access.sealed(question, target.written())):
                return None
            snapshot = ask()
            if snapshot.error_code == StoreUnavailable.code and not snapshot.found:
                raise StoreUnavailable
            if not (target.req_id or snapshot.found) and snapshot.status != "processing":
                # The clicked card says all there is to say.
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
        """Send what is open; return the seconds until the next look."""
        refused = self._refused[link.bot]
        try:
            while refused:
                self._store.close(link.bot, refused[0])
                refused.popleft()
            open_ids, expired = self._store.open(link.bot, link.fence)
        except (StoreUnavailable, FenceRefused):
            # With another holder's lease this link is about to end.
            return LOOK_SECONDS
        if expired:
            metrics.FURTHER_MESSAGES.labels(link.bot, "expired").inc(expired)
            log.error("answers expired unsent", extra={"bot": link.bot, "count": expired})
        for stream_id in open_ids:
            if self._enter(link.bot, stream_id):
                # `answer` notes a refusal before it leaves: an answer that could be entered is in `refused` by now.
                if stream_id in refused:
                    self._leave(link.bot, stream_id)
                else:
                    self._start(link, stream_id)
        return LOOK_SECONDS

    def _enter(self, bot: str, stream_id: str) -> bool:
        """Return whether to send an answer: it is not being sent, and there is room for one more."""
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
            # The look tries again once it is left; at once it might fail every second.
            link.lost.wait(FAILED_SECONDS)
        self._leave(link.bot, stream_id)

    def _deliver(self, link: Link, stream_id: str, rated: bool) -> None:
        answer = self._store.read(link.bot, stream_id)
        if answer is None:
            return
        target = AnswerTarget.read(self._access.unsealed(Question("", "", link.bot, ""), answer.target))
        pace = self._frame_seconds[link.bot]
        AnswerDelivery(link, answer, target, services=self._services, frame_seconds=pace, rated=rated).run()
