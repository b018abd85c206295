"""Runs at the mock Dify whose client is gone, as a dead replica leaves them."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from demo.mocks.dify.server import MockDify
from demo.mocks.dify.wire import Run
from services.models import Delta, ProviderIds, Query
from services.providers.dify.provider import DifyProvider
from tests.support.servers.processes import wait_until
from utils.deadline import Deadline


def lose(provider: DifyProvider, question: str, *, text: bool = False, **fields: Any) -> ProviderIds:
    """Ask, and leave as a dying replica does: when the message is known, or some of its text."""
    ids = ProviderIds()
    with closing(provider.stream_query(Query(question, "u1", **fields), Deadline(20.0))) as events:  # type: ignore[type-var]
        for event in events:
            ids = event if isinstance(event, ProviderIds) else ids
            if ids.message_id and (not text or isinstance(event, Delta)):
                break
    return ids


def run_of(dify: MockDify, ids: ProviderIds) -> Run:
    run = dify.runs.find(ids.task_id)
    assert run is not None
    return run


def ended(dify: MockDify, ids: ProviderIds) -> Run:
    """Return the run when it has ended and is saved."""
    run = run_of(dify, ids)
    wait_until(lambda: run.is_saved and run.status != "running")
    return run
