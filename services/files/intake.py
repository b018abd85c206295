"""Takes a question's files in: fetches each, and uploads it to the provider or keeps it for the question itself.

A file comes from WeCom's store, where it is encrypted, from the web, or from Redis, where it came with the question.
Undecrypted bytes of WeCom's store do not leave this module. Files are fetched one after the other, and few at a time in
the whole process, because each is in memory twice while it is decrypted.

An address of WeCom is valid for five minutes, so the producer fetches files as soon as the person is authenticated. An
uploaded file's id is stored in the question at once (`Uploaded`): a replica that takes over uploads the others only. A
provider that takes files within the question (`inline`) has no id to store, so a replica that takes over fetches them
again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

from services import metrics
from services.attachments import Media, MediaFile, media_from_json
from services.errors import AnswerError, FetchError, ProviderError
from services.files.kinds import file_of, recognized
from services.files.sent_store import SentFileStore
from services.http.fetcher import Fetcher
from services.models import Query, Question
from services.providers.base import BaseRAGProvider
from services.redis.store import Call
from services.streams.access import Access
from services.streams.answer_events import Uploaded
from utils.deadline import Deadline, ended_within
from utils.slots import Slots

#: Bytes that encryption adds at most.
PADDING = 32
#: Seconds for all files of one question, the wait for other questions' files included.
TOTAL_SECONDS = 120.0
#: Files that are fetched at the same time in one process.
MOST_AT_ONCE = 4
#: Bytes of all files of one question that a provider takes within the question.
INLINE_BYTES = 20 * 1024 * 1024
#: Characters of a file's name that are kept.
LONGEST_NAME = 255

#: Returns the function that decrypts a file of a message to a bot. Both may raise AnswerError (`media_undecryptable`).
Decryptor = Callable[[str, Media], Callable[[bytes], bytes]]


class MediaFetcher:
    """Fetches files of messages to all bots. Thread-safe."""

    def __init__(self, fetcher: Fetcher, decryptor: Decryptor, sent: SentFileStore, *, max_bytes: int) -> None:
        """`max_bytes` is the size of the largest decrypted file."""
        self.sent = sent
        self._fetcher = fetcher
        self._decryptor = decryptor
        self._max_bytes = max_bytes

    def fetch(self, bot: str, media: Media, deadline: Deadline) -> MediaFile:
        """Return a file of a message to this bot.

        Raises:
            FetchError: it cannot be fetched.
            AnswerError: `media_undecryptable`, `media_too_large`, `media_wrong_type`: it is no picture although the
                message says so.
            ProviderError: `interrupted` after `deadline.abort`.
            StoreUnavailable: it is in Redis, which is away.
        """
        name, content = self._read(bot, media, deadline)
        if len(content) > self._max_bytes:
            raise AnswerError("too large", code="media_too_large")
        # A wrong key decrypts one file in 256 to random bytes with a valid end.
        if media.kind == "image" and not recognized(name, content, media.kind).is_picture:
            raise AnswerError("a picture that is none", code="media_wrong_type")
        return file_of(media.kind, name, content)

    def _read(self, bot: str, media: Media, deadline: Deadline) -> tuple[str, bytes]:
        """Return the name that a file's place gives it, "" for none, and its bytes."""
        match media.place:
            case "redis" | "upload":
                return self.sent.read(bot, media)
            case "web":
                fetched = self._fetcher.fetch(media.url, deadline, self._max_bytes)
                return fetched.name, fetched.content
            case _:
                decrypt = self._decryptor(bot, media)
                fetched = self._fetcher.fetch(media.url, deadline, self._max_bytes + PADDING)
                return fetched.name, decrypt(fetched.content)

    def close(self) -> None:
        """Close the pooled connections."""
        self._fetcher.close()


class MediaIntake:
    """Takes in the files of all questions of a process."""

    def __init__(
        self,
        source: MediaFetcher,
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
        """Yield each upload, or at last the files within the question; return the query with the question's files.

        The caller stores an upload before it continues. Files whose upload the question has are not fetched again.

        Raises:
            AnswerError: a file cannot be fetched, decrypted, or taken by the provider.
        """
        if not provider.takes_files:
            raise AnswerError("the provider takes no files", code="media_unsupported")
        files, inline = list(question.files), list[MediaFile]()
        names = list(question.file_names[: len(files)])
        with ended_within(deadline, self._total_seconds) as bounded:
            for media in self._listed(question)[len(files) :]:
                file, taken = self._taken(question, media, provider, query, bounded, deadline)
                names.append(file.name[:LONGEST_NAME])
                if taken:
                    files.append(taken)
                    yield Uploaded(tuple(files), tuple(names))
                else:
                    inline.append(file)
                    _check_size(inline)
        if inline:
            yield Uploaded(tuple(files), tuple(names))
        return replace(query, files=tuple(files), media=tuple(inline))

    def leave_calls(self, question: Question) -> tuple[Call, ...]:
        """Return the calls that remove the question's stored files, for the end of its stream."""
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
    ) -> tuple[MediaFile, str]:
        """Return a file, and its id where it was uploaded; "" for a file within the question."""
        try:
            with self._slots.held(bounded) as free:
                if not free:
                    raise FetchError("too many files at once")
                file = self._source.fetch(question.bot, media, bounded)
                provider.check_file(file)
                taken = provider.upload(file, query, bounded) if provider.takes_files == "upload" else ""
        except AnswerError as exc:
            late = bounded.over and not deadline.aborted
            error = FetchError("the time for the files is over") if late and isinstance(exc, ProviderError) else exc
            metrics.MEDIA.labels(media.kind, error.code).inc()
            raise error from None
        metrics.MEDIA.labels(media.kind, "taken").inc()
        return file, taken


def _check_size(inline: list[MediaFile]) -> None:
    if sum(len(file.content) for file in inline) > INLINE_BYTES:
        raise AnswerError("too large for one question", code="media_too_large")
