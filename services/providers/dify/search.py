"""Finds a question's message at Dify by what was asked, by whom and when: for an answer whose ids nobody heard.

Between a question's arrival at Dify and its first event its run has no name here: a basic chat app says nothing before
its first text. Dify writes the message's row when the run begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from services.models import ProviderIds
from services.providers.client.json_fields import count, text
from services.providers.dify.service import DifyService
from utils.deadline import Deadline

#: Seconds by which a row's time may differ from the moment before the question was sent: Dify's clock may be behind or
#: ahead, and the question may wait for its turn. Wider, and the same words said a moment before would be found.
EARLY, LATE = 2.0, 15.0
#: New conversations that are looked into.
MAX_CANDIDATES = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it was put to Dify: the names of its run, who asked, and the credential it was asked with.

    `asked_at` is the moment before it was sent, in seconds since 1970, 0 where nobody noted it. Without a message id,
    `ids.conversation_id` is the conversation it was asked in, "" for a new one.
    """

    ids: ProviderIds
    user: str
    authorization: str
    question: str = ""
    asked_at: float = 0.0

    @property
    def in_history(self) -> bool:
        """Whether its message can be found by its id."""
        return bool(self.ids.message_id and self.ids.conversation_id)

    @property
    def searchable(self) -> bool:
        """Whether its message can be found by its words."""
        return bool(self.question.strip() and self.asked_at)

    def is_row(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a row of the history may be its message."""
        return text(row.get("query")).strip() == self.question.strip() and self.is_time(row)

    def is_time(self, row: Mapping[str, Any]) -> bool:
        return -EARLY <= count(row.get("created_at")) - self.asked_at <= LATE


def search(service: DifyService, asked: Asked, deadline: Deadline) -> ProviderIds:
    """Return the ids of the question's message; none where it is not there, or where several might be it.

    Raises:
        ProviderError: Dify refused, or could not be asked.
    """
    found = list(_rows(service, asked, deadline))
    if len(found) != 1:
        return ProviderIds()
    (row,) = found
    return ProviderIds(text(row.get("conversation_id")), text(row.get("id")))


def _rows(service: DifyService, asked: Asked, deadline: Deadline) -> Iterator[Mapping[str, Any]]:
    if named := asked.ids.conversation_id:
        # The turns of a conversation come one by one: its question is the last.
        rows = service.messages(named, asked.user, authorization=asked.authorization, deadline=deadline)
        yield from (row for row in rows[-1:] if asked.is_row(row))
        return
    listed = service.conversations(asked.user, authorization=asked.authorization).get("data")
    talks = [talk for talk in listed if isinstance(talk, dict)] if isinstance(listed, list) else []
    new = [text(talk.get("id")) for talk in talks if asked.is_time(talk)]
    for conversation_id in new[:MAX_CANDIDATES]:
        rows = service.messages(conversation_id, asked.user, authorization=asked.authorization, deadline=deadline)
        yield from (row for row in rows if len(rows) == 1 and asked.is_row(row))
