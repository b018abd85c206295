"""The session behind a realtime socket: each row of its protocol, and what its originals did wrong."""

from __future__ import annotations

from typing import Any

import pytest

from services.realtime.effects import AskQuestion, Cancel
from services.realtime.frames import NOTE_CHARACTERS
from services.realtime.session import MOST
from services.realtime.transcript import MOST_CHARACTERS, MOST_TEXTS
from tests.support.sockets.realtime_desk import NOW, Desk, stages


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_client_is_greeted_with_its_session_and_listened_to(desk: Desk) -> None:
    """R02, R03: an ack with the session's name, then the stage listening."""
    frames = desk.does(desk.session.open())

    assert frames == [
        {"type": "ack", "message": "connected", "session_id": "s1"},
        {"type": "status", "stage": "listening", "note": "等待ASR文本输入", "session_id": "s1"},
    ]


@pytest.mark.parametrize("is_final", [{}, {"is_final": False}])
def test_an_interim_text_is_acknowledged_and_no_more(desk: Desk, is_final: dict[str, bool]) -> None:
    """R04: it may be a question, nobody is asked before it is final."""
    frames = desk.sends({"type": "asr_chunk", "text": "年假有几天？", **is_final})

    assert frames == [{"type": "ack", "received_type": "asr_chunk", "is_final": False, "session_id": "s1"}]


def test_a_final_text_without_a_question_is_waited_on(desk: Desk) -> None:
    """R04, R14: the stage says that a whole question is waited for."""
    frames = desk.says("今天天气不错。")

    assert stages(frames) == ["ack", "waiting_for_question"]
    assert frames[0]["is_final"] is True


@pytest.mark.parametrize(
    "message",
    [
        {"type": "asr_chunk", "text": "好。", "is_final": True},
        {"type": "control", "action": "pause"},
        {"type": "control", "action": "dance"},
        {"type": "keepalive"},
        {"type": "resume", "stream_id": "x"},
        {"type": "ping"},
        {"type": "pong"},
        {"type": "auth", "token": "not-a-real-key"},
        {"type": "asr_chunk", "text": 7},
        {"type": "subscribe"},
        {"type": "unsubscribe", "task_id": "x"},
        {"type": ""},
    ],
)
def test_whatever_has_a_type_is_acknowledged_first(desk: Desk, message: dict[str, Any]) -> None:
    """R05: also what is refused afterwards."""
    first, *rest = desk.sends(message)

    assert (first["type"], first["received_type"], first["session_id"]) == ("ack", message["type"], "s1")
    assert "ack" not in stages(rest)


def test_a_keepalive_is_acknowledged_and_no_more(desk: Desk) -> None:
    """R06: nothing follows, and nothing changes."""
    assert desk.sends({"type": "keepalive"}) == [{"type": "ack", "received_type": "keepalive", "session_id": "s1"}]


def test_a_ping_gets_its_own_time_and_ours(desk: Desk) -> None:
    """The client's time comes back as it was."""
    frames = desk.sends({"type": "ping", "timestamp": 1790000105123})

    assert frames[1:] == [{"type": "pong", "timestamp": 1790000105123, "server_time": NOW, "session_id": "s1"}]


def test_while_paused_texts_are_acknowledged_and_not_taken(desk: Desk) -> None:
    """R07: an ack that says paused, then the stage; afterwards nothing of them is known."""
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


def test_only_texts_are_told_that_the_session_is_paused(desk: Desk) -> None:
    """R07: a keepalive's ack is what it always is."""
    desk.controls("pause")

    assert "message" not in desk.sends({"type": "keepalive"})[0]


def test_an_answer_goes_on_while_the_session_is_paused(desk: Desk) -> None:
    """R07, DR1: pausing in mid-answer says so at once; the answer ends as ever, and the session is paused still."""
    desk.asks()

    assert stages(desk.controls("pause")) == ["ack", "paused"]
    assert stages([*desk.grows("五天"), *desk.ends()]) == ["五天", "final", "idle", "paused"]


