"""Files that came with a question, and files that were uploaded for one, in Redis.

    dify_media:<name>           hash: "size", the encrypted slices "0", "1", …, and of an upload the encrypted "about"
    dify_media_bytes:<person>   string: the bytes that a person uploaded since the first upload; UPLOAD_SECONDS

A file that came with its question lives until the question's stream has ended, STREAM_TTL at most. It has a key of its
own, because every poll and takeover reads the stream's hash. An upload lives UPLOAD_SECONDS, and STREAM_TTL from the
last question that names it: a question that is asked again names it again. Names are random, so that the same question
sent twice at once has two copies, and the one that no stream uses can be removed. Each copy counts (`budget_store.py`).
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from config.bots import DEFAULT_BOT
from services.attachments import Media, MediaFile, MediaKind, SentFile
from services.errors import AnswerError, FetchError, StoreUnavailable
from services.files.budget_store import FileBudget
from services.files.slices import SealedSlices, slice_count
from services.redis.store import Call, ScriptRunner, script
from utils.keyring import Keyring, keys_of
from utils.sealed import seal, unseal_any

log = logging.getLogger(__name__)

#: Seconds that an upload waits for its question, and that a person's uploads are counted.
UPLOAD_SECONDS = 600


class SentFileStore:
    """Owns the keys above."""

    def __init__(self, runner: ScriptRunner, keys: Mapping[str, Keyring], budget: FileBudget, *, ttl: float) -> None:
        """`keys` are each bot's, `ttl` the seconds that a file lives at most. Every file counts in the `budget`.

        Uploads are encrypted with the default bot's keys, because the bot of their question is not known yet.
        """
        self._runner = runner
        self._keys = keys
        self._slices = SealedSlices(runner, keys)
        self._budget = budget
        self._ttl = int(ttl)

    def keep(self, bot: str, caller: str, files: Sequence[SentFile]) -> tuple[Media, ...]:
        """Store the files that came with a question of this caller to this bot; return the places of all its files.

        Raises:
            AnswerError: `files_full`, `files_store_full`: there are too many bytes in Redis; nothing was stored.
            StoreUnavailable: Redis is away. The part that was stored expires.
        """
        contents = [(_new(file, "redis"), file.content) for file in files if isinstance(file, MediaFile)]
        if contents:
            sizes = {media.url: len(content) for media, content in contents}
            self._budget.count(caller, sizes, seconds=self._ttl)
        for media, content in contents:
            self._slices.write(bot, _key(media), content, {"size": len(content)}, ttl=self._ttl)
        kept = iter(contents)
        return tuple(next(kept)[0] if isinstance(file, MediaFile) else file for file in files)

    def upload(self, principal: str, file: MediaFile) -> str:
        """Store a file for a later question of this caller to any bot; return its name.

        Raises:
            AnswerError: `files_full`, `files_store_full`: there are too many bytes in Redis.
            StoreUnavailable: Redis is away. The part that was stored expires.
        """
        media = _new(file, "upload")
        self._budget.count(principal, {media.url: len(file.content)}, seconds=UPLOAD_SECONDS)
        about = json.dumps([principal, file.name, media.kind])
        sealed = seal(keys_of(self._keys[DEFAULT_BOT])[0], about)
        fields: dict[str, str | int] = {"size": len(file.content), "about": sealed}
        self._slices.write(DEFAULT_BOT, _key(media), file.content, fields, ttl=UPLOAD_SECONDS)
        return media.url

    def uploaded(self, person: str, size: int) -> int:
        """Count an upload of `size` bytes; return the bytes of this person's uploads within `UPLOAD_SECONDS`.

        Raises:
            StoreUnavailable: Redis is away.
        """
        count = Call(script("sockets_count"), (f"dify_media_bytes:{person}",), (size, UPLOAD_SECONDS))
        return int(self._runner.run([count])[0])

    def claimed(self, principal: str, names: Sequence[str]) -> tuple[Media, ...]:
        """Return this caller's uploads with these names, which now live as long as a stream. One round trip.

        Raises:
            AnswerError: `file_unknown`: one has expired, or is not this caller's.
            StoreUnavailable: Redis is away.
        """
        if not names:
            return ()
        files = [Media("file", name, place="upload") for name in names]
        reads = [Call(None, ("HGET", _key(file)), ("about",)) for file in files]
        prolong = [Call(None, ("EXPIRE", _key(file)), (self._ttl,)) for file in files]
        counts = self._budget.prolong_call(names, seconds=self._ttl)
        replies = self._runner.run([*reads, *prolong, counts])
        abouts = [self._about(sealed) for sealed in replies[: len(files)]]
        if any(owner != principal for owner, _, _ in abouts):
            raise AnswerError("an upload that this caller does not have", code="file_unknown")
        return tuple(Media(kind, file.url, place="upload") for file, (_, _, kind) in zip(files, abouts, strict=True))

    def read(self, bot: str, media: Media) -> tuple[str, bytes]:
        """Return the name ("" for none) and the content of a file that was stored.

        Raises:
            FetchError: `media_too_old`: it has expired, or the bot's key has changed.
            StoreUnavailable: Redis is away.
        """
        key, bot = _key(media), DEFAULT_BOT if media.place == "upload" else bot
        ((size, sealed),) = self._runner.run([Call(None, ("HMGET", key), ("size", "about"))])
        try:
            content = self._slices.read(bot, key, slice_count(int(size or 0)))
        except ValueError:
            raise FetchError("it cannot be decrypted", code="media_too_old") from None
        if not content:
            raise FetchError("it has expired", code="media_too_old")
        return self._about(sealed)[1], content

    def remove_calls(self, files: Sequence[Media]) -> tuple[Call, ...]:
        """Return the calls that remove those of a question's files that came with it."""
        sent = [media for media in files if media.place == "redis"]
        deletes = [Call(None, ("DEL", _key(media))) for media in sent]
        return (*deletes, self._budget.remove_call(media.url for media in sent)) if sent else ()

    def remove(self, files: Sequence[Media]) -> None:
        """Remove files that no stream uses; without Redis they expire."""
        if not (calls := self.remove_calls(files)):
            return
        try:
            self._runner.run(calls)
        except StoreUnavailable:
            log.warning("files of a question not removed")

    def _about(self, sealed: str | None) -> tuple[str, str, MediaKind]:
        """Return the owner, the name and the kind of an upload; "" for those of a file that is none."""
        try:
            about = unseal_any(keys_of(self._keys[DEFAULT_BOT]), sealed or "")
            owner, name, kind = json.loads(about) if about else ("", "", "file")
        except ValueError:
            return "", "", "file"
        return owner, name, cast(MediaKind, kind)


def _new(file: MediaFile, place: Literal["redis", "upload"]) -> Media:
    """Return a new place for a file."""
    return Media("image" if file.type == "image" else "file", secrets.token_hex(16), place=place)


def _key(media: Media) -> str:
    return f"dify_media:{media.url}"
