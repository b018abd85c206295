"""What people see of an answer on the long connection: the content of its frame, and the messages that follow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from channels.wecom.long_connection.outgoing import AnswerTarget, markdown
from config.texts import Texts
from services.answers.gateway import Gateway
from services.files.answer_store import FileStore, StoredFile
from services.streams.records import Snapshot
from services.streams.store import StreamStore
from services.wecom.cards.words import card_words
from services.wecom.frames import EndedAnswer, WeComFrames, is_over


class AnswerView:
    """Reads answers and renders them. Every method may raise `StoreUnavailable`: try again later."""

    def __init__(
        self, gateway: Gateway, streams: StreamStore, files: FileStore, frames: WeComFrames, texts: Texts
    ) -> None:
        self._gateway = gateway
        self._streams = streams
        self._files = files
        self._frames = frames
        self._texts = texts

    def read(self, bot: str, stream_id: str, target: AnswerTarget) -> Snapshot | None:
        """Return what the answer shows now; None where it is unknown or expired. A lost owner is replaced."""
        snapshot = self._gateway.read(stream_id, bot=bot, principal=target.userid, chat=target.chatid)
        # What the frame does not carry follows, as with a `response_url`.
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
    ) -> tuple[list[str], list[dict[str, Any]]]:
        """Return the messages that follow the frame of an ended answer, and the one with its card; [] for none.

        The same on every replica. `in_frame`: people see the finished frame; else the messages are the whole answer.
        Both are empty if the answer expired.
        """
        whole = self._streams.full_answer(snapshot.stream_id)
        if whole is None:
            return [], []
        seen, said = snapshot if in_frame else None, (snapshot.error_code, snapshot.cited, snapshot.note)
        files = self._files_of(snapshot)
        answer = EndedAnswer(whole.text, seen, *said, snapshot.stream_id, files)
        return self._frames.further_messages(bot, answer), self._cards(snapshot, target, whole.text, in_frame=in_frame)

    def _cards(self, snapshot: Snapshot, target: AnswerTarget, text: str, *, in_frame: bool) -> list[dict[str, Any]]:
        """Return the message with an answer's card: with its words in a group, where WeCom takes no card."""
        single = not target.chatid
        card = self._frames.app_card(snapshot.stream_id, text)
        if not card and in_frame:
            card = self._frames.card(snapshot, single=single)
        if not card:
            return []
        return [{"msgtype": "template_card", "template_card": card} if single else markdown(card_words(card))]

    def _files_of(self, snapshot: Snapshot) -> tuple[StoredFile, ...]:
        return self._files.files(snapshot.stream_id) if snapshot.has_files else ()