def test_stop_leaves_the_socket_open(desk: Desk) -> None:
    """R08: by default the stage is idle, all is forgotten, and the session can go on."""
    desk.says("今天天气不错。")
    desk.controls("pause")

    assert stages(desk.controls("stop")) == ["ack", "idle"]
    assert desk.close is None
    assert stages(desk.controls("instant_query")) == ["ack", "NO_FINAL_ASR"]
    desk.asks("年假有几天？")
    assert desk.asked == [("年假有几天？", "s1")]


@pytest.mark.parametrize(("setting", "members"), [("close", {}), ("idle", {"close": True}), ("close", {"close": True})])
def test_stop_closes_where_it_is_told_to(setting: Any, members: dict[str, bool]) -> None:
    """R08: by REALTIME_STOP or by the message itself: the stage closed, then 1000, then nothing."""
    desk = Desk(setting)

    assert stages(desk.controls("stop", **members)) == ["ack", "closed"]
    assert desk.close
    assert desk.close.code == 1000
    assert desk.says("年假有几天？") == []
    assert desk.does(desk.session.unreadable()) == []


@pytest.mark.parametrize("close", [False, True])
def test_stop_ends_what_runs_and_what_waits(desk: Desk, close: bool) -> None:
    """R08, R10: an interrupting that says why, the end of what has begun, and their streams are cancelled."""
    desk.asks()
    desk.grows("五")
    desk.says("病假呢？")

    frames = desk.controls("stop", close=close)

    assert stages(frames) == ["ack", "interrupting", "final CANCELLED", "closed" if close else "idle"]
    assert (frames[1]["note"], frames[2]["stream_index"]) == ("stop", 1)
    assert desk.cancelled == ["stream1", "stream2"]


def test_an_instant_query_asks_the_last_final_text(desk: Desk) -> None:
    """R09: it need not look like a question; context and earlier texts stay out of it."""
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


def test_an_instant_query_works_while_paused(desk: Desk) -> None:
    """R09: pausing stops texts, not the question that was said before."""
    desk.says("今天天气不错。")
    desk.controls("pause")
    desk.controls("instant_query")

    assert stages([*desk.begins(), *desk.ends()]) == ["instant_query", "querying_rag", "final", "idle", "paused"]


def test_an_instant_query_needs_a_final_text(desk: Desk) -> None:
    """R09, R17: an interim one, or white space, is none."""
    desk.sends({"type": "asr_chunk", "text": "年假有几天？"})
    desk.says("  \n")

    (_, error) = desk.controls("instant_query")

    assert error["code"] == "NO_FINAL_ASR"
    assert error["message"] == "没有可用的最终化ASR文本"


def test_an_instant_query_needs_words(desk: Desk) -> None:
    """R17: marks alone are no question; what runs is left alone."""
    desk.asks()
    desk.says("……！")

    assert stages(desk.controls("instant_query")) == ["ack", "EMPTY_QUESTION"]
    assert desk.cancelled == []


def test_an_instant_query_takes_the_place_of_what_runs(desk: Desk) -> None:
    """R10: interrupting, the running and the waiting answer are cancelled, then the instant one has its turn."""
    desk.asks("年假有几天？")
    desk.grows("五")
    desk.says("病假呢？")

    frames = desk.controls("instant_query")

    assert stages(frames) == ["ack", "interrupting", "final CANCELLED"]
    assert frames[1]["note"] == "instant_query"
    assert desk.cancelled == ["stream1", "stream2"]
    assert desk.asked[2:] == [("病假呢？", "s1")]
    assert stages(desk.begins()) == ["instant_query", "querying_rag"]


def test_nothing_more_is_shown_of_a_cancelled_answer(desk: Desk) -> None:
    """R10: whatever its thread still has to tell comes too late."""
    late = desk.asks()
    desk.controls("stop")

    session = desk.session
    assert session.begun(late) == []
    assert session.grew(late, [("五", 1)], first=0, cursor=1) == []
    assert session.ended(late, "completed") == session.failed(late, "stream_unknown") == []
    assert session.refused(late, "rate_limited") == []


def test_a_question_given_up_before_it_has_a_stream_is_cancelled_then(desk: Desk) -> None:
    """R10: its stream may come into being after the stop."""
    (_, ask) = desk.session.received({"type": "asr_chunk", "text": "几天？", "is_final": True})
    assert isinstance(ask, AskQuestion)
    assert stages(desk.controls("stop")) == ["ack", "interrupting", "idle"]
    assert desk.cancelled == []

    assert desk.session.asked(ask.answer, "stream9") == [Cancel((ask.answer,))]


