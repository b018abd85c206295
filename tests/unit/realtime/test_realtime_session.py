"""The session of a realtime socket: each row of its protocol, and the defects of the original services."""

from __future__ import annotations

from typing import Any

import pytest

from services.realtime.answers import MOST
from services.realtime.effects import AskQuestion, Cancel
from services.realtime.frames import NOTE_CHARACTERS
from services.realtime.session import MOST_CHARACTERS, MOST_TEXTS
from tests.support.sockets.realtime_desk import NOW, Desk, html_of, stages
from utils.markdown.blocks import render_markdown


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_connection_begins_with_ack_and_listening(desk: Desk) -> None:
    """R02, R03: an ack with the session's id, then the stage listening."""
    frames = desk.does(desk.session.open())

    assert frames == [
        {"type": "ack", "message": "connected", "session_id": "s1"},
        {"type": "status", "stage": "listening", "note": "等待ASR文本输入", "session_id": "s1"},
    ]


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize(
    ("message", "members"),
    [
        ({"type": "asr_chunk", "text": "年假有几天？"}, {"is_final": False}),
        ({"type": "asr_chunk", "text": "年假有几天？", "is_final": False}, {"is_final": False}),
        ({"type": "keepalive"}, {}),
        ({"type": "keepalive", "session_id": None}, {}),
    ],
)
def test_some_messages_are_only_acknowledged(
    desk: Desk, message: dict[str, Any], members: dict[str, Any], paused: bool
) -> None:
    """R04, R06, R07, R11: an interim text, even if it is a question, and a keepalive, for the current session.

    Only the ack of a text says paused.
    """
    if paused:
        desk.controls("pause")
        members = {**members, "message": "paused"} if "text" in message else members

    acks = [frame for frame in desk.sends(message) if frame.get("stage") != "paused"]

    assert acks == [{"type": "ack", "received_type": message["type"], **members, "session_id": "s1"}]


def test_a_pong_has_the_clients_and_the_servers_time(desk: Desk) -> None:
    """The client's timestamp is returned unchanged, with the server's time."""
    frames = desk.sends({"type": "ping", "timestamp": 1790000105123})

    assert frames[1:] == [{"type": "pong", "timestamp": 1790000105123, "server_time": NOW, "session_id": "s1"}]


def test_texts_during_a_pause_are_acknowledged_and_dropped(desk: Desk) -> None:
    """R07: the ack says paused, then the stage; the texts are neither asked nor kept."""
    paused = desk.controls("pause")
    dropped = desk.says("年假有几天？", timestamp=3)
    resumed = desk.controls("resume")

    assert stages(paused) == ["ack", "paused"]
    names = {"is_final": True, "timestamp": 3, "session_id": "s1"}
    assert dropped[0] == {"type": "ack", "received_type": "asr_chunk", "message": "paused", **names}
    assert stages(dropped) == ["ack", "paused"]
    assert stages(resumed) == ["ack", "listening"]
    assert desk.asked == []
    assert stages(desk.controls("instant_query")) == ["ack", "NO_FINAL_ASR"]


def test_an_answer_continues_during_a_pause(desk: Desk) -> None:
    """R07, DR1: a pause during an answer shows at once; the answer ends as usual, and the session stays paused."""
    desk.asks()

    assert stages(desk.controls("pause")) == ["ack", "paused"]
    assert stages([*desk.grows("五天"), *desk.ends()]) == ["五天", "final", "idle", "paused"]
    desk.controls("instant_query")
    begun = [*desk.begins(), *desk.ends()]
    assert stages(begun) == ["instant_query", "querying_rag", "final", "idle", "paused"], "R09: the last text before it"


def test_stop_leaves_the_socket_open(desk: Desk) -> None:
    """R08: by default the stage is idle, pause and texts are cleared, and the session continues."""
    desk.says("今天天气不错。")
    desk.controls("pause")

    assert stages(desk.controls("stop")) == ["ack", "idle"]
    assert desk.close is None
    assert stages(desk.controls("instant_query")) == ["ack", "NO_FINAL_ASR"]
    desk.asks("年假有几天？")
    assert desk.asked == [("年假有几天？", "s1")]


