"""Two processes, a real Redis and a real MariaDB: many users at once, each answered whole and asked for once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from config.texts import ZH
from demo.mocks.auth import DEMO_USER_QUERY, MockAuth
from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.people import TIMEOUT, ask, at_once, company_settings, people, stored
from tests.support.replicas import dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import MariaServer, RedisServer, wait_until
from utils.stream_utils import render_frame

pytestmark = [pytest.mark.scenario, pytest.mark.full]

#: Every app type, and every way of splitting the bytes.
SCRIPTS = ("chat", "agent-chat", "new-agent", "chatflow", "new-agent-differs", "crlf", "close-delimited", "split-utf8")


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis that only the replicas use."""
    with RedisServer() as server:
        yield server


def test_twenty_people_ask_at_once_on_two_replicas(
    redis: RedisServer, maria_server: MariaServer, tmp_path: Path
) -> None:
    """Each user asks both replicas at once, is authenticated once, and gets the provider's whole answers."""
    crowd = people(20)
    asked = {f"{user.user_name}的{n}号问题 [[{SCRIPTS[n % 8]}]]": user for n, user in enumerate(crowd * 2)}
    with MockAuth(crowd) as auth, MockDify(delay=0.04) as dify:
        users = company_settings(maria_server, "laibao_crowd", auth)
        with replicas(2, settings_for(redis.url(), **dify_settings(dify.base_url), **users), tmp_path) as pair:
            urls = [replica.url for replica in pair]
            bubbles = at_once(
                partial(ask, urls[:: (-1) ** (n // 20)], user.userid, question, 0.3, replacements="differs" in question)
                for n, (question, user) in enumerate(asked.items())
            )

        for question, bubble in zip(asked, bubbles, strict=True):
            answer = dify.expected_answer(question)
            found = stored(redis, bubble.stream_id)
            assert (found.text, found.list_text) == (answer.encode(), answer.encode())
            assert found.fields["status"] == "completed"
            assert bubble.content == render_frame(answer, growing=False)
        states = Counter(stored(redis, bubble.stream_id).fields["auth_state"] for bubble in bubbles)
        assert states == {"renewed": 20, "cached": 20}
        assert auth.calls == Counter(user.user_code for user in crowd)
        assert Counter(request.body["query"] for request in dify.requests) == Counter(list(asked))
        assert {r.body["query"]: r.body["user"] for r in dify.requests} == {q: u.user_code for q, u in asked.items()}


def test_a_persons_questions_are_answered_in_order_over_replicas(redis: RedisServer, tmp_path: Path) -> None:
    """The second question shows that it is queued, is asked after the first one, and continues its conversation."""
    with MockDify(delay=0.02, limit=120.0) as dify:
        dify.holds_at = 8
        env = settings_for(redis.url(), **dify_settings(dify.base_url))
        with (
            replicas(2, env, tmp_path) as (one, other),
            wecom_user([one.url]) as here,
            wecom_user([other.url]) as there,
        ):
            first = here.says("第一个问题")
            wait_until(lambda: dify.asked("第一个问题"))
            second = there.says("第二个问题")
            dify.holds_at = None
            answers = at_once(
                [partial(here.sees_finish, first, every=0.1), partial(there.sees_finish, second, every=0.1)]
            )

        asked = [request.body for request in dify.requests]
        assert second.frames[0].content == ZH["queued"]
        assert [body["query"] for body in asked] == ["第一个问题", "第二个问题"]
        assert "conversation_id" not in asked[0]
        assert asked[1]["conversation_id"] == stored(redis, first.stream_id).fields["conversation_id"] != ""
        assert dify.peak_streams == 1
        assert answers == [render_frame(dify.expected_answer(body["query"]), growing=False) for body in asked]


#: Lookups that take a moment overlap, so that a pool without a limit would show.
LOOKUP = "SLEEP(0.05)"


@dataclass
class Peaks:
    """The highest numbers of connections to Redis, and of users who are looked up at once, sampled continuously."""

    redis: RedisServer
    maria: MariaServer
    database: str
    clients: int = 0
    lookups: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _watch(self) -> None:
        processes = f"information_schema.PROCESSLIST WHERE DB = '{self.database}'"
        listing = f"SELECT COUNT(*) FROM {processes} AND INFO LIKE '%{LOOKUP}%'"
        with self.redis.client(single_connection_client=True) as client:
            while not self._over.wait(0.02):
                self.clients = max(self.clients, len(client.client_list()) - 1)
                self.lookups = max(self.lookups, int(self.maria.execute(listing)[0][0]))


def test_200_questions_need_no_more_connections_than_the_pools_have(
    redis: RedisServer, maria_server: MariaServer, tmp_path: Path
) -> None:
    """Each process has one pool for Redis, users and HTTP each, which never exceeds its size in the settings."""
    crowd = people(200)
    sizes = {"REDIS_POOL_SIZE": "8", "MYSQL_POOL_SIZE": "5", "HTTP_POOL_SIZE": "5", "DIFY_MAX_CONCURRENT": "8"}
    query = f"{DEMO_USER_QUERY} AND {LOOKUP} = 0"
    with MockAuth(crowd) as auth, MockDify(delay=0.005) as dify:
        users = company_settings(maria_server, "laibao_load", auth, AUTH_USER_QUERY=query)
        env = settings_for(redis.url(), **{**dify_settings(dify.base_url), **users, **sizes})
        peaks = Peaks(redis, maria_server, "laibao_load")
        with replicas(2, env, tmp_path) as (one, other), peaks.watched():
            urls = (one.url, other.url)
            shares = [crowd[start::25] for start in range(25)]
            answered = at_once(partial(ask_in_turn, urls, [user.userid for user in share]) for share in shares)
            wait_until(lambda: dify.open_streams == 0, TIMEOUT)
            kept = dify.open_connections

        assert {userid: content for share in answered for userid, content in share.items()} == {
            user.userid: render_frame(dify.expected_answer(f"{user.userid}问"), growing=False) for user in crowd
        }
        assert len(dify.requests) == 200
        assert auth.calls == Counter(user.user_code for user in crowd)
        assert 2 <= peaks.clients <= 2 * 8
        assert 2 <= peaks.lookups <= 2 * 5
        # The mock may notice a closed connection after the next one is open.
        assert 2 <= dify.peak_connections <= 2 * 8 + 4
        assert kept <= 2 * 5


def ask_in_turn(urls: Sequence[str], userids: Sequence[str]) -> dict[str, str]:
    """Let these users ask one after the other; return the final content of each one's bubble.

    A question that a busy machine could not store in time is asked again, as its sentence says.
    """
    shown = {}
    for userid in userids:
        shown[userid] = ask(urls, userid, f"{userid}问", 0.4).content
        if shown[userid] == ZH["store_unavailable"]:
            shown[userid] = ask(urls, userid, f"{userid}问", 0.4).content
    return shown