def test_another_session_id_begins_anew(desk: Desk) -> None:
    """R11: what runs is cancelled in the old session's name; pause, context and last text are the old one's."""
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


def test_a_session_that_asked_something_is_left_aloud(desk: Desk) -> None:
    """R11: its stage may still be listening; the new one's is said."""
    desk.says("年假有几天？")

    frames = desk.sends({"type": "keepalive", "session_id": "s2"})

    assert stages(frames) == ["ack", "interrupting", "listening"]


def test_the_first_message_may_name_the_session(desk: Desk) -> None:
    """R11: a session that did nothing yet is left without a word, and naming the same one again changes nothing."""
    desk.does(desk.session.open())

    named = desk.says("今天天气不错。", session_id="meeting")
    again = desk.says("昨天下雨。", session_id="meeting")

    assert stages(named) == ["ack", "waiting_for_question"]
    assert {frame["session_id"] for frame in (*named, *again)} == {"meeting"}
    desk.says("几天？")
    assert desk.asked == [("今天天气不错。昨天下雨。几天？", "meeting")]


@pytest.mark.parametrize("nothing", [{}, {"session_id": None}])
def test_a_message_without_a_session_is_the_present_one_s(desk: Desk, nothing: dict[str, None]) -> None:
    """R11: missing or null."""
    (ack,) = desk.sends({"type": "keepalive", **nothing})

    assert ack["session_id"] == "s1"


@pytest.mark.parametrize("bad", ["", "x" * 129, 7, True, ["s2"], "\ud83d"])
def test_a_session_id_has_1_to_128_characters(desk: Desk, bad: object) -> None:
    """R11: any other is refused, and no session is left for it."""
    frames = desk.says("年假有几天？", session_id=bad)

    assert stages(frames) == ["ack", "INVALID_MESSAGE"]
    assert desk.session.session_id == "s1"
    assert desk.asked == []


@pytest.mark.parametrize("stamp", [0, -1, 1790000105123, 2**70])
def test_a_timestamp_returns_in_the_ack(desk: Desk, stamp: int) -> None:
    """R12: any whole number."""
    assert desk.says("好。", timestamp=stamp)[0]["timestamp"] == stamp


@pytest.mark.parametrize("stamp", ["1790000105123", 1.0, 1.5, True, None, [], {}])
def test_a_timestamp_is_a_whole_number_or_missing(desk: Desk, stamp: object) -> None:
    """R12: anything else is refused, and its text is not taken."""
    frames = desk.says("年假有几天？", timestamp=stamp)

    assert stages(frames) == ["ack", "INVALID_MESSAGE"]
    assert "timestamp" not in frames[0]
    assert desk.asked == []


def test_a_question_is_analyzed_asked_and_answered(desk: Desk) -> None:
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


def test_a_long_question_is_shortened_in_the_note_alone(desk: Desk) -> None:
    """R15: the member question has all of it."""
    question = "长" * 60 + "？"
    desk.says(question)

    analyzing = desk.begins()[0]

    assert analyzing["question"] == question
    assert analyzing["note"] == f"分析问题: {'长' * NOTE_CHARACTERS}..."


def test_an_empty_answer_has_its_final_frame(desk: Desk) -> None:
    """R16, DR12: exactly one, though there is nothing to say."""
    desk.asks()

    assert stages(desk.ends()) == ["final", "idle"]


def test_a_text_that_begins_anew_is_counted_anew(desk: Desk) -> None:
    """R16: a reset, then stream_index 0; whoever is cut off then begins at the beginning."""
    desk.asks()
    desk.grows("四", "天")

    frames = desk.grows("五天", cursor=2, reset=True)

    assert frames[0] == {"type": "reset", "stream_id": "stream1", "cursor": 0, "session_id": "s1"}
    assert [(f["stream_index"], f["cursor"]) for f in frames[1:]] == [(0, 3)]


