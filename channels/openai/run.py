"""The run of an answer while its client is connected: it is cancelled when the client goes away."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from services.conversations.session_store import TextDigest
from services.errors import StoreUnavailable


class AnswerRun:
    """One request's part in a run."""

    def __init__(
        self, cancel: Callable[[], object], answered: Callable[[TextDigest], None], *, resumable: bool
    ) -> None:
        """`answered` keeps the conversation; a `resumable` run goes on without its client, who can come back to it."""
        self._cancel = cancel
        self._answered = answered
        self._resumable = resumable
        self.ended = False

    def end(self, answer: TextDigest | None = None) -> None:
        """Note that the answer has ended, completed with the text of `answer` as the client sees it, or failed."""
        self.ended = True
        if answer:
            self._answered(answer)

    def leave(self) -> None:
        """Cancel the run, if its client goes away before the end and cannot come back."""
        if self.ended or self._resumable:
            return
        with suppress(StoreUnavailable):
            self._cancel()
