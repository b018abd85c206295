"""Pushes, messages that answer no question, in Redis: from their request until a day after their end.

Each key begins with `{dify_long_connection:<bot>}:`.

    push:<id>         hash: state, chat (hashed), created, expires, claim, claimed, ended, error, owner (hashed), digest
                      of the request, file, slices, payload (sealed, until the end)
    push_file:<name>  hash: number of a slice -> its content, sealed; until the end of the push
    pushes            sorted set, ids of queued and sending pushes, by the time at which they expire in the queue
    push_sizes        hash, bytes of the files among them
    push_sending      sorted set, ids of claimed pushes, by the time of the claim
    push_due          sorted set, hashed chats with pushes, by the time when the next one may leave
    push_queue:<chat> list, the ids of a chat in their order
    push_ended        list, ids of the last ended pushes, the newest first; for administrators

A push is claimed before its message leaves, by the holder of the bot's lease. A claim whose outcome is unknown is never
sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from services.files.slices import SealedSlices
from services.redis.store import Call, ScriptRunner, script
from services.wecom.long_connection.lease_store import bot_key, lease_key
from utils.keyring import Keyring, keys_of
from utils.sealed import seal, unseal_any

PushState = Literal["queued", "sending", "sent", "failed", "unknown", "expired", "cancelled"]
Added = Literal["added", "known", "full"]
ClaimOutcome = Literal["claimed", "dropped", "refused"]

#: Seconds that a push may stay in the queue, and seconds that its state can be read after that.
QUEUE_SECONDS, KEPT_SECONDS = 3600.0, 86_400.0
#: Pushes of one bot that may wait at once, and bytes of the files among them.
MOST_WAITING, MOST_BYTES = 1000, 100 * 1024 * 1024
#: Ended pushes of one bot that can be listed.
MOST_ENDED = 100
#: Seconds after which a claim without an outcome counts as lost; the timeout of an ack is a fraction of it.
LOST_SECONDS = 30.0
#: Seconds that the slices of a file live without their push.
SLICE_SECONDS = 600.0

#: The fields of a push beside its payload.
_FIELDS = (*("state", "chat", "owner", "digest", "created", "expires", "claimed", "ended", "error", "file", "slices"),)
#: The fields of a push whose hash Redis has lost, with which it is removed from the queue.
_LOST = {"state": "", "chat": "", "owner": "", "digest": "", "created": "0", "expires": "0"}


@dataclass(frozen=True, slots=True)
class NewPush:
    """A push to be queued."""

    id: str
    #: The hashed name of the chat.
    chat: str
    #: The hashed name of the caller.
    owner: str
    #: Digest of the request, which detects another request with the same id.
    digest: str
    #: JSON of the message, in plain.
    payload: str = field(repr=False)
    #: Name of the slices of its file, "" for none, their number, and the bytes of the file.
    file: str = ""
    slices: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Push:
    """A stored push. Times are seconds since 1970, 0.0 for what did not happen."""

    bot: str
    id: str
    state: PushState
    chat: str
    owner: str
    digest: str
    created: float
    expires: float
    ended: float = 0.0
    #: The cause of a failure: WeCom's error code, or one of ours; "" for none.
    error: str = ""
    file: str = ""
    slices: int = 0
    #: The sealed payload; "" after the end.
    payload: str = field(default="", repr=False)


class PushStore:
    """Owns the keys above. Every method raises `StoreUnavailable` when Redis is away."""

    def __init__(self, runner: ScriptRunner, keys: Mapping[str, Keyring], *, now: str = "") -> None:
        """`keys` are each bot's keys; `now` is the time that scripts use, in seconds, "" for Redis's own clock."""
        self._runner = runner
        self._keys = keys
        self._slices = SealedSlices(runner, keys)
        self._now = now

    def add(self, bot: str, push: NewPush) -> Added:
        """Queue a push; one whose id is known is not changed."""
        fields = {"owner": push.owner, "digest": push.digest, "payload": self._sealed(bot, push.payload)}
        if push.file:
            fields |= {"file": push.file, "slices": str(push.slices)}
        limits = (push.size, MOST_WAITING, MOST_BYTES, QUEUE_SECONDS, QUEUE_SECONDS + KEPT_SECONDS)
        words = [word for pair in fields.items() for word in pair]
        keys = (_push(bot, push.id), *_names(bot, "pushes", "push_sizes", "push_due"), _queue(bot, push.chat))
        calls = [Call(script("push_add"), keys, (self._now, push.id, push.chat, *limits, *words))]
        if push.file:
            calls.append(Call(None, ("PEXPIRE", _file(bot, push.file)), (round(1000 * (QUEUE_SECONDS + 60)),)))
        return cast(Added, self._runner.run(calls)[0])

    def find(self, bot: str, id: str) -> Push | None:
        """Return a push; None if it is unknown or was deleted."""
        # The lease has the time of the push's own node on a Cluster.
        look = Call(script("lease_look"), (lease_key(bot),), (self._now, ""))
        fields, (now, *_) = self._runner.run([Call(None, ("HGETALL", _push(bot, id))), look])
        return _read(bot, id, fields, float(now)) if fields else None

    def listed(self, bot: str, most: int) -> tuple[list[Push], int]:
        """Return pushes without their payload, and how many wait in all.

        First those that wait, the first to expire first, then those that ended, the newest first; `most` of each.
        """
        look = Call(script("lease_look"), (lease_key(bot),), (self._now, ""))
        waiting, ended = _names(bot, "pushes", "push_ended")
        calls = [Call(None, ("ZRANGE", waiting), (0, most - 1)), Call(None, ("LRANGE", ended), (0, most - 1))]
        (now, *_), total, *ids = self._runner.run([look, Call(None, ("ZCARD", waiting)), *calls])
        # One may have ended between the two.
        known = list(dict.fromkeys([*ids[0], *ids[1]]))
        rows = self._runner.run([Call(None, ("HMGET", _push(bot, id)), _FIELDS) for id in known]) if known else []
        fields = [{name: value for name, value in zip(_FIELDS, row, strict=True) if value is not None} for row in rows]
        found = zip(known, fields, strict=True)
        return [_read(bot, id, each, float(now)) for id, each in found if "state" in each], int(total)

    def cancel(self, push: Push) -> bool:
        """End a push that waits; False if it does not wait any more."""
        return self._settle(push, "queued", "", "cancelled", "")

    def payload(self, push: Push) -> str:
        """Return the JSON of a push's message.

        Raises:
            ValueError: it was sealed with a key that this replica does not have.
        """
        return unseal_any(keys_of(self._keys[push.bot]), push.payload)

    def put_file(self, bot: str, file: str, content: bytes) -> int:
        """Store the content of a file that a push will have; return the number of its slices."""
        return self._slices.write(bot, _file(bot, file), content, {}, ttl=SLICE_SECONDS)

    def drop_file(self, bot: str, file: str) -> None:
        """Delete the slices of a file."""
        self._runner.run([Call(None, ("DEL", _file(bot, file)))])

    def content(self, push: Push) -> bytes | None:
        """Return the file of a push; None where Redis lost a part of it.

        Raises:
            ValueError: it was sealed with a key that this replica does not have.
        """
        return self._slices.read(push.bot, _file(push.bot, push.file), push.slices)

    def due(self, bot: str, most: int) -> list[str]:
        """Return the hashed names of up to `most` chats whose next push may leave."""
        call = Call(script("push_due"), _names(bot, "push_due"), (self._now, most))
        return list(self._runner.run([call])[0])

    def head(self, bot: str, chat: str) -> str:
        """Return the id of a chat's next push, "" for none."""
        return self._runner.run([Call(None, ("LINDEX", _queue(bot, chat)), (0,))])[0] or ""

    def claim(self, bot: str, chat: str, id: str, *, fence: int, claim: str) -> ClaimOutcome:
        """Claim the first push of a chat before its message leaves.

        "dropped": it expired or is gone, and has left the queue. "refused": another caller has claimed it, or `fence`
        is not that of the bot's lease.
        """
        keys = (_push(bot, id), _queue(bot, chat), bot_key(bot, "push_sending"), lease_key(bot))
        return cast(
            ClaimOutcome, self._runner.run([Call(script("push_claim"), keys, (self._now, id, fence, claim))])[0]
        )

    def settle(self, push: Push, claim: str, state: PushState, error: str = "") -> bool:
        """Store the outcome of a claimed push ("queued" puts it back); False if the claim was lost meanwhile."""
        return self._settle(push, "sending", claim, state, error, attempts=3)

    def next(self, bot: str, chat: str, seconds: float = 0.0) -> None:
        """Let a chat's next push leave in `seconds`, if it has one."""
        keys = (bot_key(bot, "push_due"), _queue(bot, chat))
        self._runner.run([Call(script("push_next"), keys, (self._now, chat, seconds))])

    def end_overdue(self, bot: str) -> dict[PushState, int]:
        """End the pushes that expired in the queue, and claims without an outcome; return the number of each."""
        call = Call(script("push_overdue"), _names(bot, "pushes", "push_sending"), (self._now, LOST_SECONDS))
        waiting, claimed = self._runner.run([call])[0]
        return {
            "expired": self._end(bot, waiting, "queued", "expired"),
            "unknown": self._end(bot, claimed, "sending", "unknown"),
        }

    def _end(self, bot: str, ids: list[str], now: PushState, then: PushState) -> int:
        fields = self._runner.run([Call(None, ("HGETALL", _push(bot, id))) for id in ids]) if ids else []
        pushes = [_read(bot, id, each or _LOST, 0.0) for id, each in zip(ids, fields, strict=True)]
        return sum(self._settle(push, now, "", then, "") for push in pushes)

    def _settle(
        self, push: Push, now: PushState, claim: str, then: PushState, error: str, *, attempts: int = 2
    ) -> bool:
        names = _names(push.bot, "pushes", "push_sizes", "push_sending")
        keys = (_push(push.bot, push.id), *names, _queue(push.bot, push.chat), bot_key(push.bot, "push_ended"))
        calls = [Call(script("push_settle"), keys, (self._now, push.id, now, claim, then, error, MOST_ENDED))]
        settled = bool(self._runner.run(calls, attempts=attempts)[0])
        if settled and push.file and then != "queued":
            self.drop_file(push.bot, push.file)
        return settled

    def _sealed(self, bot: str, text: str) -> str:
        return seal(keys_of(self._keys[bot])[0], text)


def _read(bot: str, id: str, fields: Mapping[str, Any], now: float) -> Push:
    """Return a push with its state at `now`, also if no holder has stored yet that it expired."""
    state, expires = fields["state"], float(fields["expires"])
    if state == "queued" and now >= expires:
        state = "expired"
    if state == "sending" and now >= float(fields["claimed"]) + LOST_SECONDS:
        state = "unknown"
    return Push(
        bot,
        id,
        state,
        chat=fields["chat"],
        owner=fields["owner"],
        digest=fields["digest"],
        created=float(fields["created"]),
        expires=expires,
        ended=float(fields.get("ended", 0)),
        error=fields.get("error", ""),
        file=fields.get("file", ""),
        slices=int(fields.get("slices", 0)),
        payload=fields.get("payload", ""),
    )


def _names(bot: str, *parts: str) -> tuple[str, ...]:
    return tuple(bot_key(bot, part) for part in parts)


def _push(bot: str, id: str) -> str:
    return bot_key(bot, f"push:{id}")


def _queue(bot: str, chat: str) -> str:
    return bot_key(bot, f"push_queue:{chat}")


def _file(bot: str, file: str) -> str:
    return bot_key(bot, f"push_file:{file}")
