"""The registry of open sockets of all replicas: the newest socket per name, all sockets, and those to be closed.

    {dify_sockets}:newest      hash, name → "<order> <token>" of the newest socket of that name. A name is the keyed
                               hash of channel, principal and client id, so that it identifies no user
    {dify_sockets}:open        hash, token → JSON {client_id, channel, connected_at, idle, replica} as of its last
                               renewal
    {dify_sockets}:renewed     sorted set, "<name> <token>" by the time of its last renewal, in Redis's seconds
    {dify_sockets}:dismissed   set of the tokens an administrator wants closed; lives a minute

Entries that are not renewed expire. Each socket stores its own order and sends it with every renewal, so after Redis
lost all keys one round of renewals restores them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from services.redis.store import Call, ScriptRunner, script
from utils.keyring import Keyring, keys_of

Verdict = Literal["superseded", "dismissed"]

NEWEST, OPEN, RENEWED, DISMISSED = (f"{{dify_sockets}}:{part}" for part in ("newest", "open", "renewed", "dismissed"))

#: Seconds after its last renewal in which a socket still counts as open.
LIFE = 15.0
#: Seconds a dismissal is kept for a replica that cannot reach Redis.
DISMISSAL = 60.0
#: Sockets per script call: a thousand in one call would block Redis for milliseconds.
BATCH = 250


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """A socket of this replica, as the registry stores it."""

    token: str
    channel: str
    principal: str = field(repr=False)
    client_id: str
    #: Seconds since 1970.
    connected_at: float
    #: When it became the newest of its name, in seconds by Redis's clock. The highest wins.
    since: float = 0.0

    @property
    def key(self) -> tuple[str, str, str]:
        """Channel, principal and client id. Of all sockets with the same key only the newest stays open."""
        return self.channel, self.principal, self.client_id


@dataclass(frozen=True, slots=True)
class ConnectedSocket:
    """A socket of any replica, as shown to administrators."""

    token: str = field(repr=False)
    client_id: str
    channel: str
    #: Seconds since 1970.
    connected_at: float
    #: Seconds since the client last sent something.
    idle: float
    replica: str


class Renewed(NamedTuple):
    """The reply of lua/sockets_renew.lua."""

    #: The time by Redis's clock.
    now: float
    #: Why each socket must close, by token.
    closing: dict[str, Verdict]

    @classmethod
    def from_reply(cls, reply: Sequence[Any]) -> Renewed:
        now, *closing = reply
        return cls(float(now), dict(_pairs(closing)))


class SocketStore:
    """Own the keys above. Every method may raise `StoreUnavailable`.

    `replica` is this replica's name for administrators. Names are hashed with `secret`, the same on all replicas.
    """

    def __init__(
        self,
        runner: ScriptRunner,
        *,
        replica: str,
        secret: Keyring,
        life: float = LIFE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._runner = runner
        self._replica = replica
        self._secret = secret
        self._life = life
        self._clock = clock
        #: Seconds by which Redis's clock is ahead of this machine's, as of the last reply.
        self._ahead = 0.0

    def now(self) -> float:
        """Return the time by Redis's clock, estimated without a round trip."""
        return self._clock() + self._ahead

    def register(self, socket: OpenSocket, *, after: float = 0.0) -> float:
        """Make a new socket the newest of its name. Return its order (`since`), which is greater than `after`."""
        args = (self._name(socket), socket.token, after, self._record(socket, 0.0))
        call = Call(script("sockets_open"), (NEWEST, OPEN, RENEWED), ("", self._life, *args))
        since, now = self._runner.run([call])[0]
        self._ahead = float(now) - self._clock()
        return float(since)

    def renew(self, sockets: Sequence[tuple[OpenSocket, float]]) -> dict[str, Verdict]:
        """Renew open sockets, each given with its idle seconds. Return by token which must close, and why.

        Call it without sockets too: it removes the entries of dead replicas.
        """
        batches = [sockets[i : i + BATCH] for i in range(0, len(sockets), BATCH)] or [()]
        renewed = [Renewed.from_reply(reply) for reply in self._runner.run([self._renewal(batch) for batch in batches])]
        self._ahead = renewed[-1].now - self._clock()
        return {token: why for one in renewed for token, why in one.closing.items()}

    def leave(self, sockets: Sequence[OpenSocket]) -> None:
        """Remove closed sockets in one call."""
        args = [part for socket in sockets for part in (self._name(socket), socket.token)]
        if args:
            self._runner.run([Call(script("sockets_leave"), (NEWEST, OPEN, RENEWED), tuple(args))])

    def connections(self) -> list[ConnectedSocket]:
        """Return the open sockets of all replicas, oldest first."""
        call = Call(script("sockets_list"), (OPEN, RENEWED), ("", self._life))
        now, renewed, records = self._runner.run([call])[0]
        known = dict(_pairs(records))
        ages = {member.split(" ")[1]: float(now) - float(score) for member, score in _pairs(renewed)}
        found = [_connection(token, known[token], age) for token, age in ages.items() if token in known]
        return sorted(found, key=lambda one: one.connected_at)

    def dismiss(self, client_id: str) -> list[str]:
        """Have every socket with this client id closed by its replica. Return their tokens."""
        tokens = [one.token for one in self.connections() if one.client_id == client_id]
        if tokens:
            life = Call(None, ("PEXPIRE", DISMISSED), (int(DISMISSAL * 1000),))
            self._runner.run([Call(None, ("SADD", DISMISSED), tuple(tokens)), life])
        return tokens

    def _renewal(self, sockets: Sequence[tuple[OpenSocket, float]]) -> Call:
        args: list[str | int | float] = ["", self._life]
        for socket, idle in sockets:
            args += [self._name(socket), socket.token, f"{socket.since:.3f}", self._record(socket, idle)]
        return Call(script("sockets_renew"), (NEWEST, OPEN, RENEWED, DISMISSED), tuple(args))

    def _name(self, socket: OpenSocket) -> str:
        return hmac.new(keys_of(self._secret)[0], json.dumps(socket.key).encode(), hashlib.sha256).hexdigest()[:32]

    def _record(self, socket: OpenSocket, idle: float) -> str:
        record = {
            "client_id": socket.client_id,
            "channel": socket.channel,
            "connected_at": round(socket.connected_at, 3),
            "idle": round(idle, 1),
            "replica": self._replica,
        }
        return json.dumps(record, separators=(",", ":"))


def _connection(token: str, text: str, age: float) -> ConnectedSocket:
    record = json.loads(text)
    idle = record["idle"] + max(0.0, age)
    return ConnectedSocket(
        token, record["client_id"], record["channel"], record["connected_at"], idle, record["replica"]
    )


def _pairs(flat: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)
