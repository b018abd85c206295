"""WeCom's callback over real HTTP: what the bubble shows, to which users, and that no message is answered twice."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import redis
import requests
from flask import Flask

from app import note_refusal
from channels.wecom.callbacks import CallbackEndpoint
from channels.wecom.channel import WeComChannel
from channels.wecom.messages import WeComMessages
from config.texts import EN, ZH, Texts
from demo.mocks.dify.answers import answer_to
from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.scripts import half_answer
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import FRAME_BYTES, Bubble, BubbleFrame, SimulatedBot, WeComUser
from services.models import Question
from services.streams.records import Snapshot
from services.streams.store import READ_BYTES, stream_keys
from services.wecom.crypto import WXBizJsonMsgCrypt
from services.wecom.frames import WeComFrames
from tests.support.forgery import OTHER_KEY, echo
from tests.support.replicas import AES_KEY, TOKEN, AppServer, dify_settings
from tests.support.servers.processes import wait_until
from tools.streams import documented
from utils.limited_log import LimitedLog
from utils.stream_utils import render_frame

QUESTION = "年假怎么申请"
SILENT = f"{QUESTION} [[silent]]"


@pytest.fixture
def values(redis_url: str, dify: MockDify) -> dict[str, str]:
    """The settings of a replica that asks the mock Dify and drains without waiting for answers."""
    return {"redis_url": redis_url, "DRAIN_SECONDS": "0", **dify_settings(dify.base_url)}


def sees_text(user: WeComUser, bubble: Bubble) -> BubbleFrame:
    """Poll until the bubble shows more than a placeholder."""
    wait_until(lambda: user.polls(bubble).content not in (ZH["thinking"], ZH["queued"]), timeout=30.0)
    return bubble.last


def sees_finish(user: WeComUser, bubble: Bubble) -> str:
    return user.sees_finish(bubble, every=0.03)


def ends_frame(app_server: AppServer, *bubbles: Bubble) -> None:
    """Let the time of the bubbles' frames be over."""
    for bubble in bubbles:
        # The field was there: it is not new.
        assert app_server.container.redis.hset(stream_keys(bubble.stream_id).hash, "frame_deadline", "1") == 0


def test_the_url_verification_returns_the_plaintext(app_server: AppServer, user: WeComUser) -> None:
    """The reply is the decrypted echo string alone, as plain text."""
    assert user.verifies_url().isdigit()

    reply = requests.get(f"{app_server.url}/wechat/callback", params=echo("你好 echo"), timeout=10)

    assert reply.content == "你好 echo".encode()
    assert reply.headers["Content-Type"].startswith("text/plain")


def test_a_question_is_answered_at_once_with_a_placeholder(user: WeComUser) -> None:
    """The first frame is sent before the provider has sent anything."""
    bubble = user.says(SILENT)

    assert (bubble.finish, bubble.content) == (False, ZH["thinking"])
    assert bubble.stream_id


def test_the_bubble_grows_to_the_whole_answer(user: WeComUser, dify: MockDify) -> None:
    """Each poll shows all text so far, the last one the whole answer."""
    dify.delay = 0.2
    bubble = user.says(QUESTION)
    first = sees_text(user, bubble).content
    wait_until(lambda: len(user.polls(bubble).content) > len(first), timeout=30.0)
    dify.hurry()

    answer = sees_finish(user, bubble)

    assert answer == render_frame(answer_to(QUESTION), growing=False)
    # A list marker cut in half is shown as text until its rest arrives, so line breaks may change.
    shown = ["".join(frame.content.rstrip("`*").split()) for frame in bubble.frames if frame.content != ZH["thinking"]]
    assert len(set(shown)) > 1
    assert all("".join(answer.split()).startswith(content) for content in shown)


def test_the_last_poll_may_be_repeated(user: WeComUser, dify: MockDify) -> None:
    """A repeated or late poll shows the same answer and the same end."""
    bubble = user.says(QUESTION)
    sees_finish(user, bubble)

    again = [user.polls(bubble) for _ in range(5)]

    assert {(frame.finish, frame.content, frame.empty) for frame in again} == {(True, bubble.content, False)}
    assert len(dify.requests) == 1


