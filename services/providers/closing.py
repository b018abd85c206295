"""The end of what a provider says, also of one that is somebody else's code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.models import ProviderEvent


@contextmanager
def closing_events(events: Iterator[ProviderEvent]) -> Iterator[Iterator[ProviderEvent]]:
    """Close what a provider says, and so its connection, when nobody listens any more.

    Any iterator will do: only generators can be closed.
    """
    try:
        yield events
    finally:
        close: Callable[[], None] = getattr(events, "close", lambda: None)
        close()
