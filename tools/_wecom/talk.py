"""Sends one message or event to a callback, and prints how its answer grows."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from demo.wecom.simulator import Bubble, BubbleFrame, RuleViolation, WeComUser
from tools._page import Printer

#: Seconds between two polls, as WeCom was seen to poll.
EVERY = 1.0


def message_of(question: str, quote: str = "", event: str = "", raw: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the message of the command line; members of `raw` replace those made from the other options."""
    message: dict[str, Any] = {}
    if event:
        message = {"msgtype": "event", "create_time": int(time.time()), "event": {"eventtype": event}}
    elif question:
        message = {"msgtype": "text", "text": {"content": question}}
    if quote:
        message["quote"] = {"msgtype": "text", "text": {"content": quote}}
    return {**message, **(raw or {})}


class WeComTalk:
    """Prints the answer on `page` and a line per reply on `notes`; or one JSON object per reply, on `page`."""

    def __init__(
        self, user: WeComUser, page: Printer, notes: Printer, *, as_json: bool = False, every: float = EVERY
    ) -> None:
        self._user = user
        self._page = page
        self._notes = notes
        self._as_json = as_json
        self._every = every
        self._began = time.monotonic()
        #: Documented rules of WeCom that replies broke.
        self.broken: list[str] = []

    def send(self, message: Mapping[str, Any], timeout: float) -> bool:
        """Send a message and poll until its answer is finished; return whether it is.

        Raises:
            CallbackFailed, RuleBroken: there is no reply, or WeCom would not accept it.
        """
        self._began = time.monotonic()
        if message.get("msgtype") in ("event", "stream"):
            self._once(message)
            return True
        return self._follow(self._user.shows(message, message.get("msgid")), timeout)

    def _once(self, message: Mapping[str, Any]) -> None:
        """Send what is answered by one reply, and print the reply."""
        reply, broken, seconds = self._user.delivers(message)
        if self._as_json:
            self._dump(ms=round(seconds * 1000), empty=reply is None, reply=reply, broken=self._noted(broken))
            return
        self._notes.line(f"{seconds:9.3f}  {'empty reply' if reply is None else 'reply'}")
        if reply is not None:
            self._page.line(json.dumps(reply, ensure_ascii=False))
        self._complain(broken)

    def _follow(self, bubble: Bubble, timeout: float) -> bool:
        self._show(bubble.last, 0)
        while not bubble.finish:
            if time.monotonic() - self._began > timeout:
                return False
            time.sleep(self._every)
            before = bubble.last.size
            self._show(self._user.polls(bubble), before)
        if not self._as_json:
            self._page.words(bubble.content.rstrip("\n") + "\n")
        return True

    def _show(self, frame: BubbleFrame, before: int) -> None:
        if self._as_json:
            figures = {"bytes": frame.size, "added": frame.size - before, "ms": round(frame.ms), "finish": frame.finish}
            words = {"stream": frame.stream_id, "content": frame.content}
            self._dump(**figures, empty=frame.empty, broken=self._noted(frame.broken), **words)
            return
        state = "finish" if frame.finish else "empty reply" if frame.empty else ""
        grown = f"{frame.size - before:+7d} B {frame.size:6d} B {frame.ms:6.0f} ms"
        self._notes.line(f"{time.monotonic() - self._began:9.3f}  {grown}  {state}".rstrip())
        self._complain(frame.broken)

    def _complain(self, broken: tuple[RuleViolation, ...]) -> None:
        for rule in self._noted(broken):
            self._notes.line(f"           rule broken: {rule}")

    def _noted(self, broken: tuple[RuleViolation, ...]) -> list[str]:
        self.broken += [str(each) for each in broken if each.documented]
        return [str(each) if each.documented else f"{each} (not documented)" for each in broken]

    def _dump(self, **members: Any) -> None:
        at = round(time.monotonic() - self._began, 3)
        self._page.line(json.dumps({"time": at, **members}, ensure_ascii=False))
