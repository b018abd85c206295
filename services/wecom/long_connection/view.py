"""Renders answers for the long connection: the content of a frame, and the messages and files that follow it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from config.texts import Texts
from services.answers.gateway import Gateway
from services.files.answer_store import FileStore, StoredFile
from services.files.shown import FileOffers
from services.streams.records import Snapshot
from services.streams.store import StreamStore
from services.wecom.cards import card_words
from services.wecom.frames import EndedAnswer, WeComFrames, is_over
from services.wecom.long_connection.link import Link
from services.wecom.long_connection.protocol import AckMissing
from services.wecom.long_connection.uploads import FileMessage, UploadDelayed, UploadRefused, Uploads
from services.wecom.message import feedback_id
from utils.markdown.late_text import AnswerParts

#: Attempts to upload a file over one link, which WeCom's limits may delay.
ATTEMPTS = 10


class AnswerTarget(NamedTuple):
    """The message that an answer belongs to; its req_id is a credential."""

    #: "" for a click, whose req_id takes no stream: its answer goes to the chat.
    req_id: str
    userid: str
    #: The id of the group; "" in a single chat.
    chatid: str

    def __repr__(self) -> str:
        return "AnswerTarget()"

    def written(self) -> str:
        """Return it as JSON: seal it before it is stored."""
        return json.dumps(self)

    @classmethod
    def read(cls, text: str) -> AnswerTarget:
        """Parse the text of `written`, also that of a newer version with more members.

        Raises:
            ValueError: the text is malformed.
        """
        written = json.loads(text)
        if not isinstance(written, list) or len(written) < len(cls._fields):
            raise ValueError("not a target")
        return cls(*written[: len(cls._fields)])

    @property
    def chat(self) -> str:
        """The chat as `aibot_send_msg` names it: the group's id, or the person's."""
        return self.chatid or self.userid


def stream_frame(stream_id: str, content: str, *, finish: bool, rated: bool = False) -> dict[str, Any]:
    """Return a frame of an answer's stream; `content` is all of it. `rated` lets people rate it, in the first frame."""
    stream: dict[str, Any] = {"id": stream_id, "finish": finish, "content": content}
    if rated:
        stream["feedback"] = {"id": feedback_id(stream_id)}
    return {"msgtype": "stream", "stream": stream}


def markdown(content: str) -> dict[str, Any]:
    """Return a message that is shown below the stream."""
    return {"msgtype": "markdown", "markdown": {"content": content}}


def addressed(target: AnswerTarget, message: dict[str, Any]) -> dict[str, Any]:
    """Return a message for `aibot_send_msg`, which has no req_id that names the chat."""
    return {"chatid": target.chat, "chat_type": 2 if target.chatid else 1, **message}


class AnswerView:
    """Reads answers and renders them. Every method may raise `StoreUnavailable`: try again later."""

    def __init__(
        self,
        gateway: Gateway,
        streams: StreamStore,
        files: FileStore,
        frames: WeComFrames,
        *,
        offers: FileOffers,
        texts: Texts,
    ) -> None:
        self._gateway = gateway
        self._streams = streams
        self._files = files
        self._frames = frames
        self._offers = offers
        self._texts = texts

    def read(self, bot: str, stream_id: str, target: AnswerTarget) -> Snapshot | None:
        """Return the answer's snapshot; None where it is unknown or expired. A lost owner is replaced."""
        snapshot = self._gateway.read(stream_id, bot=bot, principal=target.userid, chat=target.chatid)
        # As with a `response_url`, the part that the frame does not show is sent after it.
        return replace(snapshot, late=True) if snapshot else None

    def content(self, bot: str, snapshot: Snapshot | None, target: AnswerTarget) -> str:
        """Return the content of a frame."""
        if snapshot is None:
            return self._texts.get("stream_unknown")
        in_time = is_over(snapshot) and not snapshot.frame_over
        files = self._files_of(snapshot) if in_time else ()
        return self._frames.content(bot, snapshot, files, single=not target.chatid)

    def further(
        self, bot: str, snapshot: Snapshot, target: AnswerTarget, *, in_frame: bool
    ) -> tuple[AnswerParts, list[dict[str, Any]]]:
        """Return the messages that follow the frame of an ended answer, and the message with its card, if any.

        Their number is the same on every replica. `in_frame`: people see the finished frame; else the messages are the
        whole answer. Both are empty if the answer expired.
        """
        full = self._streams.full_answer(snapshot.stream_id)
        if full is None:
            return AnswerParts([]), []
        answer = EndedAnswer(
            full.text,
            snapshot if in_frame else None,
            snapshot.error_code,
            snapshot.cited,
            snapshot.note,
            snapshot.stream_id,
            self._files_of(snapshot),
            self._offers.whole_text(snapshot.stream_id, full.left),
        )
        return self._frames.further_messages(bot, answer), self._cards(snapshot, target, full.text, in_frame=in_frame)

    def _cards(self, snapshot: Snapshot, target: AnswerTarget, text: str, *, in_frame: bool) -> list[dict[str, Any]]:
        """Return the message with an answer's card, which is Markdown in a group: WeCom accepts no cards there."""
        single = not target.chatid
        card = self._frames.app_card(snapshot.stream_id, text)
        if not card and in_frame:
            card = self._frames.card(snapshot, single=single)
        if not card:
            return []
        return [{"msgtype": "template_card", "template_card": card} if single else markdown(card_words(card))]

    def _files_of(self, snapshot: Snapshot) -> tuple[StoredFile, ...]:
        return self._files.files(snapshot.stream_id) if snapshot.has_files else ()


class AnswerUploads:
    """Reads and uploads the files of answers. Every method may raise `StoreUnavailable`: try again later."""

    def __init__(self, store: FileStore, offers: FileOffers, uploads: Uploads) -> None:
        self._store = store
        self._offers = offers
        self._uploads = uploads

    def listed(self, snapshot: Snapshot) -> tuple[StoredFile, ...]:
        """Return the files to send, pictures first; the same on every replica."""
        files = self._store.files(snapshot.stream_id) if snapshot.has_files else ()
        kept = [stored for stored in files if not stored.is_missing]
        return tuple(sorted(kept, key=lambda stored: not stored.is_picture))

    def message(
        self, link: Link, stream_id: str, stored: StoredFile, wait: Callable[[float], None]
    ) -> FileMessage | None:
        """Upload a file and return the message that shows it; None if WeCom does not accept the file.

        Raises:
            LinkLost: the next link continues the upload.
        """
        content = b"".join(self._store.slices(stream_id, stored))
        # If the answer expires just now, a part of the file may be missing.
        for _ in range(ATTEMPTS if len(content) == stored.size else 0):
            try:
                return self._uploads.message(link, stored.name or stored.entry, content)
            except UploadDelayed as exc:
                wait(exc.seconds)
            except AckMissing:
                continue
            except UploadRefused:
                break
        return None

    def forget(self, bot: str, file: FileMessage) -> None:
        """Forget a file that WeCom has deleted: the next `message` uploads it again."""
        self._uploads.forget(bot, file.digest)

    def linked(self, stream_id: str, stored: StoredFile) -> dict[str, Any]:
        """Return a message with a link to a file."""
        return markdown(self._offers.lines(stream_id, (stored,), pictures=True))
