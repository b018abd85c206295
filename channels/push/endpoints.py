"""The endpoints of pushes. Any replica takes them; the one that holds the bot's long connection sends them."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from math import ceil
from typing import Annotated, Any

from flask import Blueprint, Response, request
from pydantic import ConfigDict, Field, StringConstraints, ValidationError

from channels.web import rest
from channels.web.bodies import UploadSlots
from channels.web.errors import status_of
from channels.web.multipart import MULTIPART, fields_and_file, form_body, wrong_part
from channels.web.rest import Operation, RestError, RestModel, envelope
from config.bots import DEFAULT_BOT
from config.texts import Texts
from services.errors import PushRefused
from services.wecom.long_connection.push_store import QUEUE_SECONDS, Push, PushState
from services.wecom.long_connection.pushes import PushInbox, PushMessage
from services.wecom.long_connection.uploads import MAX_FILE
from utils.formats.file_names import plain_name
from utils.stream_utils import is_longer

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

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"userid": "zhangsan", "markdown": "**Reminder**: 3 pm"}]}
    )

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
        f"again; expired: it could not be sent within {QUEUE_SECONDS / 60:g} minutes; cancelled, by an administrator."
    )
    error: str = Field("", description="Of a failed push: WeCom's error code, or a word; else left out.")
    created_at: str = Field(description="ISO 8601, in UTC.")
    ended_at: str | None = Field(None, description="Left out until the end is noted.")


#: Bytes of the largest JSON body: a file in base64 and the JSON around it.
MAX_BYTES = 28 * 1024 * 1024

_ID = re.compile(r"([a-z0-9_-]{1,64})\.([0-9a-f]{32})")
#: A valid Idempotency-Key.
_KEY = re.compile(r"[\x21-\x7e]{1,64}")


class PushEndpoints:
    """The views of the push API."""

    def __init__(self, inbox: PushInbox, slots: UploadSlots, callers: rest.ProgramChecker, texts: Texts) -> None:
        self._inbox = inbox
        self._slots = slots
        self._callers = callers
        self._texts = texts

    def push(self) -> Response:
        client, key = self._client(), _key()
        sent = form_body(MAX_FILE) if request.mimetype == MULTIPART else rest.json_body(max_bytes=MAX_BYTES)
        with self._slots.held(client, size=len(sent)):
            push, new = self._refusing(lambda: self._inbox.submit(_message(sent), client, key))
        shown = _shown(push)
        headers = {"Location": f"/api/push/{shown['id']}"}
        return envelope(shown, status=202 if new else 200, headers=headers)

    def show(self, push_id: str) -> Response:
        client, named = self._client(), _ID.fullmatch(push_id)
        if not named:
            raise self._refused(PushRefused())
        return envelope(_shown(self._refusing(lambda: self._inbox.find(named[1], named[2], client))))

    def _client(self) -> str:
        """Return the API key's fingerprint. Users' tokens and anonymous callers may not write to other people."""
        principal = rest.caller(self._callers, request).principal
        if not principal.startswith("key:"):
            raise rest.unauthorized("auth_required")
        return principal

    def _refusing(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except PushRefused as exc:
            raise self._refused(exc) from exc

    def _refused(self, refused: PushRefused) -> RestError:
        later = {"Retry-After": str(ceil(refused.seconds))} if refused.seconds else {}
        return RestError(status_of(refused), self._texts.get(refused.code), reason=refused.code, headers=later)


def push_blueprint(inbox: PushInbox, slots: UploadSlots, callers: rest.ProgramChecker, texts: Texts) -> Blueprint:
    """Return POST /api/push and GET /api/push/<id>."""
    endpoints = PushEndpoints(inbox, slots, callers, texts)
    routes = Blueprint("push", __name__)
    routes.add_url_rule("/api/push", "push", endpoints.push, methods=["POST"])
    routes.add_url_rule("/api/push/<push_id>", "show", endpoints.show, methods=["GET"])
    return routes


def _message(sent: bytes) -> PushMessage:
    """Return the message of the Flask request's body.

    Raises:
        RestError: the body is malformed, its file is too large, or a field is wrong.
    """
    if request.mimetype == MULTIPART:
        return _of_multipart(sent)
    asked = rest.parsed(PushAsked, sent)
    if (asked.markdown is None) == (asked.file is None):
        raise _wrong("markdown", "either this or file has to be given")
    if asked.file:
        return _with_file(asked, asked.file.name, _decoded(asked.file.base64))
    if is_longer(asked.markdown or "", MAX_MARKDOWN):
        raise _wrong("markdown", f"is longer than {MAX_MARKDOWN} bytes")
    return PushMessage(asked.bot, *_chat(asked), markdown=asked.markdown or "")


def _of_multipart(sent: bytes) -> PushMessage:
    fields, file, content = fields_and_file(sent, MAX_FILE)
    try:
        asked = PushForm.model_validate({**fields, "file": b""})
    except ValidationError as exc:
        raise rest.wrong_fields(exc.errors(include_url=False, include_context=False, include_input=False)) from exc
    return _with_file(asked, file.filename or "", content)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise _wrong("file.base64", "is not base64") from exc


def _with_file(asked: PushAsked | PushForm, given: str, content: bytes) -> PushMessage:
    if len(content) > MAX_FILE:
        raise rest.too_large(MAX_FILE)
    if not content:
        raise _wrong("file", "is empty")
    name = plain_name(given)
    if not name:
        raise _wrong("file", "has no name")
    return PushMessage(asked.bot, *_chat(asked), name=name, content=content)


def _chat(asked: PushAsked | PushForm) -> tuple[str, bool]:
    """Return the id of the chat, and whether it is a group."""
    if (asked.userid is None) == (asked.chatid is None):
        raise _wrong("userid", "either this or chatid has to be given")
    return asked.userid or asked.chatid or "", asked.userid is None


def _key() -> str:
    """Return the request's idempotency key, "" for none."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise _wrong("Idempotency-Key", "1 to 64 visible ASCII characters are taken")
    return key or ""


def _wrong(field: str, problem: str) -> RestError:
    return wrong_part("invalid_fields", field, problem)


def _shown(push: Push) -> dict[str, Any]:
    shown = {"id": f"{push.bot}.{push.id}", "state": push.state, "error": push.error}
    times = {"created_at": push.created, "ended_at": push.ended}
    dates = {name: datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") for name, at in times.items() if at}
    return {name: value for name, value in {**shown, **dates}.items() if value}


_FAILURES = dict.fromkeys((404, 409, 413, 429, 503))

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST",
        "/api/push",
        "Send a message to a person or a group, through a bot's long connection",
        "push",
        body=PushAsked,
        multipart=PushForm,
        answers={200: PushShown, 202: PushShown, **_FAILURES},
        auth="api_key",
        headers={
            "Idempotency-Key": {
                "pattern": f"^{_KEY.pattern}$",
                "description": "Your own id of this message. Repeating it within a day returns the same push with "
                "status 200, and sends nothing again.",
            }
        },
        description="As JSON, or a file as a form. WeCom delivers only into chats in which the bot was written to.",
    ),
    Operation(
        "GET",
        "/api/push/{push_id}",
        "Show how a push stands, for a day",
        "push",
        answers={200: PushShown, 404: None},
        auth="api_key",
    ),
)
