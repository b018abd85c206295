"""The replicas of a run, and all servers around them: Redis, MariaDB, an auth API, Dify, and WeCom's sides."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from demo.mocks.auth import MockAuth
from demo.mocks.dify.runs import AfterDisconnect
from demo.mocks.dify.server import MockDify
from demo.wecom.long_connection.server import LongConnectionServer
from demo.wecom.simulator import ResponseServer
from tests.scenarios.stage.chaos_fleet import Fleet
from tests.scenarios.stage.people import company_settings, people
from tests.support.long_connection.bots import BOT_ID, SECRET, bot_server, websocket_settings
from tests.support.replicas import AES_KEY, TOKEN, Replica, dify_settings, settings_for
from tests.support.servers.processes import MariaServer, RedisServer
from tests.support.servers.relay import Relay

KEY = "obviously-fake-api-key"
#: Seconds that a client waits for an end, the longest freeze and what follows it included.
PATIENCE = 200.0
#: Seconds between two pieces of an answer, of which there are about thirty, and of a slow one.
PACE, SLOW_PACE = 0.15, 0.3
#: Users of the auth API, and the seconds for which their tokens are valid: people are looked up again and again.
USERS, TOKEN_SECONDS = 1400, 8.0
#: The bots besides the default one: its frames end before its slow answers; the other one has a long connection.
LATE, LONG = "late", "long"
#: Seconds after which the frames of `LATE` end.
FRAME_SECONDS = 2


class DurableRedis(RedisServer):
    """A Redis whose writes survive a kill, and which outlives a limit of its file's size."""

    def __init__(self) -> None:
        super().__init__(aof=True, options=("--appendfsync", "everysec"))

    def command(self) -> list[str]:
        # The signal of a file that is too large would end it; a full disk sends none.
        return ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh", *super().command()]


class GatedFleet(Fleet):
    """A fleet in which one living replica at a time reaches Redis through a relay."""

    def __init__(self, env: Mapping[str, str], folder: Path, redis: RedisServer) -> None:
        super().__init__(env, folder, timeout=PATIENCE)
        self.gate = Relay(redis.port)
        #: The replica behind the relay.
        self.gated: Replica | None = None

    def launch(self, env: Mapping[str, str]) -> Replica:
        if self.gated and self.gated.process.poll() is None:
            return super().launch(env)
        self.gated = super().launch({**env, "REDIS_URL": f"redis://127.0.0.1:{self.gate.port}/1"})
        return self.gated

    @property
    def alive(self) -> list[Replica]:
        """The members that run."""
        return [member for member in list(self.members) if member.process.poll() is None]

    def close(self) -> None:
        super().close()
        self.gate.close()


@dataclass
class World:
    """Everything of one run."""

    redis: RedisServer
    maria: MariaServer
    auth: MockAuth
    dify: MockDify
    #: Between the replicas and Dify.
    dify_gate: Relay
    responses: ResponseServer
    wecom: LongConnectionServer
    replicas: GatedFleet
    dice: random.Random
    #: The credentials of the clients of sockets and REST, by their numbers; the key for the others.
    tokens: Mapping[int, str] = field(default_factory=dict)
    #: The clients give up at this time.
    end: float = float("inf")
    #: The number of the next freeze, and of the next probe.
    waits: Iterator[int] = field(default_factory=itertools.count)
    probes: Iterator[int] = field(default_factory=itertools.count)

    def url(self) -> str:
        """Return the address of a member that runs, as a load balancer chooses one."""
        return random.choice(self.replicas.alive or self.replicas.members).url

    def headers(self, number: int) -> dict[str, str]:
        """Return the credentials of a client of sockets and REST."""
        return {"Authorization": f"Bearer {self.tokens.get(number, KEY)}"}

    def tries(self, pause: float = 0.5) -> Iterator[str]:
        """Yield addresses, one for each try of a client that waits `pause` seconds in between, until it gives up."""
        end = min(time.monotonic() + PATIENCE, self.end)
        while time.monotonic() < end:
            yield self.url()
            time.sleep(pause)

    def replace_soon(self, replica: Replica, seconds: float = 1.0) -> None:
        """Start the successor of a replica that ends, after some seconds."""
        threading.Thread(target=self._succeed, args=(replica, seconds), daemon=True).start()

    def _succeed(self, replica: Replica, seconds: float) -> None:
        time.sleep(seconds)
        self.replicas.succeed(replica)


@contextmanager
def world(
    count: int,
    folder: Path,
    dice: random.Random,
    *,
    lease: float = 6.0,
    fate: AfterDisconnect = "runs on",
    token_seconds: float | None = TOKEN_SECONDS,
    settings: Mapping[str, str] = {},
) -> Iterator[World]:
    """Run `count` replicas and the servers; `fate` is that of Dify's runs whose reader is gone.

    `settings` are the replicas' beside those that all of this needs.
    """
    users = [replace(user, expires_in=token_seconds) for user in people(USERS)]
    with ExitStack() as stack:
        redis, maria = stack.enter_context(DurableRedis()), stack.enter_context(MariaServer())
        auth = stack.enter_context(MockAuth(users))
        dify = stack.enter_context(MockDify(delay=PACE, slow=SLOW_PACE, limit=PATIENCE, after_disconnect=fate))
        dify_gate = stack.enter_context(Relay(int(dify.base_url.rpartition(":")[2])))
        responses, wecom = stack.enter_context(ResponseServer()), stack.enter_context(bot_server())
        env = settings_for(
            redis.url(),
            **dify_settings(f"http://127.0.0.1:{dify_gate.port}"),
            **company_settings(maria, "chaos", auth),
            **_usage(wecom),
            STREAM_LEASE=f"{lease:g}",
        ) | dict(settings)
        fleet = GatedFleet(env, folder, redis)
        stack.callback(fleet.close)
        fleet.start(count)
        wecom.wait_until(lambda: wecom.subscribed(BOT_ID) > 0, PATIENCE)
        waits = itertools.count(dice.randrange(1000))
        yield World(redis, maria, auth, dify, dify_gate, responses, wecom, fleet, dice, waits=waits)


def _usage(wecom: LongConnectionServer) -> dict[str, str]:
    """Return the settings of the bots, of callers and of limits."""
    keys = {"WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": AES_KEY}
    linked = {
        name: value
        for name, value in websocket_settings(wecom, WECHAT_BOT_ID=BOT_ID, WECHAT_BOT_SECRET=SECRET).items()
        if value
    }
    return {
        "WECHAT_BOTS": json.dumps({LATE: {**keys, "WECHAT_ANSWER_SECONDS": str(FRAME_SECONDS)}, LONG: linked}),
        "WECHAT_RESPONSE_HOSTS": "127.0.0.1",
        "API_KEYS": KEY,
        "SECRET_KEY": "obviously-fake-secret-key-of-a-run",
        "BATCH_MAX_CONCURRENT": "6",
        **dict.fromkeys(("RATE_LIMIT_USER", "RATE_LIMIT_KEY", "RATE_LIMIT_IP"), "off"),
    }
