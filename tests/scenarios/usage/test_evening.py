"""A short evening of a small company, as `make evening` runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.evening.__main__ import arguments, run
from tests.scenarios.evening.company import USED_UP, USES

pytestmark = [pytest.mark.scenario, pytest.mark.full]

SHORT = ("--people", "40", "--seconds", "34", "--every", "15", "--outage", "12", "--pause", "4")


@pytest.mark.parametrize("others", [("--log", "full"), ("--log", "off", "--after-disconnect", "aborts")], ids=" ".join)
def test_log_usage_quotas_and_provider_agree_to_the_question(
    others: tuple[str, ...], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Two replicas are killed and SQL is away; each question is logged and counted once, as people saw it.

    No limit is exceeded, its counters are those of the provider, and nothing is held at the end. Without a log the sums
    are the same. Where the provider loses its runs, questions are asked again, once.
    """
    books = run(arguments([*SHORT, *others]), tmp_path)

    record_property("evening", str(books))
    assert books.faults == []
    assert set(books.report.seen) == set(USES)
    assert books.kills >= 1
    assert len(books.people) >= 40
    assert USED_UP in {line.outcome for line in books.people.values()}
    assert bool(books.log) == ("off" not in others)
