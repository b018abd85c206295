"""The examples a property test draws: few in `make test`, its full number in `make test-all`.

`make test-all` draws the same ones in every run, so that its result depends on the code alone. `make test` and the
profile "search", which has the full number, draw new ones.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

#: Default number of examples of a property: in `make test`, and in `make test-all`, which selects the profile "full".
QUICK, FULL = 25, 100


def register_profiles() -> None:
    """Register the profiles and load "quick"; pytest's option --hypothesis-profile selects another.

    None of them has a deadline or the check `too_slow`: both measure the machine's speed, and a busy machine draws the
    same examples more slowly.
    """
    machine = [HealthCheck.too_slow]
    settings.register_profile("quick", max_examples=QUICK, suppress_health_check=machine, deadline=None)
    search = settings(max_examples=FULL, suppress_health_check=machine, deadline=None)
    settings.register_profile("search", search)
    settings.register_profile("full", search, derandomize=True)
    settings.load_profile("quick")


def examples(full: int) -> int:
    """Return the number of examples for a property whose full number is `full`."""
    return min(full, QUICK) if settings.get_current_profile_name() == "quick" else full