@pytest.mark.parametrize(("setting", "members"), [("close", {}), ("idle", {"close": True}), ("close", {"close": True})])
def test_stop_closes_the_socket_if_set_or_requested(setting: Any, members: dict[str, bool]) -> None:
    """R08: by REALTIME_STOP or by the message itself: the stage closed, then close code 1000, then no frames."""
    desk = Desk(setting)

    assert stages(desk.controls("stop", **members)) == ["ack", "closed"]
    assert desk.close
    assert desk.close.code == 1000
    assert desk.says("年假有几天？") == []
    assert desk.does(desk.session.unreadable()) == []


@pytest.mark.parametrize(
    ("action", "members", "last"),
    [("stop", {}, ["idle"]), ("stop", {"close": True}, ["closed"]), ("instant_query", {}, [])],
)
def test_stop_and_an_instant_query_cancel_the_running_and_the_queued_answer(
    desk: Desk, action: str, members: dict[str, bool], last: list[str]
) -> None:
    """R08, R10: interrupting with the reason, the final frame of the begun answer; both streams are cancelled."""
    desk.asks("年假有几天？")
    desk.grows("五")
    desk.says("病假呢？")

    frames = desk.controls(action, **members)

    assert stages(frames) == ["ack", "interrupting", "final CANCELLED", *last]
    assert (frames[1]["note"], frames[2]["stream_index"]) == (action, 1)
    assert desk.cancelled == ["stream1", "stream2"]
    assert desk.asked[2:] == [("病假呢？", "s1")] * (action == "instant_query")


def test_an_instant_query_asks_the_last_final_text(desk: Desk) -> None:
    """R09: the text need not look like a question; context and earlier texts are not sent with it."""
    desk.says("昨天下雨。")
    desk.says("今天天气不错。")

    asked = desk.controls("instant_query")
    begun = desk.begins()

    assert stages(asked) == ["ack"]
    assert desk.asked == [("今天天气不错。", "s1")]
    names = {"mode": "instant", "stream_id": "stream1", "session_id": "s1"}
    assert begun == [
        {"type": "status", "stage": "instant_query", "note": "执行即时查询", "question": "今天天气不错。", **names},
        {"type": "status", "stage": "querying_rag", "note": "正在查询RAG服务", **names},
    ]


def test_an_instant_query_needs_words(desk: Desk) -> None:
    """R17: punctuation alone is no question; the running answer continues."""
    desk.asks()
    desk.says("……！")

    assert stages(desk.controls("instant_query")) == ["ack", "EMPTY_QUESTION"]
    assert desk.cancelled == []


def test_a_cancelled_answer_has_no_more_frames(desk: Desk) -> None:
    """R10: later events of its answer return no frames."""
    late = desk.asks()
    desk.controls("stop")

    session = desk.session
    assert session.answers.begun(late) == []
    assert session.answers.grew(late, [("五", 1)], first=0, cursor=1) == []
    assert session.answers.ended(late, "completed") == session.answers.failed(late, "stream_unknown") == []
    assert session.answers.refused(late, "rate_limited") == []


def test_a_question_stopped_before_it_has_a_stream_is_cancelled_later(desk: Desk) -> None:
    """R10: the stream that is opened after the stop is cancelled at once."""
    (_, ask) = desk.session.received({"type": "asr_chunk", "text": "几天？", "is_final": True})
    assert isinstance(ask, AskQuestion)
    assert stages(desk.controls("stop")) == ["ack", "interrupting", "idle"]
    assert desk.cancelled == []

    assert desk.session.asked(ask.answer, "stream9") == [Cancel((ask.answer,))]


