"""The administrators' API: answers in progress on all replicas, and the audit. Who may what is by role."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Protocol

from flask import Blueprint, Response, request
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, ConfigDict, Field

from channels.web.guarded import COOKIE, Administrators, admin_errors
from channels.web.rest import Operation, RestError, RestModel, body, envelope, params
from services.admin.sessions import LIFE_SECONDS, Session
from services.admin.sql_store import Audited, AuditFilter
from services.admin.tokens import Role
from services.errors import ProviderError
from services.identity.callers import MAX_SECRET
from services.streams.listing import StreamRow
from services.streams.records import Chunk

log = logging.getLogger(__name__)


def is_date(value: Any) -> Any:
    """Refuse numbers, which pydantic would take for seconds since 1970."""
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d", value):
        raise ValueError("a date, such as 2026-11-24, or a time with its zone, such as 2026-11-24T08:00:00+08:00")
    return value


def in_utc(value: datetime) -> datetime:
    """Return a time in UTC; refuse one of the years 1 and 9999 that is outside them there."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time whose year in UTC is 1 to 9999") from None


Time = Annotated[AwareDatetime, BeforeValidator(is_date), AfterValidator(in_utc)]
#: Bytes of the body with a token.
MAX_BODY = 16 * 1024
#: Rows of one reply at most, and by default.
MOST, USUAL = 500, 100
#: Seconds for which further looks at a stream by the same administrator are not audited again, on one replica, and the
#: looks that it remembers at most.
SEEN_SECONDS, MOST_SEEN = 3600.0, 1_000


