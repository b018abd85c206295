"""Keys, tokens and secrets rotate while people and programs use them: lists in files, and reloads by SIGHUP."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import SimulatedBot, WeComUser
from tests.scenarios.stage.people import TIMEOUT
from tests.support.replicas import AES_KEY, Replica, dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full, pytest.mark.timeout(900)]

#: The old and the new value of each setting that rotates.
ROTATED = {
    "API_KEYS": ("shop=not-a-real-key-1", "shop=not-a-real-key-2"),
    "ADMIN_TOKENS": ("wang:operator:fake-token-1", "wang:operator:fake-token-2"),
    "SECRET_KEY": ("not-a-real-secret-1", "not-a-real-secret-2"),
    "WECHAT_TOKEN": ("fake-wecom-token-1", "fake-wecom-token-2"),
    "WECHAT_ENCODING_AES_KEY": (AES_KEY, "NotARealEncodingAESKeyxxxxxxxxxxxxxxxxxxxxx"),
    "DIFY_API_KEY": ("app-not-a-real-key-1", "app-not-a-real-key-2"),
}
#: Uses of each kind that must succeed before the next reload.
EACH = 3


class Desk:
    """One replica whose rotating values are in files, and callers of each kind who use it until the block ends."""

    def __init__(self, replica: Replica, folder: Path) -> None:
        self._replica, self._folder = replica, folder
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._use, args=(kind, use))
            for kind, use in (
                ("api key", self._asks),
                ("admin token", self._looks),
                ("session", self._keeps_session),
                ("wecom", self._talks),
            )
        ]
        #: 0 while callers show the old values, 1 once they show the new ones.
        self.shown = 0
        self.succeeded: Counter[str] = Counter()
        self.refused: list[str] = []
        #: A session is opened once for each number here: its key, as its token, is removed only after it is over.
        self.session = 0
        self._sessions: dict[int, str] = {}

    def __enter__(self) -> Desk:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def rolls_out(self, *order: int) -> None:
        """Write the lists, reload, wait until only new workers serve, and until each kind of caller has used them."""
        write(self._folder, *order)
        former = set(self._replica.workers)
        self._replica.signal(signal.SIGHUP)
        wait_until(lambda: self._replica.workers and not former & set(self._replica.workers), TIMEOUT)
        wait_until(lambda: self._replica.ready, TIMEOUT)
        self.goes_on()

    def goes_on(self) -> None:
        """Wait until each kind of caller has succeeded some more times, or one was refused."""
        before = self.succeeded.copy()
        kinds = ("api key", "admin token", "session", "wecom")
        wait_until(lambda: self.refused or all(self.succeeded[kind] >= before[kind] + EACH for kind in kinds), TIMEOUT)

    def _use(self, kind: str, use: Callable[[int], None]) -> None:
        while not self._over.is_set():
            shown = self.shown
            try:
                use(shown)
            except Exception as exc:
                self.refused.append(f"{kind} {shown}: {exc!r}")
                return
            self.succeeded[kind] += 1

    def _asks(self, shown: int) -> None:
        key = ROTATED["API_KEYS"][shown].partition("=")[2]
        reply = requests.post(
            f"{self._replica.url}/api/chat", json={"query": "你好"}, headers={"X-API-Key": key}, timeout=TIMEOUT
        )
        assert reply.status_code == 200, reply.text

    def _looks(self, shown: int) -> None:
        headers = {"Authorization": f"Bearer {admin_token(shown)}"}
        reply = requests.get(f"{self._replica.url}/api/admin/live", headers=headers, timeout=TIMEOUT)
        assert reply.status_code == 200, reply.text

    def _keeps_session(self, shown: int) -> None:
        """Use a session, which was opened under other lists than those of now."""
        address, number = f"{self._replica.url}/api/admin/session", self.session
        if number not in self._sessions:
            opened = requests.post(address, json={"token": admin_token(shown)}, timeout=TIMEOUT)
            assert opened.status_code == 200, opened.text
            self._sessions[number] = opened.cookies["laibao_admin"]
        reply = requests.get(address, cookies={"laibao_admin": self._sessions[number]}, timeout=TIMEOUT)
        assert reply.status_code == 200, reply.text

    def _talks(self, shown: int) -> None:
        bot = SimulatedBot(ROTATED["WECHAT_TOKEN"][shown], ROTATED["WECHAT_ENCODING_AES_KEY"][shown])
        with WeComUser([f"{self._replica.url}/wechat/callback"], bot, "zhangsan") as user:
            user.sees_finish(user.says("你好"), TIMEOUT)


def admin_token(shown: int) -> str:
    return ROTATED["ADMIN_TOKENS"][shown].rpartition(":")[2]


def write(folder: Path, *order: int) -> None:
    """Write the files with these values in this order; a new key of Dify, which accepts both, is the first at once."""
    for name, values in ROTATED.items():
        chosen = sorted(order, reverse=True) if name == "DIFY_API_KEY" else order
        (folder / name).write_text(",".join(values[one] for one in chosen) + "\n")


def test_every_secret_rotates_without_a_refused_request(tmp_path: Path) -> None:
    """Append the new value, show it everywhere, move it to the front, remove the old one: three reloads, none refused.

    The old values are refused after that, and a person's conversation goes on.
    """
    write(tmp_path, 0)
    with RedisServer() as redis, MockDify() as dify:
        env = settings_for(redis.url(), **dify_settings(dify.base_url), WORKERS="2", RATE_LIMIT_USER="off")
        env |= dict.fromkeys((*ROTATED, "ADMIN_TOKEN"), "")
        replica = Replica(env | {f"{name}_FILE": str(tmp_path / name) for name in ROTATED}, tmp_path)
        try:
            replica.wait_ready()
            with Desk(replica, tmp_path) as desk:
                desk.goes_on()
                desk.rolls_out(0, 1)
                desk.shown = 1
                desk.goes_on()
                desk.rolls_out(1, 0)
                desk.session = 1
                desk.goes_on()
                keys_of_dify = {request.authorization for request in dify.requests}
                conversations = [owner for owner in dify.conversations.values() if "zhangsan" in owner]
                desk.rolls_out(1)

            assert desk.refused == []
            old = {"X-API-Key": ROTATED["API_KEYS"][0].partition("=")[2]}
            assert requests.post(f"{replica.url}/api/chat", json={"query": "?"}, headers=old).status_code == 401
        finally:
            replica.kill()
    assert len(conversations) == 1
    assert keys_of_dify == {f"Bearer {key}" for key in ROTATED["DIFY_API_KEY"]}
    assert not any(value in replica.log for values in ROTATED.values() for value in values)
