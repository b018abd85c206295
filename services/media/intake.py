"""Takes a question's files in: fetches each, and uploads it to the provider or keeps it for the question itself.

Files are fetched one after the other, and few at a time in the whole process, because each is in memory twice while it
is decrypted.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from services import metrics
from services.attachments import Media, MediaFile, media_from_json
from services.errors import AnswerError, FetchError, ProviderError
from services.media.media_service import MediaService
from services.models import Query, Question
from services.providers.base import BaseRAGProvider
from services.redis.store import Call
from services.streams.access import Access
from services.streams.answer_events import Uploaded
from utils.deadline import Deadline, ended_within
from utils.slots import Slots

#: Seconds for all files of one question, the wait for other questions' files included.
TOTAL_SECONDS = 120.0
#: Files that are fetched at the same time in one process.
MOST_AT_ONCE = 4


#: Bytes of all files of one question that a provider takes within the question.
INLINE_BYTES = 20 * 1024 * 1024


class MediaIntake:
    """Takes in the files of all questions of a process."""

    def __init__(
        self,
        source: MediaService,
        access: Access,
        *,
        total_seconds: float = TOTAL_SECONDS,
        most_at_once: int = MOST_AT_ONCE,
    ) -> None:
        self._source = source
        self._access = access
        self._total_seconds = total_seconds
        self._slots = Slots(most_at_once)

    def take_in(
        self, question: Question, provider: BaseRAGProvider, query: Query, deadline: Deadline
    ) -> Generator[Uploaded, None, Query]:
        """Yield each upload; return the query with the question's files. The provider is not asked.

        The receiver stores an upload before it continues: files that the question has already are not fetched again.

        Raises:
            AnswerError: a file cannot be fetched, decrypted, or taken by the provider.
        """
        if not provider.takes_files:
            raise AnswerError("the provider takes no files", code="media_unsupported")
        files, inline = list(question.files), list[MediaFile]()
        with ended_within(deadline, self._total_seconds) as bounded:
            for media in self._listed(question)[len(files) :]:
                taken = self._taken(question, media, provider, query, bounded, deadline)
                if isinstance(taken, str):
                    files.append(taken)
                    yield Uploaded(tuple(files))
                else:
                    inline.append(taken)
                    _check_size(inline)
        return replace(query, files=tuple(files), media=tuple(inline))

    def leave_calls(self, question: Question) -> tuple[Call, ...]:
        """Return the calls that remove what is stored of the question's files, for the end of its stream."""
        try:
            return self._source.sent.remove_calls(self._listed(question))
        except AnswerError:
            return ()

    def _listed(self, question: Question) -> tuple[Media, ...]:
        try:
            return media_from_json(self._access.unsealed(question, question.media))
        except (ValueError, TypeError, KeyError):
            raise AnswerError("the files' addresses cannot be decrypted", code="media_failed") from None

    def _taken(
        self,
        question: Question,
        media: Media,
        provider: BaseRAGProvider,
        query: Query,
        bounded: Deadline,
        deadline: Deadline,
    ) -> str | MediaFile:
        """Return the id of an uploaded file, or a file for the question itself."""
        try:
            with self._slots.held(bounded) as free:
                if not free:
                    raise FetchError("too many files at once")
                file = self._source.fetch(question.bot, media, bounded)
                provider.check_file(file)
                taken = provider.upload(file, query, bounded) if provider.takes_files == "upload" else file
        except AnswerError as exc:
            late = bounded.over and not deadline.aborted
            error = FetchError("the time for the files is over") if late and isinstance(exc, ProviderError) else exc
            metrics.MEDIA.labels(media.kind, error.code).inc()
            raise error from None
        metrics.MEDIA.labels(media.kind, "taken").inc()
        return taken


def _check_size(inline: list[MediaFile]) -> None:
    if sum(len(file.content) for file in inline) > INLINE_BYTES:
        raise AnswerError("too large for one question", code="media_too_large")


def taken_in(
    intake: MediaIntake | None, question: Question, provider: BaseRAGProvider, query: Query, deadline: Deadline
) -> Generator[Uploaded, None, Query]:
    """Do what `MediaIntake.take_in` does; without an intake the process takes no files."""
    if intake is None:
        raise AnswerError("this process takes no files", code="media_unsupported")
    return (yield from intake.take_in(question, provider, query, deadline))
