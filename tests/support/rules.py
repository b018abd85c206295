"""Files of rules, and quotas, for tests of other parts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from config.texts import Texts
from services.answers.quotas import QuestionQuotas
from services.redis.store import ScriptRunner
from services.rules.quota_store import QuotaStore
from services.rules.rules_file import RulesFile, RulesFiles


def reread(files: RulesFiles | RulesFile[Any]) -> None:
    """Read what has changed: two looks find a file the same."""
    for _ in range(2):
        files.look()


def no_quotas(runner: ScriptRunner) -> QuestionQuotas:
    """Return quotas without rules."""
    return QuestionQuotas(None, QuotaStore(runner, secret=b"s", stream_ttl=100.0), Texts(), ZoneInfo("UTC"))


def noon_zone() -> str:
    """Return a value of `REPORT_TZ` by which it is noon, so that no day and no month ends during a test."""
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"