def test_a_second_question_shows_that_it_is_queued(user: WeComUser, dify: MockDify) -> None:
    """The questions of a conversation are answered one after the other."""
    dify.delay = 0.2
    first, second = user.says(QUESTION), user.says("报销要什么材料")

    assert (first.content, second.content) == (ZH["thinking"], ZH["queued"])
    sees_text(user, first)
    dify.delay = 0.0
    dify.hurry()
    assert sees_finish(user, first)
    assert sees_finish(user, second) == render_frame(answer_to("报销要什么材料"), growing=False)
    assert dify.peak_streams == 1


@pytest.mark.parametrize(
    ("question", "shown", "code"),
    [
        (f"{QUESTION} [[error-after-text]]", half_answer, "provider_error"),
        (f"{QUESTION} [[eof]]", half_answer, "provider_truncated"),
        (f"{QUESTION} [[error-event]]", lambda _: "", "provider_error"),
        (f"{QUESTION} [[401-unauthorized]]", lambda _: "", "provider_unauthorized"),
        (f"{QUESTION} [[empty]]", lambda _: "", "provider_empty"),
    ],
)
def test_an_error_is_a_sentence_after_the_text_so_far(
    user: WeComUser, dify: MockDify, question: str, shown: Any, code: str
) -> None:
    """The text so far stays, followed by the error's sentence; another poll repeats both."""
    dify.outage = ERROR_REPLIES["403-forbidden"]
    bubble = user.says(question)

    end = sees_finish(user, bubble)

    assert end == render_frame(shown(question), growing=False, suffix=ZH[code])
    assert end.endswith(ZH[code])
    assert (user.polls(bubble).finish, bubble.content) == (True, end)


def test_the_frame_ends_before_wecoms_timeout(values: dict[str, str], dify: MockDify, stored: redis.Redis) -> None:
    """After WECHAT_ANSWER_SECONDS the frame is finished with the text so far; later polls show exactly the same."""
    dify.delay = 0.2
    with AppServer(**values, WECHAT_ANSWER_SECONDS="20") as app_server, app_server.user() as user:
        bubble, silent = user.says(QUESTION), user.says(SILENT)
        deadline = float(str(stored.hget(stream_keys(bubble.stream_id).hash, "frame_deadline")))
        assert 0.0 < deadline - time.time() <= 20.0
        sees_text(user, bubble)

        ends_frame(app_server, bubble, silent)
        end, nothing = user.polls(bubble).content, user.polls(silent).content
        dify.hurry()
        wait_until(lambda: app_server.container.manager.running == 1, timeout=60.0)

        assert (nothing, silent.finish) == (ZH["frame_ended"], True)
        assert end.endswith(f"\n\n{ZH['frame_ended']}")
        assert len(end) < len(answer_to(QUESTION))
        assert (user.polls(bubble).content, bubble.finish) == (end, True)


def test_an_answer_too_long_to_show_is_cut_with_a_sentence(user: WeComUser) -> None:
    """The frame keeps within WeCom's limit and shows the beginning of the text."""
    question = "长" * 8000
    bubble = user.says(question)

    end = sees_finish(user, bubble)

    assert end.endswith(f"\n\n{ZH['truncated']}")
    assert FRAME_BYTES - 200 < bubble.last.size <= FRAME_BYTES
    assert answer_to(question).startswith(end.removesuffix(f"\n\n{ZH['truncated']}"))


@pytest.mark.parametrize(
    ("thinking", "shown"), [("show", "<think>先想想</think>\n\n"), ("hide", "")], ids=["shown", "hidden"]
)
def test_thinking_is_shown_or_hidden_by_setting(values: dict[str, str], thinking: str, shown: str) -> None:
    """WECHAT_THINKING decides whether the model's thinking is shown."""
    with AppServer(**values, WECHAT_THINKING=thinking) as app_server, app_server.user() as user:
        answer = sees_finish(user, user.says(f"{QUESTION} [[think]]"))

    assert answer == shown + render_frame(answer_to(QUESTION), growing=False)


def test_a_bot_uses_its_configured_language(values: dict[str, str]) -> None:
    """Placeholder and welcome are in the bot's LOCALE."""
    with AppServer(**values, LOCALE="en") as app_server, app_server.user() as user:
        assert user.enters() == EN["welcome"]
        assert user.says(SILENT).content == EN["thinking"]


class NoGateway:
    """A gateway that fails with an unexpected exception on any use but for the log."""

    def person(self, question: Question) -> str:
        return question.principal

    def __getattr__(self, name: str) -> Any:
        raise LookupError("secret detail")


