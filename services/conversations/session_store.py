"""Finds conversations by the messages in them, and requests by their client's key.

    dify_turns:{<principal>}:session:<messages>  string, the session; CONVERSATION_TTL
    dify_turns:{<principal>}:request:<key>       string, "<digest> <session> <0|1>"; STREAM_TTL

All parts are keyed hashes, so that the keys show neither people nor words. The hash of a principal is a hash tag: all
keys of one are in one slot of a cluster.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import NamedTuple

from services.redis.store import Call, ScriptRunner, script
from utils.keyring import Keyring, keys_of


class TextDigest:
    """The digest of a text that comes in pieces; white space does not count, because clients strip it."""

    def __init__(self, text: str = "") -> None:
        self._digest = hashlib.sha256()
        self.add(text)

    def add(self, text: str) -> None:
        self._digest.update("".join(text.split()).encode())

    @property
    def hex(self) -> str:
        return self._digest.hexdigest()


class Talk(NamedTuple):
    """A conversation as its client sees it: its bot, its principal, and the role and the digest of each message."""

    bot: str
    principal: str
    messages: tuple[tuple[str, str], ...]

    def with_answer(self, question: str, answer: str) -> Talk:
        """Return the conversation after the next exchange, which has these digests."""
        return self._replace(messages=(*self.messages, ("user", question), ("assistant", answer)))


class ClaimedSession(NamedTuple):
    """The conversation of a request."""

    session: str
    #: Whether it was found by its earlier messages, so that the provider knows them.
    found: bool
    #: Whether the request is the one that used the key first, or repeats it.
    same: bool = True


class SessionStore:
    """Owns the keys above; every method is one round trip and may raise `StoreUnavailable`."""

    def __init__(self, runner: ScriptRunner, *, secret: Keyring, ttl: float, request_ttl: float) -> None:
        """Take the keys that hash names, and the seconds that a session and a request's record live."""
        self._runner = runner
        self._secret = secret
        self._ttl = ttl
        self._request_ttl = request_ttl

    def take(self, talk: Talk, new: str) -> ClaimedSession:
        """Return the session of a conversation and forget it, because a second question from here is a branch.

        `new` is the session where none is found.
        """
        # Not GETDEL, which older servers and some stand-ins lack.
        key = self._session_key(talk)
        session, _ = self._runner.run([Call(None, ("GET", key)), Call(None, ("DEL", key))])
        return ClaimedSession(session or new, bool(session))

    def keep(self, talk: Talk, session: str) -> None:
        """Store the session of a conversation that ends with these messages."""
        call = Call(None, ("SET", self._session_key(talk)), (session, "EX", int(self._ttl)))
        self._runner.run([call])

    def claim(self, principal: str, key: str, digest: str, *, talk: Talk | None, new: str) -> ClaimedSession:
        """Return the conversation of a request with a client's `key`, the same for each repetition.

        The first request takes the session of `talk`, else `new`. A request with another digest is not the `same`.
        """
        keys = (self._key(principal, "request", key), *([self._session_key(talk)] if talk else []))
        (record,) = self._runner.run([Call(script("request_claim"), keys, (digest, new, self._request_ttl))])
        known, session, found = record.split(" ")
        return ClaimedSession(session, found == "1", known == digest)

    def prefix(self, principal: str) -> str:
        """Return the beginning of all keys of a principal."""
        return f"dify_turns:{{{self._hashed(principal)}}}:"

    def _session_key(self, talk: Talk) -> str:
        return self._key(talk.principal, "session", json.dumps([talk.bot, talk.messages]))

    def _key(self, principal: str, kind: str, name: str) -> str:
        return f"{self.prefix(principal)}{kind}:{self._hashed(name)}"

    def _hashed(self, text: str) -> str:
        return hmac.digest(keys_of(self._secret)[0], text.encode(), "sha256").hex()[:32]