def test_another_session_id_starts_a_new_session(desk: Desk) -> None:
    """R11: the running answer is cancelled under the old session id; pause, context and last text are cleared."""
    desk.asks()
    desk.says("今天天气不错。")
    desk.controls("pause")

    frames = desk.sends({"type": "keepalive", "session_id": "s2"})

    assert stages(frames) == ["ack", "interrupting", "final CANCELLED", "listening"]
    assert [frame["session_id"] for frame in frames] == ["s2", "s1", "s1", "s2"]
    assert frames[1]["note"] == "session_switch"
    assert desk.cancelled == ["stream1"]
    assert stages(desk.controls("instant_query")) == ["ack", "NO_FINAL_ASR"]
    assert stages(desk.says("病假有几天？")) == ["ack"]
    assert desk.asked[1:] == [("病假有几天？", "s2")]
    # The last question has not begun to be answered: the stage is sent for the new session all the same.
    assert stages(desk.sends({"type": "keepalive", "session_id": "s3"})) == ["ack", "interrupting", "listening"]


def test_the_first_message_may_name_the_session(desk: Desk) -> None:
    """R11: an unused session changes its id without frames, and the same id again changes no_session."""
    desk.does(desk.session.open())

    named = desk.says("今天天气不错。", session_id="meeting")
    again = desk.says("昨天下雨。", session_id="meeting")

    assert stages(named) == ["ack", "waiting_for_question"]
    assert {frame["session_id"] for frame in (*named, *again)} == {"meeting"}
    desk.says("几天？")
    assert desk.asked == [("今天天气不错。昨天下雨。几天？", "meeting")]


@pytest.mark.parametrize("session_id", ["", "x" * 129, 7, True, ["s2"], "\ud83d"])
def test_a_session_id_has_1_to_128_characters(desk: Desk, session_id: object) -> None:
    """R11: any other is rejected, and the session stays the same."""
    frames = desk.says("年假有几天？", session_id=session_id)

    assert stages(frames) == ["ack", "INVALID_MESSAGE"]
    assert desk.session.session_id == "s1"
    assert desk.asked == []


@pytest.mark.parametrize("stamp", ["1790000105123", 1.0, 1.5, True, None, [], {}])
def test_a_timestamp_is_a_whole_number_or_missing(desk: Desk, stamp: object) -> None:
    """R12: any whole number returns in the ack; any other value is rejected, and the text is not asked."""
    for whole in (0, -1, 1790000105123, 2**70):
        assert desk.says("好。", timestamp=whole)[0]["timestamp"] == whole
    frames = desk.says("年假有几天？", timestamp=stamp)

    assert stages(frames) == ["ack", "INVALID_MESSAGE"]
    assert "timestamp" not in frames[0]
    assert desk.asked == []


def test_a_question_has_its_frames_from_ack_to_idle(desk: Desk) -> None:
    """R13, R15, R16: the frames of one question, from its text to idle."""
    frames = [*desk.says("年假有几天？"), *desk.begins(), *desk.grows("**五", "天**"), *desk.ends()]

    names: dict[str, Any] = {"stream_id": "stream1", "session_id": "s1"}
    noted = {"note": "分析问题: 年假有几天？", "question": "年假有几天？", "confidence": 0.973}
    answer = {"type": "answer", **names}
    assert frames == [
        {"type": "ack", "received_type": "asr_chunk", "is_final": True, "session_id": "s1"},
        {"type": "status", "stage": "analyzing", **noted, **names},
        {"type": "status", "stage": "querying_rag", "note": "正在查询RAG服务", **names},
        {**answer, "stream_index": 0, "content": "**五", "final": False, "cursor": 1},
        {**answer, "stream_index": 1, "content": "天**", "final": False, "cursor": 2},
        {**answer, "stream_index": 2, "content": "", "final": True, "cursor": 2},
        {"type": "status", "stage": "idle", "note": "等待新的问题", "session_id": "s1"},
    ]


def test_only_the_note_shortens_a_long_question(desk: Desk) -> None:
    """R15: the member `question` has the whole text."""
    question = "长" * 60 + "？"
    desk.says(question)

    analyzing = desk.begins()[0]

    assert analyzing["question"] == question
    assert analyzing["note"] == f"分析问题: {'长' * NOTE_CHARACTERS}..."


