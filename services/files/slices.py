"""Contents of files in Redis, cut into slices, so that one exchange carries a bounded part of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from services.redis.store import Call, ScriptRunner
from utils.keyring import Keyring, keys_of
from utils.sealed import seal_bytes, unseal_bytes_any

#: Bytes of one slice; its base64 has no padding. Encrypted, with Redis's header, it is just below 256 KiB: Redis's
#: allocator would round one byte more up to 320 KiB.
SLICE_BYTES = 192 * 1024 - 48


def slices_of(content: bytes) -> Iterator[bytes]:
    """Yield the slices of a content; none for an empty one."""
    for start in range(0, len(content), SLICE_BYTES):
        yield content[start : start + SLICE_BYTES]


def slice_count(size: int) -> int:
    """Return the number of slices of a content of `size` bytes."""
    return -(-size // SLICE_BYTES)


class SealedSlices:
    """Contents that are encrypted, each in a hash: the number of a slice, from 0 on -> the slice.

    The keys and the hashes' other fields are those of the store that uses it. Every method raises `StoreUnavailable`
    when Redis is away.
    """

    def __init__(self, runner: ScriptRunner, keys: Mapping[str, Keyring]) -> None:
        """`keys` are each bot's."""
        self._runner = runner
        self._keys = keys

    def write(self, bot: str, key: str, content: bytes, fields: Mapping[str, str | int], *, ttl: float) -> int:
        """Store a content and further fields for `ttl` seconds; return the number of its slices."""
        sealing = keys_of(self._keys[bot])[0]
        more = [part for pair in fields.items() for part in pair]
        for number, piece in enumerate(slices_of(content)):
            written = (number, seal_bytes(sealing, piece), *more)
            self._runner.run([Call(None, ("HSET", key), written), Call(None, ("EXPIRE", key), (int(ttl),))])
        return slice_count(len(content))

    def read(self, bot: str, key: str, count: int) -> bytes | None:
        """Return a content of `count` slices; None if one of them is missing.

        Raises:
            ValueError: it was sealed with a key that this replica does not have.
        """
        secrets, slices = keys_of(self._keys[bot]), list[bytes]()
        for number in range(count):
            (sealed,) = self._runner.run([Call(None, ("HGET", key), (number,))])
            if not sealed:
                return None
            slices.append(unseal_bytes_any(secrets, sealed))
        return b"".join(slices)
