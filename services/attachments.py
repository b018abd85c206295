"""Files of messages, and files of answers, as they pass between packages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Literal

MediaKind = Literal["image", "file", "video"]


#: Dify's words.
FileType = Literal["image", "document", "audio", "video", "custom"]


@dataclass(frozen=True, slots=True)
class Media:
    """A file of a message where the platform stores it; the address is a secret."""

    kind: MediaKind
    url: str = field(repr=False)
    #: The name of the bot's key that decrypts it.
    key: str = ""
    #: The key itself, where the message has one for each file (the long connection); "" where the bot's is used.
    aeskey: str = field(default="", repr=False)
    #: "wecom": encrypted at the address; "web": at the address as it is; "redis": it came with the question, and the
    #: address is its name in Redis; "upload": the same, but it was uploaded before, and stays when the answer ends.
    place: Literal["wecom", "web", "redis", "upload"] = "wecom"


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file of a message with its content, fetched or sent within it. Its repr shows its type and size only."""

    name: str = field(repr=False)
    type: FileType
    mime: str
    content: bytes = field(repr=False)


#: A file of a message as a channel hands it over: where it is, or the file itself.
SentFile = Media | MediaFile


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """A picture or file that the provider made for an answer. Its repr has no address: it may hold a signature."""

    url: str = field(repr=False)
    name: str = field(default="", repr=False)
    is_picture: bool = False


@dataclass(frozen=True, slots=True)
class Attached:
    """Pictures and files of the answer beside its text; the addresses may be valid for minutes only.

    An empty `files` discards those sent before, because the answer was replaced.
    """

    files: tuple[AnswerFile, ...]


def media_to_json(media: Sequence[Media]) -> str:
    """Return the files as JSON, "" for none. It holds their addresses and keys: seal it before it is stored.

    Members at the end that have their default are left out, as earlier versions read them.
    """
    return json.dumps([_members(each) for each in media]) if media else ""


def media_from_json(text: str) -> tuple[Media, ...]:
    """Return the files that `media_to_json` wrote.

    Raises:
        ValueError, TypeError: the text is something else.
    """
    return tuple(Media(*each) for each in json.loads(text)) if text else ()


def _members(media: Media) -> tuple[str, ...]:
    if media.place != "wecom":
        return astuple(media)
    return astuple(media)[: 4 if media.aeskey else 3]