def test_an_answer_of_the_mock_is_marked(desk: Desk) -> None:
    """What the built-in mock said says so; what the provider said does not."""
    desk.asks()
    by_mock = desk.ends(mock=True)
    desk.asks()

    assert by_mock[0]["mock"] is True
    assert "mock" not in desk.ends()[0]


def test_the_last_frame_says_what_the_answer_cost_and_rests_on(desk: Desk) -> None:
    """As far as the provider told it; where it told nothing, neither is there."""
    desk.asks()
    told = desk.ends(usage={"total_tokens": 7}, sources=({"title": "手册"},))
    desk.asks()

    assert (told[0]["usage"], told[0]["sources"]) == ({"total_tokens": 7}, [{"title": "手册"}])
    assert not {"usage", "sources"} & desk.ends(usage={}).pop(0).keys()


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        ({"type": "dance"}, "UNSUPPORTED_TYPE", "不支持的消息类型: dance"),
        ({"type": "subscribe"}, "INVALID_MESSAGE", "消息格式不对：task_id"),
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
def test_what_is_wrong_with_a_message_has_a_code_and_a_sentence(
    desk: Desk, message: dict[str, Any], code: str, words: str
) -> None:
    """R17: after its ack, and nothing of it is done."""
    (_, error) = desk.sends(message)

    assert error == {"type": "error", "code": code, "message": words, "session_id": "s1"}


def test_a_client_s_long_words_are_not_sent_back_whole(desk: Desk) -> None:
    """R17: 64 characters of an unknown type are enough to know it by."""
    ack, error = desk.sends({"type": "x" * 5000})

    assert len(ack["received_type"]) == 64
    assert len(error["message"]) < 100


def test_no_json_has_a_code(desk: Desk) -> None:
    """R17: and no ack, since nobody knows what it was."""
    frames = desk.does(desk.session.unreadable())

    assert frames == [{"type": "error", "code": "INVALID_JSON", "message": "无效的JSON格式", "session_id": "s1"}]


def test_a_text_has_at_most_10000_characters(desk: Desk) -> None:
    """R17: one more is refused, and nothing of it is kept."""
    assert stages(desk.says("很" * 10_000)) == ["ack", "waiting_for_question"]

    (_, error) = desk.says("长" * 10_001)

    assert (error["code"], "10000" in error["message"]) == ("MESSAGE_TOO_LONG", True)


@pytest.mark.parametrize(
    "message",
    [None, 7, "年假有几天？", [], [{"type": "keepalive"}], {}, {"type": None}, {"type": 7}, {"text": "年假？"}],
)
def test_what_is_no_message_gets_an_error_alone(desk: Desk, message: object) -> None:
    """DR9: INVALID_MESSAGE in our own words, and no ack."""
    (error,) = desk.sends(message)

    assert error["code"] == "INVALID_MESSAGE"
    assert error["message"] in ("消息格式不对：object", "消息格式不对：type")


@pytest.mark.parametrize(
    "wrong", [{"text": None}, {"text": 7}, {"is_final": "yes"}, {"is_final": 1}, {"is_final": None}]
)
def test_members_of_another_type_are_refused(desk: Desk, wrong: dict[str, object]) -> None:
    """DR9: a text is a string, is_final a boolean; nothing else counts as either."""
    frames = desk.sends({"type": "asr_chunk", "text": "年假有几天？", "is_final": True, **wrong})

    assert stages(frames) == ["ack", "INVALID_MESSAGE"]
    assert desk.asked == []


def test_a_blank_final_text_is_acknowledged_and_no_more(desk: Desk) -> None:
    """It was received, there is nothing in it, and the last text stays what it was."""
    desk.says("今天天气不错。")

    assert stages(desk.says(" \t")) == ["ack"]
    desk.controls("instant_query")
    assert desk.asked == [("今天天气不错。", "s1")]


def test_a_provider_s_failure_ends_in_idle(desk: Desk) -> None:
    """DR4, DR11: the error in words and a code, the one final frame, and the stage is idle again."""
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


