"""The long connection's command names, error codes and limits, as WeCom documents them or as others saw them."""

from __future__ import annotations

from enum import IntEnum

SUBSCRIBE = "aibot_subscribe"
PING = "ping"
MESSAGE = "aibot_msg_callback"
EVENT = "aibot_event_callback"
RESPOND = "aibot_respond_msg"
WELCOME = "aibot_respond_welcome_msg"
UPDATE = "aibot_respond_update_msg"
SEND = "aibot_send_msg"
UPLOAD_INIT = "aibot_upload_media_init"
UPLOAD_CHUNK = "aibot_upload_media_chunk"
UPLOAD_FINISH = "aibot_upload_media_finish"

#: Seconds from the first frame of a stream to its end, seen; WeCom documents 360.
STREAM_SECONDS = 600.0
#: Seconds for which a message's req_id takes replies, and those of an event that is answered at once.
REPLY_SECONDS = 86_400.0
EVENT_SECONDS = 5.0
#: Seconds that a client waits for an ack before it sends the next frame of the same req_id.
ACK_SECONDS = 5.0
#: Seconds without a frame after which the server drops a connection. A client pings every 30 s.
SILENCE_SECONDS = 100.0
#: Messages of a chat, or uploads of a bot, in a minute and in an hour. Stream frames do not count.
PER_MINUTE, PER_HOUR = 30, 1000
#: Subscriptions of a bot in a minute and in an hour. WeCom protects them, and does not say how many it takes.
SUBSCRIBES_PER_MINUTE, SUBSCRIBES_PER_HOUR = 30, 300


class ErrorCode(IntEnum):
    """`errcode` of an ack."""

    OK = 0
    #: WeCom's global codes (path 90455); which of them the long connection uses for these cases is not documented.
    SYSTEM_BUSY = -1
    INVALID_TYPE_OF_FILE = 40005
    INVALID_FILE_SIZE = 40006
    INVALID_MEDIA_ID = 40007
    INVALID_PARAMETER = 40058
    TOO_OFTEN = 45009
    #: Codes that were seen on the long connection.
    INVALID_MESSAGE_TYPE = 40008
    MISSING_TITLE = 41016
    INVALID_CHATID = 93006
    INVALID_REQ_ID = 846605
    STREAM_EXPIRED = 846608
    NOT_SUBSCRIBED = 846609
    INVALID_SECRET = 853000
