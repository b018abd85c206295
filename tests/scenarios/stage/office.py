"""A company's servers, each behind a proxy that can delay, silence or cut connections, and two replicas using them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.mocks.auth import MockAuth
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble, BubbleFrame
from tests.scenarios.stage.leftovers import COMMAND, Figures, figures
from tests.scenarios.stage.people import TIMEOUT, company_settings, people
from tests.support.replicas import Replica, dify_settings, settings_for, wecom_user
from tests.support.servers.processes import MariaServer, RedisServer, wait_until
from tests.support.servers.relay import Relay

#: Number of users; each question comes from another one, so that nothing about them is cached.
PEOPLE = 600
#: Seconds: STREAM_LEASE, DIFY_TIMEOUT, and the time between the deltas of a slow answer.
LEASE, DIFY_TIMEOUT, SLOW = 3.0, 3.0, 0.2
#: By how much a process may exceed its counts from before an outage: connections are kept for the next question.
KEPT = Figures(threads=2, greenlets=2, sockets=20, memory=15.0)

Answer = tuple[int, bytes, dict[str, str]]


class MoodyAuth(MockAuth):
    """An auth API that misbehaves for some users."""

    def __init__(self) -> None:
        super().__init__(people(PEOPLE))
        #: Response for each usercode; None: no response until the server is closed.
        self.moods: dict[str, Answer | None] = {}
        self._over = threading.Event()

    def answer(self, method: str, usercode: str, password: str) -> Answer:
        if usercode not in self.moods:
            return super().answer(method, usercode, password)
        mood = self.moods[usercode]
        if mood is None:
            self._over.wait(TIMEOUT)
            raise ConnectionAbortedError
        return mood

    def close(self) -> None:
        self._over.set()
        super().close()


def never(frame: BubbleFrame) -> bool:
    return False


@dataclass
class Office:
    """All servers; the replicas reach them through the proxies."""

    redis: RedisServer
    maria: MariaServer
    auth: MoodyAuth
    dify: MockDify
    redis_gate: Relay
    sql_gate: Relay
    reader_gate: Relay
    auth_gate: Relay
    dify_gate: Relay
    replicas: list[Replica] = field(default_factory=list)
    _newest: int = 0

    def newcomers(self, count: int) -> list[str]:
        """Return `count` users who have not asked before."""
        self._newest += count
        assert self._newest <= PEOPLE
        return [f"user{number:03}" for number in range(self._newest - count, self._newest)]

    def ask(self, userid: str, question: str, at: int = 0) -> Bubble:
        """Send a question to a replica once; return its bubble."""
        with wecom_user([self.url(at)], userid) as person:
            return person.says(question)

    def follow(self, userid: str, bubble: Bubble, at: int = 0) -> Bubble:
        """Poll a replica until the bubble is finished; return a new bubble with the frames seen meanwhile."""
        seen = Bubble(bubble.msgid, [bubble.last], bubble.asked)
        with wecom_user([self.url(at)], userid) as person:
            person.sees_finish(seen, TIMEOUT, every=0.3)
        return seen

    def answered(self, userid: str, question: str, at: int = 0) -> Bubble:
        """Ask a replica, and return the bubble when it is finished."""
        return self.follow(userid, self.ask(userid, question, at), at)

    def watch(
        self,
        userid: str,
        bubble: Bubble,
        at: int,
        seconds: float = TIMEOUT,
        until: Callable[[BubbleFrame], bool] = never,
    ) -> Bubble:
        """Poll a replica for `seconds`, or until a frame fulfils `until`; return a new bubble with the frames seen."""
        seen = Bubble(bubble.msgid, [bubble.last], bubble.asked)
        end = time.monotonic() + seconds
        with wecom_user([self.url(at)], userid) as person:
            while not until(person.polls(seen)) and time.monotonic() < end:
                time.sleep(0.15)
        return seen

    def taken_again(self, at: int) -> float:
        """Send questions to a replica until it accepts one; return the seconds until then."""
        began = time.monotonic()
        wait_until(lambda: not self.ask(self.newcomers(1)[0], "还在吗？", at).finish, TIMEOUT)
        return time.monotonic() - began

    def redis_is_back(self) -> bool:
        """Return whether every replica has logged "redis is back" as often as "redis is away"."""
        logs = [replica.log for replica in self.replicas]
        return all(log.count('"redis is away"') == log.count('"redis is back"') for log in logs)

    @contextmanager
    def logged_warnings(self) -> Iterator[list[dict[str, Any]]]:
        """Yield a list that, after the block, has the block's log lines above INFO; `by` is the replica's number.

        It begins once Redis is back for every replica: a timeout before counts as an outage for two more seconds.
        """
        wait_until(self.redis_is_back, TIMEOUT)
        lines: list[dict[str, Any]] = []
        before = [len(replica.log) for replica in self.replicas]
        yield lines
        for number, (replica, start) in enumerate(zip(self.replicas, before, strict=True)):
            records = [json.loads(line) for line in replica.log[start:].splitlines() if line.startswith("{")]
            lines.extend({**line, "by": number} for line in records if line["level"] != "INFO")

    @contextmanager
    def nothing_left_behind(self) -> Iterator[None]:
        """Check that soon after the block no replica exceeds its counts from before it by more than `KEPT`."""
        before = [figures(replica) for replica in self.replicas]
        yield
        end = time.monotonic() + TIMEOUT
        while more := self._more_than(before):
            assert time.monotonic() < end, more
            time.sleep(0.1)
        print(
            *(f"before {had}, after {figures(each)}" for each, had in zip(self.replicas, before, strict=True)), sep="\n"
        )

    def _more_than(self, before: Sequence[Figures]) -> list[Mapping[str, float]]:
        """Return the increases of all replicas that exceed `KEPT`."""
        more = [figures(replica).more_than(had, KEPT) for replica, had in zip(self.replicas, before, strict=True)]
        return [each for each in more if each]

    def url(self, at: int) -> str:
        return self.replicas[at % len(self.replicas)].url


@contextmanager
def office(folder: Path) -> Iterator[Office]:
    """Start the servers and proxies with two replicas that are ready."""
    with ExitStack() as stack:
        redis, maria = stack.enter_context(RedisServer(aof=True)), stack.enter_context(MariaServer())
        auth, dify = stack.enter_context(MoodyAuth()), stack.enter_context(MockDify(delay=0.02, slow=SLOW))
        targets = (redis.port, maria.port, int(auth.url.split(":")[2].split("/")[0]), int(dify.base_url.split(":")[2]))
        redis_gate, sql_gate, auth_gate, dify_gate = (stack.enter_context(Relay(target)) for target in targets)
        # The settings have one port for both databases: the second one gets its own IP address.
        reader_gate = stack.enter_context(Relay(maria.port, host="127.0.0.2", port=sql_gate.port))
        gates = (redis_gate, sql_gate, reader_gate, auth_gate, dify_gate)
        here = Office(redis, maria, auth, dify, *gates)
        env = _settings(here)
        for _ in range(2):
            here.replicas.append(Replica(env, folder, command=COMMAND))
            stack.callback(here.replicas[-1].kill)
        for replica in here.replicas:
            replica.wait_ready()
        yield here


def _settings(here: Office) -> dict[str, str]:
    gates = {
        "MYSQL_PORT": str(here.sql_gate.port),
        "MYSQL_READ_HOST": here.reader_gate.host,
        "MYSQL_USER": "reader",
        "AUTH_SERVICE_URL": f"http://127.0.0.1:{here.auth_gate.port}/auth/login",
    }
    users = company_settings(here.maria, "office", here.auth, **gates)
    for statement in ("CREATE USER reader@'%'", "GRANT SELECT ON office.* TO reader@'%'"):
        here.maria.execute(statement)
    dify = dify_settings(f"http://127.0.0.1:{here.dify_gate.port}", DIFY_TIMEOUT=f"{DIFY_TIMEOUT:g}")
    redis = f"redis://127.0.0.1:{here.redis_gate.port}/1"
    return settings_for(redis, **dify, **users, STREAM_LEASE=f"{LEASE:g}")
