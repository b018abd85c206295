"""The number of examples a property test draws: few in `make test`, its full number in `make test-all`.

The run's seed (`tests/support/seed.py`) decides which ones: a run's result depends on the code and the seed alone.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

#: Default number of examples of a property: in `make test`, and in `make test-all`, which selects the profile "full".
QUICK, FULL = 25, 100


def register_profiles() -> None:
    """Register the profiles and load "quick"; pytest's option --hypothesis-profile selects another.

    Neither has a deadline or the check `too_slow`: both measure the machine's speed, and a busy machine draws the same
    examples more slowly. Neither has a database: examples that failed in an earlier run are not tried first.
    """
    quick = settings(max_examples=QUICK, suppress_health_check=[HealthCheck.too_slow], deadline=None, database=None)
    settings.register_profile("quick", quick)
    settings.register_profile("full", quick, max_examples=FULL)
    settings.load_profile("quick")


def examples(full: int) -> int:
    """Return the number of examples for a property whose full number is `full`."""
    return min(full, QUICK) if settings.get_current_profile_name() == "quick" else full
