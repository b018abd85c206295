"""A provider of long answers, which the settings name by its import path."""

from __future__ import annotations

from collections.abc import Iterator

from services.models import Delta, ProviderEvent, Query
from services.providers.base import BaseRAGProvider
from utils.deadline import Deadline

PIECE = "吃葡萄不吐葡萄皮，" * 100
PIECES = 300
ANSWER = PIECE * PIECES


class LongAnswers(BaseRAGProvider):
    """A provider that answers some 800 kB at once."""

    name = "long"
    app = "long"

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        for _ in range(PIECES):
            yield Delta(PIECE)

    def health_check(self) -> bool:
        return True
