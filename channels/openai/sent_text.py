"""The text that a client was sent, which cannot be taken back."""

from __future__ import annotations

import hashlib

from services.streams.following import News


class AnswerReplaced(Exception):
    """The answer was replaced by a text that does not begin with what was sent."""


class SentText:
    """Follows a stream's text, and says what of it is new. It keeps the length and the digest of what was sent."""

    def __init__(self) -> None:
        self._length = 0
        self._sent = hashlib.sha256()
        #: Of a text that replaces the one before: the characters that have to be equal still, and those that came.
        self._left = 0
        self._replayed = hashlib.sha256()

    def take(self, news: News) -> str:
        """Return the text that the client has not got yet.

        Raises:
            AnswerReplaced: the text was replaced, and its beginning differs from what was sent.
        """
        if news.reset:
            self._left, self._replayed = self._length, hashlib.sha256()
        text = "".join(chunk.content for chunk in news.chunks)
        if self._left:
            known, text = text[: self._left], text[self._left :]
            self._left -= len(known)
            self._replayed.update(known.encode())
            if not self._left and self._replayed.digest() != self._sent.digest():
                raise AnswerReplaced
        self._length += len(text)
        self._sent.update(text.encode())
        return text

    def end(self) -> None:
        """Check that the ended text is not shorter than what was sent.

        Raises:
            AnswerReplaced: it is.
        """
        if self._left:
            raise AnswerReplaced
