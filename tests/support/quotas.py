"""Quotas for tests of other parts."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from config.texts import Texts
from services.answers.quotas import QuestionQuotas
from services.redis.store import ScriptRunner
from services.rules.quota_store import QuotaStore


def no_quotas(runner: ScriptRunner) -> QuestionQuotas:
    """Return quotas without rules."""
    return QuestionQuotas(None, QuotaStore(runner, secret=b"s", stream_ttl=100.0), Texts(), ZoneInfo("UTC"))
