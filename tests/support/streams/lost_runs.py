"""Runs of the mock Dify whose client has disconnected, as a killed replica leaves them."""

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
    """Ask, and disconnect when the message id is known or, with `text`, after the first delta; return the ids."""
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
    """Wait until the run has ended and is saved, and return it."""
    run = run_of(dify, ids)
    wait_until(lambda: run.is_saved and run.status != "running")
    return run
