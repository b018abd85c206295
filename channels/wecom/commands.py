"""The commands of one bot's users: finds them among texts, and answers them.

`services/answers/commands.py` has the effects of commands on questions and streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from config.texts import Texts
from services import metrics
from services.answers.gateway import Gateway
from services.errors import StoreUnavailable
from services.models import Question
from services.streams.records import Snapshot
from services.wecom.handoff import Handoff, HandoffManager
from utils.questions.commands import MOST_CHARS, NAMES, canonical


class BotCommands:
    """The commands of one bot."""

    def __init__(
        self, bot_name: str, words: Mapping[str, str], gateway: Gateway, handoffs: HandoffManager, texts: Texts
    ) -> None:
        """Take the bot's name for users, and its words with their commands."""
        self._bot_name = bot_name
        self._words = words
        self._by_form = {canonical(word): word for word in words}
        self._gateway = gateway
        self._commands = gateway.commands
        self._handoffs = handoffs
        self._texts = texts

    def carry_out(self, question: Question, *, reply: str = "") -> Snapshot | None:
        """Answer a text that is a command; None for a question.

        `reply` is the secret address for a late answer.
        """
        word = self._by_form.get(canonical(question.text)) if len(question.text) <= 2 * MOST_CHARS else None
        if word is None:
            return None
        name = self._words[word]
        snapshot = self._answer(name, replace(question, text=word), reply)
        if not snapshot.found and snapshot.status != "error":
            metrics.COMMANDS.labels(name).inc()
        return snapshot

    def _answer(self, name: str, command: Question, reply: str) -> Snapshot:
        match name:
            case "reset":
                return self._gateway.ask(command)
            case "stop":
                return self._commands.stop(command, self._texts.get("stop_done"))
            case "retry":
                return self._commands.retry(command, reply=reply)
            case "whoami":
                return self._whoami(command)
            case "quota":
                return self._quota(command)
            case "human":
                return self._human(command)
        return self._commands.tell(command, self._texts.get("help", commands=self._list()))

    def _list(self) -> str:
        """Return the bot's commands with their words, as a Markdown list."""
        words = {name: [word for word, command in self._words.items() if command == name] for name in NAMES}
        described = ((", ".join(words[name]), self._texts.get(f"help_{name}")) for name in NAMES if words[name])
        return "\n".join(f"- {given}: {meaning}" for given, meaning in described)

    def _whoami(self, command: Question) -> Snapshot:
        try:
            name = self._commands.name(command)
        except StoreUnavailable:
            # `tell` cannot open the stream either, and returns the sentence that questions get without Redis.
            name = ""
        shown = name or self._texts.get("name_unknown")
        return self._commands.tell(
            command, self._texts.get("whoami", userid=command.principal, name=shown, bot=self._bot_name)
        )

    def _quota(self, command: Question) -> Snapshot:
        try:
            left = self._gateway.quotas_left(command)
        except StoreUnavailable:
            left = ""  # as of `_whoami`
        return self._commands.tell(command, left)

    def _human(self, command: Question) -> Snapshot:
        """Answer, and queue a message for the bot's group robot, if it has one; not for a redelivery."""
        serves = self._handoffs.serves(command.bot)
        sentence = self._texts.get("human_notified" if serves else "human")
        snapshot, last = self._commands.hand_over(command, sentence)
        if serves and not snapshot.found:
            ids = (command.bot, command.principal, command.chat, command.msgid)
            self._handoffs.add(Handoff(*ids, last.name, last.text, last.stream_id))
        return snapshot
