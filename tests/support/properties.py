"""The number of examples a property test draws: few in `make test`, its full number in `make test-all`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

#: Default number of examples of a property: in `make test`, and in `make test-all`, which selects the profile "full".
QUICK, FULL = 25, 100


def register_profiles() -> None:
    """Register the profiles "quick" and "full", and load "quick"; pytest's option --hypothesis-profile selects another.

    Neither has a deadline or the check `too_slow`: both measure the machine's speed, and a busy machine draws the same
    examples more slowly.
    """
    machine = [HealthCheck.too_slow]
    settings.register_profile("quick", max_examples=QUICK, suppress_health_check=machine, deadline=None)
    settings.register_profile("full", max_examples=FULL, suppress_health_check=machine, deadline=None)
    settings.load_profile("quick")


def examples(full: int) -> int:
    """Return the number of examples for a property whose full number is `full`."""
    return min(full, QUICK) if settings.get_current_profile_name() == "quick" else full