class Token(RestModel):
    """An administrator's token."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"token": "not-a-real-token"}]})

    token: str = Field(min_length=1, max_length=MAX_SECRET)


class SessionShown(RestModel):
    """Who is signed in, and how to change something with the cookie alone."""

    name: str
    role: Role
    csrf_token: str = Field(description="Send it as `X-CSRF-Token` with every request but GET.")
    expires_at: str


class LiveAsked(RestModel):
    """Which answers in progress."""

    limit: int = Field(USUAL, ge=1, le=MOST, description="Answers at most, the newest first.")


class LiveStream(RestModel):
    """An answer in progress, without its words."""

    stream_id: str
    person: str = Field(description="WeCom's userid, `key:<fingerprint>`, or `user:<user_code>`.")
    channel: str
    bot: str
    created_time: str
    age_seconds: float
    bytes: int = Field(description="Bytes of text so far.")
    state: str = Field(examples=["being answered"], description="In words.")
    owner: str = Field(description="The replica that writes it.")
    silent_seconds: float = Field(description="Since the owner's last sign of life; 0 while its lease is valid.")
    takeovers: int


class Live(RestModel):
    """The answers in progress on all replicas."""

    total: int
    streams: list[LiveStream]


class LiveText(RestModel):
    """The words of an answer in progress, or of one that has ended but not expired."""

    stream_id: str
    status: Literal["processing", "completed", "error", "cancelled"]
    question: str
    text: str = Field(description="The whole text so far.")


class LiveCancelled(RestModel):
    """An answer that an administrator cancelled."""

    stream_id: str
    was: str = Field(examples=["processing"], description="Its status before; only `processing` is changed.")


class AlertTested(RestModel):
    """A test message that the robot took."""

    posted: Literal[True]


class AuditAsked(RestModel):
    """Which rows of the audit."""

    since: Time | None = Field(None, description="With a time zone, such as 2026-11-24T08:00:00+08:00.")
    until: Time | None = Field(None, description="Exclusive.")
    name: str = Field("", description="Only what this administrator did.")
    action: str = Field("", description="Only this, such as `stream.cancel`.")
    object: str = Field("", description="Only what was done to this, such as a stream's id.")
    cursor: int | None = Field(None, ge=0, le=2**63 - 1, description="`next` of the page before.")
    limit: int = Field(USUAL, ge=1, le=MOST)


class AuditRow(RestModel):
    """What an administrator did."""

    id: int
    time: str
    name: str
    role: str
    address: str = Field(description="Left empty by tools.")
    action: str = Field(examples=["stream.cancel"])
    object: str
    before: str | None
    after: str | None


class AuditPage(RestModel):
    """Rows of the audit, the newest first."""

    rows: list[AuditRow]
    next: int | None = Field(description="The `cursor` of the next page; null at the end.")


TAG = "administration"
OPERATIONS = (
    Operation(
        "POST",
        "/api/admin/session",
        "Sign in: a cookie for a token",
        TAG,
        body=Token,
        answers={200: SessionShown, 401: None, 404: None, 429: None},
        auth="none",
        description="The cookie ends after 12 hours, and when its token is revoked.",
    ),
    Operation("GET", "/api/admin/session", "Who is signed in", TAG, answers={200: SessionShown}, auth="viewer"),
    Operation("DELETE", "/api/admin/session", "Sign out", TAG, answers={204: None}, auth="none"),
    Operation(
        "GET",
        "/api/admin/live",
        "Answers in progress",
        TAG,
        query=LiveAsked,
        answers={200: Live},
        auth="viewer",
    ),
    Operation(
        "GET",
        "/api/admin/live/{stream_id}",
        "The text of an answer in progress",
        TAG,
        answers={200: LiveText},
        auth="admin",
        description="It has words of people: it is audited as `stream.read`, of one administrator once an hour.",
    ),
    Operation(
        "POST",
        "/api/admin/live/{stream_id}/cancel",
        "Cancel an answer",
        TAG,
        answers={200: LiveCancelled},
        auth="operator",
        description="Its reader sees it as cancelled, and the provider's run is stopped. Audited as `stream.cancel`.",
    ),
    Operation(
        "POST",
        "/api/admin/alerts/test",
        "Post a test message to the operators' group",
        TAG,
        answers={200: AlertTested, 404: None, 502: None},
        auth="operator",
        description="404 without `ALERT_WEBHOOK`; 502 if the robot did not take it in 2 s. Audited as `alert.test`.",
    ),
    Operation(
        "GET",
        "/api/admin/audit",
        "What administrators did",
        TAG,
        query=AuditAsked,
        answers={200: AuditPage, 422: None},
        auth="admin",
        description="The same as `python -m tools.admin audit`. Without a database there is none: 404.",
    ),
)


class Running(Protocol):
    """The answers in progress, as `RunningStreams` lists them."""

    def rows(self, most: int) -> tuple[list[StreamRow], int]: ...


class Streams(Protocol):
    """The streams in Redis, as `StreamStore` loads them."""

    def load(self, stream_id: str) -> tuple[dict[str, str], list[Chunk]]: ...


class Audit(Protocol):
    """The audit, as `AdminStore` has it."""

    def audit_page(self, chosen: AuditFilter, last: int | None, most: int) -> list[Audited]: ...


class SeenStreams:
    """Knows which streams' words an administrator has been audited for: a page that watches one looks every 3 s."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: When the look was audited, the oldest first.
        self._since: dict[tuple[str, str], float] = {}

    def has(self, name: str, stream_id: str) -> bool:
        """Return whether the audit has a look of the last hour; it may forget the oldest ones."""
        since = self._since.get((name, stream_id))
        return since is not None and self._clock() - since < SEEN_SECONDS

    def add(self, name: str, stream_id: str) -> None:
        """Note that the audit has a look at a stream."""
        self._since.pop((name, stream_id), None)
        self._since[name, stream_id] = self._clock()
        if len(self._since) > MOST_SEEN:
            self._since.pop(next(iter(self._since)), None)