def test_an_answer_s_own_sentence_is_what_its_error_says(desk: Desk) -> None:
    """A replica of another language wrote it."""
    desk.asks()

    assert desk.ends("error", code="provider_busy", sentence="Busy.")[0]["message"] == "RAG查询失败: Busy."


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("stream_unknown", "STREAM_UNKNOWN"),
        ("service_unavailable", "SERVICE_UNAVAILABLE"),
        ("server_error", "SERVER_ERROR"),
    ],
)
def test_what_is_not_the_provider_s_fault_is_not_told_as_its(desk: Desk, code: str, told: str) -> None:
    """DR4: the same end, under its own code."""
    desk.asks()

    frames = desk.does(desk.session.failed(desk.line.pop(), code))

    assert stages(frames) == [told, f"final {code.upper()}", "idle"]
    assert frames[0]["message"] == desk.texts.error(code)
    assert "detail" not in frames[0]


def test_an_answer_that_somebody_else_cancelled_ends(desk: Desk) -> None:
    """Another socket of the same person may stop it."""
    desk.asks()

    assert stages(desk.ends("cancelled")) == ["final CANCELLED", "idle"]


def test_a_question_spoken_during_an_answer_is_the_next(desk: Desk) -> None:
    """DR5: it is asked at once, and shown when its turn comes, after the idle of the one before."""
    desk.asks("年假有几天？")
    spoken = desk.says("病假呢？")
    assert desk.asked == [("年假有几天？", "s1"), ("病假呢？", "s1")]

    rest = [*desk.grows("五天"), *desk.ends(), *desk.begins(), *desk.grows("十天"), *desk.ends()]

    assert stages(spoken) == ["ack", "queued"]
    assert spoken[1] == {"type": "queued", "question": "病假呢？", "stream_id": "stream2", "session_id": "s1"}
    first, second = ["五天", "final", "idle"], ["analyzing", "querying_rag", "十天", "final", "idle"]
    assert stages(rest) == [*first, *second]
    assert rest[3]["question"] == "病假呢？"


def test_what_is_said_during_an_answer_is_context_of_the_next_question(desk: Desk) -> None:
    """DR5: an answer's end wipes nothing."""
    desk.asks("年假有几天？")
    assert stages(desk.says("我是上海的。")) == ["ack", "waiting_for_question"]
    desk.ends()

    desk.says("病假呢？")

    assert desk.asked[1] == ("我是上海的。病假呢？", "s1")


@pytest.mark.parametrize("status", ["completed", "error", "cancelled"])
def test_the_last_text_survives_its_answer(desk: Desk, status: Any) -> None:
    """DR5: an instant query right afterwards asks it again, whatever became of it."""
    desk.asks("年假有几天？")
    desk.ends(status, code="provider_error" if status == "error" else "")

    desk.controls("instant_query")

    assert desk.asked == [("年假有几天？", "s1")] * 2


def test_context_goes_with_one_question(desk: Desk) -> None:
    """DR6: the next one has what was said since; frames show the question alone."""
    desk.says("我发烧了。")
    desk.says("医生说是流感。能打疫苗吗？")
    analyzing = desk.begins()[0]
    desk.says("多久能好？")

    assert analyzing["question"] == "能打疫苗吗？"
    assert desk.asked == [("我发烧了。医生说是流感。能打疫苗吗？", "s1"), ("多久能好？", "s1")]


def test_context_is_put_together_as_its_language_is_written(desk: Desk) -> None:
    """DR6: Chinese without a space between, all others with one."""
    for text in ("I am in Shanghai.", "It rains.", "我们用", "Python", "和 Redis。"):
        desk.says(text)
    desk.says("how do I install it?")

    assert desk.asked[0][0] == "I am in Shanghai. It rains.我们用Python和 Redis。how do I install it?"


def test_context_is_bounded_by_texts(desk: Desk) -> None:
    """DR6: the oldest go."""
    for number in range(MOST_TEXTS + 5):
        desk.says(f"第{number}句。")
    desk.says("几天？")

    assert desk.asked[0][0] == "".join(f"第{number}句。" for number in range(5, MOST_TEXTS + 5)) + "几天？"


