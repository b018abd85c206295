"""Opens the links below `/files/`: a file of an answer, its text, or a picture of another host.

Pictures of other hosts stand in texts that outlive their streams. They are fetched each time they are shown and kept
nowhere. Their links are sealed, so only the gateway can make one, and the picture's address cannot be read from it:

    /files/u<sealed expiry and address of the picture>
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from services import metrics
from services.errors import FetchError, ProviderError, StoreUnavailable
from services.files.answer_store import FileStore, StoredFile
from services.files.collection import FETCH_SECONDS, PICTURES_BYTES
from services.files.links import BY_SOURCE, FOLDER, TEXT, FileLinks, FileRef
from services.files.reading import FileContent, FileReader, Room
from services.files.shown import FileOffers
from services.files.sources import Source
from services.streams.store import StreamStore
from utils.deadline import Deadline
from utils.keyring import Keyring, keys_of
from utils.markdown.pictures import MOST_ADDRESS, in_words
from utils.running_time import running_time
from utils.sealed import seal, unseal_any
from utils.thinking import fold_thinking

#: Media types that are sent as they are; all others are sent as bytes of no type, so that no client renders them.
SAFE_TYPES = frozenset(
    """
    image/png image/jpeg image/gif image/webp application/pdf application/zip text/plain text/csv text/markdown
    audio/mpeg audio/wav video/mp4 application/json
    """.split()  # noqa: SIM905 - types read better as words
)
OTHER_TYPE = "application/octet-stream"
#: The name under which an answer's text is sent.
ANSWER_NAME = "answer.md"
#: Bytes of a text that are sent at a time.
PIECE_BYTES = 64 * 1024
#: Seconds between two reads of Redis for a file that is being fetched.
PAUSE = 0.3
#: The first character of the token of a link to a picture of another host, and the seconds that it works.
MARK, LINK_SECONDS = "u", 3600.0
#: Base64 of a token that stands in an address.
_IN_ADDRESS = str.maketrans("+/", "-_")
_SEALED = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class Download:
    """A file to send."""

    name: str = field(repr=False)
    type: str
    size: int
    pieces: Iterator[bytes] = field(repr=False)


class ForeignPictures:
    """Makes and opens the links to pictures of other hosts, on every replica."""

    def __init__(
        self, keys: Keyring, reader: FileReader, *, max_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        """`keys` seal the links, a picture has up to `max_bytes`; `clock`: seconds since 1970."""
        self._keys = keys
        self._reader = reader
        self._max_bytes = max_bytes
        self._clock = clock

    def path(self, url: str) -> str:
        """Return the path of a picture on this server.

        "" if its address is too long, or the key is in Redis, which is away.
        """
        if len(url.encode()) > MOST_ADDRESS:
            return ""
        try:
            sealed = seal(keys_of(self._keys)[0], f"{int(self._clock() + LINK_SECONDS)} {url}")
        except StoreUnavailable:
            return ""
        return f"{FOLDER}{MARK}{sealed.translate(_IN_ADDRESS).rstrip('=')}"

    def read(self, token: str) -> FileContent | None:
        """Return the picture of a token; None if the token is wrong or has expired, or the picture cannot be fetched.

        Raises:
            StoreUnavailable: the key is in Redis, which is away.
        """
        url = self._opened(token)
        if not url:
            return None
        try:
            room = Room(self._max_bytes, PICTURES_BYTES, link=False)
            found = self._reader.read(Source(url, "", is_picture=True), room, Deadline(FETCH_SECONDS), root="")
        except (FetchError, ProviderError) as exc:
            metrics.ANSWER_FILES.labels(exc.code).inc()
            return None
        metrics.ANSWER_FILES.labels("picture").inc()
        return found

    def _opened(self, token: str) -> str:
        """Return the address in a token, "" if it is not ours or has expired."""
        sealed = token.removeprefix(MARK).translate(_SEALED)
        try:
            expiry, url = unseal_any(keys_of(self._keys), sealed + "=" * (-len(sealed) % 4)).split(" ", 1)
        except ValueError:
            return ""
        return url if self._clock() < int(expiry) else ""


class FileDelivery:
    """Opens links, on every replica. Raises `StoreUnavailable` when Redis is away."""

    def __init__(
        self,
        streams: StreamStore,
        store: FileStore,
        links: FileLinks,
        offers: FileOffers,
        pictures: ForeignPictures,
        *,
        clock: Callable[[], float] = running_time,
    ) -> None:
        self._streams = streams
        self._store = store
        self.links = links
        self._offers = offers
        self._pictures = pictures
        self._clock = clock

    def open(self, token: str) -> Download | None:
        """Return the file that a token names; None if the token is not ours, or it or the file has expired."""
        ref = self.links.opened(token)
        if ref is None:
            return self._foreign(token) if token.startswith(MARK) else None
        if ref.entry == TEXT:
            return self._text(ref.stream_id)
        stored = self._stored(ref)
        return self._file(ref.stream_id, stored) if stored and not stored.is_missing else None

    def _foreign(self, token: str) -> Download | None:
        found = self._pictures.read(token)
        return Download(found.name, found.type, len(found.content), iter((found.content,))) if found else None

    def _stored(self, ref: FileRef) -> StoredFile | None:
        """Return the file of a link; wait up to `FETCH_SECONDS` for a file that an unfinished answer names."""
        if not ref.entry.startswith(BY_SOURCE):
            return self._store.file(ref.stream_id, ref.entry)
        end = self._clock() + FETCH_SECONDS
        while True:
            standing = self._streams.standing(ref.stream_id)[0]
            found = [one for one in self._store.files(ref.stream_id) if BY_SOURCE + one.source == ref.entry]
            if found or standing != "processing" or self._clock() > end:
                return found[0] if found else None
            time.sleep(PAUSE)

    def _file(self, stream_id: str, stored: StoredFile) -> Download | None:
        pieces = self._store.slices(stream_id, stored)
        first = next(pieces, b"")
        if stored.size and not first:
            return None
        media = stored.type if stored.type in SAFE_TYPES else OTHER_TYPE
        return Download(stored.name or stored.entry, media, stored.size, chain((first,), pieces))

    def _text(self, stream_id: str) -> Download | None:
        """Return an answer's text as it was written, without thinking, and with links to its files."""
        stream = self._streams.full_answer(stream_id)
        if stream is None:
            return None
        answer = in_words(fold_thinking(stream.text, "hide"), self._offers.words, growing=False)
        files = self._offers.lines(stream_id, self._store.files(stream_id), pictures=True)
        text = "\n\n".join(filter(None, (answer, files))).encode()
        pieces = (text[start : start + PIECE_BYTES] for start in range(0, len(text), PIECE_BYTES))
        return Download(ANSWER_NAME, "text/markdown", len(text), pieces)