def test_a_reset_restarts_the_stream_index(desk: Desk) -> None:
    """R16: a reset frame with cursor 0, from which a lost client resumes, then stream_index 0."""
    desk.asks()
    desk.grows("四", "天")

    frames = desk.grows("五天", cursor=2, reset=True)

    assert frames[0] == {"type": "reset", "stream_id": "stream1", "cursor": 0, "session_id": "s1"}
    assert [(f["stream_index"], f["cursor"]) for f in frames[1:]] == [(0, 3)]


def test_the_final_frame_has_usage_and_sources(desk: Desk) -> None:
    """As the provider reported them, and `mock` if the built-in mock answered; without values all are missing."""
    desk.asks()
    final = desk.ends(usage={"total_tokens": 7}, sources=({"title": "手册"},), mock=True)[0]
    desk.asks()

    assert (final["usage"], final["sources"], final["mock"]) == ({"total_tokens": 7}, [{"title": "手册"}], True)
    assert not {"usage", "sources", "mock"} & desk.ends(usage={}).pop(0).keys()


@pytest.mark.parametrize(
    ("message", "code", "sentence"),
    [
        ({"type": "dance"}, "UNSUPPORTED_TYPE", "不支持的消息类型: dance"),
        ({"type": "x" * 5000}, "UNSUPPORTED_TYPE", "不支持的消息类型: " + "x" * 64),
        ({"type": "subscribe"}, "INVALID_MESSAGE", "消息格式不对：task_id"),
        ({"type": "asr_chunk"}, "INVALID_MESSAGE", "消息格式不对：text"),
        ({"type": "asr_chunk", "text": 7}, "INVALID_MESSAGE", "消息格式不对：text"),
        ({"type": "asr_chunk", "text": "几天？", "is_final": "yes"}, "INVALID_MESSAGE", "消息格式不对：is_final"),
        ({"type": "asr_chunk", "text": "几天？", "is_final": 1}, "INVALID_MESSAGE", "消息格式不对：is_final"),
        ({"type": "asr_chunk", "text": "几天？", "is_final": None}, "INVALID_MESSAGE", "消息格式不对：is_final"),
        ({"type": "control", "action": "dance"}, "UNKNOWN_ACTION", "未知的控制动作: dance"),
        ({"type": "control"}, "UNKNOWN_ACTION", "未知的控制动作: "),
        ({"type": "control", "action": ["stop"]}, "UNKNOWN_ACTION", "未知的控制动作: "),
        ({"type": "control", "action": "stop", "close": 1}, "INVALID_MESSAGE", "消息格式不对：close"),
        ({"type": "control", "action": "instant_query"}, "NO_FINAL_ASR", "没有可用的最终化ASR文本"),
        ({"type": "resume"}, "INVALID_MESSAGE", "消息格式不对：stream_id"),
        ({"type": "resume", "stream_id": "我的工资"}, "INVALID_MESSAGE", "消息格式不对：stream_id"),
        ({"type": "resume", "stream_id": "a}b"}, "INVALID_MESSAGE", "消息格式不对：stream_id"),
        ({"type": "resume", "stream_id": "a", "cursor": -1}, "INVALID_MESSAGE", "消息格式不对：cursor"),
        ({"type": "resume", "stream_id": "a", "cursor": True}, "INVALID_MESSAGE", "消息格式不对：cursor"),
        ({"type": "resume", "stream_id": "a", "cursor": "1"}, "INVALID_MESSAGE", "消息格式不对：cursor"),
        ({"type": "ping", "timestamp": []}, "INVALID_MESSAGE", "消息格式不对：timestamp"),
        ({"type": "ping", "timestamp": float("inf")}, "INVALID_MESSAGE", "消息格式不对：timestamp"),
    ],
)
def test_an_invalid_message_gets_a_code_and_a_sentence(
    desk: Desk, message: dict[str, Any], code: str, sentence: str
) -> None:
    """R17, DR9: the error follows the ack, and the message has no other effect."""
    (_, error) = desk.sends(message)

    assert error == {"type": "error", "code": code, "message": sentence, "session_id": "s1"}
    assert (desk.asked, desk.line) == ([], [])


