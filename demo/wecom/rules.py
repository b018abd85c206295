"""WeCom's documented rules of replies: a pure function of a callback and its reply returns the rules that are broken.

    violations({"msgtype": "text", …}, {"msgtype": "stream", …})                 the reply to a message
    violations({"msgtype": "stream", …}, reply, shown=ShownFrame("s1", "first words"))  the reply to a poll
    violations({"msgtype": "event", …}, None, seconds=0.2)                       an empty reply

The rules of envelopes and of messages through `response_url` are `envelope_violations` and `message_violations`. The
rules of template cards are in `card_rules.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from demo.wecom.card_rules import card_violations
from demo.wecom.picture_rules import picture_violations
from demo.wecom.violation import RuleViolation

__all__ = [
    "FRAME_BYTES",
    "RuleViolation",
    "ShownFrame",
    "envelope_violations",
    "markdown_violations",
    "message_violations",
    "stream_violations",
    "violations",
]

#: WeCom's limit for the text of one frame and of one message, in bytes of UTF-8.
FRAME_BYTES = 20_480
FEEDBACK_BYTES = 256
#: Seconds after which WeCom drops the reply to a callback, and seconds for which a `response_url` is valid.
REPLY_SECONDS = 5.0
MESSAGE_SECONDS = 3600.0
#: Stream ids that work everywhere; WeCom documents neither length nor alphabet.
_STREAM_ID = re.compile(r"[A-Za-z0-9_.@-]{1,128}")
#: Closing marks of code and thinking that a frame may end with, and that the next frame may remove again.
_CLOSED = re.compile(r"(?:\s|`|~|</think>)+\Z")

EVENT_REPLIES = {
    "enter_chat": ("text", "template_card"),
    "template_card_event": ("update_template_card",),
    "feedback_event": (),
}
MESSAGE_REPLIES = ("stream", "template_card", "stream_with_template_card")
POLL_REPLIES = ("stream", "stream_with_template_card")


@dataclass(frozen=True)
class ShownFrame:
    """What the bubble shows before a reply. The default is a message that has no bubble yet."""

    stream_id: str = ""
    #: The content, "" for a placeholder.
    content: str = ""
    finish: bool = False
    #: The `feedback.id` of the first reply.
    feedback_id: str = ""
    #: The card of an earlier reply.
    card: Mapping[str, Any] | None = None


def violations(
    callback: Mapping[str, Any],
    reply: Mapping[str, Any] | None,
    *,
    shown: ShownFrame | None = None,
    seconds: float = 0.0,
) -> list[RuleViolation]:
    """Return the rules that a decrypted reply breaks. `reply` is None for an empty one, `seconds` its delay."""
    return list(_violations(callback, reply, shown or ShownFrame(), seconds))


def _violations(
    callback: Mapping[str, Any], reply: Mapping[str, Any] | None, shown: ShownFrame, seconds: float
) -> Iterator[RuleViolation]:
    if seconds > REPLY_SECONDS:
        # Documented for events and for applications; assumed for messages and polls.
        yield RuleViolation("in time", f"the reply came after {seconds:.1f} s; WeCom waits 5 s")
    if not reply:
        return
    kind = str(reply.get("msgtype") or reply.get("response_type") or "")
    allowed = _allowed(callback)
    if kind not in allowed:
        yield RuleViolation("kind of reply", _not_allowed(callback, kind, allowed))
        return
    if kind == "text":
        yield from _text_violations(reply)
    if "stream" in kind:
        yield from stream_violations(reply.get("stream"), shown)
    if "template_card" in kind:
        yield from _card_violations(callback, reply, shown)


def _allowed(callback: Mapping[str, Any]) -> tuple[str, ...]:
    if callback.get("msgtype") == "event":
        return EVENT_REPLIES.get(_text(_member(callback, "event"), "eventtype"), ())
    return POLL_REPLIES if callback.get("msgtype") == "stream" else MESSAGE_REPLIES


def _not_allowed(callback: Mapping[str, Any], kind: str, allowed: Iterable[str]) -> str:
    event = _text(_member(callback, "event"), "eventtype")
    to = event or ("a poll" if callback.get("msgtype") == "stream" else "a message")
    kinds = ", ".join(allowed)
    return f"{kind or 'a reply without msgtype'} cannot answer {to}; allowed: {kinds + ', ' if kinds else ''}empty"


def _text_violations(reply: Mapping[str, Any]) -> Iterator[RuleViolation]:
    if not _text(_member(reply, "text"), "content").strip():
        yield RuleViolation("welcome text", "text.content is missing or empty")


def stream_violations(stream: Any, shown: ShownFrame) -> Iterator[RuleViolation]:
    """Yield the rules that the stream object of a frame breaks."""
    if not isinstance(stream, Mapping):
        yield RuleViolation("stream", "the reply has no stream object")
        return
    yield from _id_violations(stream.get("id"), shown)
    yield from _shape_violations(stream)
    yield from _content_violations(stream, shown)
    yield from _picture_violations(stream)
    yield from _feedback_violations(stream.get("feedback"), shown)


def _id_violations(stream_id: Any, shown: ShownFrame) -> Iterator[RuleViolation]:
    if not isinstance(stream_id, str) or not stream_id:
        yield RuleViolation("stream id", "the stream has no id")
    elif shown.stream_id and stream_id != shown.stream_id:
        yield RuleViolation("stream id", "the frame carries the id of another stream")
    elif not _STREAM_ID.fullmatch(stream_id):
        text = "the stream's id is no 1 to 128 letters, digits and _.@-"
        yield RuleViolation("stream id", text, documented=False)


def _shape_violations(stream: Mapping[str, Any]) -> Iterator[RuleViolation]:
    for name, kind in (("finish", bool), ("content", str)):
        if name in stream and not isinstance(stream[name], kind):
            yield RuleViolation("stream", f"{name} is no {'boolean' if kind is bool else 'text'}")
        elif name not in stream:
            yield RuleViolation("stream", f"a frame needs finish and content: it has no {name}", documented=False)


def _content_violations(stream: Mapping[str, Any], shown: ShownFrame) -> Iterator[RuleViolation]:
    content, finish = _text(stream, "content"), stream.get("finish") is True
    size = len(content.encode("utf-8", "replace"))
    if size > FRAME_BYTES:
        yield RuleViolation("content bytes", f"a frame of more than {FRAME_BYTES} bytes: {size}")
    if shown.finish and (not finish or content != shown.content):
        yield RuleViolation("after finish", "the frame changed after finish")
    elif len(_CLOSED.sub("", content)) < len(_CLOSED.sub("", shown.content)):
        before = len(shown.content.encode("utf-8", "replace"))
        yield RuleViolation("shrinking text", f"the text shrank from {before} to {size} bytes", documented=False)
    if content.count("<think>") > content.count("</think>"):
        yield RuleViolation("thinking", "the frame leaves <think> open", documented=False)


def _picture_violations(stream: Mapping[str, Any]) -> Iterator[RuleViolation]:
    if "msg_item" in stream:
        yield from picture_violations(stream["msg_item"], finish=stream.get("finish") is True)


def _feedback_violations(feedback: Any, shown: ShownFrame) -> Iterator[RuleViolation]:
    if feedback is None:
        return
    yield from _id_of_feedback(feedback)
    feedback_id = _text(feedback, "id") if isinstance(feedback, Mapping) else ""
    # The id of the first reply may be repeated: it has no further effect.
    if shown.stream_id and feedback_id and feedback_id != shown.feedback_id:
        yield RuleViolation("feedback.id", "feedback.id has an effect only in the first reply of a stream")


def _id_of_feedback(feedback: Any) -> Iterator[RuleViolation]:
    feedback_id = _text(feedback, "id") if isinstance(feedback, Mapping) else ""
    if not feedback_id:
        yield RuleViolation("feedback.id", "feedback has no id")
    elif len(feedback_id.encode("utf-8", "replace")) > FEEDBACK_BYTES:
        yield RuleViolation("feedback.id", f"feedback.id has more than {FEEDBACK_BYTES} bytes")


def _card_violations(
    callback: Mapping[str, Any], reply: Mapping[str, Any], shown: ShownFrame
) -> Iterator[RuleViolation]:
    card = reply.get("template_card")
    if card is None and reply.get("msgtype") == "stream_with_template_card":
        return
    # A poll after the end repeats what the last one showed, the card included.
    if shown.card is not None and not (shown.finish and card == shown.card):
        yield RuleViolation("card", "a message gets one card at most")
    yield from card_violations(card)
    members = card if isinstance(card, Mapping) else {}
    if "feedback" in members:
        yield from _id_of_feedback(members["feedback"])
    if reply.get("response_type") == "update_template_card":
        yield from _update_violations(callback, reply, members)


def _update_violations(
    callback: Mapping[str, Any], reply: Mapping[str, Any], card: Mapping[str, Any]
) -> Iterator[RuleViolation]:
    asked = _text(_member(_member(callback, "event"), "template_card_event"), "task_id")
    if card.get("task_id") != asked:
        yield RuleViolation("card update", "task_id is not that of the event")
    userids = reply.get("userids", [])
    if not isinstance(userids, list) or not all(isinstance(userid, str) and userid for userid in userids):
        yield RuleViolation("card update", "userids is no list of userids")


def envelope_violations(envelope: Mapping[str, Any], nonce: str) -> list[RuleViolation]:
    """Return the rules that the envelope of a reply breaks. Its signature is checked by `wire.py`."""
    found = [
        RuleViolation("envelope", f"the reply's envelope has no {name}")
        for name in ("encrypt", "msgsignature", "timestamp", "nonce")
        if name not in envelope
    ]
    if "nonce" in envelope and envelope["nonce"] != nonce:
        found.append(RuleViolation("envelope nonce", "the reply does not carry the nonce of the request"))
    if "timestamp" in envelope and type(envelope["timestamp"]) is not int:
        found.append(RuleViolation("envelope timestamp", "the reply's timestamp is not a number", documented=False))
    if "msgsignature" in envelope and not re.fullmatch(r"[0-9a-f]{40}", str(envelope["msgsignature"])):
        found.append(RuleViolation("envelope signature", "msgsignature is no lower-case SHA-1"))
    return found


def message_violations(
    message: Any, *, code: str, media: str, used: bool = False, group: bool = False, age: float = 0.0
) -> list[RuleViolation]:
    """Return the rules that a POST to a `response_url` breaks.

    `media` is its Content-Type, `used` whether the address was used before, `age` the seconds since it was issued.
    """
    rules = {
        "the address was used before": used,
        "the address is older than an hour": age > MESSAGE_SECONDS,
        "the address has no response_code": not code,
        "Content-Type is not application/json": media.partition(";")[0].strip() != "application/json",
        "the body is not a JSON object": not isinstance(message, Mapping),
    }
    broken = [RuleViolation("response_url", rule) for rule, is_broken in rules.items() if is_broken]
    return [*broken, *_body_violations(message if isinstance(message, Mapping) else {}, group=group)]


def _body_violations(message: Mapping[str, Any], *, group: bool) -> Iterator[RuleViolation]:
    if message.get("msgtype") == "template_card":
        if group:
            yield RuleViolation("response_url", "a template_card is allowed in a single chat only")
        yield from card_violations(message.get("template_card"))
        return
    if message.get("msgtype") != "markdown":
        yield RuleViolation("response_url", "msgtype is not markdown")
    yield from markdown_violations(message, "response_url")


def markdown_violations(message: Mapping[str, Any], rule: str) -> Iterator[RuleViolation]:
    """Yield the rules that the Markdown of a message breaks, under the name `rule`."""
    markdown = _member(message, "markdown")
    content = _text(markdown, "content")
    if not content.strip():
        yield RuleViolation(rule, "markdown.content is not a text")
    if len(content.encode("utf-8", "replace")) > FRAME_BYTES:
        yield RuleViolation(rule, f"more than {FRAME_BYTES} bytes")
    if "feedback" in markdown:
        yield from _id_of_feedback(markdown["feedback"])


def _member(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    member = value.get(name)
    return member if isinstance(member, Mapping) else {}


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    return text if isinstance(text, str) else ""
