"""The handlers of a stream manager, and the intake of an answerer, for answers without files and late messages."""

from __future__ import annotations

from services.files.intake import MediaFetcher, MediaIntake
from services.files.sent_store import SentFileStore
from services.http.addresses import AddressRules
from services.http.fetcher import Fetcher
from services.models import Question
from services.redis.store import ScriptRunner
from services.streams.access import Access
from services.streams.owned_stream import OwnedStream
from services.streams.producer import Answer, AnswerHandlers
from tests.support.files import budget_of


class NoLateMessages:
    """Every answer fits into its frame."""

    def overflows(self, question: Question, stream: OwnedStream, code: str) -> bool:
        return False

    def deliver(self, question: Question, stream: OwnedStream) -> str:
        raise AssertionError("no late message was claimed")


def answers_of(events: Answer) -> AnswerHandlers:
    """Return handlers whose answers are the `events`."""
    return AnswerHandlers(events, lambda question, stream: None, NoLateMessages(), lambda stream_id, field: [])


def intake_without_files(runner: ScriptRunner) -> MediaIntake:
    fetcher, access = Fetcher(AddressRules(())), Access({})
    sent = SentFileStore(runner, {}, budget_of(runner), ttl=100.0)
    return MediaIntake(MediaFetcher(fetcher, lambda bot, media: lambda content: content, sent, max_bytes=1000), access)
