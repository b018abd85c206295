"""All channels of the product, and how the questions of each differ from those of the others.

A new channel is one more `Channel` here and a blueprint in `bootstrap/blueprints.py`.
"""

from __future__ import annotations

from dataclasses import replace

from config.bots import DEFAULT_BOT
from config.settings import Settings
from services.channels import OPEN_TIMEOUT, Channel, ChannelRules, api_bots, api_client_rules, reset_texts
from services.identity.callers import end_user_of
from services.models import Question
from services.streams.store import OPEN_SECONDS

#: Commands of WeCom's users about their last questions. A bot without any of them writes no note of a question.
NEED_NOTES = frozenset({"stop", "retry", "human"})


def _wecom_rules(settings: Settings) -> dict[str, ChannelRules]:
    """Return each bot's rules. A callback waits 2 s for its reply, so a stream has to be open after `OPEN_SECONDS`."""
    return {
        name: ChannelRules(
            slots=settings.stream_max_per_user,
            frame_seconds=bot.answer_seconds,
            resets=reset_texts(bot.commands),
            notes_questions=not NEED_NOTES.isdisjoint(bot.commands.values()),
            open_timeout=OPEN_SECONDS if bot.mode == "callback" else OPEN_TIMEOUT,
        )
        for name, bot in settings.bots.items()
    }


def _userid(question: Question) -> str:
    return question.principal


def _named_user(question: Question) -> str:
    """Return the end user that the client named, after the channel: `http:zhangsan`; "" without one.

    The client's credential does not verify the name. No userid of WeCom has a colon.
    """
    name = end_user_of(question)
    return f"{question.channel}:{name}" if name else ""


def _name_of_session(question: Question) -> str:
    return f"ws-user-{question.session}"


def _http_rules(settings: Settings) -> dict[str, ChannelRules]:
    """Return the rules of clients that send a refused question again under the same id, for each bot they may ask."""
    return {bot: replace(rules, keeps_refusals=False) for bot, rules in api_client_rules(settings).items()}


def _openai_rules(settings: Settings) -> dict[str, ChannelRules]:
    """Return the rules of each model. No text resets a conversation: a client begins one by leaving messages out."""
    return dict.fromkeys(api_bots(settings), ChannelRules(resends=True, keeps_refusals=False))


def _batch_rules(settings: Settings) -> dict[str, ChannelRules]:
    """Return the rules of items. Their ids are the batch's own, and no text of theirs resets a conversation."""
    return {DEFAULT_BOT: ChannelRules(resends=True, keeps_refusals=False)}


WECOM = Channel(
    "wecom",
    rules=_wecom_rules,
    authenticates="directory",
    keys_of_bot=True,
    # WeCom has no sessions: a user, or a user in a group, is a conversation.
    needs_session=False,
    keeps_files="all",
    end_user=_userid,
    shows_extras=True,
)
CHAT = Channel(
    "chat",
    rules=api_client_rules,
    end_user=_named_user,
    mock_language="en",
    sockets=True,
    keeps_files="all",
    shows_steps=True,
    suggests=True,
)
REALTIME = Channel("realtime", end_user=_name_of_session, sockets=True, keeps_files="all")
HTTP = Channel(
    "http", rules=_http_rules, accepts_api_keys=True, end_user=_named_user, keeps_files="signed", suggests=True
)
OPENAI = Channel("openai", rules=_openai_rules, accepts_api_keys=True, end_user=_named_user, rated=False)
# A busy provider pauses all items of all batches at once (services/batches), so no single item waits for it.
BATCH = Channel("batch", rules=_batch_rules, accepts_api_keys=True, waits_for_provider=False, rated=False)

CHANNELS: tuple[Channel, ...] = (WECOM, CHAT, REALTIME, HTTP, OPENAI, BATCH)
