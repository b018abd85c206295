"""The open bubbles of the demo's page."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from demo.page.cast import MENTION, PEOPLE
from demo.page.media import SENDS
from demo.wecom.card_clicks import Card, CardClick, Selected
from demo.wecom.feedback import Rate, feedback_id, rates
from demo.wecom.long_connection.screen import ShownMessage
from demo.wecom.long_connection.user import LongConnectionUser, SimulatedUser
from demo.wecom.simulator import Bubble, BubbleFrame, ResponsePost

#: Maximum number of bubbles that can be polled; the oldest is dropped first.
MAX_BUBBLES = 200


class Conversations:
    """The open bubbles of all users of the page, each under a random key."""

    def __init__(self, user_for: Callable[[str], SimulatedUser]) -> None:
        self._users = {person.id: user_for(person.id) for person in PEOPLE}
        for user in self._users.values():
            # The page shows broken rules at the bubble.
            user.strict = False
        self._bubbles: OrderedDict[str, tuple[SimulatedUser, Bubble]] = OrderedDict()
        #: Clicks by their keys; what a bubble's card has become, by the bubble's key.
        self._clicks: OrderedDict[str, tuple[SimulatedUser, CardClick]] = OrderedDict()
        self._updated: dict[str, Card] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        for user in self._users.values():
            user.close()

    def enter(self, userid: str) -> str:
        """Return the welcome text; "" for a group, which WeCom tells nothing of."""
        user = self._users[userid]
        return "" if user.chatid else user.enters()

    def send(self, userid: str, text: str, kind: str = "") -> tuple[str, BubbleFrame]:
        """Send a question, or a message of a kind of `SENDS`; return the key of its bubble and the first frame."""
        user, key = self._users[userid], secrets.token_urlsafe(12)
        if user.chatid and text:
            text = f"{MENTION} {text}"
        bubble = SENDS[kind](user, text) if kind else user.says(text)
        with self._lock:
            self._bubbles[key] = user, bubble
            while len(self._bubbles) > MAX_BUBBLES:
                self._updated.pop(self._bubbles.popitem(last=False)[0], None)
        return key, bubble.last

    def click(self, key: str, text: str, selected: Selected) -> tuple[str, CardClick]:
        """Click a button of a bubble's card; return the key of the click, under which its answer comes.

        Raises:
            KeyError: as `poll` does.
            LookupError: there is no such button.
        """
        user, bubble = self._known(key)
        below = user.card_below(bubble) if isinstance(user, LongConnectionUser) else bubble.card
        card = self._updated.get(key) or below
        if card is None:
            raise LookupError("a bubble without a card")
        click, clicked = user.clicks(card, text, selected=selected), secrets.token_urlsafe(12)
        with self._lock:
            if click.card:
                self._updated[key] = click.card
            self._clicks[clicked] = user, click
            while len(self._clicks) > MAX_BUBBLES:
                self._clicks.popitem(last=False)
        return clicked, click

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

    def _known(self, key: str) -> tuple[SimulatedUser, Bubble]:
        with self._lock:
            return self._bubbles[key]

    def late(self, key: str) -> Sequence[ResponsePost | ShownMessage]:
        """Return the messages that came for a bubble after its end, or for a click; none for an unknown key."""
        with self._lock:
            shown, clicked = self._bubbles.get(key), self._clicks.get(key)
        if clicked:
            return clicked[0].late(clicked[1])
        return shown[0].late(shown[1]) if shown else []

    def pushes(self, userid: str) -> list[ShownMessage]:
        """Return the messages that nobody asked for, which only the long connection brings."""
        user = self._users[userid]
        return user.pushes() if isinstance(user, LongConnectionUser) else []
