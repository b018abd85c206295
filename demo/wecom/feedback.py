"""The thumbs below a finished bubble: what a person says of an answer, as WeCom tells it to the callback.

rates(user, bubble, "inaccurate", "请更具体一点", [2, 4])
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from demo.wecom.long_connection.user import SimulatedUser
from demo.wecom.simulator import Bubble, RuleBroken

#: WeCom's limit for a `feedback.id`, in bytes of UTF-8.
FEEDBACK_ID_BYTES = 256
Rate = Literal["accurate", "inaccurate", "withdrawn"]
#: WeCom's number of each rating.
RATES: Mapping[Rate, int] = {"accurate": 1, "inaccurate": 2, "withdrawn": 3}


def feedback_id(bubble: Bubble) -> str:
    """Return the `feedback.id` of a bubble's first frame, which alone counts; "" for none.

    Raises:
        RuleBroken: it is no text of 1 to 256 bytes.
    """
    feedback = bubble.frames[0].raw.get("feedback")
    if feedback is None:
        return ""
    found = feedback.get("id") if isinstance(feedback, Mapping) else None
    if not isinstance(found, str) or not 0 < len(found.encode()) <= FEEDBACK_ID_BYTES:
        raise RuleBroken(f"a feedback.id is a text of 1 to {FEEDBACK_ID_BYTES} bytes")
    return found


def rates(
    user: SimulatedUser,
    bubble: Bubble,
    rating: Rate,
    content: str = "",
    reasons: Sequence[int] = (),
    *,
    at: int | None = None,
    msgid: str = "",
) -> None:
    """Press a thumb below the bubble, or withdraw that; words and reasons go with "inaccurate" only.

    `at` is the event's `create_time`, None for now; a repeated `msgid` is a redelivery.

    Raises:
        RuleBroken: the bubble's first frame had no `feedback.id`, or the reply is not empty.
        CallbackFailed: the gateway did not reply.
    """
    said = feedback_id(bubble)
    if not said:
        raise RuleBroken("without a feedback.id in the first frame people see no thumbs")
    told: dict[str, Any] = {"id": said, "type": RATES[rating]}
    if rating == "inaccurate":
        told |= {"content": content, "inaccurate_reason_list": list(reasons)}
    event = {"eventtype": "feedback_event", "feedback_event": told}
    stamped = int(time.time()) if at is None else at
    ids = {"msgid": msgid} if msgid else {}
    if user.sends({"msgtype": "event", "create_time": stamped, "event": event, **ids}) is not None:
        raise RuleBroken("only an empty reply may answer a feedback_event")
