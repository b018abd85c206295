"""The findings of the doctor's checks, and the time limit of a check."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from config.errors import LaibaoError
from services.ops.remedies import CLOCK

FindingOutcome = Literal["ok", "off", "warning", "failed"]
#: Seconds one check may take.
BOUND = 10.0
#: Seconds two clocks may differ without a warning.
CLOCK_SECONDS = 30.0
#: Remedies for the words of `services/http/certificates.py`.
TLS = (
    ("REQUESTS_CA_BUNDLE", "name the file of the certificate's authority in REQUESTS_CA_BUNDLE, in the environment"),
    ("certificate verify", "have the certificate renewed, or correct the host: it must be valid for this name"),
    ("TLS failed", "see that this port speaks TLS, or begin the address with http://"),
)
MARKS = {"ok": "ok", "off": "off", "warning": "warning", "failed": "FAILED"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: the result of a check and, unless it is ok, the remedy.

    `off` is a part of the product that the settings leave out.
    """

    check: str
    outcome: FindingOutcome
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        mend = f" -> {self.remedy}" if self.remedy else ""
        return f"{MARKS[self.outcome]:<8} {self.check:<20} {self.text}{mend}"


def judge_clock(check: str, whose: str, skew: float, window: float) -> Finding:
    """Judge a clock that is `skew` seconds ahead of this machine's. Beyond `window` seconds callbacks are refused."""
    off = abs(skew)
    if off <= CLOCK_SECONDS:
        return Finding(check, "ok", f"this machine's clock agrees with {whose}'s within {max(1, round(off))} s")
    text = f"this machine's clock is {off:.0f} s {'behind' if skew > 0 else 'ahead of'} {whose}'s"
    remedy = f"{CLOCK}: callbacks that are more than {window:g} s off are refused (WECHAT_TIMESTAMP_WINDOW)"
    return Finding(check, "failed" if off > window else "warning", text, remedy)


Look = Callable[[], Iterable[Finding]]


def findings(name: str, look: Look, *, seconds: float = BOUND) -> list[Finding]:
    """Return the findings of a check. An exception or a timeout becomes a finding too."""
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
        # One by one, to keep the findings before an exception.
        for finding in look():
            found.append(finding)
    except LaibaoError as exc:
        found.append(Finding(name, "failed", str(exc)))
    except Exception as exc:
        found.append(Finding(name, "failed", f"unexpected: {type(exc).__name__}: {exc}"))
