"""The bytes of the files in Redis: how many each caller may have there, and how many all callers may.

    {dify_files}:ends    sorted set: name of a file -> when it ends, in seconds since 1970
    {dify_files}:bytes   hash: file:<name> -> "<bytes> <caller>", and the sums of:<caller> and all. Callers are hashed

A file is counted before it is stored, under the name that its store gives it, so a repeated count changes nothing. Its
count ends with the file: when it is removed, else at its own end. No sweep is needed for that, because each count
removes those that are over; a removal that Redis did not carry out costs no more than the file's life.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from services import metrics
from services.errors import AnswerError, StoreUnavailable
from services.redis.store import Call, ScriptRunner, script
from utils.keyring import Keyring, keys_of

#: Bytes that a file counts at least, so that the number of files is bounded too.
LEAST_BYTES = 16 * 1024
#: Seconds between two looks at the sum, for the metric, over all replicas.
LOOK_SECONDS = 15.0

_KEYS = ("{dify_files}:ends", "{dify_files}:bytes")
#: Error code by the script's reply.
_REFUSED = {1: "files_full", 2: "files_store_full"}


class BudgetLimits(NamedTuple):
    """Bytes of files in Redis."""

    per_caller: int
    total: int


class FileBudget:
    """Owns the keys above. Thread-safe.

    Raises:
        StoreUnavailable: from every method that counts, when Redis is away.
    """

    def __init__(self, runner: ScriptRunner, limits: BudgetLimits, *, names: Keyring, now: str = "") -> None:
        """`names` hashes callers; `now` replaces Redis's clock in tests."""
        self._runner = runner
        self._limits = limits
        self._names = names
        self._now = now
        self._used = 0
        self._closed = threading.Event()

    def count(self, caller: str, sizes: Mapping[str, int], *, seconds: float) -> None:
        """Count files by name and bytes, all of them or none, for `seconds`, the life of each.

        Raises:
            AnswerError: `files_full`: the caller has too many bytes; `files_store_full`: all callers together have.
        """
        hashed = hmac.digest(keys_of(self._names)[0], f"files:{caller}".encode("utf-8", "replace"), "sha256").hex()[:24]
        counted = [(name, max(size, LEAST_BYTES)) for name, size in sizes.items()]
        if code := _REFUSED.get(self._run(hashed, counted, seconds)):
            raise AnswerError("too many bytes of files in redis", code=code)

    def used(self) -> int:
        """Return the bytes of all files."""
        self._run("", (), 0.0)
        return self._used

    def prolong_call(self, names: Iterable[str], *, seconds: float) -> Call:
        """Return the call after which files end `seconds` from now; those that are not counted stay so."""
        return Call(script("files_prolong"), _KEYS, (self._now, seconds, *names))

    def remove(self, names: Iterable[str]) -> None:
        """Stop counting files that were removed."""
        self._runner.run([self.remove_call(names)])

    def remove_call(self, names: Iterable[str]) -> Call:
        """Return the call after which files that were removed do not count."""
        return self._call("", [(name, 0) for name in names], 0.0)

    def start(self) -> None:
        """Report the limit as a metric, and start the thread that reports the bytes."""
        metrics.FILE_BYTES_MAX.set(self._limits.total)
        threading.Thread(target=self._report, name="file-bytes", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _report(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            with suppress(StoreUnavailable):
                self.used()

    def _run(self, caller: str, counted: Iterable[tuple[str, int]], seconds: float) -> int:
        ((refused, self._used),) = self._runner.run([self._call(caller, counted, seconds)])
        metrics.FILE_BYTES.set(self._used)
        return int(refused)

    def _call(self, caller: str, counted: Iterable[tuple[str, int]], seconds: float) -> Call:
        words = [word for pair in counted for word in pair]
        return Call(script("files_count"), _KEYS, (self._now, caller, seconds, *self._limits, *words))
