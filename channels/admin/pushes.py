"""Pushes of every caller, for administrators: what waits, and how the last ones ended; an operator cancels one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Protocol

from flask import Blueprint, Response
from pydantic import Field

from channels.admin.endpoints import MOST, TAG, USUAL
from channels.web.guarded import Administrators, admin_errors
from channels.web.rest import Operation, RestModel, envelope, params
from services.wecom.long_connection.push_store import MOST_ENDED, Push, PushState


class PushesAsked(RestModel):
    """How many pushes."""

    limit: int = Field(USUAL, ge=1, le=MOST, description="Of each bot, of those that wait and of those that ended.")


class AdminPush(RestModel):
    """A push, without its words and without the names of people."""

    id: str = Field(examples=["default.5ce3052bbdcd1ccb0b5a1a35a0a3fe4b"])
    bot: str
    chat: str = Field(description="The person or group, as log lines name it: hashed.")
    state: PushState
    error: str = Field(description="Of a failed push: WeCom's error code, or a word; else empty.")
    is_file: bool
    created_at: str
    ended_at: str | None


class AdminPushes(RestModel):
    """Pushes: those that wait, the first to expire first, then those that ended, the newest first."""

    waiting: int = Field(description="All that wait.")
    pushes: list[AdminPush]


class PushCancelled(RestModel):
    """A push that an administrator cancelled."""

    id: str
    was: PushState = Field(description="Its state before; only `queued` is changed.")
    state: PushState


OPERATIONS = (
    Operation(
        "GET",
        "/api/admin/pushes",
        "Pushes that wait, and the last that ended",
        TAG,
        query=PushesAsked,
        answers={200: AdminPushes},
        auth="viewer",
        description=f"Of each bot with a long connection the last {MOST_ENDED} that ended within a day are known.",
    ),
    Operation(
        "POST",
        "/api/admin/pushes/{push_id}/cancel",
        "Cancel a push that waits",
        TAG,
        answers={200: PushCancelled, 404: None},
        auth="operator",
        description="One that is being sent, or has ended, stays as it is. Audited as `push.cancel`.",
    ),
)


class Pushes(Protocol):
    """The pushes of all bots, as `PushInbox` has them."""

    def listed(self, most: int) -> tuple[list[Push], int]: ...

    def look(self, bot: str, id: str) -> Push: ...

    def cancel(self, push: Push) -> Push: ...


def pushes_blueprint(administrators: Administrators, pushes: Pushes) -> Blueprint:
    """Return the addresses of pushes below /api/admin/."""
    routes = Blueprint("admin_pushes", __name__)
    admin_errors(routes)

    @routes.get("/api/admin/pushes")
    def listed() -> Response:
        administrators.check("viewer")
        found, waiting = pushes.listed(params(PushesAsked).limit)
        return envelope({"waiting": waiting, "pushes": [_shown(push) for push in found]})

    @routes.post("/api/admin/pushes/<push_id>/cancel")
    def cancel(push_id: str) -> Response:
        who = administrators.check("operator")
        bot, _, id = push_id.partition(".")
        push = pushes.look(bot, id)
        administrators.record(who, "push.cancel", push_id, before=push.state)
        return envelope({"id": push_id, "was": push.state, "state": pushes.cancel(push).state})

    return routes


def _shown(push: Push) -> dict[str, Any]:
    return {
        "id": f"{push.bot}.{push.id}",
        "bot": push.bot,
        "chat": push.chat,
        "state": push.state,
        "error": push.error,
        "is_file": bool(push.file),
        "created_at": _iso(push.created),
        "ended_at": _iso(push.ended) if push.ended else None,
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
