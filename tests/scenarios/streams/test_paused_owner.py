"""Replicas that are stopped: one for longer than its lease, and all of them for longer than what they wait for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from demo.mocks.auth import MockAuth
from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.chaos_fleet import fleet
from tests.scenarios.stage.chaos_talk import LEASE, begin, report
from tests.scenarios.stage.people import at_once, company_settings, people
from tests.support.replicas import AES_KEY, TOKEN, dify_settings, settings_for
from tests.support.servers.processes import MariaServer, RedisServer, wait_until
from tests.support.servers.relay import Link, Relay

pytestmark = [pytest.mark.scenario, pytest.mark.full]

#: DIFY_TIMEOUT in seconds, after which a silent run is given up.
DIFY_TIMEOUT = "8"
#: Seconds of a stop of all replicas: more than DIFY_TIMEOUT, the recovery's 15 s, the auth API's 10 s and SQL's 5 s.
STOPPED = 16.0


@contextmanager
def dify_by_fate() -> Iterator[dict[str, MockDify]]:
    """Run a Dify for each fate of the paused owner's run; the keys are the bots' names."""
    with (
        MockDify(delay=0.5, after_disconnect="runs on") as lasts,
        MockDify(delay=0.5, after_disconnect="dies") as dies,
        MockDify(delay=0.5, after_disconnect="runs on", outage=ERROR_REPLIES["403-forbidden"]) as hides,
    ):
        yield {"lasts": lasts, "dies": dies, "hides": hides}


def bots(by_name: Mapping[str, MockDify]) -> dict[str, str]:
    own = {"WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": AES_KEY}
    ways = {name: {**own, **dify_settings(dify.base_url, DIFY_TIMEOUT=DIFY_TIMEOUT)} for name, dify in by_name.items()}
    return {"WECHAT_BOTS": json.dumps(ways), "STREAM_LEASE": f"{LEASE:g}"}


def test_an_owner_that_comes_back_is_refused(
    redis_server: RedisServer, redis_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The old owner writes nothing more, logs which owner replaced it, and does not stop the provider's run.

    The new owner waits for a run that continues. It asks again after a run that ends with the old owner's connection,
    and at once if Dify refuses access to the run: then both owners have an answer to write at the same moment.
    """
    with dify_by_fate() as by_name:
        with fleet(2, settings_for(redis_url, **bots(by_name)), tmp_path) as replicas:
            talks = {name: begin(replicas, dify, name, f"user-{name}", "请假流程") for name, dify in by_name.items()}
            at_once(talk.wait_text for talk in talks.values())
            ids = {talk.bubble.stream_id for talk in talks.values()}
            owner, other = replicas.members
            with replicas.paused(owner):
                at_once(partial(talk.poll_until, lambda: replicas.takeovers().keys() >= ids) for talk in talks.values())
            at_once(talk.wait_end for talk in talks.values())
            records = {name: talk.record(redis_server, replicas) for name, talk in talks.items()}
            report({f"its run {name}": record for name, record in records.items()}, record_property)
            assert {name: (r.right, r.calls, r.replaced, list(r.takeovers)) for name, r in records.items()} == {
                "lasts": (True, 1, False, ["takeover"]),
                "dies": (True, 2, False, ["takeover"]),
                "hides": (True, 2, False, ["takeover"]),
            }
            wait_until(lambda: len(replicas.logged("owner refused")) >= len(talks))
            taken, refused = replicas.logged("stream taken over"), replicas.logged("owner refused")

        names = {line["stream_id"]: (line["former_owner"], line["owner"]) for line in taken}
        assert {line["stream_id"]: (line["owner"], line["present_owner"]) for line in refused} == names
        assert ({line["by"] for line in taken}, {line["by"] for line in refused}) == ({1}, {0})
        assert by_name["lasts"].stops == [], "its answer was still wanted"
        assert '"level": "ERROR"' not in owner.log + other.log


class HeldAuth(MockAuth):
    """An auth API that answers for one user when the test sets `go_on`, and for the others at once."""

    def __init__(self) -> None:
        super().__init__(people(4))
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def answer(self, method: str, usercode: str, password: str) -> tuple[int, bytes, dict[str, str]]:
        if usercode == "E0002":
            self.asked.set()
            assert self.go_on.wait(60.0)
        return super().answer(method, usercode, password)


class HeldSql(Relay):
    """A relay that forwards the query of one user when the test sets `go_on`, and all others at once."""

    def __init__(self, target: int) -> None:
        self.asked = threading.Event()
        self.go_on = threading.Event()
        super().__init__(target)

    def request(self, link: Link, data: bytes) -> None:
        if b"user003" in data:
            self.asked.set()
            assert self.go_on.wait(60.0)
        super().request(link, data)


def test_a_stop_of_all_replicas_is_charged_to_no_other_party(
    redis_server: RedisServer, redis_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """As when a host freezes or moves: each party has replied meanwhile, and every answer is whole.

    Of the four questions one is looked up after its connection to Dify broke, one receives its answer, one waits for
    the auth API and one for MariaDB.
    """
    with (
        MariaServer() as maria,
        HeldSql(maria.port) as sql,
        HeldAuth() as auth,
        MockDify(delay=0.5, outage=ERROR_REPLIES["503-html"]) as broken,
        MockDify(delay=0.5) as live,
    ):
        company = company_settings(maria, "stopped", auth, MYSQL_PORT=str(sql.port))
        with fleet(
            2, settings_for(redis_url, **bots({"broken": broken, "live": live}), **company), tmp_path
        ) as replicas:
            talks = {
                "look-up": begin(replicas, broken, "broken", "user000", "[[chatflow-reset-middle]] 年假"),
                "stream": begin(replicas, live, "live", "user001", "请假流程"),
            }
            at_once(talk.wait_text for talk in talks.values())
            wait_until(lambda: broken.look_ups)
            talks["auth API"] = begin(replicas, live, "live", "user002", "报销流程")
            assert auth.asked.wait(30.0)
            talks["SQL"] = begin(replicas, live, "live", "user003", "加班流程")
            assert sql.asked.wait(30.0)
            with ExitStack() as stopped:
                for member in list(replicas.members):
                    stopped.enter_context(replicas.paused(member))
                auth.go_on.set()
                sql.go_on.set()
                broken.outage = None
                time.sleep(STOPPED)
            at_once(talk.wait_end for talk in talks.values())
            records = {name: talk.record(redis_server, replicas) for name, talk in talks.items()}
            report(records, record_property)
            refused = ["authentication failed" in replica.log for replica in replicas.everyone]

    assert {name: (record.right, record.calls) for name, record in records.items()} == dict.fromkeys(talks, (True, 1))
    # The bytes of the running answer were read, and not looked up.
    assert (live.looked_up().total(), refused) == (0, [False, False])