def test_context_is_bounded_by_characters(desk: Desk) -> None:
    """DR6: the oldest go; of one that is too long by itself, its beginning."""
    desk.says("甲" * 3000 + "乙" * (MOST_CHARACTERS - 1))
    desk.says("几天？")
    assert desk.asked[0][0] == "甲" + "乙" * (MOST_CHARACTERS - 1) + "几天？"

    desk.says("乙" * (MOST_CHARACTERS - 10))
    desk.says("丙" * 11)
    desk.says("几天？")

    assert desk.asked[1][0] == "丙" * 11 + "几天？"


def test_context_of_a_refused_question_is_kept(desk: Desk) -> None:
    """Nobody was asked: what was said belongs to the next question."""
    desk.says("我发烧了。")
    desk.refusals = ["rate_limited"]
    desk.says("能打疫苗吗？")
    desk.says("多久能好？")

    assert desk.asked == [("我发烧了。多久能好？", "s1")]


@pytest.mark.parametrize(
    ("code", "told"), [("rate_limited", "RATE_LIMITED"), ("store_unavailable", "SERVICE_UNAVAILABLE")]
)
def test_a_question_that_is_refused_ends_in_idle(desk: Desk, code: str, told: str) -> None:
    """R17, DR4: an error with a sentence, and the session is ready for the next."""
    desk.refusals = [code]

    frames = desk.says("年假有几天？")

    assert stages(frames) == ["ack", told, "idle"]
    assert frames[1]["message"] == desk.texts.error(code)


def test_a_question_that_is_refused_during_an_answer_leaves_that_alone(desk: Desk) -> None:
    """The session is not idle: an answer is on its way."""
    desk.asks()
    desk.refusals = ["rate_limited"]

    assert stages(desk.says("病假呢？")) == ["ack", "RATE_LIMITED"]
    assert stages(desk.ends()) == ["final", "idle"]


def test_so_many_questions_may_wait(desk: Desk) -> None:
    """R17: one is answered and three wait; one more is refused, without being asked."""
    for number in range(MOST):
        assert stages(desk.says(f"{number}？")) == ["ack", *(["queued"] if number else [])]

    assert stages(desk.says("再来？")) == ["ack", "TOO_MANY_QUESTIONS"]
    assert stages(desk.sends({"type": "resume", "stream_id": "x"})) == ["ack", "TOO_MANY_QUESTIONS"]
    assert len(desk.asked) == MOST


def test_a_stream_is_resumed_where_the_client_was(desk: Desk) -> None:
    """After a break its frames go on with their number and their place, and end as ever."""
    desk.sends({"type": "resume", "stream_id": "abc", "cursor": 7})
    assert [(answer.stream_id, answer.cursor) for answer in desk.line] == [("abc", 7)]

    frames = [*desk.begins(), *desk.grows("天", first=5, cursor=7), *desk.ends()]

    assert stages(frames) == ["querying_rag", "天", "final", "idle"]
    assert [(f["stream_index"], f["cursor"]) for f in frames if f["type"] == "answer"] == [(5, 8), (6, 8)]
    assert {f["stream_id"] for f in frames[:3]} == {"abc"}


def test_resuming_what_is_on_its_way_adds_nothing(desk: Desk) -> None:
    """A stream is shown on a socket once at a time."""
    answer = desk.asks()

    assert stages(desk.sends({"type": "resume", "stream_id": answer.stream_id})) == ["ack"]
    assert desk.line == [answer]


def test_an_orderly_leave_cancels_what_is_unfinished(desk: Desk) -> None:
    """DR2: the running answer and the waiting ones."""
    desk.asks()
    desk.says("病假呢？")

    desk.does(desk.session.closed(orderly=True))

    assert desk.cancelled == ["stream1", "stream2"]


def test_any_other_end_leaves_the_answers_to_a_resume(desk: Desk) -> None:
    """The client may come back; the session itself says nothing more."""
    answer = desk.asks()

    assert desk.session.closed(orderly=False) == []
    assert desk.session.grew(answer, [("五", 1)], first=0, cursor=1) == []
    assert desk.says("年假有几天？") == []


def test_questions_are_not_shown_where_things_are_logged(desk: Desk) -> None:
    """DR15: what is said is in no repr."""
    effects = desk.session.received({"type": "asr_chunk", "text": "我得了流感怎么办？", "is_final": True})

    assert "流感" not in repr([effect for effect in effects if not isinstance(effect, dict)])
