"""The bodies of the frames that carry answers, and where an answer goes. No I/O."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from channels.wecom.feedback import feedback_id


class AnswerTarget(NamedTuple):
    """The message that an answer belongs to; its req_id is a credential."""

    #: "" for a click, whose req_id takes no stream: its answer goes to the chat.
    req_id: str
    userid: str
    #: The id of the group; "" in a single chat.
    chatid: str

    def __repr__(self) -> str:
        return "AnswerTarget()"

    def written(self) -> str:
        """Return it as JSON: seal it before it is stored."""
        return json.dumps(self)

    @classmethod
    def read(cls, text: str) -> AnswerTarget:
        """Return what `written` wrote, also that of a newer version with more members.

        Raises:
            ValueError: the text is something else.
        """
        written = json.loads(text)
        if not isinstance(written, list) or len(written) < len(cls._fields):
            raise ValueError("not a target")
        return cls(*written[: len(cls._fields)])

    @property
    def chat(self) -> str:
        """The chat as `aibot_send_msg` names it: the group's id, or the person's."""
        return self.chatid or self.userid


def stream_frame(stream_id: str, content: str, *, finish: bool, rated: bool = False) -> dict[str, Any]:
    """Return a frame of an answer's stream; `content` is all of it. `rated` lets people rate it, in the first frame."""
    stream: dict[str, Any] = {"id": stream_id, "finish": finish, "content": content}
    if rated:
        stream["feedback"] = {"id": feedback_id(stream_id)}
    return {"msgtype": "stream", "stream": stream}


def markdown(content: str) -> dict[str, Any]:
    """Return a message that is shown below the stream."""
    return {"msgtype": "markdown", "markdown": {"content": content}}


def addressed(target: AnswerTarget, message: dict[str, Any]) -> dict[str, Any]:
    """Return a message for `aibot_send_msg`, which has no req_id that names the chat."""
    return {"chatid": target.chat, "chat_type": 2 if target.chatid else 1, **message}
