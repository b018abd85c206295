"""Forms over several processes, some of which are killed at a chosen moment: Dify gets each choice once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from config.texts import ZH
from demo.mocks.dify.features.asking_back import ASKS, LEAD, rest
from demo.mocks.dify.server import MockDify
from demo.mocks.http import ClientGone
from demo.wecom.simulator import Bubble, CallbackFailed, WeComUser
from tests.scenarios.stage.people import stored
from tests.support.replicas import Replica, dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import RedisServer, wait_until
from utils.stream_utils import render_frame

pytestmark = [pytest.mark.scenario, pytest.mark.full, pytest.mark.timeout(180)]

ASK = "报销要什么材料 [[form]]"
ASKED = render_frame(f"{LEAD}\n\n{ASKS}\n\n1. 同意\n2. 驳回\n3. 转交财务\n\n{ZH['form_choose']}", growing=False)
CONTINUED = render_frame(rest(ASK, "同意"), growing=False)
#: Seconds until a killed replica's stream has another owner, and its answer is whole.
TIMEOUT = 60.0


@dataclass
class Stage:
    """Two replicas, and one person who reaches each of them by a connection of their own."""

    redis: RedisServer
    dify: MockDify
    one: Replica
    here: WeComUser
    there: WeComUser

    def asked(self, question: str = ASK) -> None:
        """Ask on the one replica, until the bubble ends with the form."""
        assert self.here.sees_finish(self.here.says(question), TIMEOUT, every=0.1) == ASKED

    def sees(self, bubble: Bubble) -> str:
        """Return a bubble's end as the other replica shows it. An owner's text may be replaced by a whole answer."""
        return self.there.sees_finish(bubble, TIMEOUT, every=0.2, replacements=1)

    def chooses(self, text: str) -> Bubble:
        """Send a choice to the one replica, which is killed at any moment from then on."""
        msgid = "choice"
        try:
            return self.here.says(text, msgid)
        except CallbackFailed:
            return self.there.says(text, msgid)

    @property
    def submissions(self) -> list[str]:
        return [action for _, action, _ in self.dify.forms.submissions]

    def fields(self, bubble: Bubble) -> dict[str, str]:
        return dict(stored(self.redis, bubble.stream_id).fields)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with opened(tmp_path) as stage:
        yield stage


@contextmanager
def opened(folder: Path, **changes: str) -> Iterator[Stage]:
    with RedisServer() as redis, MockDify(delay=0.05) as dify:
        env = settings_for(redis.url(), **dify_settings(dify.base_url), STREAM_LEASE="3", **changes)
        with (
            replicas(2, env, folder) as (one, other),
            wecom_user([one.url]) as here,
            wecom_user([other.url]) as there,
        ):
            yield Stage(redis, dify, one, here, there)


def once(*steps: Callable[[], object]) -> Callable[[], None]:
    """Return a function that takes the steps at its first call."""
    left = [steps]

    def call() -> None:
        for step in left.pop() if left else ():
            step()

    return call


def drop() -> None:
    raise ClientGone


def test_a_choice_arrives_at_another_replica(stage: Stage) -> None:
    """The form is in Redis: the replica that asked is not needed, it is dead."""
    stage.asked()
    stage.one.kill()

    assert stage.sees(stage.there.says("1")) == CONTINUED
    assert (stage.submissions, stage.dify.forms.refused) == (["approve"], 0)


def test_two_replicas_get_the_same_choice_at_once(stage: Stage) -> None:
    """Deliveries of one message share a bubble; another message with the same words gets a sentence."""
    stage.asked()

    with ThreadPoolExecutor(6) as pool:
        users = [stage.here, stage.there] * 2
        same = list(pool.map(lambda user: user.says("1", "choice"), users))
        others = list(pool.map(lambda user: user.says("1"), users[:2]))

    assert {stage.sees(bubble) for bubble in same} == {CONTINUED}
    assert {stage.sees(bubble) for bubble in others} == {ZH["form_answered"]}
    assert (stage.submissions, stage.dify.forms.refused) == (["approve"], 0)
    assert len(stage.dify.requests) == 1


def test_a_replica_killed_before_the_claim(stage: Stage) -> None:
    """The choice waits behind a running question; the other replica submits it."""
    stage.asked()
    running = stage.there.says("年假怎么申请 [[slow]]")
    choice = stage.here.says("1", "choice")
    assert choice.content == ZH["queued"]
    stage.one.kill()

    stage.sees(running)
    assert stage.sees(choice) == CONTINUED
    assert stage.there.says("1", "choice").content == CONTINUED
    assert (stage.submissions, stage.dify.forms.refused) == (["approve"], 0)


def test_a_replica_killed_after_the_claim(stage: Stage) -> None:
    """The submission did not arrive. Nothing is submitted again; the person is told, and chooses once more."""
    stage.asked()
    stage.dify.before_submit = once(stage.one.kill, drop)
    choice = stage.chooses("1")

    assert stage.sees(choice) == ZH["form_unsent"]
    assert (stage.submissions, stage.dify.forms.refused) == ([], 0)
    assert stage.sees(stage.there.says("1")) == CONTINUED
    assert (stage.submissions, stage.dify.forms.refused) == (["approve"], 0)


def test_a_replica_killed_after_the_submission(stage: Stage) -> None:
    """Dify has the choice, its reply is lost: the other replica shows how the run goes on."""
    stage.asked()
    stage.dify.after_submit = once(stage.one.kill, drop)
    choice = stage.chooses("1")

    assert stage.sees(choice) == CONTINUED
    assert (stage.submissions, stage.dify.forms.refused) == (["approve"], 0)
    assert stage.fields(choice)["asks"] == "1"


def test_a_reply_that_is_lost_is_found_out_about(stage: Stage) -> None:
    """The same replica asks Dify whether it still waits: it does not, and nothing is submitted again."""
    stage.asked()
    stage.dify.after_submit = once(drop)

    assert stage.sees(stage.here.says("1")) == CONTINUED
    assert (stage.submissions, stage.dify.forms.refused) == (["approve"], 0)


def test_a_replica_killed_during_the_continued_answer(stage: Stage) -> None:
    """The text that was shown stays, and the rest follows."""
    stage.dify.delay = 0.3
    stage.asked()
    choice = stage.here.says("1")
    wait_until(lambda: "您选择了" in stage.here.polls(choice).content, TIMEOUT)
    before = choice.content
    stage.one.kill()

    answer = stage.sees(choice)
    assert (answer, choice.shrunk) == (CONTINUED, 0)
    assert not choice.finish or before != answer
    assert (stage.submissions, stage.dify.forms.refused) == (["approve"], 0)


def test_a_replica_killed_before_the_pause(stage: Stage) -> None:
    """The run pauses with nobody listening: the other replica asks Dify for the form, and shows it."""
    stage.dify.delay = 1.0
    bubble = stage.here.says(ASK)
    wait_until(lambda: stage.here.polls(bubble).content != ZH["thinking"], TIMEOUT)
    stage.one.kill()

    assert stage.sees(bubble) == ASKED
    for _, run in stage.dify.forms._known.values():
        run.delay = 0.0
    assert stage.sees(stage.there.says("1")) == CONTINUED
    assert stage.submissions == ["approve"]


def test_a_drained_replica_hands_the_choice_over(stage: Stage) -> None:
    """A replica that leaves while the run goes on does not stop it."""
    stage.dify.delay = 0.5
    stage.asked()
    choice = stage.here.says("1")
    wait_until(lambda: "您选择了" in stage.here.polls(choice).content, TIMEOUT)
    stage.one.stop()

    assert stage.sees(choice) == CONTINUED
    assert (stage.submissions, stage.dify.stops) == (["approve"], [])
