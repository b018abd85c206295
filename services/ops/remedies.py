"""What to do about what has failed: the doctor's remedies, for every tool and the administrators' page."""

from __future__ import annotations

from collections.abc import Iterable

from services.errors import StoreUnavailable

#: Remedies of a failed connection, by MySQL's error numbers.
SQL = (
    ("1045", "correct MYSQL_USER and MYSQL_PASSWORD, and let the user log in from this host"),
    ("1698", "let MYSQL_USER log in with a password"),
    ("1130", "let MYSQL_USER log in from this host"),
    ("1044", "give MYSQL_USER its rights in MYSQL_DATABASE"),
    ("1049", "correct MYSQL_DATABASE: there is no such database"),
    ("2003", "start MySQL, or correct MYSQL_HOST (MYSQL_READ_HOST) and MYSQL_PORT"),
    ("2006", "see that MySQL is not hung, and its log"),
    ("2013", "see that MySQL is not hung, and its log"),
)
#: Remedies of a Redis that does not answer.
REDIS = (
    ("certificate verify", "name the authority's file in REDIS_URL: rediss://…?ssl_ca_certs=/path/ca.pem"),
    ("[SSL", "see that this port speaks TLS, or begin REDIS_URL with redis://"),
    ("no sentinel", "see that REDIS_URL names the Sentinels, their service and, if they want one, ?sentinel_password="),
    ("cluster support disabled", "this is no Cluster: begin REDIS_URL with redis://"),
    ("ResponseError SELECT", "this is a node of a Cluster: begin REDIS_URL with redis+cluster://"),
    ("password", "set REDIS_PASSWORD (or the one in REDIS_URL) to what Redis expects"),
    ("authentication", "set REDIS_PASSWORD (or the one in REDIS_URL) to what Redis expects"),
    (
        "connection refused",
        "start Redis, or correct REDIS_HOST and REDIS_PORT (in a container 127.0.0.1 is the container itself)",
    ),
    ("name or service", "correct REDIS_HOST: the name does not resolve from here"),
    ("name resolution", "correct REDIS_HOST: the name does not resolve from here"),
    ("timeout", "see that Redis is not hung and that no firewall is between (REDIS_HOST, REDIS_PORT)"),
    ("ResponseError DB", "set REDIS_DB to a database this Redis has (0 always exists)"),
    ("NoPermission", "give the user the rights of `+@all ~*`, or of the commands the message names"),
    ("loading", "Redis still reads its data from disk: wait a moment"),
    ("max number of clients", "raise Redis's maxclients: each process may open REDIS_POOL_SIZE connections"),
)
#: The remedy of clocks that differ.
CLOCK = "see which one is wrong (date -u), and let it be set over the network (timedatectl set-ntp true)"
#: The remedy of a bot that another program runs; `{bot}` is its name.
EVICTED = "stop that program, or renew the Secret in WeCom's console; then python -m tools.wecom resume {bot}"
#: The remedy of everything else.
DOCTOR = "see `python -m tools.doctor`"
#: The remedy of a tool that needs tables which are not there.
_NO_TABLES = "start the gateway once, or run `python -m tools.migrate up`"


def explained(text: str, remedies: Iterable[tuple[str, str]], otherwise: str = "") -> str:
    """Return the first remedy whose key is in the text, ignoring case, else `otherwise`."""
    return next((remedy for key, remedy in remedies if key.lower() in text.lower()), otherwise)


def cause(exc: StoreUnavailable) -> str:
    """Return the error and the database's own message, which names the table or the host."""
    words = getattr(getattr(exc.__cause__, "orig", None), "args", ())
    return f"{exc} ({words[-1]})" if words else str(exc)


def remedy_of(text: str) -> str:
    """Return what to do about a failure of SQL or Redis, by its `cause`."""
    tables = (("1146", _NO_TABLES), ("no such table", _NO_TABLES))
    return explained(text, (*tables, *SQL) if text.startswith("SQL") else REDIS, DOCTOR)


def told(exc: Exception) -> str:
    """Return the text of a tool's error, with the remedy of one that Redis or SQL caused."""
    if not isinstance(exc, StoreUnavailable):
        return str(exc)
    text = cause(exc)
    return f"{text} -> {remedy_of(text)}"
