"""Closes the event iterator of a provider, including third-party providers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.models import ProviderEvent


@contextmanager
def closing_events(events: Iterator[ProviderEvent]) -> Iterator[Iterator[ProviderEvent]]:
    """Close a provider's event iterator, and with it the connection, when the block ends.

    An iterator without `close`, as a third-party provider may return, is left as it is.
    """
    try:
        yield events
    finally:
        close: Callable[[], None] = getattr(events, "close", lambda: None)
        close()
