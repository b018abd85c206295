"""How to mend what the conformance checks find."""

from __future__ import annotations

from demo.wecom.simulator import CallbackFailed, RuleBroken

_RULES = {
    "in time": "answer at once, and let WeCom poll for the rest",
    "kind of reply": "reply with a kind that the documentation allows for this callback, or with an empty body",
    "stream": "send id, finish and content in every frame",
    "stream id": "use the id of the first frame in every further one, of at most 128 letters and digits",
    "content bytes": "cut the text to 20,480 bytes of UTF-8",
    "after finish": "repeat the last frame for every poll after finish",
    "shrinking text": "let the text only grow: clients may keep the longer one",
    "thinking": "close <think> in every frame",
    "msg_item": "send at most ten JPG or PNG pictures, of 10 MB each, with finish only",
    "feedback.id": "send one id of at most 256 bytes in the first frame",
    "card": "see the documented structure of this card",
    "card update": "repeat the task_id of the event",
    "welcome text": "send a text",
    "envelope timestamp": "send the envelope's timestamp as a number",
}
_STATUSES = {
    404: "correct the address: it ends in /wechat/callback, or /wechat/callback/<bot>",
    405: "correct the address: it ends in /wechat/callback, or /wechat/callback/<bot>",
    502: "start the bot behind the proxy",
    503: "start the bot behind the proxy",
    504: "start the bot behind the proxy",
}


def rule_hint(rule: str) -> str:
    return _RULES[rule]


def failure_hint(exc: CallbackFailed | RuleBroken) -> str:
    if isinstance(exc, RuleBroken):
        return "reply in WeCom's envelope, encrypted with the bot's own key, or with an empty body"
    if "certificate" in str(exc):
        return "renew it: WeCom wants one for this name, of a public authority"
    if not exc.status:
        return "see that the address is reachable from here, and that it answers within 5 s"
    if 300 <= exc.status < 400:
        return "give the address that the redirect leads to"
    if exc.status in _STATUSES:
        return _STATUSES[exc.status]
    if exc.status >= 500:
        return "see the bot's log: an error must not become a status, since WeCom delivers again"
    return "give the keys of this bot (--bot), and compare the clocks"
