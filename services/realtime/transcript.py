"""The transcript of a session: the last final text, and the context of the next question."""

from __future__ import annotations

import re
from collections import deque

#: Final texts without a question that are kept as context, and their characters in all. The oldest are dropped first.
MOST_TEXTS = 20
MOST_CHARACTERS = 2_000

#: Characters that are joined without a space: Chinese, kana, and their punctuation.
_CJK = re.compile(r"[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")


class Transcript:
    """The bounded transcript of a session."""

    def __init__(self) -> None:
        #: The last final text, "" before the first. Answers and their failures do not clear it.
        self.last = ""
        self._context: deque[str] = deque(maxlen=MOST_TEXTS)

    @property
    def context(self) -> str:
        """The final texts since the last question, as one text."""
        return joined(*self._context)

    def keep(self, text: str) -> None:
        """Add a text to the context of the next question, and drop the oldest texts beyond the limits."""
        self._context.append(text[-MOST_CHARACTERS:])
        while sum(map(len, self._context)) > MOST_CHARACTERS:
            self._context.popleft()

    def forget_context(self) -> None:
        """Clear the context, after it was sent with a question."""
        self._context.clear()


def joined(*texts: str) -> str:
    """Join texts: Chinese without spaces, all others with one."""
    whole = ""
    for text in filter(None, texts):
        together = not whole or _CJK.match(whole[-1]) or _CJK.match(text[0])
        whole += text if together else f" {text}"
    return whole
