"""WeCom's rules of replies: a reply that follows them has no violation, and each rule is broken once here."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from demo.wecom.picture_rules import PICTURE_BYTES
from demo.wecom.rules import ShownFrame, envelope_violations, message_violations, violations
from demo.wecom.simulator import ResponseServer
from tests.support.servers.processes import FakeClock
from tests.support.wecom_stub import frame
from tools._wecom.hints import rule_hint

TEXT = {"msgtype": "text", "text": {"content": "q"}}
POLL = {"msgtype": "stream", "stream": {"id": "s1"}}
PNG = b"\x89PNG\r\n\x1a\n...."
Json = dict[str, Any]


def event(name: str, **members: object) -> Json:
    return {"msgtype": "event", "event": {"eventtype": name, name: members}}


def stream(**members: object) -> Json:
    return {"msgtype": "stream", "stream": {"id": "s1", "finish": True, "content": "x", **members}}


def picture(raw: bytes = PNG, **members: object) -> Json:
    image = {"base64": base64.b64encode(raw).decode(), "md5": hashlib.md5(raw).hexdigest(), **members}
    return {"msgtype": "image", "image": image}


def card(kind: str = "button_interaction", **members: object) -> Json:
    required: dict[str, Json] = {
        "text_notice": {"card_action": {"type": 1, "url": "https://example.com/"}},
        "news_notice": {"card_action": {"type": 1}, "card_image": {"url": "https://example.com/x"}},
        "button_interaction": {"button_list": [{"text": "Yes", "style": 1, "key": "yes"}], "task_id": "t-1"},
        "vote_interaction": {
            "checkbox": {"question_key": "q", "option_list": [{"id": "a", "text": "A"}], "mode": 1},
            **{"submit_button": {"text": "Send", "key": "send"}, "task_id": "t-1"},
        },
        "multiple_interaction": {
            "select_list": [{"question_key": "q", "option_list": [{"id": "a", "text": "A"}]}],
            "submit_button": {"text": "Send", "key": "send"},
        },
    }
    return {"card_type": kind, "main_title": {"title": "A title"}, **required.get(kind, {}), **members}


def of_card(**members: object) -> Json:
    return {"msgtype": "template_card", "template_card": card(**members)}  # type: ignore[arg-type]


def update(**members: object) -> Json:
    return {"response_type": "update_template_card", "template_card": card(task_id="t-1"), **members}


def rules_of(callback: Json, reply: Json | None, **shown: object) -> list[str]:
    found = violations(callback, reply, shown=ShownFrame(**shown))  # type: ignore[arg-type]
    assert all(rule_hint(each.rule) for each in found)
    return [each.rule for each in found]


@pytest.mark.parametrize(
    ("callback", "reply"),
    [
        (TEXT, None),
        (TEXT, stream()),
        (TEXT, stream(content="x" * 20_480, feedback={"id": "f" * 256})),
        (TEXT, stream(msg_item=[picture(), picture(b"\xff\xd8\xff....")] * 5)),
        (TEXT, stream(content="<think>a</think>b")),
        (TEXT, of_card()),
        *((TEXT, of_card(kind=kind)) for kind in ("text_notice", "news_notice", "vote_interaction")),
        (TEXT, of_card(kind="multiple_interaction", feedback={"id": "f"})),
        (TEXT, {**stream(), "msgtype": "stream_with_template_card", "template_card": card()}),
        (POLL, {**stream(), "msgtype": "stream_with_template_card"}),
        (POLL, None),
        (event("enter_chat"), {"msgtype": "text", "text": {"content": "hi"}}),
        (event("enter_chat"), of_card()),
        (event("template_card_event", task_id="t-1"), update(userids=["zhangsan"])),
        (event("feedback_event"), None),
        (event("unheard_of"), None),
    ],
)
def test_what_the_documentation_allows_breaks_no_rule(callback: Json, reply: Json | None) -> None:
    """Every documented reply to every documented callback."""
    assert violations(callback, reply) == []


@pytest.mark.parametrize(
    ("callback", "reply", "rule"),
    [
        (TEXT, {"msgtype": "text", "text": {"content": "hi"}}, "kind of reply"),
        (TEXT, update(), "kind of reply"),
        (POLL, of_card(), "kind of reply"),
        (event("enter_chat"), stream(), "kind of reply"),
        (event("template_card_event"), stream(), "kind of reply"),
        (event("feedback_event"), update(), "kind of reply"),
        (event("unheard_of"), {"msgtype": "text", "text": {"content": "hi"}}, "kind of reply"),
        (event("enter_chat"), {"msgtype": "text", "text": {"content": " "}}, "welcome text"),
        (TEXT, {"msgtype": "stream"}, "stream"),
        (TEXT, stream(content=None), "stream"),
        (TEXT, {"msgtype": "stream", "stream": {"id": "s1", "finish": True}}, "stream"),
        (TEXT, stream(id=""), "stream id"),
        (TEXT, stream(id="x" * 129), "stream id"),
        (TEXT, stream(id="a b"), "stream id"),
        (TEXT, stream(content="年" * 6827), "content bytes"),
        (TEXT, stream(content="<think>a"), "thinking"),
        (TEXT, stream(feedback={}), "feedback.id"),
        (TEXT, stream(feedback={"id": "年" * 86}), "feedback.id"),
        (TEXT, stream(msg_item=[picture()], finish=False), "msg_item"),
        (TEXT, stream(msg_item=[picture()] * 11), "msg_item"),
        (TEXT, stream(msg_item=[{"msgtype": "text"}]), "msg_item"),
        (TEXT, stream(msg_item=[picture(b"GIF89a")]), "msg_item"),
        (TEXT, stream(msg_item=[picture(md5="0" * 32)]), "msg_item"),
        (TEXT, stream(msg_item=[picture(base64="***")]), "msg_item"),
        (TEXT, {"msgtype": "template_card", "template_card": []}, "card"),
        (TEXT, of_card(feedback={"id": ""}), "feedback.id"),
        (event("template_card_event", task_id="t-2"), update(), "card update"),
        (event("template_card_event", task_id="t-1"), update(userids="zhangsan"), "card update"),
    ],
)
def test_each_rule_is_named_by_its_violation(callback: Json, reply: Json, rule: str) -> None:
    """One rule is broken, and it has a hint."""
    assert rules_of(callback, reply) == [rule]


def test_a_picture_that_is_too_large_breaks_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit, 10 MiB, counts before Base64."""
    assert PICTURE_BYTES == 10 * 1024 * 1024
    monkeypatch.setattr("demo.wecom.picture_rules.PICTURE_BYTES", 1000)

    assert rules_of(TEXT, stream(msg_item=[picture(PNG.ljust(1000, b"."))])) == []
    assert rules_of(TEXT, stream(msg_item=[picture(PNG.ljust(1001, b"."))])) == ["msg_item"]


