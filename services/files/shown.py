"""Shows an answer's pictures and files to its readers.

WeCom shows words in the text, and lines with links after it (`FileOffers`). On the web the text has links to the
gateway in the place of signed addresses, and a list of files (`AnswerLinks`, `LinkedFollowing`). Such a link names its
file by the digest of the file's source, so it is a pure function of the text: it is known before the file is fetched,
and every replica shows the same. It is a path on the gateway's own host.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from config.texts import Texts
from services.errors import StoreUnavailable
from services.files.answer_store import FileStore, StoredFile
from services.files.links import BY_SOURCE, TEXT, FileLinks, FileRef, suffix_of
from services.files.sources import digest_of
from services.streams.following import PAUSE, Following, Update
from services.streams.long_text import FullAnswer
from services.streams.records import Chunk
from utils.markdown.pictures import Reference, relinked, settled_size

#: Characters of a name in a line.
MOST_NAME = 60
#: Characters of a name that are Markdown or break the line.
_MARKS = re.compile(r"[\[\]()<>`*_~#|\\!\s]+")


class FileOffers:
    """Renders the files of answers; pure functions of the stored files and the settings."""

    def __init__(self, texts: Texts, links: FileLinks) -> None:
        self._texts = texts
        self._links = links

    def words(self, reference: Reference) -> str:
        """Return the words that replace a picture, or a link to a signed file, in the text."""
        name = _plain(reference.words)
        if not name:
            return self._texts.get("picture_unnamed" if reference.is_picture else "file_unnamed")
        return self._texts.get("picture_named" if reference.is_picture else "file_named", name=name)

    def lines(self, stream_id: str, files: Iterable[StoredFile], *, pictures: bool) -> str:
        """Return links to an answer's files as Markdown, with its `pictures` unless they are shown otherwise.

        Files that could not be fetched are named. "" without any files.
        """
        listed = [stored for stored in files if pictures or not stored.is_picture]
        return "\n\n".join(self._lines(stream_id, listed))

    def whole_text(self, stream_id: str, seconds: float) -> str:
        """Return the sentence with a link to the answer's complete text, which works for `seconds`.

        "" where no address for links is known, or the time is too short to be of use.
        """
        minutes = int(seconds // 60)
        if not self._links.public or minutes < 1:
            return ""
        url = self._links.url(FileRef(stream_id, TEXT), self._links.expiry(seconds), ".md")
        return self._texts.get("late_truncated_link", url=url, minutes=minutes)

    def _lines(self, stream_id: str, listed: list[StoredFile]) -> Iterator[str]:
        kept = [stored for stored in listed if not stored.is_missing]
        if kept and self._links.public:
            yield from (self._line(stream_id, stored) for stored in kept)
        elif kept:
            yield self._texts.get("files_unlinked", names=_names(kept))
        missing = [stored for stored in listed if stored.is_missing]
        if missing:
            yield self._texts.get("files_missing", names=_names(missing))

    def _line(self, stream_id: str, stored: StoredFile) -> str:
        url = self._links.url(FileRef(stream_id, stored.entry), stored.expiry, suffix_of(stored.name))
        name = _plain(stored.name)
        return f"![{name}]({url})" if stored.is_picture else self._texts.get("file_link", name=name, url=url)


def _names(files: Iterable[StoredFile]) -> str:
    named = ((_plain(stored.name), stored.url) for stored in files)
    return ", ".join(f"[{name}]({url})" if url else name for name, url in named)


def _plain(name: str) -> str:
    return _MARKS.sub(" ", name).strip()[:MOST_NAME].rstrip()


class AnswerLinks:
    """Makes the links of all answers. Every method may raise `StoreUnavailable`."""

    def __init__(self, links: FileLinks, store: FileStore) -> None:
        self._links = links
        self._store = store

    def text(self, stream_id: str, text: str) -> str:
        """Return a text with links in the place of signed addresses."""
        return relinked(text, partial(self._of_source, stream_id))

    def picture(self, stream_id: str, url: str) -> str:
        """Return the link to the gateway's copy of an answer's picture; "" if the key is in Redis, which is away."""
        try:
            return self._of_source(stream_id, url)
        except StoreUnavailable:
            return ""

    def slices(self, stream_id: str, slices: Iterable[str]) -> Iterator[str]:
        """Yield the text of slices with links; an address that two slices share is held back until it is complete."""
        held = ""
        for piece in slices:
            text = held + piece
            size = settled_size(text)
            held = text[size:]
            yield self.text(stream_id, text[:size])
        if held:
            yield self.text(stream_id, held)

    def listed(self, stream_id: str) -> tuple[Mapping[str, Any], ...]:
        """Return the stored files of an ended answer: name, media type, size in bytes, and link."""
        stored = [one for one in self._store.files(stream_id) if not one.is_missing]
        return tuple(
            {"name": one.name, "type": one.type, "size": one.size, "url": self._path(stream_id, one.source)}
            for one in stored
        )

    def _of_source(self, stream_id: str, url: str) -> str:
        return self._path(stream_id, digest_of(url))

    def _path(self, stream_id: str, digest: str) -> str:
        return self._links.path(FileRef(stream_id, BY_SOURCE + digest), 0)


class LinkedFollowing:
    """Follows a stream like `Following`, and shows links to the gateway in the place of signed addresses."""

    def __init__(
        self, following: Following, links: AnswerLinks, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._following = following
        self._links = links
        self._sleep = sleep
        self._stream_id = following.stream_id
        #: Chunks that end with the beginning of an address; their reader's cursor is before them.
        self._held: tuple[Chunk, ...] = ()
        #: Received chunks without their links, because Redis was away.
        self._unshown: Update | None = None

    def next(self, timeout: float) -> Update | None:
        """Do what `Following.next` does. The chunks that a link is in become one chunk."""
        if self._unshown is None:
            update = self._following.next(timeout)
            self._unshown = update and self._with_held(update)
        if self._unshown is None:
            return None
        try:
            update = self._linked(self._unshown)
        except StoreUnavailable:
            self._sleep(min(timeout, PAUSE))
            return None
        self._unshown = None
        return update

    def full_answer(self) -> FullAnswer:
        """Do what `Following.full_answer` does, and add the list of the answer's files."""
        full = self._following.full_answer()
        shown = partial(self._links.slices, self._stream_id)
        return replace(full, shown=shown, files=self._links.listed(self._stream_id) if full.has_files else ())

    def _with_held(self, update: Update) -> Update:
        held, self._held = self._held, ()
        if update.reset or not held:
            return update
        count = len(held)
        return replace(update, chunks=(*held, *update.chunks), index=update.index - count, first=update.first - count)

    def _linked(self, update: Update) -> Update:
        text = "".join([chunk.content for chunk in update.chunks])
        if "]" not in text:
            return update
        count = len(update.chunks) if update.ended else _settled_chunks(update.chunks, text)
        shown, self._held = update.chunks[:count], update.chunks[count:]
        text = "".join([chunk.content for chunk in shown])
        linked = self._links.text(self._stream_id, text)
        if linked != text:
            shown = (shown[0]._replace(content=linked),)
        return replace(update, chunks=shown, cursor=update.index + count if self._held else update.cursor)


def _settled_chunks(chunks: Sequence[Chunk], text: str) -> int:
    """Return the number of chunks after which no address is incomplete; `text` is that of all of them."""
    count = len(chunks)
    while count and settled_size(text) < len(text):
        count -= 1
        text = text[: len(text) - len(chunks[count].content)]
    return count
