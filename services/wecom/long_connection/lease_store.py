"""The lease of each bot's long connection in Redis: one replica holds it, under a fence.

    dify_long_connection:<bot>    hash without expiry, one for each bot in websocket mode:
        holder      the random token of the replica that took the lease last
        fence       a number that grows with each taking, also over a Redis that lost the hash
        expires     end of the lease in seconds by Redis's clock; a past time after it was given back
        leaving     "1" while the holder shuts down: another replica may take the lease before its end
        subscribed  "1" while the holder's connection is subscribed
        problem     error code of the last attempt to subscribe, or cause of the last loss
        connecting  "1" while the holder's request to subscribe may be in flight
        paused      time at which the lease was taken from a `connecting` holder, which may still subscribe
        evicted     cause of an eviction, which ended the lease at `expires` (see `subscriber.py`): no replica takes it
        looked      time at which a replica that stands by read the lease last, since it was taken

Other keys of a bot have the hash tag `{dify_long_connection:<bot>}`: on a Redis Cluster a script that writes them can
compare `fence`. A write under an older fence is refused, so a replica that was paused changes nothing.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from services.errors import StoreUnavailable
from services.redis.store import Call, ScriptRunner, script

#: Seconds that a lease lasts without renewal. A killed holder costs this, one look and a connect.
LEASE = 7.0
#: Seconds to the end of a lease that is given back: before now, because stamps are rounded to milliseconds.
ENDED = -0.001
#: Seconds after its last look in which a replica counts as ready to take the lease.
LOOKED = 3.0
#: Seconds for which a holder that lost its lease just before it subscribed may still subscribe.
PAUSED = 3600.0


@dataclass(frozen=True, slots=True)
class LeaseState:
    """A bot's lease as Redis has it. Times are seconds by Redis's clock."""

    now: float
    #: "" if no replica has ever taken it.
    holder: str = ""
    #: 0 if no replica has ever taken it.
    fence: int = 0
    expires: float = 0.0
    leaving: bool = False
    subscribed: bool = False
    problem: str = ""
    evicted: str = ""
    looked: float = 0.0
    paused: float = 0.0
    #: See `LOOKED`.
    ready_for: float = LOOKED

    @property
    def is_held(self) -> bool:
        """Whether a replica holds it now."""
        return self.now < self.expires

    @property
    def has_successor(self) -> bool:
        """Whether another replica would take it at once."""
        return self.now - self.looked < self.ready_for

    @property
    def has_paused_holder(self) -> bool:
        """Whether a former holder may have subscribed now, after a pause."""
        return self.now - self.paused < PAUSED

    @classmethod
    def from_reply(cls, reply: Sequence[Any], ready_for: float) -> LeaseState:
        now, holder, fence, expires, leaving, subscribed, problem, evicted, looked, paused = reply
        return cls(
            float(now),
            holder or "",
            int(fence or 0),
            float(expires or 0),
            leaving == "1",
            subscribed == "1",
            problem or "",
            evicted or "",
            float(looked or 0),
            float(paused or 0),
            ready_for,
        )


def lease_key(bot: str) -> str:
    """Return the key of a bot's lease, and the hash tag of all its other keys."""
    return f"dify_long_connection:{bot}"


