"""Checks authentication: the user query and the auth API."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from bootstrap.container import Container
from config.errors import SettingsError
from config.settings import Settings
from services.errors import AuthError, StoreUnavailable
from services.identity.user_store import SqlUserStore, UserRecord
from services.ops.remedies import SQL, cause, explained
from tools._doctor.checks import TLS, Finding

#: An id that no user has. A query that finds a user with it ignores the id.
NOBODY = "doctor-nobody-4f1c9e"

_SQL = (
    *SQL,
    ("1142", "give MYSQL_USER the right to SELECT from the tables of AUTH_USER_QUERY"),
    ("1146", "correct the table in AUTH_USER_QUERY"),
    ("no such table", "correct the table in AUTH_USER_QUERY"),
    ("1054", "correct the column in AUTH_USER_QUERY"),
    ("no such column", "correct the column in AUTH_USER_QUERY"),
    ("1064", "correct the SQL of AUTH_USER_QUERY"),
    ("syntax error", "correct the SQL of AUTH_USER_QUERY"),
)
_OTHER = 'this is another API: AUTH_SERVICE_URL has to answer {"success": true, "data": "<token>"}, or false'
_AUTH = (
    ("redirect", "set AUTH_SERVICE_URL to where it leads"),
    ("HTTP 404", "correct the path in AUTH_SERVICE_URL: nothing is there"),
    ("HTTP 405", "correct AUTH_SERVICE_METHOD (post or get), or the path in AUTH_SERVICE_URL"),
    ("HTTP 429", "let this machine's requests through the auth API's rate limit"),
    ("HTTP 5", "the auth API, or the proxy before it, fails: see their logs"),
    ("not JSON", "correct AUTH_SERVICE_URL: it leads to a web page or a login page, not to the API"),
    ("success", _OTHER),
    ("JSON object", _OTHER),
    *TLS,
    ("timeout", "the auth API does not answer: see that it runs and that no firewall is between"),
    ("connection", "start the auth API, or correct AUTH_SERVICE_URL"),
)


def check_users(settings: Settings, container: Container, userid: str, corp: str) -> Iterator[Finding]:
    """Yield the findings on the user query or the allowlist. `userid` is a user to look up, "" for none."""
    if container.users is not None:
        yield _sql(settings, container.users, userid, corp)
    elif settings.auth_mode == "none" and not userid:
        text = "AUTH_MODE=none: everybody who can write to the bot may ask"
        yield Finding("users", "warning", text, "set AUTH_SERVICE_URL, or AUTH_MODE=allowlist, before going public")
    elif userid:
        yield _may_ask(container, userid, corp)
    else:
        yield Finding("users", "ok", f"{len(settings.auth_allowlist)} on the allowlist")


def check_auth_api(container: Container) -> Iterator[Finding]:
    """Yield a finding on whether the auth API refuses a user who does not exist. No real password is sent."""
    try:
        refused = container.auth.refuses_strangers()
    except AuthError as exc:
        yield Finding(
            "auth API", "failed", f"no proper answer: {exc}", explained(str(exc), _AUTH, "see AUTH_SERVICE_URL")
        )
        return
    if refused:
        yield Finding("auth API", "ok", "refuses a person who does not exist, in its documented form")
    else:
        text = "gives a token to a person who does not exist: any password would do"
        yield Finding("auth API", "warning", text, "make the auth API check the password")


def _may_ask(container: Container, userid: str, corp: str) -> Finding:
    try:
        container.auth.authenticate(userid, corp)
    except AuthError:
        return Finding("users", "failed", f"{userid} may not ask", "add the userid to AUTH_ALLOWLIST")
    return Finding("users", "ok", f"{userid} may ask")


def _sql(settings: Settings, users: SqlUserStore, userid: str, corp: str) -> Finding:
    if settings.database_path and not Path(settings.database_path).is_file():
        # Opening it would create an empty file.
        return Finding("sql query", "failed", f"no file {settings.database_path}", "correct DATABASE_PATH")
    try:
        with _heard("services.identity.user_store") as warnings:
            record = users.find(userid or NOBODY, corp)
    except StoreUnavailable as exc:
        text = cause(exc)
        return Finding("sql query", "failed", text, explained(text, _SQL, "see MySQL's settings and AUTH_USER_QUERY"))
    except SettingsError as exc:
        return Finding("sql query", "failed", str(exc), "name it in the query: SELECT … AS user_code, … AS password")
    if warnings:
        return Finding("sql query", "failed", warnings[0], "make AUTH_USER_QUERY return one row per user")
    return _found(record, userid)


def _found(record: UserRecord | None, userid: str) -> Finding:
    if not userid:
        if record is None:
            return Finding("sql query", "ok", "runs and has its columns; --userid ID looks for a real person")
        text = "finds a user for an id that nobody has: everybody would be that user"
        return Finding("sql query", "failed", text, "compare with :userid in the WHERE of AUTH_USER_QUERY")
    if record is None:
        remedy = "see that the query compares with the id WeCom sends (the account, or an encrypted id)"
        return Finding("sql query", "failed", f"finds nobody with the userid {userid}", remedy)
    if not record.password:
        return Finding("sql query", "failed", f"{userid} has no password", "the auth API needs one: fill the column")
    filled = [name for name, value in asdict(record.user).items() if value]
    return Finding("sql query", "ok", f"finds {userid}, with password, {', '.join(filled)}")


@contextmanager
def _heard(name: str) -> Iterator[list[str]]:
    """Collect the warnings of a logger during the block."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield heard
    finally:
        logger.removeHandler(handler)
