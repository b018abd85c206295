"""Uploads of a bot to WeCom: the parts that WeCom has, and the media_id of complete ones.

    {dify_long_connection:<bot>}:upload:<digest>   hash: upload_id and a field for each part that WeCom has, for 25
                                                   minutes from the last one; then media_id, for 70 hours

The digest stands for kind, name and content. WeCom ends an upload after 30 minutes, and deletes media after three days.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.redis.store import Call, ScriptRunner
from services.wecom.long_connection.lease_store import bot_key

#: Seconds that an unfinished upload is continued, and that a media_id is used.
UPLOAD_SECONDS, MEDIA_SECONDS = 1500, 252_000


@dataclass(frozen=True, slots=True)
class KnownUpload:
    """The state of an upload in Redis; both ids are "" for an unknown one."""

    upload_id: str = ""
    #: Numbers of the parts that WeCom has.
    parts: frozenset[int] = frozenset()
    media_id: str = ""


class UploadStore:
    """Owns the key above. Every method is one round trip, and raises `StoreUnavailable` when Redis is away."""

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner

    def find(self, bot: str, digest: str) -> KnownUpload:
        fields = self._runner.run([Call(None, ("HGETALL", _key(bot, digest)))])[0]
        upload_id = fields.get("upload_id", "")
        prefix = f"{upload_id}/"
        parts = frozenset(int(name.removeprefix(prefix)) for name in fields if name.startswith(prefix))
        return KnownUpload(upload_id, parts, fields.get("media_id", ""))

    def begin(self, bot: str, digest: str, upload_id: str) -> None:
        """Record a new upload; parts of an earlier one no longer count."""
        self._write(bot, digest, UPLOAD_SECONDS, "upload_id", upload_id)

    def add(self, bot: str, digest: str, upload_id: str, part: int) -> None:
        """Record that WeCom has a part."""
        self._write(bot, digest, UPLOAD_SECONDS, f"{upload_id}/{part}", "1")

    def finish(self, bot: str, digest: str, media_id: str) -> None:
        self._write(bot, digest, MEDIA_SECONDS, "media_id", media_id)

    def forget(self, bot: str, digest: str) -> None:
        """Forget an upload that WeCom does not continue."""
        self._runner.run([Call(None, ("DEL", _key(bot, digest)))])

    def _write(self, bot: str, digest: str, seconds: int, name: str, value: str) -> None:
        key = _key(bot, digest)
        self._runner.run([Call(None, ("HSET", key), (name, value)), Call(None, ("EXPIRE", key), (seconds,))])


def _key(bot: str, digest: str) -> str:
    return bot_key(bot, f"upload:{digest}")
