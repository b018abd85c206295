"""One seed for everything random in a run: ids, keys, ports, Hypothesis' examples, the order of the tests.

Each test draws from generators of its own, made from the run's seed and the test's name, so that it draws the same
values alone and in a whole run. `--seed` sets the seed; `make test` and CI use the default, `make test-random` draws a
new one, and the header of every run prints it. The product's own processes draw from the operating system, as in
production: replicas that drew the same ids would be a fault.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis.internal.conjecture import providers

#: The seed of `make test` and of CI.
DEFAULT = 1

_urandom = os.urandom
_generator = random.Random()


def _seeded_urandom(size: int, /) -> bytes:
    return _generator.randbytes(size)


def add_option(parser: pytest.Parser) -> None:
    parser.addoption("--seed", default=str(DEFAULT), help="a number that everything random comes from, or `random`")


def configure(config: pytest.Config) -> None:
    """Settle the seed, hand it to Hypothesis, and let `os.urandom`, `secrets` and `uuid` draw from it.

    Call it before Hypothesis' plugin is configured, and before the processes of a parallel run start: they get the
    options as they are then.
    """
    if config.option.seed == "random":
        config.option.seed = str(int.from_bytes(_urandom(4)))
    if not config.option.seed.isdecimal():
        raise pytest.UsageError(f"--seed {config.option.seed}: a number or `random` is expected")
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = config.option.seed
    # Hypothesis tries constants of those of the project's modules that are imported, which depends on the tests before.
    providers._get_local_constants = lambda: providers._local_constants
    os.urandom = _seeded_urandom
    # `secrets` and `SystemRandom` draw from the name that `random` imported.
    random._urandom = _seeded_urandom  # type: ignore[attr-defined]


def header(config: pytest.Config) -> str:
    return f"seed: {config.option.seed} (--seed sets it, `make test-random` draws one)"


def shuffle(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files, and the tests of each, into the seed's order. Pytest then groups what shares a costly fixture."""
    order = random.Random(config.option.seed)
    files: dict[os.PathLike[str], list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    shuffled = list(files.values())
    order.shuffle(shuffled)
    for tests in shuffled:
        order.shuffle(tests)
    items[:] = [item for tests in shuffled for item in tests]


def seed_test(item: pytest.Item, phase: str) -> None:
    """Seed the generators for one phase of a test, whatever shared fixtures drew in the phase before."""
    seed = f"{item.config.option.seed} {item.nodeid} {phase}"
    random.seed(seed)
    _generator.seed(seed)
