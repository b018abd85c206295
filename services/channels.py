"""The differences between channels: one `Channel` for each, and the rules that the settings give it for each bot.

`channels/registry.py` defines the `Channel` of each. The container hands them to the gateway, the answerer and the
metrics as one `Channels`. Code below the channels uses these objects and never compares a channel's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from config.bots import DEFAULT_BOT
from config.settings import Settings
from services.models import Question

#: Seconds for which a question's stream may be tried to be opened while Redis does not answer. It is longer than a
#: burst of questions takes, and shorter than the wait of people and of their clients.
OPEN_TIMEOUT = 4.0


@dataclass(frozen=True, slots=True)
class ChannelRules:
    """The rules of one channel for one bot."""

    #: Questions that one user may have running; None where the channel itself limits them.
    slots: int | None = None
    #: Seconds after which a stream's frame ends for its readers; None for never.
    frame_seconds: float | None = None
    #: Texts that begin the conversation anew.
    resets: frozenset[str] = frozenset()
    #: Whether a person's last questions are noted, for commands that are about them.
    notes_questions: bool = False
    #: Seconds for which opening a stream is tried while Redis is away.
    open_timeout: float = OPEN_TIMEOUT
    #: Whether clients send a question again, under their own id of it, until they know its stream.
    resends: bool = False
    #: Whether an id stands for one question: another text under the same id is refused.
    compares_ids: bool = False
    #: Whether a refused question keeps its refusal under its id; else the client may ask again with the same id.
    keeps_refusals: bool = True


def reset_texts(commands: Mapping[str, str]) -> frozenset[str]:
    """Return the texts among a bot's `commands` that begin a conversation anew."""
    return frozenset(text for text, command in commands.items() if command == "reset")


def client_rules(settings: Settings) -> dict[str, ChannelRules]:
    """Return the rules for clients that ask the default bot under ids of their own and resend lost ones."""
    resets = reset_texts(settings.wechat_commands)
    return {DEFAULT_BOT: ChannelRules(resets=resets, resends=True, compares_ids=True)}


def api_client_rules(settings: Settings) -> dict[str, ChannelRules]:
    """Return `client_rules` for each bot that programs may ask, with the commands of that bot."""
    rules = client_rules(settings)
    own = rules[DEFAULT_BOT]
    offered = {name: bot for name, bot in settings.bots.items() if name in api_bots(settings)}
    return rules | {name: replace(own, resets=reset_texts(bot.commands)) for name, bot in offered.items()}


def api_bots(settings: Settings) -> tuple[str, ...]:
    """Return the bots that programs may ask: the default one, and those of `WECHAT_BOTS` with `"api": true`."""
    return (DEFAULT_BOT, *(name for name, bot in settings.bots.items() if bot.api))


def no_name(question: Question) -> str:
    """Return "": the provider gets no name for the user."""
    return ""


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel's name and behaviour, for the gateway and the answerer."""

    #: The value of `Question.channel`: in Redis, in log lines and in metrics.
    name: str
    #: Return the rules of each bot that the channel reaches, by the bot's name.
    rules: Callable[[Settings], Mapping[str, ChannelRules]] = client_rules
    #: "directory": the bot's user directory authenticates the principal (AUTH_MODE). "credential": the credential that
    #: the client showed still has to be valid (WEBSOCKET_AUTH).
    authenticates: Literal["directory", "credential"] = "credential"
    #: Whether API keys are accepted in every mode of WEBSOCKET_AUTH.
    accepts_api_keys: bool = False
    #: Whether conversations are named with the keys of the question's bot; else with the keys of no bot.
    keys_of_bot: bool = False
    #: Whether a question without a session belongs to no conversation: it remembers nothing and waits for no other.
    needs_session: bool = True
    #: Return the provider's end-user name of a user without a user record. A name that the client chose has the
    #: channel before it, so that it is not the name of a person of WeCom.
    end_user: Callable[[Question], str] = no_name
    #: Whether a question waits here when a busy provider asks for a short pause; False where it is asked again later.
    waits_for_provider: bool = True
    #: The language of the built-in mock's answer.
    mock_language: Literal["zh", "en"] = "zh"
    #: Which pictures and files of an answer's text are fetched and kept for its readers: "signed" for those whose
    #: addresses are valid for minutes, "all" for all pictures too. With either, files beside the text are kept; with ""
    #: none is.
    keeps_files: Literal["", "signed", "all"] = ""
    #: Whether it shows the running step and the suggested questions, for bots that want them.
    shows_extras: bool = False
    #: Whether it shows the running step where WEB_PROGRESS says so.
    shows_steps: bool = False
    #: Whether it shows suggested questions where WEB_SUGGESTIONS says so.
    suggests: bool = False
    #: Whether its clients connect by WebSocket.
    sockets: bool = False
    #: Whether people may rate its answers.
    rated: bool = True

    def is_independent(self, question: Question) -> bool:
        """Tell whether the question belongs to no conversation."""
        return self.needs_session and not question.session

    def key_bot(self, question: Question) -> str:
        """Return the bot whose keys name the question's conversation, "" for the keys of no bot."""
        return question.bot if self.keys_of_bot else ""


class Channels:
    """The registered channels of this replica and their rules."""

    def __init__(self, channels: Iterable[Channel], rules: Mapping[tuple[str, str], ChannelRules]) -> None:
        """Take the channels, and the rules by channel name and bot.

        Raises:
            ValueError: two channels have the same name.
        """
        listed = tuple(channels)
        self._channels = {channel.name: channel for channel in listed}
        if len(self._channels) < len(listed):
            raise ValueError(f"two channels have one name: {sorted(channel.name for channel in listed)}")
        self._rules = dict(rules)

    @classmethod
    def from_settings(cls, channels: Iterable[Channel], settings: Settings) -> Channels:
        """Return the channels with the rules that the settings give them."""
        listed = tuple(channels)
        named = {(one.name, bot): rules for one in listed for bot, rules in one.rules(settings).items()}
        return cls(listed, named)

    def __contains__(self, name: object) -> bool:
        return name in self._channels

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels.values())

    def of(self, question: Question) -> Channel:
        """Return the channel a question came through.

        Raises:
            KeyError: this replica does not have the channel.
        """
        return self._channels[question.channel]

    def rules(self, question: Question) -> ChannelRules:
        """Return the rules of the question's channel and bot.

        Raises:
            KeyError: this replica does not have the channel, or the channel does not reach the bot.
        """
        return self._rules[question.channel, question.bot]


class Lifecycle(Protocol):
    """A set of long-lived connections that starts and drains with the replica."""

    def start(self) -> None: ...

    def leave(self) -> None: ...

    def close_all(self) -> None: ...

    def stop(self) -> None: ...
