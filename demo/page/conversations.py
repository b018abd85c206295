"""The open bubbles of the demo's page."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable

from demo.page.cast import PEOPLE
from demo.page.media import SENDS
from demo.wecom.feedback import Rate, feedback_id, rates
from demo.wecom.simulator import Bubble, BubbleFrame, ResponsePost, WeComUser

#: Maximum number of bubbles that can be polled; the oldest is dropped first.
MAX_BUBBLES = 200


class Conversations:
    """The open bubbles of all users of the page, each under a random key."""

    def __init__(self, user_for: Callable[[str], WeComUser]) -> None:
        self._users = {person.id: user_for(person.id) for person in PEOPLE}
        for user in self._users.values():
            # The page shows broken rules at the bubble.
            user.strict = False
        self._bubbles: OrderedDict[str, tuple[WeComUser, Bubble]] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        for user in self._users.values():
            user.close()

    def enter(self, userid: str) -> str:
        """Return the welcome text."""
        return self._users[userid].enters()

    def send(self, userid: str, text: str, kind: str = "") -> tuple[str, BubbleFrame]:
        """Send a question, or a message of a kind of `SENDS`; return the key of its bubble and the first frame."""
        user, key = self._users[userid], secrets.token_urlsafe(12)
        bubble = SENDS[kind](user, text) if kind else user.says(text)
        with self._lock:
            self._bubbles[key] = user, bubble
            while len(self._bubbles) > MAX_BUBBLES:
                self._bubbles.popitem(last=False)
        return key, bubble.last

    def poll(self, key: str) -> BubbleFrame:
        """Poll a bubble and return its new frame.

        Raises:
            KeyError: the bubble is unknown or was dropped.
        """
        user, bubble = self._known(key)
        return user.polls(bubble)

    def rateable(self, key: str) -> bool:
        """Return whether a bubble has thumbs; raises `KeyError` as `poll` does."""
        return bool(feedback_id(self._known(key)[1]))

    def rate(self, key: str, rating: Rate, content: str, reasons: list[int]) -> None:
        """Press a thumb below a bubble, or withdraw that; raises `KeyError` as `poll` does."""
        user, bubble = self._known(key)
        rates(user, bubble, rating, content, reasons)

    def _known(self, key: str) -> tuple[WeComUser, Bubble]:
        with self._lock:
            return self._bubbles[key]

    def late(self, key: str) -> list[ResponsePost]:
        """Return the messages that came for a bubble after its end; none for an unknown bubble."""
        with self._lock:
            user, bubble = self._bubbles.get(key, (None, None))
        return user.late(bubble) if user and bubble else []
