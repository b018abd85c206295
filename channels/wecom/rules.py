"""How questions from WeCom differ from those of other channels."""

from __future__ import annotations

from config.settings import Settings
from services.channels import OPEN_TIMEOUT, Channel, ChannelRules, reset_texts
from services.models import Question
from services.streams.store import OPEN_SECONDS

#: Commands about a person's last questions. Without any of them a question costs no note.
NEED_NOTES = frozenset({"stop", "retry", "human"})


def _rules(settings: Settings) -> dict[str, ChannelRules]:
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


WECOM = Channel(
    "wecom",
    rules=_rules,
    authenticates="directory",
    keys_of_bot=True,
    # WeCom has no sessions: a user, or a user in a group, is a conversation.
    needs_session=False,
    keeps_files="all",
    end_user=_userid,
    shows_extras=True,
)
