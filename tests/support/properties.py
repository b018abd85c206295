"""How many examples a property draws: few in `make test`, its full number in `make test-all`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

#: Examples of a property in `make test`; `make test-all` selects the profile "full".
QUICK, FULL = 25, 100


def register_profiles() -> None:
    """Register the profiles "quick" and "full", and load "quick"; pytest's option --hypothesis-profile selects another.

    Neither has the check `too_slow` nor a deadline: both judge the machine, and a busy one draws the same examples
    more slowly.
    """
    machine = [HealthCheck.too_slow]
    settings.register_profile("quick", max_examples=QUICK, suppress_health_check=machine, deadline=None)
    settings.register_profile("full", max_examples=FULL, suppress_health_check=machine, deadline=None)
    settings.load_profile("quick")


def examples(full: int) -> int:
    """Return how many examples a property draws whose full number is `full`."""
    return min(full, QUICK) if settings.get_current_profile_name() == "quick" else full