@pytest.mark.parametrize(
    "members",
    [
        {"kind": "unheard_of"},
        {"task_id": "x" * 129},
        {"task_id": "a b"},
        {"main_title": {}},
        {"button_list": [{"text": "x", "key": "k"}] * 7},
        {"button_list": [{"text": "x", "key": "k" * 1025}]},
        {"button_list": [{"text": "x", "key": "k", "style": 5}]},
        {"kind": "text_notice", "card_action": {"type": 0}},
        {"kind": "text_notice", "main_title": {}},
        {"kind": "text_notice", "action_menu": {"action_list": [{}]}},
        {"kind": "text_notice", "action_menu": {"action_list": [{}] * 4}, "task_id": "t"},
        {"kind": "text_notice", "horizontal_content_list": [{}] * 7},
        {"kind": "text_notice", "jump_list": [{}] * 4},
        {"kind": "text_notice", "jump_list": [{"type": 3, "question": "x" * 201}]},
        {"kind": "news_notice", "card_image": {"url": "x", "aspect_ratio": 2.26}},
        {"kind": "news_notice", "vertical_content_list": [{}] * 5},
        {"kind": "vote_interaction", "checkbox": {"question_key": "q", "option_list": []}},
        {"kind": "vote_interaction", "checkbox": {"question_key": "q", "option_list": [{"id": "x" * 129}]}},
        {"kind": "vote_interaction", "checkbox": {"question_key": "q", "option_list": [{"id": "x"}], "mode": 2}},
        {"kind": "vote_interaction", "submit_button": None},
        {"kind": "multiple_interaction", "select_list": [{"question_key": "q", "option_list": [{"id": "x"}]}] * 4},
        {"kind": "multiple_interaction", "select_list": [{"question_key": "q", "option_list": [{"id": "x"}] * 11}]},
    ],
)
def test_cards_have_their_documented_members_and_limits(members: Json) -> None:
    """One rule of the card is broken."""
    found = [each for each in violations(TEXT, of_card(**members)) if each.rule == "card"]
    assert len(found) == 1, found


