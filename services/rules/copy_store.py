"""A copy in Redis of the rules that administrators have saved, for replicas that start while the database is away.

    dify_rules:saved    hash: <kind>, the mark of its newest version, and <kind>:text, its text; never expires

The database decides: a copy that differs from it is written anew within seconds, also after a dump was restored.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.redis.store import Call, ScriptRunner

KEY = "dify_rules:saved"


class RulesCopyStore:
    """Owns the key above. Every method raises `StoreUnavailable` while Redis is away."""

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner

    def marks(self, kinds: Sequence[str]) -> dict[str, str | None]:
        """Return the mark of each kind's copy, None where there is none."""
        return dict(zip(kinds, self._read(kinds), strict=True))

    def read(self, kind: str) -> tuple[str, str] | None:
        """Return the mark and the text of a kind; None where there is no copy."""
        mark, text = self._read([kind, f"{kind}:text"])
        return None if mark is None or text is None else (mark, text)

    def write(self, kind: str, mark: str, text: str) -> None:
        """Take a version in the place of the one before."""
        self._runner.run([Call(None, ("HSET", KEY, kind, mark, f"{kind}:text", text))])

    def _read(self, names: Sequence[str]) -> list[str | None]:
        (found,) = self._runner.run([Call(None, ("HMGET", KEY, *names))])
        return [value.decode() if isinstance(value, bytes) else value for value in found]
