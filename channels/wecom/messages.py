"""Questions, commands, clicks, ratings and welcomes of WeCom's users, for callbacks and the long connection alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from channels.registry import WECOM
from channels.wecom.commands import BotCommands
from config.texts import Texts
from services import metrics
from services.answers.gateway import Gateway
from services.attachments import Media
from services.errors import StoreUnavailable
from services.feedback.inbox import FeedbackInbox
from services.models import Question
from services.streams.records import Snapshot
from services.wecom.cards import clicked_card, read_click
from services.wecom.message import Message, read_feedback

#: The types that may have words. Without words such a message is empty, but not unreadable.
_WORDED = ("text", "voice", "mixed")
#: The most files of one message, those of its quote included.
MOST_FILES = 10


def is_readable(message: Message) -> bool:
    """Return whether a message has words or files to ask about, or is of a type that may have words."""
    return message.msgtype in _WORDED or bool(message.media or message.quoted_media or message.quoted.strip())


def question_text(message: Message, media_question: str) -> str:
    """Return the question's text: quoted words as a Markdown quotation, then the person's own.

    Files without own words ask `media_question`. A quotation without own words and files is the question itself: in a
    group a message may be a mention only.
    """
    words, quoted = message.text, message.quoted.strip()
    if not words.strip():
        if not (message.media or message.quoted_media):
            return quoted
        words = media_question
    quotation = "\n".join(f"> {line}".rstrip() for line in quoted.splitlines())
    return f"{quotation}\n\n{words}" if quoted else words


class WeComMessages:
    """Maps the messages and events of all bots to the gateway."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        texts: Texts,
        welcomes: Mapping[str, str],
        commands: Mapping[str, BotCommands],
        feedback: FeedbackInbox,
    ) -> None:
        """The mappings have one entry per bot, by its name; `welcomes` has "" for the default sentence."""
        self._gateway = gateway
        self._texts = texts
        self._welcomes = welcomes
        self._commands = commands
        self._feedback = feedback

    def ask(self, bot: str, message: Message, media: Sequence[Media], *, reply: str = "") -> Snapshot:
        """Ask a message's question, or carry out a command, which may come with a quote but has no files.

        `media` are the files of the message and of its quote; `reply` is the secret address for a late answer.
        """
        question = self.question(bot, message)
        if not is_readable(message):
            return self._gateway.say(question, "unsupported_message")
        if len(media) > MOST_FILES:
            return self._gateway.say(question, "media_too_many")
        commands = None if message.media else self._commands.get(bot)
        if commands and (shown := commands.carry_out(question, reply=reply)):
            return shown
        text = question_text(message, self._texts.get("media_question"))
        return self._gateway.ask(replace(question, text=text), reply=reply, media=media)

    def click(
        self, bot: str, message: Message, ask: Callable[[Question], Snapshot] | None
    ) -> tuple[dict[str, Any], str]:
        """Ask the question of a click on a card; return the card's update and the outcome for the log.

        WeCom shows no stream for an event: the answer follows as a message, and `ask` is None where none can be sent.
        The update is empty for a card of another program.
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
        question = replace(
            self.question(bot, message), text=click.text, msgid=msgid, card=click.task_id, choice=click.choice
        )
        snapshot = ask(question)
        sentence = self._texts.get("card_clicked")
        if snapshot.status == "error":
            sentence = self._texts.error(snapshot.error_code)
        elif snapshot.status == "completed" and not snapshot.found:
            # The whole answer is a sentence of the gateway, as for a command.
            sentence = snapshot.text
        return clicked_card(click, message.userid, sentence), snapshot.error_code or snapshot.status

    def question(self, bot: str, message: Message) -> Question:
        return Question(message.text, WECOM.name, bot, message.userid, message.chatid, message.msgid)

    def person(self, bot: str, message: Message) -> str:
        """Return the sender's pseudonym for the log."""
        return self._gateway.person(self.question(bot, message))

    def welcome(self, bot: str) -> str:
        """Return the words for a person who opens the chat with the bot."""
        return self._welcomes.get(bot) or self._texts.get("welcome")

    def rate(self, bot: str, message: Message) -> str:
        """Take the rating of a `feedback_event`; return its outcome. Only an empty reply may answer it."""
        try:
            stream_id, rating = read_feedback(message)
        except ValueError:
            metrics.FEEDBACK_REFUSED.labels("malformed").inc()
            return "malformed"
        try:
            # WeCom sends no event twice.
            return self._feedback.rate(
                stream_id, rating, bot=bot, principal=message.userid, chat=message.chatid, keep=True
            )
        except StoreUnavailable as exc:
            return exc.code
