"""The base class of providers that wrap another provider."""

from __future__ import annotations

from typing import Literal

from services.attachments import MediaFile
from services.models import ProviderIds, Query
from services.providers.base import BaseRAGProvider, Recovered
from utils.deadline import Deadline


class ProviderWrapper(BaseRAGProvider):
    """Delegates everything except `stream_query` to the wrapped provider. Health is the wrapped provider's health."""

    def __init__(self, wrapped: BaseRAGProvider) -> None:
        self.name = wrapped.name
        self.app = wrapped.app
        self.files_root = wrapped.files_root
        self.keeps_conversations = wrapped.keeps_conversations
        self.takes_instructions = wrapped.takes_instructions
        self.takes_options = wrapped.takes_options
        self.takes_files = wrapped.takes_files
        self.search_provider = wrapped.search_provider
        self.suggest = wrapped.suggest
        self.opening = wrapped.opening
        self.forms = wrapped.forms
        self.takes_ratings = wrapped.takes_ratings
        self.sends_user_tokens = wrapped.sends_user_tokens
        self._wrapped = wrapped

    def health_check(self) -> bool:
        return self._wrapped.health_check()

    def missing_inputs(self) -> list[str]:
        return self._wrapped.missing_inputs()

    def wrong_inputs(self) -> list[str]:
        return self._wrapped.wrong_inputs()

    def clock_skew(self) -> float | None:
        return self._wrapped.clock_skew()

    def check_file(self, file: MediaFile) -> None:
        self._wrapped.check_file(file)

    def upload(self, file: MediaFile, query: Query, deadline: Deadline) -> str:
        return self._wrapped.upload(file, query, deadline)

    def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        return self._wrapped.recover(query, ids, deadline)

    def cancel(self, ids: ProviderIds, user: str) -> None:
        self._wrapped.cancel(ids, user)

    def rate(
        self, message_id: str, user: str, rating: Literal["like", "dislike", ""], content: str, *, token: str = ""
    ) -> None:
        self._wrapped.rate(message_id, user, rating, content, token=token)

    def close(self) -> None:
        self._wrapped.close()