def test_invalid_json_has_a_code(desk: Desk) -> None:
    """R17: there is no ack, because the message has no known type."""
    frames = desk.does(desk.session.unreadable())

    assert frames == [{"type": "error", "code": "INVALID_JSON", "message": "无效的JSON格式", "session_id": "s1"}]


def test_a_text_has_at_most_10000_characters(desk: Desk) -> None:
    """R17: a longer text is rejected as a whole."""
    assert stages(desk.says("很" * 10_000)) == ["ack", "waiting_for_question"]

    (_, error) = desk.says("长" * 10_001)

    assert (error["code"], "10000" in error["message"]) == ("MESSAGE_TOO_LONG", True)


@pytest.mark.parametrize(
    "message",
    [None, 7, "年假有几天？", [], [{"type": "keepalive"}], {}, {"type": None}, {"type": 7}, {"text": "年假？"}],
)
def test_a_message_without_a_type_gets_an_error_without_an_ack(desk: Desk, message: object) -> None:
    """DR9: INVALID_MESSAGE in our own sentence, and no ack."""
    (error,) = desk.sends(message)

    assert error["code"] == "INVALID_MESSAGE"
    assert error["message"] in ("消息格式不对：object", "消息格式不对：type")


def test_a_blank_final_text_is_only_acknowledged(desk: Desk) -> None:
    """The last final text stays the one before it; neither it nor an interim text can be asked (R09)."""
    desk.sends({"type": "asr_chunk", "text": "年假有几天？"})
    assert stages(desk.says("  \n")) == ["ack"]
    assert stages(desk.controls("instant_query")) == ["ack", "NO_FINAL_ASR"]
    (ack, _) = waiting = desk.says("今天天气不错。")
    assert (stages(waiting), ack["is_final"]) == (["ack", "waiting_for_question"], True)

    assert stages(desk.says(" \t")) == ["ack"]
    desk.controls("instant_query")
    assert desk.asked == [("今天天气不错。", "s1")]


def test_a_provider_error_ends_in_idle(desk: Desk) -> None:
    """DR4, DR11: an error with sentence and code, one final frame, and the stage idle."""
    desk.asks()
    desk.grows("五")

    error, final, idle = desk.ends("error", code="provider_timeout")

    sentence = "RAG查询失败: 等待回答超时了，请稍后重试，或把问题问得更具体一些。"
    names = {"stream_id": "stream1", "session_id": "s1"}
    assert error == {
        "type": "error", "code": "RAG_ERROR", "message": sentence, "detail": "PROVIDER_TIMEOUT", **names,
    }  # fmt: skip
    assert (final["final"], final["content"], final["error"]) == (True, "", "PROVIDER_TIMEOUT")
    assert final["stream_index"] == 1
    assert idle["stage"] == "idle"
    desk.asks("病假呢？")
    # The sentence may be in the language of the replica that wrote it.
    assert desk.ends("error", code="provider_busy", sentence="Busy.")[0]["message"] == "RAG查询失败: Busy."


@pytest.mark.parametrize(
    ("code", "error_code"),
    [
        ("stream_unknown", "STREAM_UNKNOWN"),
        ("service_unavailable", "SERVICE_UNAVAILABLE"),
        ("server_error", "SERVER_ERROR"),
    ],
)
def test_other_failures_are_not_provider_errors(desk: Desk, code: str, error_code: str) -> None:
    """DR4: the same frames with their own code, and without `detail`."""
    desk.asks()

    frames = desk.does(desk.session.answers.failed(desk.line.pop(), code))

    assert stages(frames) == [error_code, f"final {code.upper()}", "idle"]
    assert frames[0]["message"] == desk.texts.error(code)
    assert "detail" not in frames[0]


