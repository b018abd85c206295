"""Clicks on template cards: each becomes a question, and the card says at once what became of it.

WeCom shows no stream for an event, so the answer comes as a message: through the event's own `response_url`, or over
the long connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from config.texts import Texts
from services.models import Question
from services.streams.records import Snapshot
from services.wecom.cards.build import clicked_card
from services.wecom.cards.click import read_click
from services.wecom.message import Message


class CardClicks:
    """Makes the questions of clicks, of all bots, and the updates of their cards."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts

    def take(
        self, asker: Question, message: Message, ask: Callable[[Question], Snapshot] | None
    ) -> tuple[dict[str, Any], str]:
        """Ask what a `template_card_event` stands for; return the card's update and the outcome for the log.

        `asker` is the event as a question without a text; `ask` is None where no message can bring the answer. The
        update is empty for a card that is none of ours.
        """
        try:
            click = read_click(message.payload)
        except ValueError:
            return {}, "unknown_card"
        if not message.userid:
            return {}, "unknown_card"
        if ask is None:
            return clicked_card(click, message.userid, self._texts.get("card_unanswerable")), "card_unanswerable"
        # A delivery without an id is found again by its card.
        msgid = message.msgid or click.task_id
        question = replace(asker, text=click.text, msgid=msgid, card=click.task_id, choice=click.choice)
        snapshot = ask(question)
        sentence = self._texts.get("card_clicked")
        if snapshot.status == "error":
            sentence = self._texts.error(snapshot.error_code)
        elif snapshot.status == "completed" and not snapshot.found:
            # A sentence of ours, as for a command: nothing will follow.
            sentence = snapshot.text
        return clicked_card(click, message.userid, sentence), snapshot.error_code or snapshot.status
