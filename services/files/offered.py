"""What readers see of an answer's pictures and files: words in the text, and lines with links after it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from config.texts import Texts
from services.files.links import TEXT, FileLinks, FileRef, suffix_of
from services.files.store import StoredFile
from utils.markdown.pictures import Reference

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
        """Return what stands in the text for a picture, or for a link to a signed file."""
        name = _plain(reference.words)
        if not name:
            return self._texts.get("picture_unnamed" if reference.is_picture else "file_unnamed")
        return self._texts.get("picture_named" if reference.is_picture else "file_named", name=name)

    def lines(self, stream_id: str, files: Iterable[StoredFile], *, pictures: bool) -> str:
        """Return links to an answer's files as Markdown, with its `pictures` unless they are shown otherwise.

        What could not be fetched is named. "" if there is nothing to say.
        """
        listed = [stored for stored in files if pictures or not stored.is_picture]
        return "\n\n".join(self._lines(stream_id, listed))

    def whole_text(self, stream_id: str, seconds: float) -> str:
        """Return the sentence with a link to the whole text, which works for `seconds`.

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
