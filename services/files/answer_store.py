"""The pictures and files of answers in Redis.

    {dify_stream:<id>}:files          hash: entry -> JSON {name, type, size, md5, source, expiry, url}
    {dify_stream:<id>}:file:<entry>   string: the content in base64, as WeCom takes pictures

Entries are `p0` to `p9` for pictures, `f0` to `f9` for other files and `x0` to `x9` for files that could not be
fetched. All of them live as long as their stream. Only the owner of an unfinished stream writes them, so they do not
change after its end. The field `files` of the stream's hash is set if there are any.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from services.files.slices import SLICE_BYTES, slice_count, slices_of
from services.redis.store import Call, ScriptRunner, script
from services.streams.store import stream_keys

#: Pictures of one answer, which is WeCom's limit, other files, and notes of missing ones.
MOST_PICTURES, MOST_FILES, MOST_MISSING = 10, 10, 10
#: Characters of a slice in base64.
_SLICE_CHARACTERS = SLICE_BYTES // 3 * 4


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One picture or file of an answer, without its content."""

    #: p0…, f0… or x0…
    entry: str
    name: str = field(default="", repr=False)
    #: The media type, "" where there is no content.
    type: str = ""
    size: int = 0
    #: MD5 of the content, which WeCom checks.
    md5: str = ""
    #: Digest of the address that it was fetched from.
    source: str = ""
    #: When links to it end, in seconds since 1970.
    expiry: int = 0
    #: Its place among the files of its kind, where their entries have another order.
    place: int = 0
    #: The address that people may open themselves, of an entry without content; "" for none.
    url: str = field(default="", repr=False)

    @property
    def is_picture(self) -> bool:
        return self.entry.startswith("p")

    @property
    def is_missing(self) -> bool:
        return self.entry.startswith("x")

    def written(self) -> str:
        fields = {name: value for name, value in asdict(self).items() if name != "entry" and value}
        return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace").decode()

    @classmethod
    def read(cls, entry: str, written: str) -> StoredFile:
        """Return the file that a replica of any version wrote."""
        known: Mapping[str, Any] = json.loads(written)
        return cls(entry, **{name: known[name] for name in cls.__slots__ if name in known and name != "entry"})


class Owner(NamedTuple):
    """The fence of a stream's owner."""

    stream_id: str
    epoch: int
    owner: str


class ShownFiles(NamedTuple):
    """The files of an ended answer, with the content of its pictures."""

    files: tuple[StoredFile, ...] = ()
    #: The base64 of each picture, by its entry.
    pictures: Mapping[str, str] = {}


class FileStore:
    """Owns the keys above.

    Raises:
        StoreUnavailable: from every method, when Redis is away.
    """

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner

    def put(self, owner: Owner, stored: StoredFile, content: bytes = b"") -> bool:
        """Store a file; return False if the stream has ended or has another owner: readers then do not see the file."""
        slices, whole = list(slices_of(content)) or [b""], len(content) + (-len(content) % 3)
        for number, piece in enumerate(slices, 1):
            last = stored.written() if number == len(slices) else ""
            offset = (number - 1) * _SLICE_CHARACTERS
            if not self._put(owner, stored.entry, offset, base64.b64encode(piece).decode(), last, whole // 3 * 4):
                return False
        return True

    def remove(self, owner: Owner, entry: str) -> None:
        """Remove a file of an unfinished stream; do nothing if the stream has ended or has another owner."""
        self._put(owner, entry, 0, "", "")

    def _put(self, owner: Owner, entry: str, offset: int, piece: str, last: str, whole: int = 0) -> bool:
        keys = (stream_keys(owner.stream_id).hash, *_keys(owner.stream_id, entry))
        call = Call(script("file"), keys, (owner.epoch, owner.owner, entry, offset, piece, last, whole))
        return bool(self._runner.run([call], attempts=3)[0])

    def files(self, stream_id: str) -> tuple[StoredFile, ...]:
        """Return a stream's files in the order that people see."""
        return _read(self._runner.run([_list_call(stream_id)])[0])

    def shown(self, stream_id: str) -> ShownFiles:
        """Return a stream's files with the content of its pictures, in one round trip."""
        entries = [f"p{number}" for number in range(MOST_PICTURES)]
        keys = [_keys(stream_id, entry)[1] for entry in entries]
        written, contents = self._runner.run([_list_call(stream_id), Call(None, ("MGET", *keys))])
        pictures = {entry: content for entry, content in zip(entries, contents, strict=True) if content}
        return ShownFiles(_read(written), pictures)

    def file(self, stream_id: str, entry: str) -> StoredFile | None:
        """Return one file of a stream, None if it has expired or never was."""
        written = self._runner.run([Call(None, ("HGET", _keys(stream_id, entry)[0]), (entry,))])[0]
        return StoredFile.read(entry, written) if written else None

    def slices(self, stream_id: str, stored: StoredFile) -> Iterator[bytes]:
        """Yield a file's content in slices, each read when it is requested; less than `size` bytes if it expired."""
        key = _keys(stream_id, stored.entry)[1]
        for number in range(slice_count(stored.size)):
            start = number * _SLICE_CHARACTERS
            piece = self._runner.run([Call(None, ("GETRANGE", key), (start, start + _SLICE_CHARACTERS - 1))])[0]
            if not piece:
                return
            yield base64.b64decode(piece)


def _list_call(stream_id: str) -> Call:
    return Call(None, ("HGETALL", _keys(stream_id, "")[0]))


def _read(written: Any) -> tuple[StoredFile, ...]:
    """Return the files of an HGETALL's reply in the order that people see."""
    pairs = written.items() if isinstance(written, dict) else zip(written[::2], written[1::2], strict=True)
    files = (StoredFile.read(*pair) for pair in pairs)
    return tuple(sorted(files, key=lambda stored: (stored.entry[0], stored.place, stored.entry)))


def _keys(stream_id: str, entry: str) -> tuple[str, str]:
    """Return the keys of the descriptions and of one content, in the stream's slot of a Redis Cluster."""
    tagged = f"{{{stream_keys(stream_id).hash}}}"
    return f"{tagged}:files", f"{tagged}:file:{entry}"
