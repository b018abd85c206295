"""Photo questions over two replicas whose owner is killed at any moment: one answer, one ask, no upload twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble, MediaStore, WeComUser
from tests.scenarios.stage.chaos_fleet import Fleet, fleet
from tests.scenarios.stage.people import TIMEOUT, stored
from tests.support.pictures import png
from tests.support.replicas import dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until
from utils.stream_utils import render_frame

LEASE = 3.0
POLL = 0.2
QUESTION = "年假图里写了什么 [[chatflow]]"


@dataclass
class Stage:
    """Two replicas, Dify, and WeCom's store."""

    redis: RedisServer
    dify: MockDify
    store: MediaStore
    replicas: Fleet

    def person(self) -> WeComUser:
        """Return a person whose questions the first replica takes."""
        return self.replicas.person("zhangsan", at=0, store=self.store)

    def kill_owner(self) -> None:
        self.replicas.members[0].kill()

    def files(self, bubble: Bubble) -> list[str]:
        """Return the uploads that are stored with a question."""
        found: list[str] = json.loads(stored(self.redis, bubble.stream_id).fields["question"])["files"]
        return found

    def asks(self, question: str) -> int:
        return len(self.dify.asked(question))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as here:
        yield here


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    with RedisServer() as redis, MockDify(delay=0.05, after_disconnect="runs on") as dify, MediaStore() as store:
        changes = {"STREAM_LEASE": f"{LEASE:g}", "MEDIA_HOSTS": "127.0.0.1"}
        with fleet(2, settings_for(redis.url(), **dify_settings(dify.base_url), **changes), folder) as replicas:
            yield Stage(redis, dify, store, replicas)
        assert store.broken == []


def once(work: Callable[[], None], at: int = 1) -> Callable[[object], None]:
    """Return a hook that does the work at its call number `at`."""
    calls: list[object] = []

    def hook(about: object) -> None:
        calls.append(about)
        if len(calls) == at:
            work()

    return hook


def whole(here: Stage, question: str) -> str:
    """Return the answer that a bubble must end with: it names the question's pictures, then answers."""
    files = "".join(f"- 图片 `image.png`（{len(png(n)):,} 字节）\n" for n in (2, 3))
    return render_frame(f"我看到了：\n\n{files}\n{here.dify.expected_answer(question)}", growing=False)


def asks_with_two_pictures(person: WeComUser) -> Bubble:
    return person.sends_mixed(QUESTION, png(2), png(3))


def uploaded(here: Stage) -> list[bytes]:
    return [upload.content for upload in here.dify.uploads]


def test_a_photo_question_is_answered_by_two_replicas(here: Stage) -> None:
    """One replica takes the pictures in, both serve the polls."""
    bubble = asks_with_two_pictures(here.person())

    person = here.person()
    assert person.sees_finish(bubble, TIMEOUT, POLL) == whole(here, QUESTION)
    assert (uploaded(here), here.asks(QUESTION)) == ([png(2), png(3)], 1)


#: The owner's step at whose call of this number it is killed: the pictures that are uploaded, and each one's downloads.
INTAKE: dict[str, tuple[str, str, int, list[int], list[int] | None]] = {
    "the first download": ("store", "before_body", 1, [2, 3], None),
    "the second download": ("store", "before_body", 2, [2, 3], [1, 2]),
    "the first upload": ("dify", "before_upload_reply", 1, [2, 2, 3], None),
}


@pytest.mark.full
@pytest.mark.parametrize("step", INTAKE)
def test_an_owner_killed_during_the_intake(here: Stage, step: str) -> None:
    """The address is sealed in the stream: the other replica fetches and uploads what is not stored as uploaded."""
    party, hook, number, uploads, downloads = INTAKE[step]
    setattr(getattr(here, party), hook, once(here.kill_owner, at=number))
    person = here.person()
    bubble = asks_with_two_pictures(person)

    assert person.sees_finish(bubble, TIMEOUT, POLL) == whole(here, QUESTION)
    assert (uploaded(here), here.asks(QUESTION)) == ([png(n) for n in uploads], 1)
    assert downloads in (None, sorted(here.store.requests.values()))


@pytest.mark.full
def test_an_owner_killed_after_the_uploads(here: Stage) -> None:
    """The question waits for the one before it; another replica asks it with the stored uploads."""
    person = here.person()
    here.dify.holds_at = 5
    first = person.says("先回答我")
    bubble = here.person().sends_mixed(QUESTION, png(2), png(3))
    wait_until(lambda: len(here.files(bubble)) == 2, TIMEOUT)
    assert here.asks(QUESTION) == 0
    here.kill_owner()
    here.dify.holds_at = None

    assert person.sees_finish(bubble, TIMEOUT, POLL) == whole(here, QUESTION)
    assert person.sees_finish(first, TIMEOUT, POLL)
    assert (uploaded(here), here.asks(QUESTION)) == ([png(2), png(3)], 1)
    assert list(here.store.requests.values()) == [1, 1]


@pytest.mark.full
def test_an_owner_killed_during_the_answer(here: Stage) -> None:
    """The answer is looked up at Dify; nothing is fetched, uploaded or asked again."""
    person = here.person()
    here.dify.holds_at = 5
    bubble = asks_with_two_pictures(person)
    wait_until(lambda: stored(here.redis, bubble.stream_id).text, TIMEOUT)
    here.kill_owner()
    here.dify.holds_at = None

    assert person.sees_finish(bubble, TIMEOUT, POLL) == whole(here, QUESTION)
    assert (uploaded(here), here.asks(QUESTION)) == ([png(2), png(3)], 1)
    assert list(here.store.requests.values()) == [1, 1]