def test_a_question_spoken_during_an_answer_is_queued(desk: Desk) -> None:
    """DR5: it is asked at once; its frames follow the idle of the answer before it."""
    desk.asks("年假有几天？")
    spoken = desk.says("病假呢？")
    assert desk.asked == [("年假有几天？", "s1"), ("病假呢？", "s1")]

    rest = [*desk.grows("五天"), *desk.ends(), *desk.begins(), *desk.grows("十天"), *desk.ends()]

    assert stages(spoken) == ["ack", "queued"]
    assert spoken[1] == {"type": "queued", "question": "病假呢？", "stream_id": "stream2", "session_id": "s1"}
    first, second = ["五天", "final", "idle"], ["analyzing", "querying_rag", "十天", "final", "idle"]
    assert stages(rest) == [*first, *second]
    assert rest[3]["question"] == "病假呢？"


def test_texts_during_an_answer_are_context_of_the_next_question(desk: Desk) -> None:
    """DR5: the end of an answer does not clear the context."""
    desk.asks("年假有几天？")
    assert stages(desk.says("我是上海的。")) == ["ack", "waiting_for_question"]
    desk.ends()

    desk.says("病假呢？")

    assert desk.asked[1] == ("我是上海的。病假呢？", "s1")


@pytest.mark.parametrize(
    ("status", "final"),
    [("completed", "final"), ("error", "final PROVIDER_ERROR"), ("cancelled", "final CANCELLED")],
)
def test_the_last_text_survives_its_answer(desk: Desk, status: Any, final: str) -> None:
    """DR5: an instant query after the answer asks the same text again, also after one that was cancelled elsewhere."""
    desk.asks("年假有几天？")
    ended = desk.ends(status, code="provider_error" if status == "error" else "")
    assert stages(ended)[-2:] == [final, "idle"]

    desk.controls("instant_query")

    assert desk.asked == [("年假有几天？", "s1")] * 2


def test_a_question_is_asked_without_the_sentences_before_it(desk: Desk) -> None:
    """DR6: neither those of earlier texts nor that of its own text; what follows it may be about it."""
    desk.says("今天的会先到这里。")
    desk.says("那我们下周再开会吧IT 服务台的电话是多少？")
    desk.says("大家辛苦了。年假怎么申请？我在上海。")

    assert desk.asked == [("IT 服务台的电话是多少？", "s1"), ("年假怎么申请？我在上海。", "s1")]


def test_context_is_sent_with_one_question_that_points_to_it(desk: Desk) -> None:
    """DR6: the next question has the texts since then; frames show the question alone."""
    desk.says("我发烧了。")
    desk.says("医生说是流感。它会传染吗？")
    analyzing = desk.begins()[0]
    desk.says("多久能好？")

    assert analyzing["question"] == "它会传染吗？"
    assert desk.asked == [("我发烧了。医生说是流感。它会传染吗？", "s1"), ("多久能好？", "s1")]


def test_context_is_joined_by_the_rules_of_its_language(desk: Desk) -> None:
    """DR6: Chinese texts are joined without a space, all others with one."""
    for text in ("I am in Shanghai.", "It rains.", "我们用", "Python", "和 Redis。"):
        desk.says(text)
    desk.says("how do I install it?")

    assert desk.asked[0][0] == "I am in Shanghai. It rains.我们用Python和 Redis。how do I install it?"


def test_context_is_bounded_by_texts_and_characters(desk: Desk) -> None:
    """DR6: the oldest texts are dropped; of a text that is too long by itself the last 2,000 characters are kept."""
    for number in range(MOST_TEXTS + 5):
        desk.says(f"第{number}句。")
    desk.says("几天？")
    assert desk.asked.pop()[0] == "".join(f"第{number}句。" for number in range(5, MOST_TEXTS + 5)) + "几天？"

    desk.says("甲" * 3000 + "乙" * (MOST_CHARACTERS - 1))
    desk.says("几天？")
    assert desk.asked[0][0] == "甲" + "乙" * (MOST_CHARACTERS - 1) + "几天？"

    desk.says("乙" * (MOST_CHARACTERS - 10))
    desk.says("丙" * 11)
    desk.says("几天？")

    assert desk.asked[1][0] == "丙" * 11 + "几天？"


