"""The long connection's commands, error codes and limits, and the outcomes of sending a frame. No I/O.

A frame is `{"cmd", "headers": {"req_id"}, "body"}`; its acknowledgement `{"headers": {"req_id"}, "errcode", "errmsg"}`
has no `cmd`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from config.errors import LaibaoError

#: Sent by us.
SUBSCRIBE, PING = "aibot_subscribe", "ping"
RESPOND, SEND = "aibot_respond_msg", "aibot_send_msg"
RESPOND_WELCOME, RESPOND_UPDATE = "aibot_respond_welcome_msg", "aibot_respond_update_msg"
UPLOAD_INIT, UPLOAD_CHUNK, UPLOAD_FINISH = (f"aibot_upload_media_{step}" for step in ("init", "chunk", "finish"))
#: Sent by WeCom.
MESSAGE, EVENT = "aibot_msg_callback", "aibot_event_callback"
#: The eventtype with which WeCom ends a connection after another one has subscribed.
DISCONNECTED = "disconnected_event"

#: A media_id that WeCom does not know, or does not have any more.
INVALID_MEDIA = 40007
#: The req_id belongs to an event, or has expired.
INVALID_REQ_ID = 846605
#: The ten minutes of a stream are over.
STREAM_EXPIRED = 846608
#: This connection is not subscribed, or no longer.
NOT_SUBSCRIBED = 846609
#: The frame had no effect and may be sent again: the system is busy, a version conflict, too many messages. By code,
#: the seconds until the next attempt.
BUSY: Mapping[int, float] = MappingProxyType({-1: 2.0, 6000: 2.0, 45009: 60.0})
#: Wrong bot id or secret. WeCom does not close the connection.
WRONG_SECRET = 853000

#: Seconds until a frame without an acknowledgement counts as not acknowledged; pings included.
ACK_SECONDS = 5.0
#: Seconds between two pings. WeCom closes a connection on which it receives nothing.
PING_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Ack:
    """The acknowledgement of a frame. WeCom's errmsg is not kept, because it may quote the frame."""

    #: 0 if the frame was accepted.
    errcode: int
    #: The result of an upload command; empty for other commands.
    body: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


class LinkLost(LaibaoError):
    """The connection ended before the acknowledgement came, or before the frame left.

    `sent` is False only if no byte of the frame has left.
    """

    code = "link_lost"

    def __init__(self, *, sent: bool) -> None:
        super().__init__()
        self.sent = sent


class AckMissing(LaibaoError):
    """No acknowledgement came in time. The frame has left, and WeCom may have carried it out."""

    code = "ack_missing"
