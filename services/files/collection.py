"""The pictures and files of one answer that grows: fetched one after the other while the answer runs.

Dify's addresses are valid for minutes, an answer may take longer: a file is fetched as soon as its address is in the
text. Each answer has a thread for it, so that no chunk waits. `collect`, at the end, waits for the remaining files, for
`FETCH_SECONDS` at most and never beyond the frame; files that could not be fetched are stored as missing.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from config.apps import provider_name
from services import metrics
from services.attachments import AnswerFile
from services.channels import Channels
from services.errors import AnswerError, StoreUnavailable
from services.files.answer_store import MOST_FILES, MOST_MISSING, MOST_PICTURES, FileStore, Owner, StoredFile
from services.files.budget_store import FileBudget
from services.files.reading import FileContent, FileReader, Room
from services.files.sources import MOST_SOURCES, Source, attached_from_json, attached_to_json, digest_of, sources_of
from services.http.fetcher import Fetcher
from services.identity.callers import owner_of
from services.models import Question
from services.streams.access import Access
from services.streams.owned_stream import OwnedStream
from utils.deadline import Deadline
from utils.markdown.pictures import MOST_ADDRESS, MOST_WORDS, references, settled_size, signed_references

log = logging.getLogger(__name__)

#: Seconds that an answer's end waits for its files, and those that are left to the frame.
FETCH_SECONDS, FRAME_MARGIN = 10.0, 3.0
#: Bytes of all pictures of an answer: all of them are encrypted and sent within one poll.
PICTURES_BYTES = 5 * 1024 * 1024
#: Characters at the end of a growing text that are searched for new addresses.
TAIL = MOST_ADDRESS + MOST_WORDS


class CollectionLimits(NamedTuple):
    """The bytes of all files of one answer, and the seconds that a stream lives."""

    max_bytes: int
    ttl: float


class AttachedFiles:
    """The files that the provider sent beside the text, sealed in the stream: its next owner may have to fetch them."""

    def __init__(self, access: Access, question: Question, stream: OwnedStream) -> None:
        self._access = access
        self._question = question
        self._stream = stream

    def write(self, files: Sequence[AnswerFile]) -> None:
        self._stream.set(attached=self._access.sealed(self._question, attached_to_json(files)))

    def read(self) -> list[AnswerFile]:
        sealed = self._stream.field("attached")
        return attached_from_json(self._access.unsealed(self._question, sealed)) if sealed else []


class AnswerBytes:
    """The bytes of an answer's files in the budget of the person or program that asked."""

    def __init__(self, budget: FileBudget, question: Question, stream: OwnedStream, *, ttl: float) -> None:
        """`ttl` is the seconds that a stream lives."""
        self._budget = budget
        self._caller = owner_of(question.principal)
        self._stream = stream
        self._ttl = ttl

    def count(self, entry: str, size: int) -> None:
        """Count a file that is stored next.

        Raises:
            AnswerError: `files_full`, `files_store_full`: there are too many bytes in Redis.
        """
        left = max(1.0, self._ttl - self._stream.age)
        self._budget.count(self._caller, {self._name(entry): size}, seconds=left)

    def remove(self, entry: str) -> None:
        self._budget.remove([self._name(entry)])

    def _name(self, entry: str) -> str:
        return f"{self._stream.stream_id}:{entry}"


