"""Makes the collections of answers by the rules of their channels, providers and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from services.attachments import AnswerFile
from services.channels import Channels
from services.files.collection import AnswerCollection, CollectionLimits, ToldFiles
from services.files.reading import FileReader
from services.files.sources import read_files, sources_of, written_files
from services.files.store import FileStore
from services.http.fetcher import Fetcher
from services.models import Question
from services.streams.access import Access
from services.streams.owned_stream import OwnedStream


class FileCollector:
    """Makes the `AnswerCollection` of each answer."""

    def __init__(
        self,
        store: FileStore,
        fetcher: Fetcher,
        access: Access,
        channels: Channels,
        *,
        roots: Mapping[str, str],
        limits: CollectionLimits,
        expiry: Callable[[float], int],
    ) -> None:
        """`roots` are by bot the addresses of the providers that serve `/files/`, "" for others.

        `expiry` returns the end of a link that works for a number of seconds from now.
        """
        self._store = store
        self._reader = FileReader(fetcher)
        self._access = access
        self._channels = channels
        self._roots = roots
        self._limits = limits
        self._expiry = expiry

    def of(self, question: Question, stream: OwnedStream) -> AnswerCollection | None:
        """Return the collection of an answer; None where its channel keeps no files."""
        if question.channel not in self._channels or not (keeps := self._channels.of(question).keeps_files):
            return None
        return AnswerCollection(
            stream,
            self._store,
            partial(self._reader.read, root=self._roots.get(question.bot, "")),
            told=ToldFiles(partial(self._keep_told, question, stream), partial(self._told, question, stream)),
            sources=partial(sources_of, signed_only=keeps == "signed"),
            limits=self._limits,
            expiry=self._expiry,
        )

    def _keep_told(self, question: Question, stream: OwnedStream, files: Sequence[AnswerFile]) -> None:
        """Seal files in the stream: its next owner may need them."""
        stream.set(attached=self._access.sealed(question, written_files(files)))

    def _told(self, question: Question, stream: OwnedStream) -> list[AnswerFile]:
        sealed = stream.field("attached")
        return read_files(self._access.unsealed(question, sealed)) if sealed else []
