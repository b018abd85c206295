"""Forms over two replicas, one of which is killed at a chosen moment: Dify gets each choice, typed or clicked, once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from config.texts import ZH
from demo.mocks.dify.features.asking_back import ASKS, LEAD, rest
from demo.mocks.dify.server import MockDify
from demo.mocks.http import ClientGone
from demo.wecom.card_clicks import CardClick
from demo.wecom.simulator import Bubble, CallbackFailed, ResponseServer, WeComUser
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
    responses: ResponseServer
    one: Replica
    here: WeComUser
    there: WeComUser

    def sees(self, bubble: Bubble) -> str:
        """Return a bubble's end as the other replica shows it. An owner's text may be replaced by a whole answer."""
        return self.there.sees_finish(bubble, TIMEOUT, every=0.2, replacements=1)

    @property
    def submissions(self) -> list[str]:
        return [action for _, action, _ in self.dify.forms.submissions]


class Way(ABC):
    """A way to choose an option of the form."""

    #: What the person sees of a choice that waits for another question.
    waiting = ""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @abstractmethod
    def asked(self) -> None:
        """Ask on the one replica, until the form is shown."""

    @abstractmethod
    def choose(self, user: WeComUser, option: str = "同意", msgid: str | None = None) -> Any:
        """Send the choice of an option to the user's replica; return what `seen` and `result` take."""

    @abstractmethod
    def lost(self, msgid: str) -> Any:
        """Return a choice whose delivery got no reply."""

    @abstractmethod
    def seen(self, choice: Any) -> str | None:
        """Return what the person sees of a choice at once."""

    @abstractmethod
    def result(self, choice: Any) -> str:
        """Wait for the answer to a choice, and return it."""

    def chooses_and_kills(self) -> Any:
        """Choose on the one replica, which is killed at any moment from then on."""
        with suppress(CallbackFailed):
            return self.choose(self.stage.here, msgid="choice")
        return self.lost("choice")


class Typed(Way):
    """The number of the option, as a message: the answer is in its bubble."""

    waiting = ZH["queued"]

    def asked(self) -> None:
        here = self.stage.here
        assert here.sees_finish(here.says(ASK), TIMEOUT, every=0.1) == ASKED

    def choose(self, user: WeComUser, option: str = "同意", msgid: str | None = None) -> Bubble:
        return user.says({"同意": "1", "驳回": "2"}[option], msgid)

    def lost(self, msgid: str) -> Bubble:
        """WeCom delivers the message again."""
        return self.choose(self.stage.there, msgid=msgid)

    def seen(self, choice: Bubble) -> str:
        return choice.content

    def result(self, choice: Bubble) -> str:
        return self.stage.sees(choice)


class Clicked(Way):
    """A button of the form's card: the answer is a message to the event's reply address."""

    waiting = ZH["card_clicked"]

    def asked(self) -> None:
        """The other replica shows the same card."""
        bubble = self.stage.here.says(ASK)
        self.stage.here.sees_finish(bubble, TIMEOUT, every=0.1)
        card = bubble.card
        assert self.stage.there.polls(bubble).card == card
        assert card
        self.card = card

    def choose(self, user: WeComUser, option: str = "同意", msgid: str | None = None) -> CardClick:
        return user.clicks(self.card, option, msgid)

    def lost(self, msgid: str) -> CardClick:
        """WeCom sends the event once."""
        return CardClick(msgid, None)

    def seen(self, choice: CardClick) -> str | None:
        return choice.says

    def result(self, choice: CardClick) -> str:
        wait_until(lambda: self.stage.responses.of(choice.msgid), TIMEOUT)
        (post,) = self.stage.responses.of(choice.msgid)
        return post.content


WAYS = {"typed": Typed, "clicked": Clicked}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    """The person's bubbles have cards if messages have a reply address."""
    with RedisServer() as redis, MockDify(delay=0.05) as dify, ResponseServer() as responses:
        changes = {"STREAM_LEASE": "3", "WECHAT_RESPONSE_HOSTS": "127.0.0.1"}
        address = responses if request.param == "clicked" else None
        with (
            replicas(2, settings_for(redis.url(), **dify_settings(dify.base_url), **changes), tmp_path) as (one, other),
            wecom_user([one.url], responses=address) as here,
            wecom_user([other.url], responses=address) as there,
        ):
            yield WAYS[request.param](Stage(redis, dify, responses, one, here, there))
        assert (responses.broken, dify.forms.refused) == ([], 0)


@pytest.fixture
def stage(way: Way) -> Stage:
    return way.stage


typed = pytest.mark.parametrize("way", ["typed"], indirect=True)
clicked = pytest.mark.parametrize("way", ["clicked"], indirect=True)


def once(*steps: Callable[[], object]) -> Callable[..., None]:
    """Return a function that takes the steps at its first call."""
    left = [steps]

    def call(*_: object) -> None:
        for step in left.pop() if left else ():
            step()

    return call


def drop() -> None:
    raise ClientGone