class LeaseStore:
    """Owns the key above. Every method may raise `StoreUnavailable`."""

    def __init__(self, runner: ScriptRunner, *, now: str = "", ready_for: float = LOOKED) -> None:
        """`now` replaces Redis's clock in tests, and `ready_for` the seconds `LOOKED`."""
        self._runner = runner
        self._ready_for = ready_for
        self._now = now

    def look(self, bot: str, *, stands_by: bool = False) -> LeaseState:
        """Return a bot's lease; `stands_by` records that this replica can take it."""
        (reply,) = self._runner.run([self._call("lease_look", bot, "1" if stands_by else "")])
        return LeaseState.from_reply(reply, self._ready_for)

    def take(self, bot: str, token: str, *, after: int = 0, retry: float = 0.0) -> int:
        """Take a lease that is free or whose holder leaves; return its fence, greater than `after`, or 0.

        After an eviction it is free once `retry` seconds have passed; 0 stands for never.
        """
        (fence,) = self._runner.run([self._call("lease_take", bot, token, LEASE, after, retry)])
        return int(fence)

    def renew(self, bot: str, token: str, fence: int, **fields: str) -> bool:
        """Renew the lease, and set fields of it; return False if it has another holder or fence by now.

        A lease that Redis has lost is written again as it was.
        """
        return self._keep(bot, token, fence, LEASE, "1", fields)

    def give_back(self, bot: str, token: str, fence: int, **fields: str) -> bool:
        """End the lease, and set fields of it; return False if it has another holder or fence by now, or none."""
        return self._keep(bot, token, fence, ENDED, "", {"leaving": "", "subscribed": "", **fields})

    def resume(self, bot: str) -> None:
        """Allow the replicas to subscribe a bot again after an eviction."""
        self._runner.run([Call(None, ("HDEL", lease_key(bot)), ("evicted",))])

    def _keep(self, bot: str, token: str, fence: int, seconds: float, restore: str, fields: dict[str, str]) -> bool:
        pairs = [part for pair in fields.items() for part in pair]
        (kept,) = self._runner.run([self._call("lease_keep", bot, token, fence, seconds, restore, *pairs)])
        return bool(kept)

    def _call(self, name: str, bot: str, *args: str | int | float) -> Call:
        return Call(script(name), (lease_key(bot),), (self._now, *args))


def bot_key(bot: str, part: str) -> str:
    """Return one of a bot's keys; all of them are in one slot of a Redis Cluster."""
    return f"{{{lease_key(bot)}}}:{part}"


def hidden(key: bytes, kind: str, name: str) -> str:
    """Return 32 hexadecimal digits that stand for a name and reveal it only to holders of the key."""
    return hmac.digest(key, f"long:{kind}:{name}".encode("utf-8", "replace"), "sha256").hex()[:32]


def stands_for(name: str, kind: str, keys: Iterable[bytes], hashed: str) -> bool:
    """Return whether a hashed name was made from this name with any of the keys."""
    return any(hmac.compare_digest(hidden(key, kind, name), hashed) for key in keys)


#: Seconds between two renewals.
RENEWAL = 2.0


class HeldLease:
    """The lease of one bot, after this replica has taken it."""

    def __init__(self, store: LeaseStore, bot: str, token: str, fence: int, *, renewal: float = RENEWAL) -> None:
        """`renewal` is the number of seconds between two renewals."""
        self.bot = bot
        self.fence = fence
        #: Set once another replica has the lease.
        self.gone = threading.Event()
        self._store = store
        self._token = token
        self._renewal = renewal
        self._fields: dict[str, str] = {}
        self._wake = threading.Event()
        # Held during a call to Redis, so that no renewal follows `give_back`.
        self._calling = threading.Lock()
        self._over = False
        self._given_back = False

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"lease-{self.bot}", daemon=True).start()

    def note(self, **fields: str) -> None:
        """Write fields of the lease soon, and with every renewal from now on."""
        self._fields |= fields
        self._wake.set()

    def give_back(self, **fields: str) -> bool:
        """End the lease, and write these fields; return whether this replica still held it. A second call does nothing.

        Raises:
            StoreUnavailable: nothing may have been written; the lease is not renewed any more.
        """
        with self._calling:
            self._wake.set()
            self._over = True
            if self._given_back:
                return False
            kept = self._store.give_back(self.bot, self._token, self.fence, **fields)
            self._given_back = True
            return kept

    def confirm(self) -> bool:
        """Renew the lease now; return whether it is still this replica's.

        Raises:
            StoreUnavailable: Redis is away.
        """
        with self._calling:
            # A renewal writes a lease again that Redis has lost: only its holder may.
            if self._over or self.gone.is_set():
                return False
            kept = self._store.renew(self.bot, self._token, self.fence, **self._fields)
        if not kept:
            self.gone.set()
        return kept

    def _run(self) -> None:
        while self._renew():
            self._wake.wait(self._renewal)
            self._wake.clear()

    def _renew(self) -> bool:
        """Renew once; return whether to go on."""
        try:
            return self.confirm()
        except StoreUnavailable:
            # No other replica can take the lease either.
            return True
