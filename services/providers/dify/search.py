"""Finds a question's message at Dify by its text, user and time, for an answer whose ids were never received.

Until the first event of a run arrives, its ids are not known here; a basic chat app sends nothing before its first
text. Dify inserts the message's row when the run begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.models import ProviderIds
from services.providers.client.json_fields import count, text
from services.providers.dify.service import DifyService
from utils.deadline import Deadline

#: Seconds by which a row's time may be before or after `asked_at`: Dify's clock may differ, and the question may have
#: been queued. With wider limits the same question asked a moment earlier would match.
EARLY, LATE = 2.0, 15.0
#: The number of new conversations whose history is searched.
MAX_CANDIDATES = 5


@dataclass(frozen=True, slots=True)
class SentQuestion:
    """A question as it was sent to Dify: the ids of its run, the user, and the credential.

    `asked_at` is the time just before it was sent, in seconds since 1970; 0 if unknown. Without a message id,
    `ids.conversation_id` is the conversation it was asked in; "" for a new one.
    """

    ids: ProviderIds
    user: str
    authorization: str
    question: str = ""
    asked_at: float = 0.0

    @property
    def in_history(self) -> bool:
        """Whether the message can be found by its id."""
        return bool(self.ids.message_id and self.ids.conversation_id)

    @property
    def searchable(self) -> bool:
        """Whether the message can be found by its text."""
        return bool(self.question.strip() and self.asked_at)

    def is_row(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row of the history may be this question's message."""
        return text(row.get("query")).strip() == self.question.strip() and self.is_time(row)

    def is_time(self, row: Mapping[str, Any]) -> bool:
        return -EARLY <= count(row.get("created_at")) - self.asked_at <= LATE


def search(service: DifyService, asked: SentQuestion, deadline: Deadline) -> ProviderIds:
    """Return the ids of the question's message; empty ids if no row matches, or more than one.

    Raises:
        ProviderError: Dify replied with an error or could not be reached.
    """
    found = list(_rows(service, asked, deadline))
    if len(found) != 1:
        return ProviderIds()
    (row,) = found
    return ProviderIds(text(row.get("conversation_id")), text(row.get("id")))


def _rows(service: DifyService, asked: SentQuestion, deadline: Deadline) -> Iterator[Mapping[str, Any]]:
    if named := asked.ids.conversation_id:
        # A conversation has one turn at a time, so the question is in the last row.
        rows = service.messages(named, asked.user, authorization=asked.authorization, deadline=deadline)
        yield from (row for row in rows[-1:] if asked.is_row(row))
        return
    listed = service.conversations(asked.user, authorization=asked.authorization).get("data")
    talks = [talk for talk in listed if isinstance(talk, dict)] if isinstance(listed, list) else []
    new = [text(talk.get("id")) for talk in talks if asked.is_time(talk)]
    for conversation_id in new[:MAX_CANDIDATES]:
        rows = service.messages(conversation_id, asked.user, authorization=asked.authorization, deadline=deadline)
        yield from (row for row in rows if len(rows) == 1 and asked.is_row(row))