def test_a_choice_arrives_at_another_replica(way: Way, stage: Stage) -> None:
    """The form is in Redis: the replica that asked is not needed, it is dead."""
    way.asked()
    stage.one.kill()

    assert way.result(way.choose(stage.there)) == CONTINUED
    assert stage.submissions == ["approve"]


def test_two_replicas_get_the_same_choice_at_once(way: Way, stage: Stage) -> None:
    """One choice in six deliveries is answered once; two other choices get a sentence."""
    way.asked()
    users = [stage.here, stage.there] * 3

    with ThreadPoolExecutor(6) as pool:
        same = list(pool.map(lambda user: way.choose(user, msgid="choice"), users))
        others = list(pool.map(lambda user: way.choose(user, "驳回"), users[:2]))

    assert {way.result(choice) for choice in same} == {CONTINUED}
    assert {way.result(choice) for choice in others} == {ZH["form_answered"]}
    assert (stage.submissions, len(stage.dify.requests)) == (["approve"], 1)
    assert len(stage.responses.posts) in (0, 3)


def test_a_replica_killed_before_the_claim(way: Way, stage: Stage) -> None:
    """The choice waits behind a running question; the other replica submits it."""
    way.asked()
    stage.dify.holds_at = 5
    running = stage.there.says("年假怎么申请")
    choice = way.choose(stage.here, msgid="choice")
    assert way.seen(choice) == way.waiting
    stage.one.kill()
    stage.dify.holds_at = None

    stage.sees(running)
    assert (way.result(choice), stage.submissions) == (CONTINUED, ["approve"])


def test_a_replica_killed_after_the_claim(way: Way, stage: Stage) -> None:
    """The submission did not arrive. Nothing is submitted again; the person is told, and chooses once more."""
    way.asked()
    stage.dify.before_submit = once(stage.one.kill, drop)
    choice = way.chooses_and_kills()

    assert (way.result(choice), stage.submissions) == (ZH["form_unsent"], [])
    assert (way.result(way.choose(stage.there)), stage.submissions) == (CONTINUED, ["approve"])


def test_a_replica_killed_after_the_submission(way: Way, stage: Stage) -> None:
    """Dify has the choice, its reply is lost: the other replica shows how the run goes on."""
    way.asked()
    stage.dify.after_submit = once(stage.one.kill, drop)
    choice = way.chooses_and_kills()

    assert (way.result(choice), stage.submissions) == (CONTINUED, ["approve"])


@clicked
def test_a_replica_killed_while_it_sends_the_answer(way: Way, stage: Stage) -> None:
    """The message was claimed: nobody sends a second one, and a replay of the event changes nothing."""
    way.asked()
    killed = Event()
    stage.responses.before_reply = once(stage.one.kill, killed.set, drop)
    click = way.chooses_and_kills()
    assert way.result(click) == CONTINUED
    assert killed.wait(TIMEOUT)

    again = way.choose(stage.there, msgid="choice")
    other = way.choose(stage.there, "驳回")

    assert way.seen(again) == ZH["card_clicked"]
    assert way.result(other) == ZH["form_answered"]
    assert (len(stage.responses.of("choice")), stage.submissions) == (1, ["approve"])


@typed
def test_a_reply_that_is_lost_is_found_out_about(way: Way, stage: Stage) -> None:
    """The same replica asks Dify whether it still waits: it does not, and nothing is submitted again."""
    way.asked()
    stage.dify.after_submit = once(drop)

    assert (way.result(way.choose(stage.here)), stage.submissions) == (CONTINUED, ["approve"])


@typed
@pytest.mark.parametrize("ends", [Replica.kill, Replica.stop], ids=["killed", "drained"])
def test_a_replica_that_ends_during_the_continued_answer(
    way: Way, stage: Stage, ends: Callable[[Replica], object]
) -> None:
    """The text that was shown stays, and the rest follows; a replica that leaves does not stop the run."""
    stage.dify.delay = 0.3
    way.asked()
    choice = way.choose(stage.here)
    wait_until(lambda: "您选择了" in stage.here.polls(choice).content, TIMEOUT)
    ends(stage.one)

    assert (way.result(choice), choice.shrunk) == (CONTINUED, 0)
    assert (stage.submissions, stage.dify.stops) == (["approve"], [])
    assert stored(stage.redis, choice.stream_id).fields["asks"] == "1"


@typed
def test_a_replica_killed_before_the_pause(way: Way, stage: Stage) -> None:
    """The run pauses with nobody listening: the other replica asks Dify for the form, and shows it."""
    stage.dify.holds_at = 2
    bubble = stage.here.says(ASK)
    wait_until(lambda: stage.here.polls(bubble).content != ZH["thinking"], TIMEOUT)
    stage.one.kill()
    stage.dify.holds_at = None

    assert stage.sees(bubble) == ASKED
    assert way.result(way.choose(stage.there)) == CONTINUED
    assert stage.submissions == ["approve"]
