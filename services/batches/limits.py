"""How much of batches is worked at the same time, and how long finished tasks are kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much is worked at the same time."""

    #: Items that all replicas together ask at once: the number of lanes.
    max_concurrent: int
    #: Tasks that may be unfinished.
    max_queue_size: int
    #: Lanes that this process works at once.
    threads: int
    #: Whether this process works lanes; else others do.
    works: bool = True


@dataclass(frozen=True, slots=True)
class Retention:
    """Where finished tasks go."""

    #: The folder their files are written into; None for no files.
    folder: str | None = None
    #: Days after its end for which a task stays in the store.
    days: float = 7.0


#: No files; finished tasks stay in the store for a week.
KEEP_A_WEEK = Retention()
