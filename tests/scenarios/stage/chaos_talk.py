"""One question and its answer in the bubble while replicas are killed, and a report of its records."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble, WeComUser
from tests.scenarios.stage.chaos_fleet import Fleet
from tests.scenarios.stage.chaos_record import Record, beginnings, examine
from tests.scenarios.stage.people import TIMEOUT, stored
from tests.support.servers.processes import RedisServer

#: STREAM_LEASE in seconds: as short as busy machines allow.
LEASE = 3.0
#: Seconds between two polls.
POLL = 0.5


@dataclass(frozen=True)
class Talk:
    """One question to the first replica, and the user's bubble of its answer."""

    person: WeComUser
    question: str
    bubble: Bubble
    dify: MockDify

    @property
    def answer(self) -> str:
        return self.dify.expected_answer(self.question)

    def poll_until(self, happened: Callable[[], object]) -> None:
        """Poll until `happened` is true. Raises TimeoutError after `TIMEOUT` seconds."""
        end = time.monotonic() + TIMEOUT
        while not happened():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {TIMEOUT:g} s, the bubble shows {self.bubble.last}")
            time.sleep(POLL)
            self.person.polls(self.bubble)

    def wait_text(self) -> None:
        """Poll until the bubble shows the beginning of the answer."""
        self.poll_until(lambda: self.bubble.content in beginnings(self.answer))

    def wait_end(self) -> None:
        """Poll until the answer is finished; fail if its text becomes shorter."""
        self.person.sees_finish(self.bubble, TIMEOUT, POLL)

    def record(self, redis: RedisServer, replicas: Fleet) -> Record:
        """Return its record; fail if a frame showed anything but a beginning of the answer or a placeholder."""
        shown = {frame.content for frame in self.bubble.frames} - {ZH["thinking"], ZH["queued"]}
        assert shown <= beginnings(self.answer)
        found = stored(redis, self.bubble.stream_id)
        takeovers = replicas.takeovers()[self.bubble.stream_id]
        calls = len(self.dify.asked(self.question))
        return examine(self.question, self.bubble, found, self.answer, calls=calls, takeovers=takeovers)


def begin(replicas: Fleet, dify: MockDify, bot: str, userid: str, question: str) -> Talk:
    """Ask the first replica; the polls go to all replicas in turn."""
    person = replicas.person(userid, at=0, bot=bot)
    return Talk(person, question, person.says(question), dify)


def report(records: Mapping[str, Record], record_property: Callable[[str, object], None]) -> None:
    """Print the records (`pytest -s`) and add them to the test's report."""
    print()
    for name, record in records.items():
        print(f"{name}: {record}")
        record_property(name, str(record))
