"""Clicks on a form's card over two replicas, one of which is killed at a chosen moment: Dify gets each choice once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from config.texts import ZH
from demo.mocks.dify.features.asking_back import rest
from demo.mocks.dify.server import MockDify
from demo.mocks.http import ClientGone
from demo.wecom.card_clicks import CardClick
from demo.wecom.simulator import CallbackFailed, ResponseServer, WeComUser
from tests.support.replicas import Replica, dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import RedisServer, wait_until
from utils.stream_utils import render_frame

pytestmark = [pytest.mark.scenario, pytest.mark.full, pytest.mark.timeout(180)]

ASK = "报销要什么材料 [[form]]"
CONTINUED = render_frame(rest(ASK, "同意"), growing=False)
#: Seconds until a killed replica's stream has another owner, and its answer is sent.
TIMEOUT = 60.0


@dataclass
class Stage:
    """Two replicas, and one person who reaches each of them by a connection of their own."""

    dify: MockDify
    responses: ResponseServer
    one: Replica
    here: WeComUser
    there: WeComUser

    def card(self) -> Mapping[str, Any]:
        """Ask on the one replica; return the form's card, as the other replica shows it too."""
        bubble = self.here.says(ASK)
        self.here.sees_finish(bubble, TIMEOUT, every=0.1)
        card = bubble.card
        assert self.there.polls(bubble).card == card
        assert card
        return card

    def clicks(self, card: Mapping[str, Any]) -> CardClick:
        """Click on the one replica, which is killed at any moment from then on; WeCom sends the event once."""
        try:
            return self.here.clicks(card, "同意", "click")
        except CallbackFailed:
            return CardClick("click", None)

    def answer(self, click: CardClick) -> str:
        wait_until(lambda: self.responses.of(click.msgid), TIMEOUT)
        (post,) = self.responses.of(click.msgid)
        return post.content

    @property
    def submissions(self) -> list[str]:
        return [action for _, action, _ in self.dify.forms.submissions]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with RedisServer() as redis, MockDify(delay=0.05) as dify, ResponseServer() as responses:
        env = settings_for(
            redis.url(), **dify_settings(dify.base_url), STREAM_LEASE="3", WECHAT_RESPONSE_HOSTS="127.0.0.1"
        )
        with (
            replicas(2, env, tmp_path) as (one, other),
            wecom_user([one.url], responses=responses) as here,
            wecom_user([other.url], responses=responses) as there,
        ):
            yield Stage(dify, responses, one, here, there)
        assert responses.broken == []
        assert dify.forms.refused == 0


def once(*steps: Callable[[], object]) -> Callable[..., None]:
    """Return a function that takes the steps at its first call."""
    left = [steps]

    def call(*_: object) -> None:
        for step in left.pop() if left else ():
            step()

    return call


def drop() -> None:
    raise ClientGone


def test_a_click_at_another_replica(stage: Stage) -> None:
    """The replica that asked is dead."""
    card = stage.card()
    stage.one.kill()

    click = stage.there.clicks(card, "同意")
    assert (stage.answer(click), stage.submissions) == (CONTINUED, ["approve"])


def test_clicks_at_two_replicas_at_once(stage: Stage) -> None:
    """One event in six deliveries is answered once; two more events read that it is too late."""
    card = stage.card()
    users = [stage.here, stage.there] * 3

    with ThreadPoolExecutor(6) as pool:
        same = list(pool.map(lambda user: user.clicks(card, "同意", "click"), users))
        others = list(pool.map(lambda user: user.clicks(card, "驳回"), users[:2]))

    answers = [stage.answer(click) for click in (same[0], *others)]
    assert answers == [CONTINUED, ZH["form_answered"], ZH["form_answered"]]
    assert (stage.submissions, len(stage.responses.posts), len(stage.dify.requests)) == (["approve"], 3, 1)


def test_a_replica_killed_before_the_claim(stage: Stage) -> None:
    """The click waits behind a running question; the other replica submits it."""
    card = stage.card()
    running = stage.there.says("年假怎么申请 [[slow]]")
    click = stage.clicks(card)
    assert click.says == ZH["card_clicked"]
    stage.one.kill()

    stage.there.sees_finish(running, TIMEOUT, every=0.2)
    assert (stage.answer(click), stage.submissions) == (CONTINUED, ["approve"])


def test_a_replica_killed_after_the_claim(stage: Stage) -> None:
    """The submission did not arrive, and nothing is submitted again: the person is told, and clicks once more."""
    card = stage.card()
    stage.dify.before_submit = once(stage.one.kill, drop)
    click = stage.clicks(card)

    assert (stage.answer(click), stage.submissions) == (ZH["form_unsent"], [])
    assert stage.answer(stage.there.clicks(card, "同意")) == CONTINUED
    assert stage.submissions == ["approve"]


def test_a_replica_killed_after_the_submission(stage: Stage) -> None:
    """Dify has the choice: the other replica sends how the run goes on."""
    card = stage.card()
    stage.dify.after_submit = once(stage.one.kill, drop)
    click = stage.clicks(card)

    assert (stage.answer(click), stage.submissions) == (CONTINUED, ["approve"])


def test_a_replica_killed_while_it_sends_the_answer(stage: Stage) -> None:
    """The message was claimed: nobody sends a second one, and a replay of the event changes nothing."""
    card = stage.card()
    killed = Event()
    stage.responses.before_reply = once(stage.one.kill, killed.set, drop)
    click = stage.clicks(card)
    assert stage.answer(click) == CONTINUED
    assert killed.wait(TIMEOUT)

    again = stage.there.clicks(card, "同意", click.msgid)
    other = stage.there.clicks(card, "驳回")

    assert again.says == ZH["card_clicked"]
    assert stage.answer(other) == ZH["form_answered"]
    assert (len(stage.responses.of(click.msgid)), stage.submissions) == (1, ["approve"])
