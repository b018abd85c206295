"""Three real replicas and one subscription: rolling updates, killed, paused and evicted holders, a silent server."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from demo.wecom.long_connection.faults import Fault
from demo.wecom.long_connection.screen import SentCallback
from services.wecom.long_connection.lease_store import LEASE
from services.wecom.long_connection.protocol import PING
from tests.scenarios.stage.chaos_fleet import fleet
from tests.scenarios.stage.subscribed_fleet import TIMEOUT, SubscribedFleet
from tests.support.long_connection.bots import BOT_ID, SECRET, bot_server, websocket_settings
from tests.support.replicas import Replica, settings_for
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(240)]

NEW_SECRET = "another-fake-secret-of-tests"
#: Seconds between two messages.
EVERY = 0.1


@contextmanager
def subscribed(folder: Path, count: int, **changes: str) -> Iterator[SubscribedFleet]:
    """Run so many replicas during the block: one worker is subscribed, and another one would take over."""
    with RedisServer() as server, server.client() as client, bot_server() as wecom:
        settings = settings_for(server.url(), **websocket_settings(wecom, **changes))
        with fleet(count, settings, folder) as replicas:
            stage = SubscribedFleet(client, wecom, replicas)
            stage.wait_subscribed()
            wait_until(lambda: stage.lease.get("subscribed") == "1" and stage.lease.get("looked"), TIMEOUT)
            yield stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SubscribedFleet]:
    with subscribed(tmp_path, 3) as stage:
        yield stage


class Writers:
    """People who write in turn, ten messages a second, while the block runs and until there are `most`."""

    def __init__(self, stage: SubscribedFleet, most: int) -> None:
        self.sent: list[SentCallback] = []
        self._stage, self._most = stage, most
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Writers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def done(self) -> bool:
        return len(self.sent) >= self._most

    def _write(self) -> None:
        while not (self._over.is_set() and self.done):
            self.sent.append(self._stage.wecom.user(f"user-{len(self.sent)}").asks("年假怎么申请"))
            time.sleep(EVERY)


def replace_all(stage: SubscribedFleet) -> None:
    """Replace each replica by a new one, as a rolling update does: first the new one, then TERM for the old one."""
    for member in list(stage.replicas.members):
        stage.replicas.replace(member)
        member.signal(signal.SIGTERM)
        assert member.process.wait(TIMEOUT) == 0


@pytest.mark.parametrize(
    "count", [50, pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(600)])]
)  # fmt: skip
def test_a_rolling_update_drops_no_message(stage: SubscribedFleet, count: int) -> None:
    """Each message is answered in one bubble, whichever replica received it and whichever sends its answer."""
    with Writers(stage, count) as writers:
        replace_all(stage)
        while not writers.done:
            replace_all(stage)

    assert len(writers.sent) >= count
    assert stage.subscriptions > 1
    check_answered(stage, writers.sent)


@pytest.mark.full
def test_a_reload_drops_no_message(tmp_path: Path) -> None:
    """On HUP gunicorn starts new workers; the old ones leave together, and one of the new ones takes over."""
    with subscribed(tmp_path, 1, WORKERS="2") as stage:
        (replica,) = stage.replicas.members
        with Writers(stage, 50) as writers:
            former = set(replica.workers)
            replica.signal(signal.SIGHUP)
            wait_until(lambda: not former & set(replica.workers), TIMEOUT)

        assert stage.subscriptions > 1
        check_answered(stage, writers.sent)


def reload(stage: SubscribedFleet, replica: Replica) -> None:
    """Reload a replica with two workers, and wait until one of its new workers is subscribed."""
    before, former = stage.subscriptions, set(replica.workers)
    replica.signal(signal.SIGHUP)
    wait_until(lambda: not former & set(replica.workers), TIMEOUT)
    stage.wait_subscribed(before + 1)


@pytest.mark.full
def test_a_renewed_secret_drops_no_message(tmp_path: Path) -> None:
    """WeCom's console renews the Secret, a reload puts it before the former one, and another one removes that."""
    file = tmp_path / "secret"
    file.write_text(SECRET)
    with subscribed(tmp_path, 1, WORKERS="2", WECHAT_BOT_SECRET="", WECHAT_BOT_SECRET_FILE=str(file)) as stage:
        (replica,) = stage.replicas.members
        with Writers(stage, 50) as writers:
            stage.wecom.bots[BOT_ID].secret = NEW_SECRET
            for secrets in (f"{NEW_SECRET},{SECRET}", NEW_SECRET):
                file.write_text(secrets)
                reload(stage, replica)

        check_answered(stage, writers.sent)


