"""Fifty polls of one stream at the same moment, on two processes, repeated while its text grows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble, BubbleFrame
from tests.scenarios.stage.people import at_once, stored
from tests.support.replicas import dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import RedisServer
from utils.stream_utils import render_frame

pytestmark = [pytest.mark.scenario, pytest.mark.full]

POLLERS = 50
QUESTION = "怎么办理入职？"


def watch(urls: Sequence[str], bubble: Bubble, dify: MockDify) -> list[list[BubbleFrame]]:
    """Poll with all pollers at once, in rounds, until each has seen the end twice; return each one's frames.

    The answer grows by a few pieces in each round.
    """
    with ExitStack() as stack:
        pollers = [stack.enter_context(wecom_user([urls[n % len(urls)]])) for n in range(POLLERS)]
        own = [Bubble(bubble.msgid, [bubble.last]) for _ in pollers]
        while not all(frame.finish for each in own for frame in each.frames[-2:]):
            at_once(partial(poller.polls, each) for poller, each in zip(pollers, own, strict=True))
            dify.holds_at = (dify.holds_at or 0) + 4
        return [each.frames for each in own]


def shown_lengths(frames: list[BubbleFrame], answer: str) -> list[int]:
    """Return the length of the answer that each frame shows; -1 for any other content."""
    shown = {render_frame(answer[:end], growing=True): end for end in range(1, len(answer) + 1)}
    shown |= {"": 0, ZH["thinking"]: 0, render_frame(answer, growing=False): len(answer)}
    return [shown.get(frame.content, -1) for frame in frames]


def test_fifty_polls_at_once_neither_lose_repeat_nor_shrink_text(
    redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    """Every frame is a rendered beginning of the answer, never shorter than the one before; the last is the whole."""
    with MockDify(delay=0.05, limit=120.0) as dify:
        dify.holds_at = 4
        answer = dify.expected_answer(QUESTION)
        with (
            replicas(2, settings_for(redis_url, **dify_settings(dify.base_url)), tmp_path) as pair,
            wecom_user([pair[0].url]) as person,
        ):
            bubble = person.says(QUESTION)
            seen = watch([replica.url for replica in pair], bubble, dify)

    for frames in seen:
        shown = shown_lengths(frames, answer)
        assert -1 not in shown
        assert shown == sorted(shown)
    assert len({length for frames in seen for length in shown_lengths(frames, answer)}) > 3
    assert {frames[-1].content for frames in seen} == {render_frame(answer, growing=False)}
    found = stored(redis_server, bubble.stream_id)
    assert (found.text, found.list_text, len(dify.requests)) == (answer.encode(), answer.encode(), 1)