class AnswerCollection:
    """Fetches and stores the files of one answer; called by its producer's thread only."""

    def __init__(
        self,
        stream: OwnedStream,
        store: FileStore,
        read: Callable[[Source, Room, Deadline], FileContent],
        *,
        attached: AttachedFiles,
        counted: AnswerBytes,
        sources: Callable[[str, Iterable[AnswerFile]], list[Source]],
        limits: CollectionLimits,
        expiry: Callable[[float], int],
    ) -> None:
        """`read` fetches a source; `sources` returns the sources of a text and of attached files.

        `expiry` returns the end of a link that works for a number of seconds from now.
        """
        self._stream = stream
        self._store = store
        self._read = read
        self._attached = attached
        self._counted = counted
        self._sources = sources
        self._limits = limits
        self._expiry = expiry
        self._until = Deadline(limits.ttl)
        self._changed = threading.Condition()
        self._waiting: deque[Source] = deque()
        self._wanted: set[str] = set()
        self._working = False
        self._kept: dict[str, StoredFile] | None = None
        self._tail, self._noticed = "", set[str]()

    def attached(self, files: Sequence[AnswerFile]) -> None:
        """Store files that the provider sent, and begin to fetch them; an empty list discards the earlier ones."""
        try:
            self._attached.write([*self._attached.read(), *files] if files else [])
            self._want(self._sources("", files))
        except StoreUnavailable:
            log.warning("files of an answer not noted", extra=self._stream.about)

    def grew(self, text: str) -> None:
        """Begin to fetch the files that the text names, after `text` was appended to it."""
        tail, self._tail = self._tail + text, (self._tail + text)[-TAIL:]
        if ")" not in text or "](" not in tail or len(self._noticed) > 2 * MOST_SOURCES:
            return
        tail = tail[: settled_size(tail)]
        named = {digest_of(one.url) for one in (*references(tail), *signed_references(tail))}
        if named <= self._noticed:
            return
        self._noticed |= named
        # Whether an address is in code depends on the text before it. One at the end may be incomplete.
        text = self._stream.text
        self._want(self._sources(text[: settled_size(text)], ()))

    def collect(self) -> None:
        """Wait for the files of a complete answer, remove those that it no longer names, and note missing ones.

        Never raises.
        """
        stream = self._stream
        try:
            if not stream.closed:
                self._end(self._sources(stream.text, self._attached.read()))
        except StoreUnavailable:
            log.warning("files of an answer not stored", extra=stream.about)
        except Exception:
            log.exception("files of an answer failed", extra=stream.about)
        finally:
            self._until.abort("interrupted")

    def _end(self, sources: list[Source]) -> None:
        if not sources and not self._wanted:
            return
        self._want(sources)
        deadline = Deadline(_seconds(self._stream))
        with self._stream.deadline.interrupting(self._wake), self._changed:
            while self._working and not deadline.over and not self._stream.deadline.aborted:
                self._changed.wait(deadline.remaining())
        self._until.abort("interrupted")
        with self._changed:
            self._changed.wait_for(lambda: not self._working, 1.0)
        self._settle(sources)

    def _settle(self, sources: list[Source]) -> None:
        """Remove files that the text no longer names, and note those that are missing."""
        kept, owner = self._known(), self._owner
        digests = {source.digest for source in sources}
        for digest in [digest for digest in kept if digest not in digests]:
            entry = kept.pop(digest).entry
            self._store.remove(owner, entry)
            self._counted.remove(entry)
        missing = [source for source in sources if source.digest not in kept]
        for source in missing[:MOST_MISSING]:
            noted = StoredFile(self._next("x"), source.name, url=source.public_url, source=source.digest)
            kept[source.digest] = noted
            self._store.put(owner, noted)
        self._order([source.digest for source in sources])
        if kept:
            self._stream.set(files="1")
            log.info("files of an answer", extra={**self._stream.about, **self._figures})

    def _order(self, digests: list[str]) -> None:
        """Store the order of the sources, in which readers see the files, if they were fetched in another order."""
        kept = self._known()
        files = [kept[digest] for digest in digests if digest in kept]
        if sorted(files, key=lambda stored: stored.entry[0]) == sorted(files, key=lambda stored: stored.entry):
            return
        for place, stored in enumerate(files):
            kept[stored.source] = replace(stored, place=place)
            self._store.put(self._owner, kept[stored.source])

    def _want(self, sources: Iterable[Source]) -> None:
        """Fetch sources in this order, each once; start the thread unless it works."""
        with self._changed:
            new = [source for source in sources if source.digest not in self._wanted]
            self._wanted.update(source.digest for source in new)
            self._waiting.extend(new[: 2 * MOST_SOURCES - len(self._waiting)])
            if not self._waiting or self._working or self._until.aborted:
                return
            self._working = True
        threading.Thread(target=self._work, name="answer-files", daemon=True).start()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            with self._stream.deadline.interrupting(lambda: self._until.abort("interrupted")):
                while source := self._next_source():
                    self._fetch(source)
        except Exception:
            log.exception("files of an answer failed", extra=self._stream.about)
            self._done()

    def _next_source(self) -> Source | None:
        with self._changed:
            if self._waiting and not self._until.over and not self._stream.closed:
                return self._waiting.popleft()
            # Under the same lock: a source that is added from now on starts the thread again.
            self._done()
        return None

    def _done(self) -> None:
        with self._changed:
            self._working = False
            self._changed.notify_all()

    def _fetch(self, source: Source) -> None:
        """Fetch and store one file; `_settle` notes a file that cannot be fetched."""
        try:
            if source.digest not in self._known():
                self._keep(source, self._read(source, self._room(), self._until))
        except AnswerError as exc:
            metrics.ANSWER_FILES.labels(exc.code).inc()
        except StoreUnavailable:
            # The end tries again.
            with self._changed:
                self._wanted.discard(source.digest)
            log.warning("file of an answer not stored", extra=self._stream.about)

    def _keep(self, source: Source, content: FileContent) -> None:
        entry = self._next(content.kind)
        self._counted.count(entry, len(content.content))
        metrics.ANSWER_FILES.labels("picture" if content.kind == "p" else "file").inc()
        expiry = self._expiry(self._limits.ttl - self._stream.age)
        described = (content.name, content.type, len(content.content), content.md5, source.digest, expiry)
        stored = StoredFile(entry, *described)
        if self._store.put(self._owner, stored, content.content):
            self._known()[source.digest] = stored
        else:
            # The stream has ended, or has another owner.
            self._until.abort("fenced")

    def _known(self) -> dict[str, StoredFile]:
        """Return the stored files by digest, including those of an earlier owner."""
        if self._kept is None:
            files = self._store.files(self._stream.stream_id) if self._stream.epoch > 1 else ()
            self._kept = {stored.source: stored for stored in files}
        return self._kept

    @property
    def _owner(self) -> Owner:
        return Owner(self._stream.stream_id, self._stream.epoch, self._stream.owner)

    def _room(self) -> Room:
        kept = self._known().values()
        pictures = [stored.size for stored in kept if stored.is_picture]
        return Room(
            self._limits.max_bytes - sum(stored.size for stored in kept),
            PICTURES_BYTES - sum(pictures) if len(pictures) < MOST_PICTURES else 0,
            self._count("f") < MOST_FILES,
        )

    def _count(self, kind: str) -> int:
        return sum(stored.entry.startswith(kind) for stored in self._known().values())

    def _next(self, kind: str) -> str:
        """Return the first free entry of a kind."""
        taken = {stored.entry for stored in self._known().values()}
        return next(entry for number in range(len(taken) + 1) if (entry := f"{kind}{number}") not in taken)

    @property
    def _figures(self) -> dict[str, int]:
        size = sum(stored.size for stored in self._known().values())
        kinds = {"pictures": "p", "files": "f", "missing": "x"}
        return {name: self._count(kind) for name, kind in kinds.items()} | {"bytes": size}


