"""The budget of the files that a test's Redis keeps."""

from __future__ import annotations

from services.files.budget_store import BudgetLimits, FileBudget
from services.redis.store import ScriptRunner

PLENTY = 2**40


def budget_of(runner: ScriptRunner, per_caller: int = PLENTY, total: int = PLENTY, *, now: str = "") -> FileBudget:
    """Return a budget in bytes; `now` are the seconds since 1970 that Redis's clock shows it."""
    return FileBudget(runner, BudgetLimits(per_caller, total), names=b"obviously fake", now=now)
