"""What the doctor's checks find, and the bound on how long one may look."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from services.errors import LaibaoError

Outcome = Literal["ok", "warning", "failed"]
#: Seconds one check may take, whatever it waits for.
BOUND = 10.0
#: Seconds two clocks may differ without a word.
CLOCK_SECONDS = 30.0
MARKS = {"ok": "ok", "warning": "warning", "failed": "FAILED"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: how a thing is and, where it is not well, how to mend it."""

    check: str
    outcome: Outcome
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        mend = f" -> {self.remedy}" if self.remedy else ""
        return f"{MARKS[self.outcome]:<8} {self.check:<20} {self.text}{mend}"


def judge_clock(check: str, whose: str, skew: float, window: float) -> Finding:
    """Judge by how many seconds another clock is ahead; beyond `window` callbacks are refused."""
    off = abs(skew)
    if off <= CLOCK_SECONDS:
        return Finding(check, "ok", f"this machine's clock agrees with {whose}'s within {max(1, round(off))} s")
    text = f"this machine's clock is {off:.0f} s {'behind' if skew > 0 else 'ahead of'} {whose}'s"
    remedy = (
        "see which one is wrong (date -u), and let it be set over the network (timedatectl set-ntp true): "
        f"callbacks that are more than {window:g} s off are refused (WECHAT_TIMESTAMP_WINDOW)"
    )
    return Finding(check, "failed" if off > window else "warning", text, remedy)


Look = Callable[[], Iterable[Finding]]


def findings(name: str, look: Look, *, seconds: float = BOUND) -> list[Finding]:
    """Return what `look` finds; that it raised, or did not come to an end, is a finding too."""
    found: list[Finding] = []
    thread = threading.Thread(target=_collect, args=(name, look, found), name=f"check-{name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if not thread.is_alive():
        return found
    remedy = "see that names resolve from here, and that no firewall drops the packets"
    return [*found, Finding(name, "failed", f"no answer within {seconds:g} s", remedy)]


def _collect(name: str, look: Look, found: list[Finding]) -> None:
    try:
        # One by one: what was found before an error counts.
        for finding in look():
            found.append(finding)
    except LaibaoError as exc:
        found.append(Finding(name, "failed", str(exc)))
    except Exception as exc:
        found.append(Finding(name, "failed", f"unexpected: {type(exc).__name__}: {exc}"))


def explained(text: str, remedies: Iterable[tuple[str, str]], otherwise: str = "") -> str:
    """Return the remedy whose key is in the text, in any case."""
    return next((remedy for key, remedy in remedies if key.lower() in text.lower()), otherwise)
