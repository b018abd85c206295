"""`feedback_event` as WeCom documents it, and everything else that may come in its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from demo.wecom.feedback import FEEDBACK_ID_BYTES
from services.wecom.message import ANY_MENTION, Message, feedback_id, read_feedback, read_message

STREAM = "0123456789abcdef0123456789abcdef"
ID = feedback_id(STREAM)


def message(details: Any, **changes: Any) -> Message:
    """Return the documented sample with this `feedback_event`."""
    sample = {
        "msgid": "e-0003",
        "create_time": 1700000000,
        "aibotid": "aibEXAMPLE",
        "chatid": "wrEXAMPLE",
        "chattype": "group",
        "from": {"userid": "zhangsan"},
        "msgtype": "event",
        "event": {"eventtype": "feedback_event", "feedback_event": details},
    }
    return read_message(json.dumps({**sample, **changes}), mention=ANY_MENTION, pair=0)


def test_an_id_is_short_and_has_the_stream_only() -> None:
    """It fits WeCom's limit; who may use it is decided by the event's person and chat."""
    assert f"fb-{STREAM}" == ID
    assert len(ID.encode()) <= FEEDBACK_ID_BYTES


@pytest.mark.parametrize(
    ("details", "kind", "content", "reasons"),
    [
        ({"type": 1}, "like", "", ()),
        ({"type": 2, "content": "more, please", "inaccurate_reason_list": [2, 4]}, "dislike", "more, please", (2, 4)),
        ({"type": 2}, "dislike", "", ()),
        ({"type": 2, "content": 5, "inaccurate_reason_list": [2, "x", True, -1, 10**9]}, "dislike", "", (2,)),
        ({"type": 2, "inaccurate_reason_list": {"a": 1}}, "dislike", "", ()),
        ({"type": 3, "content": "no words here"}, "", "", ()),
    ],
)  # fmt: skip
def test_a_documented_event_is_read(details: dict[str, Any], kind: str, content: str, reasons: tuple[int, ...]) -> None:
    """Words and reasons belong to type 2 only; what has another form is left out."""
    event = read_feedback(message({"id": ID, **details}))

    assert (event.stream_id, event.rating.at) == (STREAM, 1700000000)
    assert (event.rating.kind, event.rating.content, event.rating.reasons) == (kind, content, reasons)


@pytest.mark.parametrize(
    "details",
    [
        None,
        [],
        {"id": ID},
        {"id": ID, "type": 4},
        {"id": ID, "type": "1"},
        {"id": ID, "type": True},
        {"id": "fb-1", "type": 1},
        {"id": STREAM, "type": 1},
        {"id": f"{ID}\n", "type": 1},
        {"id": 7, "type": 1},
        {"type": 1},
    ],
)
def test_a_malformed_event_is_refused(details: Any) -> None:
    """An unknown type, and an id that this product did not make; so is one of WeCom's own, which has no person."""
    with pytest.raises(ValueError, match=r"no feedback_event|unknown id or type"):
        read_feedback(message(details))
    with pytest.raises(ValueError, match=r"no feedback_event|unknown id or type"):
        read_feedback(message({"id": ID, "type": 1}, **{"from": {"userid": "sys"}}))


@pytest.mark.parametrize("given", [None, "1700000000", -5, 2**60, True])
def test_an_event_without_a_usable_time_counts_as_now(given: Any) -> None:
    """0 stands for the time at which Redis takes it."""
    assert read_feedback(message({"id": ID, "type": 1}, create_time=given)).rating.at == 0


def test_a_redelivery_has_the_same_event_id() -> None:
    """Also where the event has no msgid; another event has another one."""
    like, other = {"id": ID, "type": 1}, {"id": ID, "type": 2}
    details = [(event, msgid) for event in (like, like, other) for msgid in ("", "m")]
    ids = [read_feedback(message(event, msgid=msgid)).rating.event_id for event, msgid in details]

    assert ids[:2] == ids[2:4]
    assert ids[4] not in ids[:4]
    assert ids[5] == ids[1]


def test_a_rating_shows_no_words() -> None:
    """Its repr may be logged."""
    assert "机密" not in repr(read_feedback(message({"id": ID, "type": 2, "content": "机密"})))
