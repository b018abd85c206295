"""Fetches the pictures and files of an answer when its text is complete, and stores them before its end is written.

The owner of the stream does it in its producer's thread: Dify's addresses are valid for minutes. What cannot be had in
time is noted as missing; the answer's end waits for `FETCH_SECONDS` at most, and never beyond its frame.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from services import metrics
from services.attachments import AnswerFile
from services.channels import Channels
from services.errors import AnswerError, FetchError, StoreUnavailable
from services.files.pictures import PictureConverter, looks_like_picture
from services.files.sources import Source, read_files, sources_of, written_files
from services.files.store import MOST_FILES, MOST_MISSING, MOST_PICTURES, FileStore, Owner, StoredFile
from services.http.fetcher import Fetched, Fetcher
from services.models import Question
from services.streams.access import Access
from services.streams.owned_stream import OwnedStream
from utils.deadline import Deadline
from utils.formats.file_names import plain_name
from utils.markdown.pictures import FOLDER

log = logging.getLogger(__name__)

#: Seconds for all files of an answer, for one of them, and those that are left to the frame.
FETCH_SECONDS, ONE_SECONDS, FRAME_MARGIN = 10.0, 6.0, 3.0
#: Bytes of all pictures of an answer: all of them are encrypted and sent within one poll.
PICTURES_BYTES = 5 * 1024 * 1024
_SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg"}


class CollectorLimits(NamedTuple):
    """The bytes of all files of one answer, and the seconds that a stream lives."""

    max_bytes: int
    ttl: float


class FileCollector:
    """Fetches and stores the files of answers."""

    def __init__(
        self,
        store: FileStore,
        fetcher: Fetcher,
        access: Access,
        channels: Channels,
        *,
        roots: Mapping[str, str],
        limits: CollectorLimits,
        expiry: Callable[[float], int],
    ) -> None:
        """`roots` are by bot the addresses of the providers that serve `/files/`, "" for others.

        `expiry` returns the end of a link that works for a number of seconds from now.
        """
        self._store = store
        self._fetcher = fetcher
        self._converter = PictureConverter()
        self._access = access
        self._channels = channels
        self._roots = roots
        self._limits = limits
        self._expiry = expiry

    def told(self, question: Question, stream: OwnedStream, files: Sequence[AnswerFile]) -> None:
        """Keep what the provider told for the answer's end, sealed in the stream: its next owner may need it."""
        if not self._channels.of(question).keeps_files:
            return
        try:
            known = self._told(question, stream) if files else []
            stream.set(attached=self._access.sealed(question, written_files([*known, *files])))
        except StoreUnavailable:
            log.warning("files of an answer not noted", extra=stream.about)

    def collect(self, question: Question, stream: OwnedStream) -> None:
        """Fetch and store the files of an answer whose text is complete. Never raises."""
        try:
            sources = [] if stream.closed else self._sources(question, stream)
            if sources:
                self._collect(question, stream, sources)
        except StoreUnavailable:
            log.warning("files of an answer not stored", extra=stream.about)
        except Exception:
            log.exception("files of an answer failed", extra=stream.about)

    def _sources(self, question: Question, stream: OwnedStream) -> list[Source]:
        if not self._channels.of(question).keeps_files:
            return []
        return sources_of(stream.text, self._told(question, stream))

    def _told(self, question: Question, stream: OwnedStream) -> list[AnswerFile]:
        sealed = stream.field("attached")
        return read_files(self._access.unsealed(question, sealed)) if sealed else []

    def _collect(self, question: Question, stream: OwnedStream, sources: list[Source]) -> None:
        deadline = Deadline(_seconds(stream))
        kept = self._store.files(stream.stream_id) if stream.epoch > 1 else ()
        work = _Collection(kept, Owner(stream.stream_id, stream.epoch, stream.owner))
        expiry = self._expiry(self._limits.ttl - stream.age)
        with stream.deadline.interrupting(lambda: deadline.abort("interrupted")):
            for source in work.new(sources):
                if not self._keep(work, source, self._roots.get(question.bot, ""), deadline, expiry):
                    return
        for source in work.missing[:MOST_MISSING]:
            stored = StoredFile(work.next("x"), source.name, url=source.public_url, source=source.digest)
            work.add(stored)
            self._store.put(work.owner, stored)
        stream.set(files="1")
        log.info("files of an answer", extra={**stream.about, **work.figures})

    def _keep(self, work: _Collection, source: Source, root: str, deadline: Deadline, expiry: int) -> bool:
        """Fetch and store one file, or note it as missing; return False if the stream has another owner."""
        try:
            fetched = self._fetch(source, root, deadline, self._limits.max_bytes - work.size)
            content, media, kind = self._read(work, source, fetched, deadline)
        except AnswerError as exc:
            work.missing.append(source)
            metrics.ANSWER_FILES.labels(exc.code).inc()
            return True
        metrics.ANSWER_FILES.labels("picture" if kind == "p" else "file").inc()
        name = _name(source, fetched, media)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        stored = StoredFile(work.next(kind), name, media, len(content), md5, source.digest, expiry)
        work.add(stored)
        return self._store.put(work.owner, stored, content)

    def _fetch(self, source: Source, root: str, deadline: Deadline, max_bytes: int) -> Fetched:
        """Return the file from the first address that has it.

        Raises:
            FetchError: none has it, or there is no time or room for it.
            ProviderError: the stream's deadline was aborted.
        """
        failed = FetchError("no address that may be fetched", code="media_not_allowed")
        also = (f"{root}{FOLDER}",) if root else ()
        for url in source.candidates(root):
            if deadline.over or max_bytes <= 0:
                raise FetchError("no time or room left")
            try:
                bounded = Deadline(min(ONE_SECONDS, deadline.remaining()))
                with deadline.interrupting(lambda bounded=bounded: bounded.abort("interrupted")):  # type: ignore[misc]
                    return self._fetcher.fetch(url, bounded, max_bytes, also=also)
            except FetchError as exc:
                failed = exc
        raise failed

    def _read(self, work: _Collection, source: Source, fetched: Fetched, deadline: Deadline) -> tuple[bytes, str, str]:
        """Return a file's content, media type and kind: "p" for a picture of the frame, "f" for a link.

        Raises:
            FetchError: it should be a picture and is none, is a decompression bomb, or there is no room for it.
        """
        content = fetched.content
        room = PICTURES_BYTES - work.picture_bytes
        if looks_like_picture(content) and work.count("p") < MOST_PICTURES and room > 0:
            picture = self._converter.picture(content, room, deadline)
            return picture.content, picture.type, "p"
        if source.is_picture and not looks_like_picture(content) and not fetched.content_type.startswith("image/"):
            raise FetchError("a page instead of a picture", code="media_wrong_type")
        if work.count("f") >= MOST_FILES:
            raise FetchError("too many files", code="media_too_many")
        return content, fetched.content_type, "f"


