"""The part that a frame cannot carry is sent once through `response_url`, when the answer is complete."""

from __future__ import annotations

import json
from typing import Any

import pytest

from config.texts import ZH
from demo.mocks.dify.answers import answer_to
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble, ResponsePost, ResponseServer, WeComUser
from services.streams.store import stream_keys
from tests.app.wecom.test_wecom import QUESTION, ends_frame, sees_text
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import wait_until
from tests.support.texts import squeezed
from utils.stream_utils import FRAME_BYTES, render_frame

MARK = "(2/2)\n\n"
LONG = "长" * 8000


@pytest.fixture
def values(redis_url: str, dify: MockDify) -> dict[str, str]:
    return {"redis_url": redis_url, **dify_settings(dify.base_url), "WECHAT_RESPONSE_HOSTS": "127.0.0.1"}


def sees_late(user: WeComUser, bubble: Bubble) -> str:
    """Wait for the bubble's late message, and return it without its mark."""
    wait_until(lambda: user.late(bubble), timeout=30.0)
    (post,) = user.late(bubble)
    assert post.broken == ()
    assert post.content.startswith(MARK)
    return post.content.removeprefix(MARK)


def delivered(app_server: AppServer, bubble: Bubble) -> str:
    """Return the outcome that is stored for a bubble's late message, once its owner is done."""
    container = app_server.container
    wait_until(lambda: container.manager.running == 0, timeout=30.0)
    return str(container.redis.hget(stream_keys(bubble.stream_id).hash, "delivered"))


def test_an_answer_after_the_frames_end_follows_whole(
    values: dict[str, str], dify: MockDify, responses: ResponseServer
) -> None:
    """The frame says that the rest follows; frame and message together are the answer, also when polled again."""
    dify.delay = 0.4
    with AppServer(**values) as app_server, app_server.user(responses=responses) as user:
        bubble = user.says(QUESTION)
        sees_text(user, bubble)
        ends_frame(app_server, bubble)
        frame = user.polls(bubble).content
        dify.hurry()
        rest = sees_late(user, bubble)
        outcome = delivered(app_server, bubble)
        user.polls(bubble)

    shown = frame.removesuffix(f"\n\n{ZH['frame_ended_late']}")
    assert shown != frame
    assert squeezed(shown + rest) == squeezed(render_frame(answer_to(QUESTION), growing=False))
    assert (bubble.content, outcome, len(responses.posts)) == (frame, "sent", 1)


def test_a_text_larger_than_a_frame_goes_on_in_a_message(values: dict[str, str], responses: ResponseServer) -> None:
    """The frame is full and says so; the message has the rest."""
    with AppServer(**values) as app_server, app_server.user(responses=responses) as user:
        bubble = user.says(LONG)
        frame = user.sees_finish(bubble, every=0.1, timeout=30.0)
        rest = sees_late(user, bubble)
        outcome = delivered(app_server, bubble)

    shown = frame.removesuffix(f"\n\n{ZH['truncated_late']}")
    assert FRAME_BYTES - 10 < len(frame.encode()) <= FRAME_BYTES
    assert squeezed(shown + rest) == squeezed(answer_to(LONG))
    assert outcome == "sent"


def test_a_short_answer_sends_nothing(values: dict[str, str], responses: ResponseServer) -> None:
    """An answer that its frame carries needs no message and claims none."""
    with AppServer(**values) as app_server, app_server.user(responses=responses) as user:
        bubble = user.says("年假怎么申请")
        user.sees_finish(bubble, every=0.1)
        outcome = delivered(app_server, bubble)

    assert (outcome, responses.posts) == ("", [])


