"""The conformance checks of `python -m tools.wecom --check`: does a deployed callback do what WeCom needs?

Two real questions are asked, one in a single chat and one in a group. All other callbacks name streams, cards and
ratings that do not exist, so a bot that accepts a forged one asks nothing.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from demo.wecom.simulator import Bubble, CallbackFailed, RuleBroken, RuleViolation, ShownFrame, WeComUser
from demo.wecom.wire import Callback, WireReply
from tools._doctor.callback import LIMIT, EchoReply, judged
from tools._doctor.checks import Finding
from tools._wecom.hints import failure_hint, rule_hint

#: Seconds by which the stale callback is late.
STALE = 86_400.0
#: Seconds for which a stream that does not exist may get empty replies.
UNKNOWN_SECONDS = 60.0
#: A type that no documentation has, as WeCom may send one day.
UNKNOWN_TYPE, UNKNOWN_EVENT = "tools_wecom_check", "tools_wecom_check_event"
GROUP = "wrTOOLSCHECK"
SILENT = "reply with a sentence: the person sees nothing"


@dataclass(frozen=True, slots=True)
class CheckWords:
    """What is asked, and the name that a group's question mentions."""

    question: str
    bot_name: str


class MakeUser(Protocol):
    def __call__(self, group: str = "", ahead: float = 0.0) -> WeComUser: ...