def test_context_of_a_rejected_question_is_kept(desk: Desk) -> None:
    """The rejected question is dropped; the texts before it are context of the next question."""
    desk.says("我发烧了。")
    desk.refusals = ["rate_limited"]
    desk.says("能打疫苗吗？")
    desk.says("多久能好？")

    assert desk.asked == [("我发烧了。多久能好？", "s1")]


@pytest.mark.parametrize(
    ("code", "error_code"), [("rate_limited", "RATE_LIMITED"), ("store_unavailable", "SERVICE_UNAVAILABLE")]
)
def test_a_rejected_question_ends_in_idle(desk: Desk, code: str, error_code: str) -> None:
    """R17, DR4: an error with a sentence, then idle: the session takes the next question."""
    desk.refusals = [code]

    frames = desk.says("年假有几天？")

    assert stages(frames) == ["ack", error_code, "idle"]
    assert frames[1]["message"] == desk.texts.error(code)
    desk.asks()
    desk.refusals = [code]
    assert stages(desk.says("病假呢？")) == ["ack", error_code], "an answer is running"


def test_the_number_of_queued_questions_is_limited(desk: Desk) -> None:
    """R17: one is answered and three are queued; another one is rejected without being asked."""
    for number in range(MOST):
        assert stages(desk.says(f"{number}？")) == ["ack", *(["queued"] if number else [])]

    assert stages(desk.says("再来？")) == ["ack", "TOO_MANY_QUESTIONS"]
    assert stages(desk.sends({"type": "resume", "stream_id": "x"})) == ["ack", "TOO_MANY_QUESTIONS"]
    assert len(desk.asked) == MOST


def test_a_stream_is_resumed_at_the_clients_cursor(desk: Desk) -> None:
    """After a lost connection the frames continue with stream_index and cursor, and end as usual."""
    desk.sends({"type": "resume", "stream_id": "abc", "cursor": 7})
    assert [(answer.stream_id, answer.cursor) for answer in desk.line] == [("abc", 7)]

    frames = [*desk.begins(), *desk.grows("天", first=5, cursor=7), *desk.ends()]

    assert stages(frames) == ["querying_rag", "天", "final", "idle"]
    assert [(f["stream_index"], f["cursor"]) for f in frames if f["type"] == "answer"] == [(5, 8), (6, 8)]
    assert {f["stream_id"] for f in frames[:3]} == {"abc"}


def test_resuming_a_stream_that_is_shown_does_nothing(desk: Desk) -> None:
    """A socket shows a stream once at a time."""
    answer = desk.asks()

    assert stages(desk.sends({"type": "resume", "stream_id": answer.stream_id})) == ["ack"]
    assert desk.line == [answer]


def test_an_orderly_close_cancels_unfinished_answers(desk: Desk) -> None:
    """DR2: the running answer and the queued ones."""
    desk.asks()
    desk.says("病假呢？")

    desk.does(desk.session.closed(orderly=True))

    assert desk.cancelled == ["stream1", "stream2"]


def test_a_lost_connection_keeps_its_answers_for_a_resume(desk: Desk) -> None:
    """The client may reconnect and resume; the session returns no more frames."""
    answer = desk.asks()

    assert desk.session.closed(orderly=False) == []
    assert desk.session.answers.grew(answer, [("五", 1)], first=0, cursor=1) == []
    assert desk.says("年假有几天？") == []


def test_no_repr_contains_a_question(desk: Desk) -> None:
    """DR15: no repr of an effect contains a question."""
    effects = desk.session.received({"type": "asr_chunk", "text": "我得了流感怎么办？", "is_final": True})

    assert "流感" not in repr([effect for effect in effects if not isinstance(effect, dict)])


#: An answer of several blocks, in pieces that end within words and marks.
PIECES = ("# 年", "假\n\n1. 登**", "录**\n2. 提交", "\n\n<b>不是标记</b>")