def test_the_rules_of_a_frame_depend_on_what_is_shown() -> None:
    """Id, finish, length, feedback.id and card of earlier frames."""
    assert rules_of(POLL, stream(), stream_id="s1", content="x") == []
    assert rules_of(POLL, stream(id="s2"), stream_id="s1") == ["stream id"]
    assert rules_of(POLL, stream(content="xy"), stream_id="s1", content="x", finish=True) == ["after finish"]
    assert rules_of(POLL, frame("x", finish=False), stream_id="s1", content="x", finish=True) == ["after finish"]
    assert rules_of(POLL, stream(), stream_id="s1", content="xy") == ["shrinking text"]
    assert rules_of(POLL, stream(), stream_id="s1", content="x\n```") == []
    assert rules_of(POLL, stream(feedback={"id": "f"}), stream_id="s1") == ["feedback.id"]
    assert rules_of(POLL, stream(feedback={"id": "f"}), stream_id="s1", feedback_id="f") == []
    both = {**stream(), "msgtype": "stream_with_template_card", "template_card": card()}
    assert rules_of(POLL, both, stream_id="s1", card=True) == ["card"]


def test_a_late_reply_breaks_a_rule_also_when_it_is_empty() -> None:
    """WeCom waits five seconds."""
    assert [each.rule for each in violations(event("enter_chat"), None, seconds=5.1)] == ["in time"]
    assert violations(event("enter_chat"), None, seconds=4.9) == []


def test_undocumented_rules_are_marked() -> None:
    """The bounds of a stream id, a shrinking text and an open <think> come from other services, not from WeCom."""
    found = violations(POLL, stream(id="a b", content="<think>"), shown=ShownFrame("", "a longer text"))

    assert [each.rule for each in found] == ["stream id", "shrinking text", "thinking"]
    assert not any(each.documented for each in found)


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({}, []),
        ({"nonce": "2"}, ["envelope nonce"]),
        ({"timestamp": "1700000000"}, ["envelope timestamp"]),
        ({"msgsignature": "A" * 40}, ["envelope signature"]),
    ],
)
def test_the_envelope_has_its_four_fields(change: Json, rules: list[str]) -> None:
    """Nonce of the request, a number as timestamp, a lower-case signature."""
    envelope = {"encrypt": "x", "msgsignature": "a" * 40, "timestamp": 1700000000, "nonce": "1", **change}

    assert [each.rule for each in envelope_violations(envelope, "1")] == rules
    assert [str(each) for each in envelope_violations({}, "1")] == [
        f"the reply's envelope has no {name}" for name in ("encrypt", "msgsignature", "timestamp", "nonce")
    ]


@pytest.mark.parametrize(
    ("message", "group", "rule"),
    [
        ({"msgtype": "markdown", "markdown": {"content": "x", "feedback": {"id": "f"}}}, True, ""),
        ({"msgtype": "template_card", "template_card": card()}, False, ""),
        ({"msgtype": "template_card", "template_card": card()}, True, "single chat only"),
        ({"msgtype": "template_card", "template_card": card(kind="x")}, False, "card_type is unknown"),
        ({"msgtype": "text", "markdown": {"content": "x"}}, False, "not markdown"),
        ({"msgtype": "markdown", "markdown": {"content": ""}}, False, "not a text"),
        ({"msgtype": "markdown", "markdown": {"content": "x" * 20_481}}, False, "more than 20480 bytes"),
        ({"msgtype": "markdown", "markdown": {"content": "x", "feedback": {"id": "f" * 257}}}, False, "256 bytes"),
    ],
)
def test_messages_through_response_url_have_their_rules(message: Json, group: bool, rule: str) -> None:
    """Markdown, or a card in a single chat."""
    found = message_violations(message, code="c", media="application/json; charset=utf-8", group=group)

    assert [rule in str(each) for each in found] == ([True] if rule else [])


def test_an_address_is_valid_for_an_hour_and_for_its_chat() -> None:
    """The simulator knows when it issued an address, and whether for a group."""
    clock = FakeClock()
    body = {"msgtype": "template_card", "template_card": card()}
    with ResponseServer(clock=clock) as server:
        server.issue("single")
        server.issue("group", group=True)
        first = server.record("single", "application/json", body)
        in_group = server.record("group", "application/json", body)
        clock.advance(3601.0)
        late = server.record("single", "application/json", body)

    assert first.broken == ()
    assert in_group.broken == ("a template_card is allowed in a single chat only",)
    assert late.broken == ("the address was used before", "the address is older than an hour")