def admin_blueprint(
    administrators: Administrators,
    *,
    running: Running,
    streams: Streams,
    cancel: Callable[[str], str],
    audit: Audit | None,
    test_alert: Callable[[str], None] | None = None,
    secure: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Blueprint:
    """Return the addresses below /api/admin/.

    `cancel` ends a running stream, and returns the status before, "" for an unknown one. `audit` is None without a
    database, `test_alert` without a group: it posts a message that names a person there. `secure` is whether browsers
    come by https, whatever the last proxy speaks.
    """
    routes = Blueprint("admin", __name__)
    seen = SeenStreams(clock)
    admin_errors(routes)
    _add_sessions(routes, administrators, secure=secure)

    @routes.get("/api/admin/live")
    def live() -> Response:
        administrators.check("viewer")
        rows, total = running.rows(params(LiveAsked).limit)
        return envelope({"total": total, "streams": [_live(row) for row in rows]})

    @routes.get("/api/admin/live/<stream_id>")
    def text(stream_id: str) -> Response:
        who = administrators.check("admin")
        if not seen.has(who.name, stream_id):
            administrators.record(who, "stream.read", stream_id)
            seen.add(who.name, stream_id)
        fields, chunks = streams.load(stream_id)
        if not fields:
            raise RestError(404, reason="stream_unknown")
        words = "".join(chunk.content for chunk in chunks[int(fields["start"]) :] if not chunk.is_error)
        return envelope(
            {"stream_id": stream_id, "status": fields["status"], "question": fields["content"], "text": words}
        )

    @routes.post("/api/admin/live/<stream_id>/cancel")
    def end(stream_id: str) -> Response:
        administrators.record(administrators.check("operator"), "stream.cancel", stream_id)
        if not (was := cancel(stream_id)):
            raise RestError(404, reason="stream_unknown")
        return envelope({"stream_id": stream_id, "was": was})

    _add_test_alert(routes, administrators, test_alert)
    _add_audit(routes, administrators, audit)
    return routes


def _add_sessions(routes: Blueprint, administrators: Administrators, *, secure: bool) -> None:
    @routes.post("/api/admin/session")
    def sign_in() -> Response:
        session = administrators.open_session(body(Token, max_bytes=MAX_BODY).token)
        reply = envelope(_session(session))
        reply.set_cookie(
            COOKIE,
            session.cookie,
            max_age=int(LIFE_SECONDS),
            secure=secure or request.is_secure,
            httponly=True,
            samesite="Strict",
        )
        return reply

    @routes.get("/api/admin/session")
    def signed_in() -> Response:
        return envelope(_session(administrators.session()))

    @routes.delete("/api/admin/session")
    def sign_out() -> Response:
        reply = Response(status=204)
        reply.delete_cookie(COOKIE, httponly=True, samesite="Strict")
        return reply


def _add_test_alert(
    routes: Blueprint, administrators: Administrators, test_alert: Callable[[str], None] | None
) -> None:
    @routes.post("/api/admin/alerts/test")
    def alert() -> Response:
        who = administrators.check("operator")
        if test_alert is None:
            raise RestError(404)
        administrators.record(who, "alert.test", "ALERT_WEBHOOK")
        try:
            test_alert(who.name)
        except ProviderError as exc:
            log.warning("test alert not posted", extra={"cause": str(exc)})
            raise RestError(502) from exc
        return envelope({"posted": True})


def _add_audit(routes: Blueprint, administrators: Administrators, audit: Audit | None) -> None:
    @routes.get("/api/admin/audit")
    def acts() -> Response:
        administrators.check("admin")
        asked = params(AuditAsked)
        if audit is None:
            raise RestError(404)
        chosen = AuditFilter(asked.since, asked.until, asked.name, asked.action, asked.object)
        found = audit.audit_page(chosen, asked.cursor, asked.limit)
        following = found[-1].id if len(found) == asked.limit else None
        return envelope({"rows": [_act(row) for row in found], "next": following})


def _session(session: Session) -> dict[str, Any]:
    expires = _iso(datetime.fromtimestamp(session.expires, UTC))
    return {**session.who._asdict(), "csrf_token": session.csrf, "expires_at": expires}


def _live(row: StreamRow) -> dict[str, Any]:
    given = asdict(row)
    named = {"stream_id": row.stream, "age_seconds": row.age, "silent_seconds": row.silent}
    return {name: named.get(name, given.get(name)) for name in LiveStream.model_fields}


def _act(row: Audited) -> dict[str, Any]:
    return {"id": row.id, "time": _iso(row.time), **row.act._asdict()}


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