class _Collection:
    """What is kept of one answer so far."""

    def __init__(self, kept: Iterable[StoredFile], owner: Owner) -> None:
        self.owner = owner
        self.missing: list[Source] = []
        self._kept = list(kept)

    def new(self, sources: Iterable[Source]) -> list[Source]:
        """Return the sources that an earlier owner did not deal with."""
        known = {stored.source for stored in self._kept}
        return [source for source in sources if source.digest not in known]

    def add(self, stored: StoredFile) -> None:
        self._kept.append(stored)

    def count(self, kind: str) -> int:
        return sum(stored.entry.startswith(kind) for stored in self._kept)

    def next(self, kind: str) -> str:
        """Return the next entry of a kind."""
        return f"{kind}{self.count(kind)}"

    @property
    def size(self) -> int:
        return sum(stored.size for stored in self._kept)

    @property
    def picture_bytes(self) -> int:
        return sum(stored.size for stored in self._kept if stored.is_picture)

    @property
    def figures(self) -> dict[str, int]:
        return {
            "pictures": self.count("p"),
            "files": self.count("f"),
            "missing": len(self.missing),
            "bytes": self.size,
        }


def _seconds(stream: OwnedStream) -> float:
    """Return the seconds for all files: an answer that is complete in time must not miss its frame for them."""
    left = stream.frame_left
    if left is None or left <= 0.0:
        return FETCH_SECONDS
    return max(0.0, min(FETCH_SECONDS, left - FRAME_MARGIN))


def _name(source: Source, fetched: Fetched, media: str) -> str:
    """Return a file's name; a picture's suffix is that of its format."""
    name = plain_name(fetched.name or source.name) or ("picture" if media in _SUFFIXES else "file")
    suffix = _SUFFIXES.get(media)
    if not suffix or name.lower().endswith((suffix, ".jpeg" if suffix == ".jpg" else suffix)):
        return name
    known = PurePosixPath(name).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
    return (str(PurePosixPath(name).with_suffix("")) if known else name) + suffix