class Conformance:
    """Runs the checks in order. Every one ends in one finding."""

    def __init__(self, make: MakeUser, words: CheckWords, *, timeout: float, every: float) -> None:
        """`make` returns a user; `timeout` is in seconds for an answer, `every` between two polls."""
        self._make = make
        self._user = make()
        self._words = words
        self._timeout = timeout
        self._every = every
        self._unknown_timeout = min(timeout, UNKNOWN_SECONDS)

    def findings(self) -> Iterator[Finding]:
        """Yield each finding as soon as it is made."""
        checks: dict[str, Callable[[str], Finding]] = {
            "URL verification": self._verification,
            "forged callbacks": self._forged,
            "stale timestamp": self._stale,
        }
        for name, look in checks.items():
            yield _found(name, look)
        yield from self._question()
        checks = {
            "unknown stream": self._unknown_stream,
            "unknown type": self._unknown_type,
            "enter_chat": self._enter_chat,
            "feedback_event": self._feedback,
            "template_card_event": self._card,
            "unknown event": self._unknown_event,
            "group mention": self._group,
        }
        for name, look in checks.items():
            yield _found(name, look)

    def _verification(self, name: str) -> Finding:
        plain, reply = self._echo()
        if reply.status == 200 and reply.seconds > LIMIT:
            # The first request may be slow because of DNS, TLS and a cold worker.
            plain, reply = self._echo()
        text, remedy = judged(plain, EchoReply(reply.status, reply.body, reply.seconds), LIMIT)
        if remedy:
            return Finding(name, "failed", text, remedy)
        return Finding(name, "ok", f"echoed in {reply.seconds * 1000:.0f} ms")

    def _echo(self) -> tuple[str, WireReply]:
        plain, callback = self._user.wire.seal_echo()
        return plain, self._user.wire.exchange("GET", callback)

    def _forged(self, name: str) -> Finding:
        """A wrong signature, a body that is no JSON, and one without a ciphertext get one and the same 4xx."""
        sealed = self._user.seals(_poll(secrets.token_hex(16)))
        unsigned = replace(sealed, params={**sealed.params, "msg_signature": "0" * 40})
        other = replace(sealed, body=json.dumps({"encrypt": "AAAA"}).encode())
        forgeries = {"a wrong signature": unsigned, "another ciphertext": other, "no JSON": replace(sealed, body=b"{")}
        replies = {what: self._post(callback) for what, callback in forgeries.items()}
        for what, reply in replies.items():
            if not 400 <= reply.status < 500:
                return Finding(name, "failed", f"{what}: HTTP {reply.status}", "refuse it with a 4xx, and ask nothing")
        if len({(reply.status, reply.body) for reply in replies.values()}) > 1:
            text = f"the refusals differ: {', '.join(f'{what} {reply.status}' for what, reply in replies.items())}"
            return Finding(name, "failed", text, "give every failed check one and the same status and body")
        return Finding(name, "ok", f"refused with {replies['no JSON'].status}, all alike")

    def _stale(self, name: str) -> Finding:
        late = self._make(ahead=-STALE)
        status = self._post(late.seals(_poll(secrets.token_hex(16)))).status
        if 400 <= status < 500:
            return Finding(name, "ok", f"a callback of yesterday is refused with {status}")
        remedy = "refuse timestamps that are minutes off (WECHAT_TIMESTAMP_WINDOW)"
        return Finding(
            name, "failed", f"a callback of yesterday gets HTTP {status}: a recorded one works again", remedy
        )

    def _post(self, callback: Callback) -> WireReply:
        return self._user.wire.exchange("POST", callback)

    def _question(self) -> Iterator[Finding]:
        """Ask once, deliver the same message again, and repeat the last poll."""
        bubble: Bubble | None = None
        again: Bubble | None = None
        try:
            bubble = self._user.shows(_text(self._words.question))
            again = self._user.shows(_text(self._words.question), bubble.msgid)
            yield self._answered("question", self._user, bubble)
        except (CallbackFailed, RuleBroken) as exc:
            yield _failed("question", exc)
        looks = {"repeated poll": self._repeated, "redelivery": self._redelivered}
        for name, look in looks.items():
            if bubble and again and bubble.finish:
                yield _found(name, partial(look, bubble=bubble, again=again))
            else:
                yield Finding(name, "failed", "not checked: the question got no whole answer", "mend the question")

    def _answered(self, name: str, user: WeComUser, bubble: Bubble) -> Finding:
        """Poll until the answer is finished, and judge every reply."""
        end = time.monotonic() + self._timeout
        while not bubble.finish and time.monotonic() < end:
            time.sleep(self._every)
            user.polls(bubble)
        if not bubble.finish:
            text = f"not finished after {self._timeout:g} s; WeCom polls for six minutes"
            return Finding(name, "failed", text, "finish every answer in time (WECHAT_ANSWER_SECONDS)")
        slowest = max(frame.ms for frame in bubble.frames)
        seen = f"{len(bubble.frames)} replies, the slowest {slowest:.0f} ms; {bubble.last.size} bytes"
        if not bubble.content.strip():
            return Finding(name, "failed", f"{seen}: the answer is empty", "put the whole answer into the last frame")
        return _judged(name, (each for frame in bubble.frames for each in frame.broken), seen)

    def _repeated(self, name: str, bubble: Bubble, again: Bubble) -> Finding:
        frames = [self._user.polls(bubble) for _ in range(2)]
        if any(frame.empty for frame in frames):
            remedy = "keep finished answers for some minutes, and repeat them"
            return Finding(name, "warning", "an empty reply after finish: the bubble may stay unfinished", remedy)
        return _judged(name, (each for frame in frames for each in frame.broken), "shows the same twice")

    def _redelivered(self, name: str, bubble: Bubble, again: Bubble) -> Finding:
        later = self._user.shows(_text(self._words.question), bubble.msgid)
        if {again.stream_id, later.stream_id} != {bubble.stream_id}:
            text = "the same msgid gets another stream: the question is asked more than once"
            return Finding(name, "failed", text, "find the stream of a msgid again, on every replica")
        if (later.finish, later.content) != (True, bubble.content):
            return Finding(name, "failed", "the same msgid does not show the finished answer", "show the stream's text")
        return _judged(name, (*again.last.broken, *later.last.broken), "the same stream, one answer")

    def _unknown_stream(self, name: str) -> Finding:
        """A poll of a stream that does not exist may get empty replies first: a replica may be restoring it."""
        shown = ShownFrame(secrets.token_hex(16))
        began = time.monotonic()
        while True:
            reply, broken, _ = self._user.delivers(_poll(shown.stream_id), shown)
            if reply or broken or time.monotonic() - began > self._unknown_timeout:
                break
            time.sleep(self._every)
        if not reply or reply.get("stream", {}).get("finish") is not True:
            text = "a stream that does not exist is not finished: WeCom goes on polling"
            return Finding(name, "failed", text, "answer with finish: true, and say that the answer has expired")
        return _judged(name, broken, f"finished after {time.monotonic() - began:.0f} s")

    def _unknown_type(self, name: str) -> Finding:
        reply, broken, _ = self._user.delivers({"msgtype": UNKNOWN_TYPE, UNKNOWN_TYPE: {}})
        if reply is None:
            return Finding(name, "warning", "an empty reply to a type that it does not know", SILENT)
        stream = reply.get("stream", {})
        if reply.get("msgtype") == "stream" and not stream.get("content"):
            return Finding(name, "failed", "an empty frame for a type that it does not know", SILENT)
        return _judged(name, broken, "gets a sentence")

    def _enter_chat(self, name: str) -> Finding:
        reply, broken, seconds = self._user.delivers(_event("enter_chat"))
        if reply is None:
            return Finding(name, "warning", "no welcome", "reply with a text or a card (WECHAT_WELCOME)")
        return _judged(name, broken, f"welcome after {seconds * 1000:.0f} ms")

    def _feedback(self, name: str) -> Finding:
        rating = {"id": f"check-{secrets.token_hex(8)}", "type": 1}
        return self._silent(name, _event("feedback_event", rating))

    def _card(self, name: str) -> Finding:
        task = {"task_id": f"check-{secrets.token_hex(8)}", "card_type": "button_interaction", "event_key": "check"}
        reply, broken, _ = self._user.delivers(_event("template_card_event", task))
        return _judged(name, broken, "empty reply" if reply is None else "the card is updated")

    def _unknown_event(self, name: str) -> Finding:
        return self._silent(name, _event(UNKNOWN_EVENT))

    def _silent(self, name: str, event: Mapping[str, Any]) -> Finding:
        reply, broken, _ = self._user.delivers(event)
        if reply:
            return Finding(name, "failed", "only an empty reply is allowed", rule_hint("kind of reply"))
        return _judged(name, broken, "empty reply, HTTP 200")

    def _group(self, name: str) -> Finding:
        user = self._make(group=GROUP)
        bubble = user.shows(_text(f"@{self._words.bot_name} {self._words.question}"))
        return self._answered(name, user, bubble)


def _text(question: str) -> dict[str, Any]:
    return {"msgtype": "text", "text": {"content": question}}


def _poll(stream_id: str) -> dict[str, Any]:
    return {"msgtype": "stream", "stream": {"id": stream_id}}


def _event(eventtype: str, members: Mapping[str, Any] | None = None) -> dict[str, Any]:
    event = {"eventtype": eventtype, **({eventtype: members} if members else {})}
    return {"msgtype": "event", "create_time": int(time.time()), "event": event}


def _found(name: str, look: Callable[[str], Finding]) -> Finding:
    try:
        return look(name)
    except (CallbackFailed, RuleBroken) as exc:
        return _failed(name, exc)


def _failed(name: str, exc: CallbackFailed | RuleBroken) -> Finding:
    return Finding(name, "failed", str(exc), failure_hint(exc))


def _judged(name: str, broken: Iterable[RuleViolation], seen: str) -> Finding:
    """Return the first documented violation as a failure, the first undocumented one as a warning, else ok."""
    found = sorted(broken, key=lambda violation: not violation.documented)
    if not found:
        return Finding(name, "ok", seen)
    first = found[0]
    return Finding(name, "failed" if first.documented else "warning", f"{seen}; {first}", rule_hint(first.rule))
