"""The request models of POST /api/push, and the model of a push's state."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from channels.web.rest import RestModel
from config.bots import DEFAULT_BOT
from services.wecom.long_connection.push_store import QUEUE_SECONDS, PushState

#: Characters of the longest text; its bytes are counted apart.
MAX_MARKDOWN = 20_480

ChatName = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"[^\s.]")]
BotName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,64}$")]


class _Target(RestModel):
    bot: BotName = Field(DEFAULT_BOT, description="The bot that sends it, with a long connection.")
    userid: ChatName | None = Field(None, description="The person; either this or `chatid`.", examples=["zhangsan"])
    chatid: ChatName | None = Field(None, description="The group; either this or `userid`.")


class PushFile(RestModel):
    """A file within JSON."""

    name: FileName = Field(examples=["report.pdf"])
    base64: str = Field(description="The content, up to 20 MiB.", json_schema_extra={"contentEncoding": "base64"})


class PushAsked(_Target):
    """A message: a text or a file, to a person or a group that has written to the bot before."""

    markdown: Annotated[str, StringConstraints(pattern=r"\S", max_length=MAX_MARKDOWN)] | None = Field(
        None, description="The text, up to 20,480 bytes; either this or `file`.", examples=["**Reminder**: 3 pm"]
    )
    file: PushFile | None = None


class PushForm(_Target):
    """A file as a form."""

    file: bytes = Field(description="The file, up to 20 MiB, with its name.")


class PushShown(RestModel):
    """How a push stands."""

    id: str = Field(examples=["default.5ce3052bbdcd1ccb0b5a1a35a0a3fe4b"])
    state: PushState = Field(
        description="queued; sending; sent: WeCom accepted it; failed; unknown: it may have been sent, and is not sent "
        f"again; expired: it could not be sent within {QUEUE_SECONDS / 60:g} minutes."
    )
    error: str = Field("", description="Of a failed push: WeCom's error code, or a word; else left out.")
    created_at: str = Field(description="ISO 8601, in UTC.")
    ended_at: str | None = Field(None, description="Left out until the end is noted.")
