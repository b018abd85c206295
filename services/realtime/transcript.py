"""What was said in a session and still matters: the last final text, and the context of the next question."""

from __future__ import annotations

import re
from collections import deque

#: Final texts without a question that are kept for the next one, and characters of them; the oldest go.
MOST_TEXTS = 20
MOST_CHARACTERS = 2_000

#: Characters between which no space is written: Chinese, kana, and the marks that go with them.
_CJK = re.compile(r"[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")


class Transcript:
    """A session's memory of what was said; bounded."""

    def __init__(self) -> None:
        #: The last final text, "" before the first. It outlives answers and their failures.
        self.last = ""
        self._context: deque[str] = deque(maxlen=MOST_TEXTS)

    @property
    def context(self) -> str:
        """What was said since the last question, without one in it."""
        return joined(*self._context)

    def keep(self, text: str) -> None:
        """Keep a text as context of the next question; what is too much of it goes, the oldest first."""
        self._context.append(text[-MOST_CHARACTERS:])
        while sum(map(len, self._context)) > MOST_CHARACTERS:
            self._context.popleft()

    def forget_context(self) -> None:
        """Leave the context behind: it went with a question."""
        self._context.clear()


def joined(*texts: str) -> str:
    """Return texts as one: Chinese without a space between, all others with one."""
    whole = ""
    for text in filter(None, texts):
        together = not whole or _CJK.match(whole[-1]) or _CJK.match(text[0])
        whole += text if together else f" {text}"
    return whole