@pytest.mark.parametrize("stage", ["analyzing", "instant_query"])
def test_an_answer_is_sent_as_html_on_request(desk: Desk, stage: str) -> None:
    """The blocks of its frames are those of the whole text, the text comes as without; the asking message decides."""
    if stage == "analyzing":
        desk.says("年假有几天？", render="html")
    else:
        desk.says("年假申请")
        desk.controls(stage, render="html")
    frames = [*desk.begins(), *desk.grows(*PIECES), *desk.ends()]

    assert html_of(frames) == render_markdown("".join(PIECES))
    assert stages(frames) == [stage, "querying_rag", *PIECES, "final", "idle"]


def test_only_the_answer_that_is_requested_as_html_has_blocks(desk: Desk) -> None:
    """Another answer of the same session has exactly the frames of a client that does not know HTML."""
    desk.says("年假有几天？", render="html")
    desk.says("病假呢？")
    desk.begins()
    desk.ends()
    frames = [*desk.begins(), *desk.grows("**十**天"), *desk.ends()]

    assert "html" not in {name for frame in frames for name in frame}


def test_a_stopped_answer_ends_with_all_its_blocks(desk: Desk) -> None:
    """The final frame of a cancelled answer has the blocks that were not rendered yet."""
    desk.says("年假有几天？", render="html")
    frames = [*desk.begins(), *desk.grows("- 甲" + " 乙" * 4_000), *desk.grows("- 丙\n")]
    frames += desk.controls("stop")

    assert "final CANCELLED" in stages(frames)
    assert html_of(frames) == render_markdown("- 甲" + " 乙" * 4_000 + "- 丙\n")


def test_the_blocks_of_a_replaced_text_begin_at_zero(desk: Desk) -> None:
    """R16: the blocks before a reset belong to the old text."""
    desk.says("年假有几天？", render="html")
    frames = [*desk.begins(), *desk.grows("# 四\n\n天\n\n")]
    frames += [*desk.grows("五\n\n天", cursor=1, reset=True), *desk.ends()]

    assert html_of(frames) == render_markdown("五\n\n天")


def test_blocks_with_pictures_of_other_hosts_are_sent_again_at_the_end(desk: Desk) -> None:
    """The gateway fetches them while the answer runs; those of a replaced text are not sent."""
    desk.says("年假有几天？", render="html")
    desk.begins()
    desk.grows("一\n\n" * 6 + "![旧](https://a.example/0.png)\n\n旧\n\n")
    frames = desk.grows("四\n\n![图](https://a.example/1.png)\n\n五\n\n六", cursor=2, reset=True)
    shown = [block for frame in frames for block in frame.get("html", ())]

    (last,) = (frame for frame in desk.ends() if frame.get("final"))

    (picture,) = (block for block in shown if '<img src="/files/stream1.png" alt="图">' in block["html"])
    assert picture in last["html"]
    assert [block["block"] for block in last["html"]] == sorted(block["block"] for block in last["html"])
    assert "旧" not in str(last["html"])


@pytest.mark.parametrize(("cursor", "begins"), [(0, ["querying_rag"]), (7, ["querying_rag", "reset"])])
def test_an_answer_resumed_as_html_begins_again(desk: Desk, cursor: int, begins: list[str]) -> None:
    """A block may begin before the cursor, so the whole text is sent; a client at its beginning discards nothing."""
    desk.sends({"type": "resume", "stream_id": "stream1", "cursor": cursor, "render": "html"})

    assert desk.line[0].cursor == 0
    assert stages(desk.begins()) == begins


@pytest.mark.parametrize(
    "message",
    [
        {"type": "asr_chunk", "text": "年假有几天？", "is_final": True},
        {"type": "control", "action": "instant_query"},
        {"type": "resume", "stream_id": "stream1"},
    ],
)
@pytest.mark.parametrize("render", ["markdown", True, ["html"]])
def test_another_format_is_refused(desk: Desk, message: dict[str, Any], render: object) -> None:
    """Only HTML can be requested."""
    assert stages(desk.sends({**message, "render": render})) == ["ack", "INVALID_MESSAGE"]
    assert (desk.asked, desk.line) == ([], [])