def channel_of(
    app_server: AppServer, gateway: Any, thinking: str = "show", sources: tuple[str, ...] = ()
) -> WeComChannel:
    thoughts: dict[str, Any] = {"default": thinking}
    container = app_server.container
    return WeComChannel(
        gateway=gateway,
        messages=WeComMessages(
            gateway=gateway, texts=Texts(), welcomes={"default": ""}, commands={}, feedback=container.feedback_inbox
        ),
        bots=container.wechat,
        texts=Texts(),
        files=container.files.store,
        frames=WeComFrames(Texts(), container.files.offers, thinking=thoughts, sources=sources),
    )


def test_a_bot_may_show_its_sources(app_server: AppServer) -> None:
    """Sources follow a completed answer of the bots configured for them; not a growing, timed-out or cancelled one."""
    whole = Snapshot("s", "completed", text="五天", size=6, cited="1. 手册")
    others = [replace(whole, status="processing"), replace(whole, frame_over=True), replace(whole, status="cancelled")]

    channel, silent = (channel_of(app_server, NoGateway(), sources=bots) for bots in (("default",), ("hr",)))

    assert channel.frame("default", whole)["stream"]["content"] == "五天\n\n参考资料：\n\n1. 手册"
    assert silent.frame("default", whole)["stream"]["content"] == "五天"
    assert not ["手册" for other in others if "手册" in channel.frame("default", other)["stream"]["content"]]


def test_the_sources_of_dify_reach_the_bubble(values: dict[str, str]) -> None:
    """The sources of Dify's message_end are stored in Redis and shown under the answer."""
    with AppServer(**values, WECHAT_SOURCES="true") as app_server, app_server.user() as user:
        answer = sees_finish(user, user.says(QUESTION))

    text, _, cited = answer.rpartition(f"\n\n{ZH['sources_heading']}\n\n")
    assert text == render_frame(answer_to(QUESTION), growing=False)
    assert cited.startswith("1. ")