def _seconds(stream: OwnedStream) -> float:
    """Return the seconds to wait for files: an answer that is complete in time must not miss its frame."""
    left = stream.frame_left
    if left is None or left <= 0.0:
        return FETCH_SECONDS
    return max(0.0, min(FETCH_SECONDS, left - FRAME_MARGIN))


class FileCollector:
    """Makes the collection of each answer by the rules of its channel, provider and settings."""

    def __init__(
        self,
        store: FileStore,
        fetcher: Fetcher,
        access: Access,
        channels: Channels,
        *,
        budget: FileBudget,
        roots: Mapping[str, str],
        limits: CollectionLimits,
        expiry: Callable[[float], int],
    ) -> None:
        """`roots` are by `provider_name` the addresses of the providers that serve `/files/`, "" for others.

        `expiry` returns the end of a link that works for a number of seconds from now.
        """
        self._store = store
        self._reader = FileReader(fetcher)
        self._access = access
        self._channels = channels
        self._budget = budget
        self._roots = roots
        self._limits = limits
        self._expiry = expiry

    def of(self, question: Question, stream: OwnedStream) -> AnswerCollection | None:
        """Return the collection of an answer; None where its channel keeps no files."""
        if question.channel not in self._channels or not (keeps := self._channels.of(question).keeps_files):
            return None
        return AnswerCollection(
            stream,
            self._store,
            partial(self._read, question.bot, stream),
            attached=AttachedFiles(self._access, question, stream),
            counted=AnswerBytes(self._budget, question, stream, ttl=self._limits.ttl),
            sources=partial(sources_of, signed_only=keeps == "signed"),
            limits=self._limits,
            expiry=self._expiry,
        )

    def _read(self, bot: str, stream: OwnedStream, source: Source, room: Room, deadline: Deadline) -> FileContent:
        # The app is chosen after the collection was made.
        root = self._roots.get(provider_name(bot, stream.field("app")), "")
        return self._reader.read(source, room, deadline, root=root)
