"""The messages of a simulated user that are more than a text: files, voice, mixed messages and quotes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from demo.wecom.media_store import MediaStore, StoreFaults

if TYPE_CHECKING:
    from demo.wecom.simulator import Bubble

#: A message without the common fields, or a quote.
Message = dict[str, Any]


def text_message(words: str) -> Message:
    return {"msgtype": "text", "text": {"content": words}}


def voice_message(words: str) -> Message:
    """Return a voice message: the callback has its transcribed words only."""
    return {"msgtype": "voice", "voice": {"content": words}}


class MediaMessages:
    """Sends files through a store. Each method returns the bubble of the answer."""

    #: The store of the user's files, and the bot's key that encrypts them.
    _store: MediaStore | None
    _aes_key: str

    @abstractmethod
    def shows(self, message: Mapping[str, Any], msgid: str | None = None) -> Bubble:
        """Send a message of any type."""

    def file_message(
        self, msgtype: str, content: bytes, *, name: str = "", faults: StoreFaults | None = None
    ) -> Message:
        """Put a file into the store; return the message that has it, or the quote of one."""
        if self._store is None:
            raise ValueError("a user without a store sends no files")
        url = self._store.put(content, self._aes_key, name=name, faults=faults)
        return {"msgtype": msgtype, msgtype: {"url": url}}

    def sends_image(self, content: bytes, *, faults: StoreFaults | None = None, msgid: str | None = None) -> Bubble:
        """Send a picture. Its store gives it no name."""
        return self.shows(self.file_message("image", content, faults=faults), msgid)

    def sends_file(
        self, name: str, content: bytes, *, faults: StoreFaults | None = None, msgid: str | None = None
    ) -> Bubble:
        """Send a file with a name."""
        return self.shows(self.file_message("file", content, name=name, faults=faults), msgid)

    def sends_video(self, content: bytes, *, faults: StoreFaults | None = None, msgid: str | None = None) -> Bubble:
        """Send a video."""
        return self.shows(self.file_message("video", content, faults=faults), msgid)

    def sends_voice(self, words: str, msgid: str | None = None) -> Bubble:
        """Speak."""
        return self.shows(voice_message(words), msgid)

    def sends_mixed(self, *parts: str | bytes, faults: StoreFaults | None = None, msgid: str | None = None) -> Bubble:
        """Send words and pictures in one message."""
        return self.shows(self.mixed_message(*parts, faults=faults), msgid)

    def mixed_message(self, *parts: str | bytes, faults: StoreFaults | None = None) -> Message:
        """Return a message of words and pictures."""
        items = [
            text_message(part) if isinstance(part, str) else self.file_message("image", part, faults=faults)
            for part in parts
        ]
        return {"msgtype": "mixed", "mixed": {"msg_item": items}}

    def quotes(self, quoted: Mapping[str, Any], words: str = "", msgid: str | None = None) -> Bubble:
        """Send a text that quotes a message."""
        return self.shows({**text_message(words), "quote": quoted}, msgid)