def check_answered(stage: SubscribedFleet, sent: list[SentCallback]) -> None:
    """Assert that each message is answered, in one bubble and with the same words, and that no rule was broken."""
    stage.wecom.wait_until(lambda: all(callback.finish or callback.dropped for callback in sent), TIMEOUT)
    assert [callback.msgid for callback in sent if callback.dropped] == []
    assert {len(callback.bubbles) for callback in sent} == {1}
    assert len({callback.content for callback in sent}) == 1
    assert (stage.wecom.broken, stage.lease["evicted"]) == ([], "")


@pytest.mark.full
def test_a_killed_holder_costs_twelve_seconds_at_most(stage: SubscribedFleet) -> None:
    """The lease ends seven seconds later at the latest, another replica sees it, and subscribes."""
    holder, fence = stage.holder(), stage.lease["fence"]
    holder.kill()
    seconds, _ = stage.redis.time()
    assert float(stage.lease["expires"]) <= seconds + 1 + LEASE
    stage.wait_subscribed(2)

    assert int(stage.lease["fence"]) > int(fence)
    bubble = stage.wecom.user("zhangsan").says("年假怎么申请")
    assert stage.wecom.user("zhangsan").sees_finish(bubble)


@pytest.mark.full
def test_a_paused_holder_loses_the_connection_and_evicts_nobody(stage: SubscribedFleet) -> None:
    """When it goes on, it finds itself evicted under a newer fence, and waits like the other replicas."""
    holder, fence = stage.holder(), stage.lease["fence"]
    with stage.replicas.paused(holder):
        stage.wait_subscribed(2)
    bubble = stage.wecom.user("zhangsan").says("年假怎么申请")
    assert stage.wecom.user("zhangsan").sees_finish(bubble)

    wait_until(lambda: "evicted" in holder.log, TIMEOUT)
    wait_until(lambda: len(stage.wecom.connections) == 1, TIMEOUT)
    assert (stage.subscriptions, stage.lease["evicted"]) == (2, "")
    assert int(stage.lease["fence"]) > int(fence)
    assert stage.replicas.logged("another program runs this bot: not subscribed again") == []


def test_a_foreign_eviction_outlives_a_restart(tmp_path: Path) -> None:
    """/health of every replica says what to do; new replicas do not subscribe either, before the bot is resumed."""
    with subscribed(tmp_path, 2) as stage:
        check_eviction(stage)


def check_eviction(stage: SubscribedFleet) -> None:
    stage.wecom.evict(BOT_ID)
    wait_until(lambda: stage.lease.get("evicted") == "evicted", TIMEOUT)
    replace_all(stage)

    for member in stage.replicas.members:
        health = requests.get(f"{member.url}/health", timeout=30).json()
        assert health["status"] == "degraded"
        assert "tools.wecom resume default" in health["dependencies"]["long_connection:default"]
    assert stage.subscriptions == 1
    assert len(stage.replicas.logged("another program runs this bot: not subscribed again")) == 1


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_silent_server_is_left_after_two_missed_pongs(stage: SubscribedFleet) -> None:
    """The connection looks open and nothing comes back; the same replica connects again."""
    silence = stage.wecom.faults.add(Fault(PING, lost=True, times=2))
    holder = stage.lease["holder"]

    stage.wecom.wait_until(lambda: stage.subscriptions == 2, 150.0)

    assert (silence.met, stage.lease["holder"]) == (2, holder)
    bubble = stage.wecom.user("zhangsan").says("年假怎么申请")
    assert stage.wecom.user("zhangsan").sees_finish(bubble)
