"""Answers in tests: a provider's stream of events collected into one `Answer`, and sources as they are stored."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.errors import ProviderError
from services.models import Delta, ProviderEvent, ProviderIds, Query, Replacement, Usage
from services.providers.base import BaseRAGProvider
from utils.deadline import Deadline

#: Timeout of each answer in seconds; it only ends a stuck test.
TIMEOUT = 30.0


def typed(title: str) -> dict[str, Any]:
    """Return a source of which the provider told the title only, as it is stored."""
    return {"title": title, "url": "", "snippet": "", "score": None}


def provider_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the providers have logged; threads of other tests may still log something else."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("services.providers.")]


class TickingClock:
    """A clock that advances by a second with each reading: a timeout lapses after so many reads, however quick.

    It stands still from `until` on.
    """

    def __init__(self, until: float = math.inf) -> None:
        self.now, self._until = 0.0, until

    def __call__(self) -> float:
        self.now = min(self.now + 1.0, self._until)
        return self.now


@dataclass
class Answer:
    """The result of a provider's stream: its text, ids, usage, events, and the error that ended it."""

    text: str = ""
    ids: ProviderIds = field(default_factory=ProviderIds)
    usage: Usage | None = None
    error: ProviderError | None = None
    events: list[ProviderEvent] = field(default_factory=list)

    @property
    def code(self) -> str:
        return self.error.code if self.error else ""

    def take(self, event: ProviderEvent) -> None:
        self.events.append(event)
        match event:
            case Delta(piece):
                self.text += piece
            case Replacement(whole):
                self.text = whole
            case ProviderIds():
                self.ids = event
            case Usage():
                self.usage = event


def ask(
    provider: BaseRAGProvider,
    text: str,
    *,
    deadline: Deadline | None = None,
    after_each: Callable[[], object] = lambda: None,
    **fields: Any,
) -> Answer:
    """Ask a question and return the answer; a ProviderError is in `Answer.error` instead of being raised.

    `after_each` is called after each event.
    """
    answer = Answer()
    try:
        for event in provider.stream_query(Query(text, "u1", **fields), deadline or Deadline(TIMEOUT)):
            answer.take(event)
            after_each()
    except ProviderError as exc:
        answer.error = exc
    return answer


def together(work: Callable[[int], Answer], count: int) -> list[Answer]:
    """Run `work(number)` in `count` threads at once; return the results in the order of the numbers."""
    answers: dict[int, Answer] = {}
    threads = [threading.Thread(target=lambda n=n: answers.update({n: work(n)}), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    return [answers[number] for number in range(count)]