def test_an_error_after_the_frames_end_is_told(
    values: dict[str, str], dify: MockDify, responses: ResponseServer
) -> None:
    """The promise is kept when the answer fails: the message is the error's sentence, with the rest of the text."""
    dify.after_disconnect = "dies"
    with AppServer(**values) as app_server, app_server.user(responses=responses) as user:
        bubble = user.says(f"{QUESTION} [[chatflow-reset-middle]]")
        wait_until(lambda: dify.looked_up()["events"] > 0, timeout=30.0)
        ends_frame(app_server, bubble)
        frame = user.polls(bubble).content
        run = dify.runs.turns(next(iter(dify.conversations)))[0]
        run.live.say(run.workflow_finished("failed"))
        rest = sees_late(user, bubble)

    assert frame.endswith(f"\n\n{ZH['frame_ended_late']}")
    assert rest.endswith(ZH["provider_error"])


def test_an_answer_nobody_polled_after_its_deadline_is_sent_whole(
    values: dict[str, str], dify: MockDify, responses: ResponseServer
) -> None:
    """The last shown frame is unknown, so the message has the whole answer; a later poll shows an ended frame."""
    dify.delay = 0.4
    with AppServer(**values) as app_server, app_server.user(responses=responses) as user:
        bubble = user.says(QUESTION)
        ends_frame(app_server, bubble)
        wait_until(lambda: dify.conversations, timeout=30.0)
        dify.hurry()
        rest = sees_late(user, bubble)
        frame = user.polls(bubble)

    assert squeezed(rest) == squeezed(answer_to(QUESTION))
    assert frame.finish
    assert frame.content.endswith(ZH["frame_ended_late"])


def test_another_host_is_not_called(
    values: dict[str, str], responses: ResponseServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An address of a host that is not listed is refused: nothing is promised or sent, and it is logged without it."""
    values["WECHAT_RESPONSE_HOSTS"] = "qyapi.weixin.qq.com"
    with AppServer(**values) as app_server, app_server.user(responses=responses) as user, caplog.at_level("INFO"):
        bubble = user.says(LONG)
        frame = user.sees_finish(bubble, every=0.1, timeout=30.0)
        outcome = delivered(app_server, bubble)

    assert frame.endswith(ZH["truncated"])
    assert (outcome, responses.posts) == ("refused", [])
    (line,) = late_lines(caplog)
    assert (line["outcome"], line["why"]) == ("refused", "overflow")
    assert responses.address not in json.dumps(line, ensure_ascii=False)


@pytest.mark.parametrize(
    ("status", "errcode", "cause"), [(200, 40001, "errcode 40001"), (502, 0, "HTTP 502"), (302, 0, "HTTP 302")]
)
def test_a_refused_message_is_not_sent_again(
    values: dict[str, str],
    responses: ResponseServer,
    caplog: pytest.LogCaptureFixture,
    status: int,
    errcode: int,
    cause: str,
) -> None:
    """The reply to a POST never decides about another one; the log has its code, and no secret."""
    responses.status, responses.errcode = status, errcode
    with AppServer(**values) as app_server, app_server.user(responses=responses) as user, caplog.at_level("INFO"):
        bubble = user.says(LONG)
        sees_late(user, bubble)
        outcome = delivered(app_server, bubble)

    assert (outcome, len(responses.posts)) == ("failed", 1)
    (line,) = late_lines(caplog)
    assert (line["outcome"], line["cause"]) == ("failed", cause)
    assert not [secret for secret in (bubble.msgid, "response_code", LONG[:9]) if secret in str(line)]


def test_a_drain_waits_for_the_message(values: dict[str, str], responses: ResponseServer) -> None:
    """A replica that leaves while it sends ends after WeCom's reply, and stores the outcome."""
    redis_keys: list[Any] = []
    with AppServer(**values, DRAIN_SECONDS="30") as app_server, app_server.user(responses=responses) as user:
        bubble = user.says(LONG)
        container = app_server.container

        def wait_draining(post: ResponsePost) -> None:
            wait_until(lambda: container.manager.draining, timeout=30.0)

        responses.before_reply = wait_draining
        wait_until(lambda: user.late(bubble), timeout=30.0)
        container.manager.drain(30.0)
        redis_keys.append(container.redis.hget(stream_keys(bubble.stream_id).hash, "delivered"))

    assert redis_keys == ["sent"]


def late_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the fields of the log lines of late answers."""
    return [vars(record) for record in caplog.records if record.message == "late answer"]