def test_a_growing_text_never_shrinks_at_the_limit(app_server: AppServer) -> None:
    """Frames near the limit leave space for the sentence about the cut before it is needed."""
    channel, text = channel_of(app_server, NoGateway()), "字" * 6900
    shown = [
        channel.frame("default", Snapshot("s", "processing", text=text[:count], size=3 * count))["stream"]["content"]
        for count in (6000, 6780, 6790, 6800, 6810, 6820)
    ]
    done = Snapshot("s", "completed", text=text[: READ_BYTES // 3], size=3 * len(text))
    shown.append(channel.frame("default", done)["stream"]["content"])

    plain = [content.removesuffix(f"\n\n{ZH['truncated']}") for content in shown]

    assert all(new.startswith(old) for old, new in pairwise(plain))
    assert shown[-1].endswith(ZH["truncated"])


def test_a_text_that_was_not_read_whole_is_marked_as_cut(app_server: AppServer) -> None:
    """Hidden thinking may fill most of what one poll reads: the frame has space left, and the answer is still cut."""
    thought = "<think>" + "想" * 5000 + "</think>"
    text = thought + "答" * 5000
    read = text.encode()[:READ_BYTES].decode(errors="ignore")
    channel = channel_of(app_server, NoGateway(), thinking="hide")

    growing = channel.frame("default", Snapshot("s", "processing", text=read, size=len(text.encode())))["stream"]
    whole = channel.frame("default", Snapshot("s", "completed", text=read, size=len(text.encode())))["stream"]
    failed = Snapshot("s", "error", error_code="provider_error", text=read, size=len(text.encode()))

    assert set(growing["content"]) == {"答"}
    assert whole["content"] == f"{growing['content']}\n\n{ZH['truncated']}"
    assert channel.frame("default", failed)["stream"]["content"] == f"{whole['content']}\n\n{ZH['provider_error']}"


def test_a_frame_past_its_deadline_does_not_change(app_server: AppServer) -> None:
    """Text, status and errors that arrive after the frame's deadline do not change the frame."""
    channel = channel_of(app_server, NoGateway())
    shown = Snapshot("s", "processing", frame_over=True, text="答到这里", size=12)

    frames = [
        channel.frame("default", each)
        for each in (
            shown,
            replace(shown, size=READ_BYTES + 1),
            replace(shown, status="completed", size=READ_BYTES + 1),
            replace(shown, status="error", error_code="interrupted"),
        )
    ]

    assert frames == [frame("s", f"答到这里\n\n{ZH['frame_ended']}")] * 4


def test_an_answer_of_hidden_thoughts_is_not_an_empty_bubble(app_server: AppServer) -> None:
    """While it grows the placeholder is shown; at the end the sentence for an empty answer."""
    channel = channel_of(app_server, NoGateway(), thinking="hide")
    thought = "<think>想</think>"

    growing = channel.frame("default", Snapshot("s", "processing", text=thought, size=30))["stream"]
    done = channel.frame("default", Snapshot("s", "completed", text=thought, size=30))["stream"]

    assert (growing["finish"], growing["content"]) == (False, ZH["thinking"])
    assert (done["finish"], done["content"]) == (True, ZH["provider_empty"])


@pytest.mark.parametrize(("setting", "welcome"), [("", ZH["welcome"]), ("欢迎找 HR 来宝", "欢迎找 HR 来宝")])
def test_a_user_who_enters_is_welcomed(values: dict[str, str], setting: str, welcome: str) -> None:
    """With the bot's own text or the default; WeCom's documented example of the event has no chattype."""
    with AppServer(**values, WECHAT_WELCOME=setting) as app_server, app_server.user() as user:
        assert user.enters() == welcome

        bare = {"msgid": "e-0001", "aibotid": "aibEXAMPLE", "from": {"userid": "zhangsan"}, "create_time": 1700000000}
        event = {**bare, "msgtype": "event", "event": {"eventtype": "enter_chat"}}
        assert user.wire.post(user.wire.seal(event)) == {"msgtype": "text", "text": {"content": welcome}}


@pytest.mark.parametrize("event", ["template_card_event", "feedback_event", "enter_check_update", "made_up_event"])
def test_other_events_get_an_empty_reply(user: WeComUser, event: str, stored: redis.Redis) -> None:
    """Nothing is stored for them; the secret and the replicas' registry belong to no message."""
    assert user.sends({"msgtype": "event", "event": {"eventtype": event, event: {"id": "1"}}}) is None
    assert set(stored.scan_iter()) <= {"dify_secret:own", "{dify_replicas}:seen"}


@pytest.mark.parametrize("msgtype", ["image", "file", "video", "sticker"])
def test_other_messages_get_a_friendly_sentence(
    user: WeComUser, dify: MockDify, stored: redis.Redis, msgtype: str
) -> None:
    """The reply is a finished stream, the same one for a redelivery, and the provider is not asked."""
    message = {"msgtype": msgtype, msgtype: {"name": "without an address"}}

    first = user.shows(message, "m-media")
    again = user.shows(message, "m-media")

    assert (first.finish, first.content) == (True, ZH["unsupported_message"])
    assert (again.stream_id, again.finish, again.content) == (first.stream_id, True, ZH["unsupported_message"])
    assert user.polls(first).content == ZH["unsupported_message"]
    assert dify.requests == []
    assert stored.hget(f"dify_stream:{first.stream_id}", "status") == "completed"


def test_voice_and_quoted_words_are_asked(app_server: AppServer, dify: MockDify) -> None:
    """Voice is its words; quoted words go before the question; a command may quote something."""
    quote = {"msgtype": "text", "text": {"content": "第一行\n第二行"}}
    with app_server.user(chatid="wrGROUP") as user:
        sees_finish(user, user.shows({"msgtype": "voice", "voice": {"content": QUESTION}}))
        sees_finish(user, user.shows({"msgtype": "text", "text": {"content": f"@来宝 {QUESTION}"}, "quote": quote}))
        listed = user.shows({"msgtype": "text", "text": {"content": "@来宝 /help"}, "quote": quote})

    assert [each.body["query"] for each in dify.requests] == [QUESTION, f"> 第一行\n> 第二行\n\n{QUESTION}"]
    assert listed.finish
    assert "/help" in listed.content


@pytest.mark.parametrize(("chatid", "text"), [("wrGROUP", "@来宝"), ("wrGROUP", "@来宝 \u2005 "), ("", "   \n")])
def test_a_message_without_text_gets_a_sentence(app_server: AppServer, dify: MockDify, chatid: str, text: str) -> None:
    """A mention or white space alone is not a question."""
    with app_server.user(chatid=chatid) as user:
        bubble = user.says(text)

        assert (bubble.finish, bubble.content) == (True, ZH["empty_question"])
        assert user.polls(bubble).content == ZH["empty_question"]
    assert dify.requests == []


def test_an_unknown_stream_is_finished_with_a_sentence(
    values: dict[str, str], stored: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream that never existed or has expired gets an empty reply for some seconds, then the sentence.

    The owner may still restore the stream in these seconds. The log line has the stream's id and an outcome that is not
    an outage of Redis.
    """
    caplog.set_level(logging.INFO, "channels.wecom.channel")
    poll = {"msgtype": "stream", "stream": {"id": "1" * 32}}
    # The owner's seconds are a third of its lease, and two.
    with AppServer(**values, STREAM_LEASE="2") as app_server, app_server.user() as user:
        expired = user.says(QUESTION)
        sees_finish(user, expired)
        stored.flushall()
        # An expired answer changes after its finish.
        user.strict = False

        assert (user.sends(poll), user.polls(expired).empty) == (None, True)
        assert wait_until(lambda: user.sends(poll), every=0.1) == frame("1" * 32, ZH["stream_unknown"])
        assert wait_until(lambda: user.polls(expired).content == ZH["stream_unknown"], every=0.1)
        assert expired.finish

    callback_lines = [vars(record) for record in caplog.records if record.getMessage() == "callback"]
    outcomes = [line["outcome"] for line in callback_lines if line["stream_id"] == "1" * 32]
    assert (outcomes[0], outcomes[-1]) == ("stream_missing", "stream_unknown")
    assert set(outcomes) == {"stream_missing", "stream_unknown"}


@pytest.mark.parametrize(
    ("asker", "reader", "sees"),
    [
        (("zhangsan", ""), ("lisi", ""), False),
        (("zhangsan", "wrONE"), ("lisi", "wrONE"), True),
        (("zhangsan", "wrONE"), ("lisi", "wrTWO"), False),
        (("zhangsan", "wrONE"), ("lisi", ""), False),
        (("zhangsan", ""), ("lisi", "zhangsan"), False),
    ],
)
def test_a_stream_is_shown_to_its_person_and_its_group(
    app_server: AppServer, asker: tuple[str, str], reader: tuple[str, str], sees: bool
) -> None:
    """Other users get the reply of an expired stream."""
    with app_server.user(*asker) as asking, app_server.user(*reader) as reading:
        bubble = asking.says(QUESTION)
        answer = sees_finish(asking, bubble)

        reply = reading.sends({"msgtype": "stream", "stream": {"id": bubble.stream_id}})

    assert reply == frame(bubble.stream_id, answer if sees else ZH["stream_unknown"])


def test_two_bots_share_nothing(values: dict[str, str], dify: MockDify) -> None:
    """The same message id is a separate question at another bot, which cannot read the other bot's stream."""
    hr = {"WECHAT_TOKEN": "HRTESTTOKEN", "WECHAT_ENCODING_AES_KEY": OTHER_KEY, "WECHAT_WELCOME": "HR"}
    with (
        AppServer(**values, WECHAT_BOTS=json.dumps({"hr": hr})) as app_server,
        app_server.user() as one,
        hr_user(app_server) as other,
    ):
        first, second = one.says(QUESTION, "m-same"), other.says(QUESTION, "m-same")
        answer = sees_finish(one, first)
        foreign = other.sends({"msgtype": "stream", "stream": {"id": first.stream_id}})

        assert first.stream_id != second.stream_id
        assert sees_finish(other, second) == answer
        assert foreign == frame(first.stream_id, ZH["stream_unknown"])
        assert (one.enters(), other.enters()) == (ZH["welcome"], "HR")
    assert len(dify.requests) == 2


def hr_user(app_server: AppServer, path: str = "/wechat/callback/hr") -> WeComUser:
    return WeComUser(app_server.url + path, SimulatedBot("HRTESTTOKEN", OTHER_KEY), "zhangsan")


def test_tokens_and_keys_are_rotated_without_an_interruption(values: dict[str, str]) -> None:
    """With two tokens and keys configured, each callback is answered under its own, and streams go on."""
    both = {"WECHAT_TOKEN": f"{TOKEN},HRTESTTOKEN", "WECHAT_ENCODING_AES_KEY": f"{AES_KEY},{OTHER_KEY}"}
    with (
        AppServer(**values, **both) as app_server,
        app_server.user() as old,
        hr_user(app_server, "/wechat/callback") as new,
    ):
        assert new.verifies_url()
        bubble = old.says(QUESTION)

        assert sees_finish(new, bubble) == render_frame(answer_to(QUESTION), growing=False)


def test_the_default_bot_has_a_name_too(app_server: AppServer) -> None:
    """Its named address is answered directly: WeCom follows no redirect."""
    with app_server.user(bot="default") as user:
        assert user.verifies_url()
        assert user.enters() == ZH["welcome"]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ({"msgtype": "text", "text": {"content": QUESTION}}, (True, ZH["answer_failed"])),
        ({"msgtype": "image", "image": {"url": "x"}}, (True, ZH["answer_failed"])),
        ({"msgtype": "stream", "stream": {"id": "s"}}, None),
    ],
)
def test_a_callback_that_fails_inside_is_answered_200(
    app_server: AppServer,
    user: WeComUser,
    caplog: pytest.LogCaptureFixture,
    message: dict[str, Any],
    shown: tuple[bool, str] | None,
) -> None:
    """WeCom would redeliver after an error status. The log has the traceback, the reply no text of it."""
    app = Flask("broken")
    note = partial(note_refusal, lines=LimitedLog(logging.getLogger("app"), "callback refused"))
    app.wsgi_app = CallbackEndpoint(app.wsgi_app, channel_of(app_server, NoGateway()), note)  # type: ignore[method-assign]
    sent = user.seals(message)

    reply = app.test_client().post("/wechat/callback", query_string=dict(sent.params), data=sent.body)

    assert reply.status_code == 200
    assert opened(reply.data) == shown
    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.message == "callback failed"
    assert error.exc_info


def opened(body: bytes) -> tuple[bool, str] | None:
    """Return whether a reply finishes its stream, and its text; None for the empty reply."""
    if not body:
        return None
    envelope = json.loads(body)
    signed = (envelope["msgsignature"], str(envelope["timestamp"]), envelope["nonce"])
    stream = json.loads(str(WXBizJsonMsgCrypt(TOKEN, AES_KEY, "").DecryptMsg(body, *signed)[1]))["stream"]
    return stream["finish"], stream["content"]


def test_each_callback_is_one_line(user: WeComUser, caplog: pytest.LogCaptureFixture) -> None:
    """The line has message type, stream and outcome, and neither text nor user."""
    bubble = user.says(QUESTION, "m-1")
    sees_finish(user, bubble)
    user.enters()
    user.verifies_url()

    lines = [vars(r) for r in caplog.records if r.name == "channels.wecom.channel" and r.levelno == logging.INFO]
    first, *polls, event, verified = lines

    ids = {"bot": "default", "msgid": "m-1", "msgtype": "text", "stream_id": bubble.stream_id}
    assert {**ids, "outcome": "processing", "finish": False}.items() <= first.items()
    assert first["ms"] >= 0
    assert {"msgtype": "stream", "outcome": "completed", "finish": True}.items() <= polls[-1].items()
    assert {"msgtype": "event", "outcome": "enter_chat", "stream_id": "", "finish": None}.items() <= event.items()
    assert verified["message"] == "callback verified"


def test_a_poll_logs_the_text_it_read_at_debug(values: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """The three lines are those of the original project."""
    with AppServer(**values, LOG_LEVEL="DEBUG") as app_server, app_server.user() as user:
        bubble = user.says(QUESTION)
        sees_finish(user, bubble)
        caplog.clear()

        user.polls(bubble)

        lines = [
            r.getMessage() for r in caplog.records if r.name == "channels.wecom.channel" and r.levelno == logging.DEBUG
        ]
        document = documented(app_server.container.streams, bubble.stream_id)
    assert document
    size, last = len(answer_to(QUESTION)), len(document["messages"]) - 1
    assert lines == [
        f"[调试] 读取未读消息 - stream_id: {bubble.stream_id}",
        f"[调试] 消息索引: {last}, 内容长度: {size}",
        "[调试] 剩余未读消息数: 0",
    ]


def frame(stream_id: str, content: str, *, finish: bool = True) -> dict[str, Any]:
    return {"msgtype": "stream", "stream": {"id": stream_id, "finish": finish, "content": content}}
