"""The users' tokens in Redis. The external auth service may write and expire them too.

    authorization:wechatid:<userid>           string, the user's token; written here, expires with the token
    authorization:wechatid:<corp>:<userid>    the same for bots of another corp
    authorization.wechatid.<userid>           read as a fallback, never written
    authorization:token:<token>               string, JSON user_info without the password. A token is valid while this
                                              key exists. Written with NX: the auth service's value and expiry win
    authorization:denied:[<corp>:]<userid>    string, the code of a failed authentication; lives seconds

The keys of one user are in different slots of a Cluster, so each step is a pipeline of plain commands.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from services.models import UserInfo
from services.redis.lock_store import delete_if
from services.redis.store import Call, ScriptRunner


@dataclass(frozen=True, slots=True)
class Cached:
    """A valid token. `user` is None if the auth service wrote a value that is not a user_info of this product."""

    token: str = field(repr=False)
    user: UserInfo | None = None


@dataclass(frozen=True, slots=True)
class Denied:
    """A cached authentication failure. `code` is its `AuthError` code, `left` the seconds until it is forgotten."""

    code: str
    left: float = field(default=0.0, compare=False)


class TokenStore:
    """Own the keys above."""

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner

    def load(self, userid: str, corp: str = "") -> Cached | Denied | None:
        """Return the user's valid token, else a cached failure, else None: authenticate.

        A token without its validity key is not valid; its pointer is deleted. A valid one costs two round trips.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        pointer, *_ = keys = _pointers(userid, corp)
        named = _denied(userid, corp)
        *tokens, denied, left = self._run([*(("GET", key) for key in [*keys, named]), ("PTTL", named)])
        for token, valid, text in self._validity([t for t in dict.fromkeys(tokens) if _is_text(t)]):
            if valid:
                return Cached(token, _read_user(text))
        if _is_text(tokens[0]):
            self._runner.run([delete_if(pointer, tokens[0])])
        return Denied(denied, left / 1000.0) if _is_text(denied) else None

    def user_of(self, token: str) -> Cached | None:
        """Return a token with its user; None if it is not valid.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        [(_, valid, text)] = self._validity([token])
        return Cached(token, _read_user(text)) if valid else None

    def save(self, userid: str, corp: str, token: str, user: UserInfo, ttl: float) -> None:
        """Store a new token for `ttl` seconds and delete the cached failure.

        Raises:
            StoreUnavailable: Redis did not store it.
        """
        life = max(1, int(ttl * 1000))
        # The validity key first: a reader would delete a pointer to a token that is not valid yet.
        self._run(
            [
                ("SET", _validity_key(token), user.to_json(), "NX", "PX", life),
                ("SET", _pointers(userid, corp)[0], token, "PX", life),
                ("DEL", _denied(userid, corp)),
            ]
        )

    def deny(self, userid: str, corp: str, code: str, seconds: float) -> None:
        """Cache for `seconds` that authentication failed with `code`.

        Raises:
            StoreUnavailable: Redis did not store it.
        """
        self._run([("SET", _denied(userid, corp), code, "PX", max(1, int(seconds * 1000)))])

    def forget(self, userid: str, corp: str = "") -> None:
        """Delete the user's token and cached failure. The auth service's own key stays.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        self._run([("DEL", _pointers(userid, corp)[0]), ("DEL", _denied(userid, corp))])

    def _validity(self, tokens: Sequence[str]) -> list[tuple[str, bool, Any]]:
        """Return each token, whether it is valid, and the value of its validity key."""
        if not tokens:
            return []
        # EXISTS beside GET: the auth service may store a value that GET rejects, such as a hash.
        replies = self._run([(name, _validity_key(token)) for token in tokens for name in ("EXISTS", "GET")])
        return [(token, replies[2 * i] == 1, replies[2 * i + 1]) for i, token in enumerate(tokens)]

    def _run(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send the commands in one round trip. The reply for a key of the wrong type is an error object."""
        return self._runner.run([Call(None, command) for command in commands], mistyped=True)


def _pointers(userid: str, corp: str) -> list[str]:
    """Return the keys that may hold the user's token, in order of preference. Only the first is written."""
    key = f"authorization:wechatid:{_owner(userid, corp)}"
    return [key] if corp else [key, f"authorization.wechatid.{userid}"]


def _denied(userid: str, corp: str) -> str:
    return f"authorization:denied:{_owner(userid, corp)}"


def _validity_key(token: str) -> str:
    return f"authorization:token:{token}"


def _owner(userid: str, corp: str) -> str:
    """Return the last part of a key. Colons are escaped, so that no userid looks like a user of another corp."""
    return ":".join(part.replace("%", "%25").replace(":", "%3A") for part in (corp, userid) if part)


def _is_text(reply: object) -> bool:
    """Return whether a reply is a value, and not nil or an error such as a key of the wrong type."""
    return isinstance(reply, str) and bool(reply)


def _read_user(text: object) -> UserInfo | None:
    """Return the user of a user_info; None for any other form, which the auth service may have written."""
    if not isinstance(text, str):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("user_code"), str) or not value["user_code"]:
        return None
    known = {f.name: value[f.name] for f in fields(UserInfo) if isinstance(value.get(f.name), str)}
    return UserInfo(**known)
